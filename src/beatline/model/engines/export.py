"""tagger -> a folder that runs without beatline: a graph from waveform to scores in one of three forms, its
labels, and what it was checked on.

In: a tagger. Out: a published folder with the form's files, `class_labels_indices.csv` and `config.json`. The
filter bank, the padding rule and the head are inside the graph; batch and length are free; labels and
preprocessing are in the file too. Published only if its outputs agree with PyTorch's on real clips.
"""

import csv
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from beatline.audio import samples
from beatline.config import to_dict
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.model.checkpoints.load import load_tagger
from beatline.model.engines import base
from beatline.model.engines.base import INT8, ONNX, OPENVINO, Engine, GraphEngine, Precision, TorchEngine
from beatline.model.geometry import MIN_SAMPLES
from beatline.model.heads.neighbours import Neighbours
from beatline.model.tagger import Tagger, token_padding

OPSET = 18
PROGRAM = "model.pt2"
FORMAT = 3  # of the folder; what the cache holds in another one is made again
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


def export(
    tagger: Tagger,
    labels: LabelSet,
    folder: Path,
    int8: bool = False,
    about: dict[str, Any] | None = None,
    to: "Target" = "onnx",
) -> dict[str, dict[str, float]]:
    """The differences of the exported graphs from PyTorch, by name of file: `worst` and `mean` over all
    scores of the clips tried.

    Args:
        int8: Also write a graph with int8 weights and activations quantised as they come (dynamic), one scale
            for each output; for `onnx` alone.
        to: A key of `TARGETS`.

    Raises:
        UserError: `missing-package`; `bad-usage` for int8 in another form; `export-differs` where a graph
            does not agree, and then nothing is published; `bad-config` for a tagger with `padding: upstream`,
            whose rule depends on the batch; `disk-full`, `not-writable`.
    """
    file, packages, write = TARGETS[to]
    for package in packages:
        if find_spec(package) is None:
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
    base.quiet_onnxruntime()
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
        (partial / base.LABELS).write_text(_label_table(labels), encoding="utf-8", newline="")
        (partial / "config.json").write_text(json.dumps(facts))  # an engine asks it
        write(
            _program(tagger),
            partial / file,
            {
                key: value if isinstance(value, str) else json.dumps(value)
                for key, value in (facts | table).items()
            },
        )
        engines = [_Program(partial / file, tagger, labels)] if to == "torch-export" else _engines(partial)
        differences = {file: _difference(tagger, labels, partial, engines)}
        if int8:
            _quantise(partial / ONNX, partial / INT8, tagger)
            differences[INT8] = _difference(
                tagger, labels, partial, [GraphEngine(partial, "onnx", "int8")], "int8"
            )
        (partial / "config.json").write_text(
            json.dumps(facts | {"differences": differences}, indent=1) + "\n"
        )
    return differences


def _label_table(labels: LabelSet) -> str:
    """`LabelSet.to_csv` as sherpa-onnx wants it: every name in quotes."""
    out = io.StringIO("index,mid,display_name\n")
    out.seek(0, io.SEEK_END)
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(
        [i, label.mid, label.name] for i, label in enumerate(labels.labels)
    )
    return out.getvalue()


def _program(tagger: Tagger) -> ExportedProgram:
    """The tagger's outputs as a program of PyTorch's own operators, any batch and length."""
    waveforms, lengths = torch.zeros(2, 2 * SAMPLE_RATE), torch.tensor([2 * SAMPLE_RATE, SAMPLE_RATE])
    with torch.no_grad():
        tagger(waveforms, lengths)  # fills the filter bank's cache of matrices before tracing could
        with _quiet(), _any_size():
            return torch.export.export(
                Graph(tagger),
                (waveforms, lengths),
                dynamic_shapes=SHAPES,
                prefer_deferred_runtime_asserts_over_guards=True,
            )


def _any_size() -> Any:
    """Without it a clip of one time step, or a batch of one, would be a case of its own. `torch.onnx` sets it
    too.
    """
    from torch.fx.experimental import _config  # the one setting here that PyTorch does not document

    return _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]


def _write_program(program: ExportedProgram, file: Path, facts: dict[str, str]) -> None:
    written = io.BytesIO()  # PyTorch's own writer has no words for a full disk
    torch.export.save(program, written, extra_files=facts)
    file.write_bytes(written.getbuffer())


def _write_onnx(program: ExportedProgram, file: Path, facts: dict[str, str]) -> None:
    with _quiet(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        written = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes=SHAPES,
            input_names=list(SHAPES),
            output_names=list(base.NAMES),
        )
    assert written is not None
    model = written.model_proto
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    file.write_bytes(model.SerializeToString())


def _write_openvino(program: ExportedProgram, file: Path, facts: dict[str, str]) -> None:
    """By way of ONNX, the form that OpenVINO reads best."""
    import openvino

    graph = file.with_name(ONNX)
    _write_onnx(program, graph, {})
    model = openvino.Core().read_model(graph)  # openvino.convert_model would report to its maker
    for key, value in facts.items():
        model.set_rt_info(value, ["beatline", key])
    try:
        openvino.save_model(model, file, compress_to_fp16=False)
    except RuntimeError as error:
        raise UserError(
            "disk-full",
            f"cannot write {file}",
            str(error),
            "free some space or choose another folder and run again",
        ) from error
    del model  # it holds the graph's file
    graph.unlink()


Target = Literal["onnx", "torch-export", "openvino"]

TARGETS: dict[str, tuple[str, tuple[str, ...], Callable[[ExportedProgram, Path, dict[str, str]], None]]] = {
    "onnx": (ONNX, ("onnx", "onnxscript", "onnxruntime"), _write_onnx),
    "torch-export": (PROGRAM, (), _write_program),
    "openvino": (OPENVINO, ("onnx", "onnxscript", "openvino"), _write_openvino),
}
"""The file of each form, the packages it takes to write it, and how."""


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


def _quantise(source: Path, target: Path, tagger: Tagger) -> None:
    """int8 weights for every product of tokens with a weight; the filter bank, the convolution and the head
    stay float32.

    The weights take seven of the eight bits: on CPUs without VNNI onnxruntime adds two products of eight bits
    in sixteen, which overflow.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    stored = (
        [tuple(tagger.head.examples.t().shape), tuple(tagger.head.targets.shape)]
        if isinstance(tagger.head, Neighbours)
        else []
    )
    kept = [
        node.name
        for node in graph.node
        if node.op_type == "MatMul"
        and (shapes.get(node.input[1], (0, 0))[0] in (400, 256) or shapes.get(node.input[1]) in stored)
    ]
    with _quiet():
        quantize_dynamic(
            source,
            target,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=kept,
        )


def check_clips() -> list[np.ndarray]:
    """Real clips of `CHECK_SECONDS`, float32: joined and cut from embedded clips."""
    folder = Path(str(files("beatline") / "assets/mini-audioset/audio"))
    sound = np.concatenate(
        [samples.to_waveform(samples.decode(folder / name).samples) for name in CHECK_FILES]
    )
    ends = np.cumsum([round(seconds * SAMPLE_RATE) for seconds in CHECK_SECONDS])
    return [np.ascontiguousarray(part) for part in np.split(sound, ends)[:-1]]


class _Program(Engine):
    """A written program, for its check alone: PyTorch reads such a file with pickle, so that one from
    elsewhere is not for us to open.
    """

    name = "torch"

    def __init__(self, file: Path, tagger: Tagger, labels: LabelSet):
        super().__init__()
        self.labels, self.task = labels, tagger.task
        with _quiet():
            self._call = torch.export.load(file).module()

    def _pass(self, waveforms: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
        with torch.no_grad():
            return [
                tensor.numpy()
                for tensor in self._call(torch.from_numpy(waveforms), torch.from_numpy(lengths))[: len(names)]
            ]


def _engines(folder: Path) -> Iterator[Engine]:
    """Every runtime that is installed and takes the folder."""
    for runtime, forms in base.RUNS.items():
        if find_spec(base.EXTRA[runtime]) and any((folder / file).exists() for file in forms):
            yield GraphEngine(folder, runtime)


def _difference(
    tagger: Tagger,
    labels: LabelSet,
    folder: Path,
    engines: Iterable[Engine],
    precision: Precision = "float32",
) -> dict[str, float]:
    """The graph against PyTorch on each clip alone and on all in one padded batch."""
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
        worst, mean = (
            max(worst, float(np.abs(got - wanted).max())),
            max(mean, float(np.abs(got - wanted).mean())),
        )
    if not (worst if precision == "float32" else mean) <= BOUNDS[precision]:
        raise UserError(
            "export-differs",
            f"cannot export {folder.with_suffix('')}",
            f"{precision} scores differ from PyTorch's by up to {worst:.2g}, {mean:.2g} in the mean",
            "report it with the checkpoint's family; nothing was written",
        )
    return {"worst": worst, "mean": mean}


def cached(source: Path, int8: bool) -> Path:
    """Where the export of a checkpoint lies in the user's cache, named by what the checkpoint holds; it may
    not be there yet.
    """
    about = source / artefact.MANIFEST
    content = (
        artefact.sha256_file(about if about.exists() else source)
        if source.is_file() or about.exists()
        else artefact.hash_json(
            sorted((p.name, artefact.sha256_file(p)) for p in source.iterdir() if p.is_file())
        )
    )
    key = artefact.hash_json([content, FORMAT, OPSET, version("torch"), version("beatline")])[:24]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "beatline/exports" / (key + ("-int8" if int8 else ""))


def load(
    source: Path | str,
    name: base.Name = "auto",
    precision: Precision = "float32",
    device: str = "auto",
    threads: int = 0,
    head: bool = True,
) -> base.Engine:
    """Any checkpoint or export as the engine that `name` says.

    `auto`: an export runs on the fastest runtime that is installed; a checkpoint runs on the GPU, or else on
    its export where the user's cache holds one, or else on PyTorch. A named runtime, and int8, export a
    checkpoint into the cache first, once. `head` as `engine.load_checkpoint`.

    Raises:
        UserError: See `engine.load_export`, `engine.load_checkpoint` and `export`.
    """
    source = Path(source)
    if base.is_export(source):
        return base.load_export(source, name, precision, threads, device)
    graph_wanted, int8 = (
        name in ("onnx", "openvino") or precision == "int8",
        base.reduced(name, precision) == "int8",
    )
    if graph_wanted:
        base.check_cpu(device)
    folder = (
        cached(source, int8)
        if source.exists()
        and (graph_wanted or (name == "auto" and device in ("auto", "cpu") and find_spec("openvino")))
        else None
    )
    if folder is not None and graph_wanted and artefact.read_manifest(folder) is None:
        with artefact.FolderLock(folder.parent, wait=True):
            if artefact.read_manifest(folder) is None:  # nobody has made it meanwhile
                loaded = load_tagger(source)
                tagger, labels = loaded.tagger("exact"), loaded.labels
                export(tagger, labels, folder, int8=int8, about={"source": str(loaded.source)})
    if (
        folder is not None
        and artefact.read_manifest(folder) is not None
        and (graph_wanted or not torch.cuda.is_available())
    ):
        return base.load_export(folder, name, precision, threads)
    return base.load_checkpoint(source, precision, device, head, threads)
