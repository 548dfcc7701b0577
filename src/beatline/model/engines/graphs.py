"""exported folder -> an engine, by the runtime that its file is for.

In: a folder that `export` wrote. Out: a `GraphEngine`. A runtime is a module that has a `Runtime` and stands
in `RUNTIMES`. The module says how its form is written and run. Imports no torch.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.model.engines.base import Engine, Precision
from beatline.model.geometry import TOKENS_OF_A_STEP, step_count

if TYPE_CHECKING:
    from torch.export import ExportedProgram

LABELS = "class_labels_indices.csv"
OPSET = 18
FORMAT = 3  # of the folder; what the cache holds in another form is made again
STEP = 8_000
"""Samples. A clip is padded to a multiple of this, since a runtime prepares itself for each new shape."""

Call = Callable[[np.ndarray, np.ndarray, tuple[str, ...]], list[np.ndarray]]
"""Waveforms `(batch, samples)` float32, lengths `(batch,)` int64 and names of outputs; those outputs."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A form of an exported model, and what runs it."""

    name: str
    """Of `--to` and `--engine`."""
    file: str
    """What `write` makes in the folder."""
    write: "Callable[[ExportedProgram, Path, dict[str, str]], None]"
    """Program, file and facts about the model, by name; writes them."""
    writers: tuple[str, ...]
    """Packages that writing takes."""
    runner: str
    """The package that runs it."""
    reads: Mapping[Precision, tuple[str, ...]]
    """Files of an export that it runs in each precision, the preferred first."""
    open: Callable[[Path, Precision, int], Call]
    """File, precision and CPU threads (0 leaves them to the runtime); what computes."""
    step: int = STEP
    """Samples, a multiple of which clips are padded to."""
    trusted_only: bool = False
    """Whether its file is read with pickle, so that only what was just written is opened."""


RUNTIMES: dict[str, str] = {
    "onnx": "beatline.model.engines.onnx",
    "openvino": "beatline.model.engines.openvino",
    "torch-export": "beatline.model.engines.torch_export",
}
"""Modules by the name of their runtime; each has a `RUNTIME`."""


def runtime(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        UserError: `bad-usage` where there is none.
    """
    if name not in RUNTIMES:
        known = ", ".join(RUNTIMES)
        raise UserError("bad-usage", f"engine {name!r}", "there is no such engine", f"choose among {known}")
    found: Runtime = import_module(RUNTIMES[name]).RUNTIME
    return found


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return find_spec(package) is not None


class GraphEngine(Engine):
    """An exported folder on a runtime; see `export`. Whether the folder is whole is for `load_export` to say.

    Raises:
        UserError: `missing-package`; `bad-config` where the export holds nothing for this runtime or
            precision.
    """

    def __init__(self, folder: Path, name: str, precision: Precision = "float32", threads: int = 0):
        chosen = runtime(name)
        files = chosen.reads[precision]
        there = [folder / file for file in files if (folder / file).exists()]
        if not there:
            remedy = "export it again with `--to onnx" + (" --int8`" if precision == "int8" else "`")
            raise UserError(
                "bad-config",
                f"cannot run {folder} on {chosen.runner} in {precision}",
                f"it holds no {' or '.join(files)}",
                remedy,
            )
        if not is_installed(chosen.runner):
            raise UserError(
                "missing-package",
                f"engine {name}",
                f"{chosen.runner} is not installed",
                "pip install 'beatline[export]'",
            )
        super().__init__()
        self.name = name
        self.file = there[0]
        self.task = json.loads((folder / "config.json").read_text())["task"]
        self.labels = LabelSet.from_csv((folder / LABELS).read_text(encoding="utf-8"), str(folder / LABELS))
        self._step = chosen.step
        self._call = chosen.open(self.file, precision, threads)

    def run_pass(
        self, waveforms: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]
    ) -> list[np.ndarray]:
        padding = -waveforms.shape[1] % self._step
        padded = np.pad(waveforms.astype(np.float32, copy=False), ((0, 0), (0, padding)))
        got = self._call(padded, lengths, names)
        steps = step_count(waveforms.shape[1])  # without those of the padding
        return [*got[:3], got[3][:, : TOKENS_OF_A_STEP * steps], got[4][:, :steps]] if len(got) > 3 else got


def is_export(source: Path) -> bool:
    """Whether `export` wrote a folder."""
    return (artefact.read_contents(source) or {}).get("kind") == "export" if source.is_dir() else False
