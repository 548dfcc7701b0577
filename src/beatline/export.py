"""tagger -> a folder that runs without PyTorch: one ONNX graph from waveform to scores, its labels, and what it was checked on.

In: a tagger. Out: a published folder with `model.onnx`, `labels.csv`, `config.json` and, if asked, `model.int8.onnx`. The filter bank, the padding rule
and the head are inside the graph; batch and length are free. Published only if its outputs agree with PyTorch's on real clips.
"""

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from beatline import artefact, audio, engine, manifest
from beatline.config import DataConfig, to_dict
from beatline.engine import GRAPHS, GraphEngine, Precision, TorchEngine
from beatline.errors import UserError
from beatline.labels import LabelSet
from beatline.model.checkpoint import load_checkpoint
from beatline.model.tagger import Tagger, token_padding
from beatline.windows import MIN_SAMPLES

OPSET = 18
FORMAT = 2  # of the folder; what the cache holds in another one is made again
SAMPLE_RATE = audio.SAMPLE_RATE
CHECK_SECONDS = (0.2, 0.9, 3.3, 4.0, 10.0)
BOUNDS = {"float32": 1e-5, "int8": 0.02}
"""Largest difference of scores from PyTorch's: the worst one for float32, the mean one for int8."""


class Graph(nn.Module):
    """What is exported: waveforms and lengths in; the fields of `engine.Outputs` out."""

    def __init__(self, tagger: Tagger):
        super().__init__()
        self.tagger = tagger

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        is_padding = token_padding(lengths, waveforms.shape[1], self.tagger.encoder, "exact")
        logits, *rest = self.tagger.outputs(waveforms, is_padding)
        return self.tagger.score(logits), logits, *rest


def export(tagger: Tagger, labels: LabelSet, folder: Path, int8: bool = False, about: dict[str, Any] | None = None) -> dict[str, dict[str, float]]:
    """The differences of the exported graphs from PyTorch, by precision: `worst` and `mean` over all scores of the clips tried.

    Args:
        int8: Also write a graph with int8 weights and activations quantised as they come (dynamic), one scale for each output.

    Raises:
        UserError: `missing-package`; `export-differs` where a graph does not agree, and then nothing is published; `bad-config` for a tagger with
            `padding: upstream`, whose rule depends on the batch; `disk-full`, `not-writable`.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise UserError("missing-package", "beatline export", f"{package} is not installed", "pip install 'beatline[export]'")
    tagger = tagger.cpu().eval()
    facts = {"encoder": to_dict(tagger.config), "task": tagger.task, "labels": len(labels), "sample_rate": SAMPLE_RATE, "opset": OPSET, "torch": version("torch")} | (about or {})
    with artefact.publish(folder, {"kind": "export", "labels_hash": labels.hash}) as partial:
        (partial / "labels.csv").write_text(labels.to_csv(), encoding="utf-8", newline="")
        (partial / "config.json").write_text(json.dumps(facts))  # an engine asks it
        _write_graph(tagger, partial / GRAPHS["float32"], facts, labels)
        if int8:
            _quantise(partial / GRAPHS["float32"], partial / GRAPHS["int8"])
        precisions: list[Precision] = ["float32", "int8"] if int8 else ["float32"]
        differences: dict[str, dict[str, float]] = {precision: _difference(tagger, labels, partial, precision) for precision in precisions}
        (partial / "config.json").write_text(json.dumps(facts | {"differences": differences}, indent=1) + "\n")
    return differences


def _write_graph(tagger: Tagger, file: Path, facts: dict[str, Any], labels: LabelSet) -> None:
    waveforms, lengths = torch.zeros(2, 2 * SAMPLE_RATE), torch.tensor([2 * SAMPLE_RATE, SAMPLE_RATE])
    batch, samples = torch.export.Dim("batch", min=1), torch.export.Dim("samples", min=MIN_SAMPLES)
    with torch.no_grad():
        tagger(waveforms, lengths)  # fills the filter bank's cache of matrices before tracing could
    with _quiet(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        program = torch.onnx.export(
            Graph(tagger),
            (waveforms, lengths),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes={"waveforms": {0: batch, 1: samples}, "lengths": {0: batch}},
            input_names=["waveforms", "lengths"],
            output_names=list(engine.NAMES),
        )
    assert program is not None
    model = program.model_proto
    for key, value in {**facts, "label_mids": list(labels.mids), "label_names": list(labels.names)}.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    with artefact.disk_errors(file):
        file.write_bytes(model.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporters' warnings about their own affairs from the user."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _quantise(source: Path, target: Path) -> None:
    """int8 weights for every product of tokens with a weight; the filter bank, the convolution and the head stay float32."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    fbank = [node.name for node in graph.node if node.op_type == "MatMul" and shapes.get(node.input[1], (0, 0))[0] in (400, 256)]
    with _quiet():
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul"], nodes_to_exclude=fbank)


def check_clips() -> list[np.ndarray]:
    """Real clips of `CHECK_SECONDS`, float32: joined and cut from the embedded test clips."""
    table = manifest.read(DataConfig(csv=Path("mini")))
    test = table.splits["test"][::13]
    sound = np.concatenate([audio.to_waveform(audio.decode(table.clips[i].path).samples) for i in test])
    ends = np.cumsum([round(seconds * SAMPLE_RATE) for seconds in CHECK_SECONDS])
    return [np.ascontiguousarray(part) for part in np.split(sound, ends)[:-1]]


def _difference(tagger: Tagger, labels: LabelSet, folder: Path, precision: Precision) -> dict[str, float]:
    """The graph against PyTorch on each clip alone and on all in one padded batch, by every runtime that is installed."""
    clips = check_clips()
    lengths = np.array([len(clip) for clip in clips])
    padded = np.zeros((len(clips), lengths.max()), np.float32)
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = clip
    reference = TorchEngine(tagger, labels)
    wanted = np.concatenate([reference.scores(clip[None]) for clip in clips])
    worst = mean = 0.0
    for runtime in ("onnx", "openvino") if precision == "float32" else ("onnx",):
        if find_spec(engine.EXTRA[runtime]) is None:
            continue
        graph = GraphEngine(folder, runtime, precision)  # type: ignore[arg-type]
        got = np.stack([np.concatenate([graph.scores(clip[None]) for clip in clips]), graph.scores(padded, lengths)])
        worst, mean = max(worst, float(np.abs(got - wanted).max())), max(mean, float(np.abs(got - wanted).mean()))
    if not (worst if precision == "float32" else mean) <= BOUNDS[precision]:
        raise UserError("export-differs", f"cannot export {folder.with_suffix('')}", f"{precision} scores differ from PyTorch's by up to {worst:.2g}, {mean:.2g} in the mean", "report it with the checkpoint's family; nothing was written")
    return {"worst": worst, "mean": mean}


def cached(source: Path, int8: bool) -> Path:
    """Where the export of a checkpoint lies in the user's cache, named by what the checkpoint holds; it may not be there yet."""
    about = source / artefact.MANIFEST
    content = artefact.sha256_file(about if about.exists() else source) if source.is_file() or about.exists() else artefact.hash_json(sorted((p.name, artefact.sha256_file(p)) for p in source.iterdir() if p.is_file()))
    key = artefact.hash_json([content, FORMAT, OPSET, version("torch"), version("beatline")])[:24]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "beatline/exports" / (key + ("-int8" if int8 else ""))


def load(source: Path | str, name: engine.Name = "auto", precision: Precision = "float32", device: str = "auto", threads: int = 0) -> engine.Engine:
    """Any checkpoint or export as the engine that `name` says.

    `auto`: an export runs on the fastest runtime that is installed; a checkpoint runs on the GPU, or else on its export where the user's cache
    holds one, or else on PyTorch. A named runtime, and int8, export a checkpoint into the cache first, once.

    Raises:
        UserError: See `engine.load_export`, `engine.load_checkpoint` and `export`.
    """
    source = Path(source)
    if engine.is_export(source):
        return engine.load_export(source, name, precision, threads)
    graph_wanted = name in ("onnx", "openvino") or precision == "int8"
    folder = cached(source, precision == "int8") if source.exists() and (graph_wanted or (name == "auto" and find_spec("openvino"))) else None
    if folder is not None and graph_wanted and artefact.read_manifest(folder) is None:
        loaded = load_checkpoint(source)
        tagger, labels = loaded.tagger("exact"), loaded.labels
        assert labels is not None
        export(tagger, labels, folder, int8=precision == "int8", about={"source": str(loaded.source)})
    if folder is not None and artefact.read_manifest(folder) is not None and (graph_wanted or not torch.cuda.is_available()):
        return engine.load_export(folder, name, precision, threads)
    return engine.load_checkpoint(source, precision, device)
