"""tagger -> a folder that runs without beatline: a graph from waveform to scores, its labels and its check.

In: a tagger. Out: a published folder with the files of a form, `class_labels_indices.csv` and `config.json`.
The filter bank, the padding rule and the head are inside the graph; batch and length are free. Labels and
preprocessing are in the file too. A folder is published only if its outputs agree with PyTorch's on real
clips.
"""

import csv
import io
import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from beatline.audio import media, samples
from beatline.config import to_dict
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.model.engines.base import Engine, Precision
from beatline.model.engines.graphs import LABELS, OPSET, RUNTIMES, GraphEngine, is_installed, runtime
from beatline.model.engines.onnx import INT8, ONNX, quantise, quiet_onnxruntime
from beatline.model.engines.pytorch import TorchEngine
from beatline.model.geometry import MIN_SAMPLES
from beatline.model.tagger import Tagger, token_padding

SAMPLE_RATE = samples.SAMPLE_RATE
INPUT = {
    "sample_rate": SAMPLE_RATE,
    "channels": 1,
    "min_samples": MIN_SAMPLES,
    "preprocessing": "waveforms: float32 in [-1, 1], zero after each clip's end; lengths: its samples; a "
    "clip shorter than min_samples is repeated until it is not; the filter bank is inside",
}
BATCH = Dim("batch", min=1)
SHAPES = {"waveforms": {0: BATCH, 1: Dim("samples", min=MIN_SAMPLES)}, "lengths": {0: BATCH}}
CHECK_SECONDS = (0.2, 0.9, 3.3, 4.0, 10.0)
CHECK_FILES = (
    "test_speech_00.ogg",
    "test_horse_03.ogg",
    "test_bird_01.ogg",
    "test_thunder_04.ogg",
    "test_walk_footsteps_02.ogg",
)
BOUNDS = {"float32": 1e-5, "int8": 0.02}
"""Largest difference of scores from PyTorch's: the worst for float32, the mean for int8."""


class Graph(nn.Module):
    """What is exported: waveforms and lengths in; the fields of `engine.Outputs` out."""

    def __init__(self, tagger: Tagger):
        super().__init__()
        self.tagger = tagger

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        is_padding = token_padding(lengths, waveforms.shape[1], self.tagger.encoder, "exact")
        logits, *rest = self.tagger.outputs(waveforms, is_padding)
        return self.tagger.score(logits), logits, *rest


def export(
    tagger: Tagger,
    labels: LabelSet,
    folder: Path,
    int8: bool = False,
    about: dict[str, Any] | None = None,
    to: str = "onnx",
) -> dict[str, dict[str, float]]:
    """The differences of the exported graphs from PyTorch, by name of file: `worst` and `mean` over all
    scores of the clips tried.

    Args:
        int8: Also write a graph with int8 weights and activations quantised as they come (dynamic). Each
            output has a scale. For `onnx` alone.
        to: Of `load.export_names`.

    Raises:
        UserError: `missing-package`; `bad-usage` for int8 in another form; `export-differs` where a graph
            does not agree, and then nothing is published; `bad-config` for a tagger with `padding: upstream`,
            whose rule depends on the batch; `disk-full`, `not-writable`.
    """
    form = runtime(to)
    for package in form.writers:
        if not is_installed(package):
            raise UserError(
                "missing-package",
                "beatline export",
                f"{package} is not installed",
                "pip install 'beatline[export]'",
            )
    if int8 and to != "onnx":
        raise UserError(
            "bad-usage",
            "option --int8",
            f"{to} is written in float32 only",
            "leave it out, or export --to onnx",
        )
    quiet_onnxruntime()
    tagger = tagger.cpu().eval()
    facts = (
        {
            "encoder": to_dict(tagger.config),
            "task": tagger.task,
            "labels": len(labels),
            "opset": OPSET,
            "torch": version("torch"),
        }
        | INPUT
        | (about or {})
    )
    table = {"label_mids": list(labels.mids), "label_names": list(labels.names)}
    with (
        artefact.publish(folder, {"kind": "export", "labels_hash": labels.hash}) as partial,
        artefact.disk_errors(folder),
    ):
        (partial / LABELS).write_text(label_table(labels), encoding="utf-8", newline="")
        (partial / "config.json").write_text(json.dumps(facts))  # an engine asks it
        texts = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in (facts | table).items()
        }
        form.write(_program(tagger), partial / form.file, texts)
        differences = {form.file: _difference(tagger, labels, partial, _engines(partial))}
        if int8:
            quantise(partial / ONNX, partial / INT8, tagger)
            differences[INT8] = _difference(
                tagger, labels, partial, [GraphEngine(partial, "onnx", "int8")], "int8"
            )
        (partial / "config.json").write_text(
            json.dumps(facts | {"differences": differences}, indent=1) + "\n"
        )
    return differences


def label_table(labels: LabelSet) -> str:
    """`LabelSet.to_csv` as sherpa-onnx wants it: every name in quotes."""
    out = io.StringIO("index,mid,display_name\n")
    out.seek(0, io.SEEK_END)
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(
        [i, label.mid, label.name] for i, label in enumerate(labels.labels)
    )
    return out.getvalue()


def _program(tagger: Tagger) -> ExportedProgram:
    """The tagger's outputs as a program of PyTorch's own operators, any batch and length."""
    waveforms = torch.zeros(2, 2 * SAMPLE_RATE)
    lengths = torch.tensor([2 * SAMPLE_RATE, SAMPLE_RATE])
    with torch.no_grad():
        tagger(waveforms, lengths)  # fills the filter bank's cache of matrices before tracing could
        with quiet(), _any_size():
            return torch.export.export(
                Graph(tagger),
                (waveforms, lengths),
                dynamic_shapes=SHAPES,
                prefer_deferred_runtime_asserts_over_guards=True,
            )


def _any_size() -> Any:
    """A context in which sizes of 1 are no special case. Such sizes are a clip of a single time step, and a
    batch of a single clip. `torch.onnx` sets it too.
    """
    from torch.fx.experimental import _config  # the only setting here that PyTorch does not document

    return _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporters' warnings about their own affairs from the user."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def check_clips() -> list[np.ndarray]:
    """Real clips of `CHECK_SECONDS`, float32: joined and cut from embedded clips."""
    folder = Path(str(files("beatline") / "assets/mini-audioset/audio"))
    sound = np.concatenate([samples.to_waveform(media.decode(folder / name).samples) for name in CHECK_FILES])
    ends = np.cumsum([round(seconds * SAMPLE_RATE) for seconds in CHECK_SECONDS])
    return [np.ascontiguousarray(part) for part in np.split(sound, ends)[:-1]]


def _engines(folder: Path) -> Iterator[Engine]:
    """Every runtime that is installed and takes the folder."""
    for name in RUNTIMES:
        form = runtime(name)
        if is_installed(form.runner) and any((folder / file).exists() for file in form.reads["float32"]):
            yield GraphEngine(folder, name)


def _difference(
    tagger: Tagger,
    labels: LabelSet,
    folder: Path,
    engines: Iterable[Engine],
    precision: Precision = "float32",
) -> dict[str, float]:
    """How scores differ from PyTorch's, on each clip alone and on all clips in a padded batch."""
    clips = check_clips()
    lengths = np.array([len(clip) for clip in clips])
    padded = np.zeros((len(clips), lengths.max()), np.float32)
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = clip
    reference = TorchEngine(tagger, labels)
    wanted = np.concatenate([reference.scores(clip[None]) for clip in clips])
    worst = mean = 0.0
    for graph in engines:
        got = np.stack(
            [np.concatenate([graph.scores(clip[None]) for clip in clips]), graph.scores(padded, lengths)]
        )
        worst = max(worst, float(np.abs(got - wanted).max()))
        mean = max(mean, float(np.abs(got - wanted).mean()))
    if not (worst if precision == "float32" else mean) <= BOUNDS[precision]:
        raise UserError(
            "export-differs",
            f"cannot export {folder.with_suffix('')}",
            f"{precision} scores differ from PyTorch's by up to {worst:.2g}, {mean:.2g} in the mean",
            "report it with the checkpoint's family; nothing was written",
        )
    return {"worst": worst, "mean": mean}
