"""waveforms -> scores by one of three runtimes: PyTorch, onnxruntime, OpenVINO. The same numbers from each.

In: waveforms `(batch, samples)` float32 with lengths, as arrays. Out: scores, logits and embeddings. PyTorch
runs any checkpoint; the other two run the folder that `export` writes and need neither PyTorch nor the
checkpoint. Imports no torch before it is needed.
"""

import json
import math
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from beatline.audio.samples import to_waveform
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.model.geometry import SAMPLE_RATE, TOKENS_OF_A_STEP, step_count, tile_short

if TYPE_CHECKING:
    from beatline.model.tagger import Tagger

Name = Literal["auto", "torch", "onnx", "openvino"]
Precision = Literal["float32", "bfloat16", "int8"]

LABELS = "class_labels_indices.csv"
ONNX, INT8, OPENVINO = "model.onnx", "model.int8.onnx", "model.xml"
RUNS: dict[Literal["onnx", "openvino"], tuple[str, ...]] = {"onnx": (ONNX,), "openvino": (OPENVINO, ONNX)}
"""Which files of an export each runtime takes, the one it prefers first."""
EXTRA = {"onnx": "onnxruntime", "openvino": "openvino"}
# samples; graphs take clips padded to a multiple of this, since a runtime prepares itself for each new shape
STEP = 8_000
CLIPS_AT_ONCE = 4  # on a CPU: more do not fit its cache
BULK_SECONDS = {"cpu": 20.0, "cuda": 640.0}  # padded audio that fits a CPU's cache, or keeps a GPU busy
READERS = 16  # at most beside a GPU, for each of which a machine may have as many processors


@dataclass(frozen=True)
class Outputs:
    """What a tagger says of a batch of clips, float32."""

    scores: np.ndarray
    """`(batch, labels)` in [0, 1]."""
    logits: np.ndarray
    """`(batch, labels)`."""
    embeddings: np.ndarray
    """`(batch, width)`: the mean of a clip's tokens."""
    tokens: np.ndarray | None = None
    """`(batch, tokens, width)` where detail was asked for, `geometry.TOKENS_OF_A_STEP` for each time
    step; zero after a clip's last step.
    """
    step_logits: np.ndarray | None = None
    """`(batch, steps, labels)` where detail was asked for: what the head says of each time step alone; with a
    linear head their mean over a clip's steps is its logits.
    """


NAMES = tuple(field.name for field in fields(Outputs))


class Engine(ABC):
    """A tagger ready to run; made by `load`. `outputs` is the one way from windows to scores.

    A pass takes at most `clips_at_once` clips and `seconds_at_once` of padded audio, but at least one clip.
    """

    name: str
    """`torch`, `onnx` or `openvino`."""
    labels: LabelSet
    """In the order of the scores."""
    task: str
    """`multi-label` or `single-label`."""
    clips_at_once: int = CLIPS_AT_ONCE
    """Clips of a pass at most, 1 or more."""
    seconds_at_once: float = math.inf
    """Padded audio of a pass at most, seconds."""
    readers: int = 0
    """Threads that begin to read recordings ahead of their turn; none where the model is slower than whoever
    reads one after the other.
    """

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()  # a pass takes every core, and not every runtime bears two

    def outputs(self, windows: Iterable[np.ndarray], detail: bool = False) -> Outputs:
        """What the tagger says of windows, a row for each, in their order; any thread may call it.

        Short windows are repeated (`geometry.tile_short`), windows of like length share a pass, longest
        first.

        Args:
            windows: Each `(samples,)` at 16 kHz, at least one sample: int16, or float32 in [-1, 1].
            detail: Also tokens and the logits of each time step.
        """
        clips = [tile_short(window) for window in windows]
        groups = self.grouped(np.array([len(clip) for clip in clips], np.int64))
        parts = [self.run(*_padded([clips[i] for i in group]), detail) for group in groups]
        return _joined(parts, groups)

    def grouped(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Which clips share a pass: their indices, longest first.

        Args:
            lengths: Samples of each clip, `(clips,)`, each at least `geometry.MIN_SAMPLES`.
        """
        order = np.argsort(-lengths, kind="stable")
        groups: list[np.ndarray] = []
        begin = 0
        while begin < len(order):
            fitting = self.seconds_at_once * SAMPLE_RATE // int(lengths[order[begin]])
            size = int(max(1, min(self.clips_at_once, fitting)))
            groups.append(order[begin : begin + size])
            begin += size
        return groups

    def run(self, waveforms: np.ndarray, lengths: np.ndarray | None = None, detail: bool = False) -> Outputs:
        """What the tagger says of a batch that is padded already; any thread may call it.

        Args:
            waveforms: `(batch, samples)` float32 in [-1, 1], 16 kHz, zero after each clip's end; at least
                `geometry.MIN_SAMPLES` long.
            lengths: Samples of each clip, `(batch,)` int64, each at least `geometry.MIN_SAMPLES`; None when
                nothing is padded.
            detail: Also tokens and the logits of each time step.
        """
        whole = (
            np.full(len(waveforms), waveforms.shape[1], np.int64)
            if lengths is None
            else lengths.astype(np.int64)
        )
        size, names = self.clips_at_once, NAMES if detail else NAMES[:3]
        with self._one_at_a_time:
            parts = [
                self._pass(waveforms[i : i + size], whole[i : i + size], names)
                for i in range(0, len(waveforms), size)
            ]
        return Outputs(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def scores(self, waveforms: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """`run`'s scores."""
        return self.run(waveforms, lengths).scores

    def logits(self, waveforms: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """`run`'s logits."""
        return self.run(waveforms, lengths).logits

    def score(self, logits: np.ndarray) -> np.ndarray:
        """Scores in [0, 1] of logits `(..., labels)`, as the model makes them."""
        return score(logits, self.task)

    @abstractmethod
    def _pass(self, waveforms: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
        """The named outputs of at most `clips_at_once` clips."""


def _padded(clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Clips as one float32 batch `(clips, samples)`, zero after each end, and their lengths."""
    lengths = np.array([len(clip) for clip in clips], np.int64)
    waveforms = np.zeros((len(clips), lengths.max()), np.float32)
    for row, clip in zip(waveforms, clips, strict=True):
        row[: len(clip)] = to_waveform(clip) if clip.dtype == np.int16 else clip
    return waveforms, lengths


def _joined(parts: Sequence[Outputs], groups: Sequence[np.ndarray]) -> Outputs:
    """The groups' outputs as one, each row at its clip's index; what is shorter than the longest is zero."""
    if len(parts) == 1 and np.array_equal(groups[0], np.arange(len(groups[0]))):
        return parts[0]
    columns: list[np.ndarray | None] = []
    for name in NAMES:
        arrays = [getattr(part, name) for part in parts]
        if not arrays or arrays[0] is None:
            columns.append(None)
            continue
        shape = tuple(max(array.shape[axis] for array in arrays) for axis in range(1, arrays[0].ndim))
        column = np.zeros((sum(map(len, arrays)), *shape), np.float32)
        for array, group in zip(arrays, groups, strict=True):
            column[(group, *(slice(size) for size in array.shape[1:]))] = array
        columns.append(column)
    return Outputs(*columns)  # type: ignore[arg-type]


def score(logits: np.ndarray, task: str) -> np.ndarray:
    """Scores in [0, 1] of logits `(..., labels)`, float32, for either task."""
    logits = logits.astype(np.float32)
    if task == "multi-label":
        return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


class TorchEngine(Engine):
    """A `Tagger` on a CPU or a GPU.

    Args:
        tagger: The network; it is put into evaluation mode and moved to the device.
        labels: In the order of its head.
        device: As PyTorch names it.
        precision: `float32` or `bfloat16`.
        bulk: For many clips at once: passes of `BULK_SECONDS`, the head once for a pass. Then a clip's last
            bits may depend on what is beside it; else they do not.
    """

    name = "torch"

    def __init__(
        self,
        tagger: "Tagger",
        labels: LabelSet,
        device: Any = "cpu",
        precision: Precision = "float32",
        bulk: bool = False,
    ):
        import torch

        from beatline.model import cpu

        super().__init__()
        self.device = torch.device(device)
        self.precision: Precision = precision
        self.labels = labels
        self.task = tagger.task
        self.tagger = tagger.to(self.device).eval()
        self._bulk = bulk
        if self.device.type != "cpu":
            cpu.keep_gpu_exact()
            self.clips_at_once = 64
            self.readers = min(os.cpu_count() or 1, READERS)
        if bulk:
            self.clips_at_once = sys.maxsize
            self.seconds_at_once = BULK_SECONDS[self.device.type]

    def _pass(self, waveforms: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
        import torch

        clips = torch.from_numpy(waveforms).to(self.device)
        ends = torch.from_numpy(lengths).to(self.device)
        with (
            torch.no_grad(),  # not inference_mode: what the model caches must serve training too
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"),
        ):
            logits, *rest = self.tagger.outputs(
                clips, self.tagger.is_padding(ends, clips.shape[1]), len(names) > 3, each=not self._bulk
            )
            # clip by clip: a sigmoid's last bit depends on its position in memory
            scores = (
                self.tagger.score(logits)
                if self._bulk
                else torch.cat([self.tagger.score(clip) for clip in logits.split(1)])
            )
        return [tensor.float().cpu().numpy() for tensor in (scores, logits, *rest)]


class GraphEngine(Engine):
    """An exported folder on onnxruntime or OpenVINO; see `export`. Whether the folder is whole is for
    `load_export` to say.

    Raises:
        UserError: `missing-package`; `bad-config` where the export holds nothing for this runtime or
            precision.
    """

    def __init__(
        self,
        folder: Path,
        runtime: Literal["onnx", "openvino"],
        precision: Precision = "float32",
        threads: int = 0,
    ):
        files = (INT8,) if precision == "int8" else RUNS[runtime]
        there = [folder / file for file in files if (folder / file).exists()]
        if not there:
            remedy = "export it again with `--to onnx" + (" --int8`" if precision == "int8" else "`")
            raise UserError(
                "bad-config",
                f"cannot run {folder} on {EXTRA[runtime]} in {precision}",
                f"it holds no {' or '.join(files)}",
                remedy,
            )
        if find_spec(EXTRA[runtime]) is None:
            raise UserError(
                "missing-package",
                f"engine {runtime}",
                f"{EXTRA[runtime]} is not installed",
                "pip install 'beatline[export]'",
            )
        super().__init__()
        self.name, self.file = runtime, there[0]
        self.task = json.loads((folder / "config.json").read_text())["task"]
        self.labels = LabelSet.from_csv((folder / LABELS).read_text(encoding="utf-8"), str(folder / LABELS))
        self._call = (
            _onnxruntime(self.file, threads)
            if runtime == "onnx"
            else _openvino(self.file, precision, threads)
        )

    def _pass(self, waveforms: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
        padding = -waveforms.shape[1] % STEP
        got: list[np.ndarray] = self._call(
            np.pad(waveforms.astype(np.float32, copy=False), ((0, 0), (0, padding))), lengths, names
        )
        steps = step_count(waveforms.shape[1])  # without those of the padding
        return [*got[:3], got[3][:, : TOKENS_OF_A_STEP * steps], got[4][:, :steps]] if len(got) > 3 else got


def quiet_onnxruntime() -> None:
    """To be called before onnxruntime is imported: from 1.29 on it reports to its maker, with an identifier
    of this machine, unless this is set by then.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def _onnxruntime(file: Path, threads: int) -> Any:
    quiet_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # busy waiting makes two threads slower than one on a shared machine
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda waveforms, lengths, names: session.run(names, {"waveforms": waveforms, "lengths": lengths})


def _openvino(file: Path, precision: Precision, threads: int) -> Any:
    import openvino

    core = openvino.Core()
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"} | (
        {"INFERENCE_NUM_THREADS": threads} if threads else {}
    )

    def compiled(model: Any, hint: str) -> Any:
        return core.compile_model(model, "CPU", settings | {"INFERENCE_PRECISION_HINT": hint})

    model, bank = core.read_model(str(file)), None
    narrow = any(
        node.get_type_name() == "GroupConvolution" and node.get_input_shape(1)[2] < 16
        for node in model.get_ops()
    )  # its bfloat16 is wrong there, on CPUs with AMX
    if (
        precision == "bfloat16" and not narrow
    ):  # but not the filter bank, whose faint bins would be lost: it becomes a graph of its own
        patches = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution")
        energies, inputs = patches.input_value(0), model.get_parameters()
        bank = compiled(openvino.Model([energies], inputs), "f32")
        given = openvino.op.Parameter(openvino.Type.f32, energies.partial_shape)
        patches.input(0).replace_source_output(given.output(0))
        model = openvino.Model(model.get_results(), [*inputs, given])
    encoder = compiled(model, "bf16" if bank else "f32")

    def call(waveforms: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
        inputs = [waveforms, lengths]
        results = encoder(
            [*inputs, *([bank(inputs, share_inputs=True)[0]] if bank else [])], share_inputs=True
        )
        return [np.array(results[name]) for name in names]

    return call


@cache
def _has_amx() -> bool:
    """Whether the CPU multiplies tiles of bfloat16 (Linux tells)."""
    facts = Path("/proc/cpuinfo")
    return facts.exists() and " amx_bf16 " in facts.read_text()


def is_export(source: Path) -> bool:
    """Whether a folder is one that `export` wrote."""
    return (artefact.read_manifest(source) or {}).get("kind") == "export" if source.is_dir() else False


def reduced(name: Name, precision: Precision) -> Precision:
    """The precision that is run: for int8 `auto` takes bfloat16 on a CPU with AMX, which is faster there and
    nearer to float32 (`docs/decisions/0013`).
    """
    return (
        "bfloat16"
        if (name, precision) == ("auto", "int8") and find_spec(EXTRA["openvino"]) and _has_amx()
        else precision
    )


def check_cpu(device: str) -> None:
    """Refuses a device that no export runs on."""
    if device not in ("auto", "cpu"):
        raise UserError(
            "bad-config",
            f"device {device}",
            "onnxruntime and OpenVINO run on the CPU here",
            "leave --device out, or give a checkpoint and leave --engine out",
        )


def load_export(
    folder: Path,
    name: Name = "auto",
    precision: Precision = "float32",
    threads: int = 0,
    device: str = "auto",
) -> GraphEngine:
    """An exported folder as an engine; `auto` takes OpenVINO for float32 and bfloat16 where it is installed
    or all the export is for, else onnxruntime.

    Args:
        precision: See `reduced`.
        threads: CPU threads; 0 leaves it to the runtime.

    Raises:
        UserError: As `GraphEngine`; `bad-config` for an engine that cannot run it, or a device other than the
            CPU.
    """
    check_cpu(device)
    if name == "torch":
        raise UserError(
            "bad-config",
            "setting engine",
            f"{folder} is an export, which PyTorch does not run",
            "leave --engine out, or give the checkpoint",
        )
    precision = reduced(name, precision)
    if name == "auto":
        name = (
            "openvino"
            if precision != "int8" and (find_spec(EXTRA["openvino"]) or not (folder / ONNX).exists())
            else "onnx"
        )
    if (name, precision) == ("onnx", "bfloat16"):
        raise UserError(
            "bad-config",
            "setting precision",
            "onnxruntime runs float32 and int8 here",
            "install openvino (extra `export`) and leave --engine out, or take int8",
        )
    artefact.verify(
        folder,
        select=lambda file: file not in (ONNX, INT8) or file == (INT8 if precision == "int8" else ONNX),
    )
    return GraphEngine(folder, name, precision, threads)


def load_checkpoint(
    source: Path | str,
    precision: Precision = "float32",
    device: str = "auto",
    head: bool = True,
    threads: int = 0,
) -> TorchEngine:
    """A checkpoint of any family on PyTorch.

    Args:
        threads: CPU threads of all that PyTorch does in this process from now on; 0 leaves them as they are.
        head: Whether it must have one; without it there is one label that means nothing, and embeddings as
            ever.

    Raises:
        UserError: See `model.checkpoint.load_checkpoint`; `bad-config` for int8 and for a device that is not
            there.
    """
    if precision == "int8":
        raise UserError(
            "bad-config",
            "setting precision",
            "PyTorch runs float32 and bfloat16 here",
            "leave --engine out: int8 runs on onnxruntime",
        )
    import torch

    from beatline.model.checkpoints import load
    from beatline.model.checkpoints.loaded import LoadedTagger

    loaded = load.load_tagger(source) if head else load.load_checkpoint(source)
    if not isinstance(loaded, LoadedTagger):
        width = loaded.config.encoder_embed_dim
        loaded = loaded.with_head(
            {"weight": torch.zeros(1, width), "bias": torch.zeros(1)},
            LabelSet.from_names(["none"]),
            "multi-label",
        )
    tagger, labels = loaded.tagger(), loaded.labels
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(
            "bad-config", f"device {device!r}", "there is no such device", "give auto, cpu or cuda"
        )
    elif device != "cpu" and not torch.cuda.is_available():
        raise UserError(
            "bad-config",
            f"device {device}",
            "PyTorch sees no GPU",
            "leave it out, or install PyTorch for your GPU",
        )
    if threads:
        torch.set_num_threads(threads)
    return TorchEngine(tagger, labels, device, precision)
