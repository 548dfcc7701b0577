"""beatline: audio tagging with BEATs.

`beatline.load(model)("bark.mp3")` tags. `load_config` and `run` are the recipe, `load_checkpoint` is the
model in PyTorch. All that stands in `__all__` is public, and typed; the rest is in the rooms. Importing this
imports no torch.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beatline.core import system
from beatline.core.errors import UserError
from beatline.core.version import __version__

if TYPE_CHECKING:
    from beatline.audio.windows import Merge
    from beatline.config import Config
    from beatline.model.checkpoints.loaded import Loaded, LoadedTagger
    from beatline.model.engines.base import Precision
    from beatline.serve.app import create_app
    from beatline.tag.batch_tagger import BatchTagger
    from beatline.tag.calibration import Calibration
    from beatline.tag.events import Event, EventOptions
    from beatline.tag.listening import Moment, Stream
    from beatline.tag.result import Embedded, Refused, Result
    from beatline.tag.tagger import AudioTagger

__all__ = [
    "AudioTagger",
    "BatchTagger",
    "Calibration",
    "Embedded",
    "Event",
    "EventOptions",
    "Moment",
    "Refused",
    "Result",
    "Stream",
    "UserError",
    "__version__",
    "create_app",
    "load",
    "load_checkpoint",
    "load_config",
    "run",
]

ROOMS = {
    "AudioTagger": "tag.tagger",
    "BatchTagger": "tag.batch_tagger",
    "Calibration": "tag.calibration",
    "Embedded": "tag.result",
    "Event": "tag.events",
    "EventOptions": "tag.events",
    "Moment": "tag.listening",
    "Refused": "tag.result",
    "Result": "tag.result",
    "Stream": "tag.listening",
    "create_app": "serve.app",
}
"""Where a public name is; it is imported when it is first asked for."""

# PyTorch reads this at its first tensor; large tensors then lie in pages of 2 MB where Linux offers them
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def __getattr__(name: str) -> Any:
    if name not in ROOMS:
        raise AttributeError(f"module 'beatline' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"beatline.{ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *ROOMS])


def load(
    source: Path | str,
    engine: str = "auto",
    precision: "Precision" = "float32",
    device: str = "auto",
    threads: int = 0,
    window: float = 10.0,
    hop: float | None = None,
    merge: "Merge" = "mean",
    parents: bool = False,
    head: bool = True,
) -> "AudioTagger":
    """A model, ready to tag: `beatline.load("runs/mini")("bark.mp3").top(3)`.

    Args:
        source: A run folder, a checkpoint of any family, or an export. `owner/name` on the Hugging Face Hub,
            and what else `beatline fetch checkpoint` knows, is fetched.
        engine: `torch`, `onnx` or `openvino`; `auto` is the fastest that is at hand. A checkpoint is exported
            into the user's cache once where an engine needs that.
        precision: `float32`, `bfloat16` or `int8`: of the products.
        device: `auto`, `cpu` or `cuda`; an export runs on the CPU.
        threads: CPU threads; 0 leaves them as they are.
        window: Longest stretch scored at once, seconds.
        hop: Seconds from one window's begin to the next, above 0 up to `window`; None is half a window.
        merge: How a recording's scores come from those of its windows: `mean`, `max`, or `attention`, a mean
            weighted by the scores themselves.
        parents: Whether a label's score is raised to those of its kinds in AudioSet's ontology.
        head: Whether the model must have a head. A pre-trained encoder has none; its tagger embeds, and its
            only label means nothing.

    Returns:
        A tagger that any thread may call with a path, bytes, a binary stream or an array.

    Raises:
        UserError: `missing-file`, `bad-checkpoint`, `corrupt-artefact`, `missing-package`; `bad-usage` or
            `bad-config` for values that do not fit; the codes of a network where something is fetched.
    """
    system.check()
    from beatline.fetch import checkpoints
    from beatline.tag.tagger import load as load_tagger

    path = checkpoints.locate(source)
    return load_tagger(path, engine, precision, device, threads, window, hop, merge, parents, head)


def load_config(name: str, overrides: tuple[str, ...] = ()) -> "Config":
    """The configuration of a YAML file, or of a shipped name such as `as20k`.

    Args:
        name: A path, or `mini`, `as20k`, `as20k-espnet`, `esc50`.
        overrides: Words as on the command line: `("--optim.lr", "1e-4")`.

    Raises:
        UserError: `missing-file`; `bad-config` with the nearest name for a setting that there is not.
    """
    from beatline.settings import load

    return load(name, overrides)


def load_checkpoint(path: Path | str) -> "Loaded | LoadedTagger":
    """A model file or folder of any family: BEATs release, OpenBEATs, ESPnet, beatline.

    Args:
        path: Of the file or folder.

    Returns:
        Its architecture, tensors and labels; `.tagger()` is the network in PyTorch.

    Raises:
        UserError: `missing-file`, `bad-checkpoint`, `corrupt-artefact`.
    """
    from beatline.model.checkpoints.load import load_checkpoint as load

    if not isinstance(path, str | Path) or not str(path):
        raise UserError("bad-usage", "no checkpoint", f"{path!r} is no path", "give a file or a folder")
    return load(path)


def run(config: "Config") -> None:
    """Does the stages of a run that are missing, in order: prepare, train, predict, score, report.

    Args:
        config: As `load_config` gives it.

    Raises:
        UserError: What is wrong with the data, the model or the disk.
    """
    from beatline.config import Config
    from beatline.recipe import run as run_stages

    if not isinstance(config, Config):
        raise UserError(
            "bad-usage",
            "run",
            f"a value of type {type(config).__name__} is no configuration",
            "give what load_config returns",
        )
    run_stages(config)
