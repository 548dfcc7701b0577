"""waveforms -> scores by one of three runtimes: PyTorch, onnxruntime, OpenVINO. The same numbers from each.

In: waveforms `(batch, samples)` float32 with lengths, as arrays. Out: scores, logits and embeddings. PyTorch runs any checkpoint; the other two
run the folder that `export` writes and need neither PyTorch nor the checkpoint. Imports no torch before it is needed.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from beatline import artefact
from beatline.errors import UserError
from beatline.labels import LabelSet

Name = Literal["auto", "torch", "onnx", "openvino"]
Precision = Literal["float32", "bfloat16", "int8"]

GRAPHS = {"float32": "model.onnx", "int8": "model.int8.onnx"}
EXTRA = {"onnx": "onnxruntime", "openvino": "openvino"}
STEP = 8_000  # samples; graphs take clips padded to a multiple of this, since a runtime prepares itself for each new shape
CLIPS_AT_ONCE = 4  # on a CPU: more do not fit its cache


@dataclass(frozen=True)
class Outputs:
    """What a tagger says of a batch of clips, float32."""

    scores: np.ndarray
    """`(batch, labels)` in [0, 1]."""
    logits: np.ndarray
    """`(batch, labels)`."""
    embeddings: np.ndarray
    """`(batch, width)`: the mean of a clip's tokens."""

    @staticmethod
    def join(parts: list["Outputs"]) -> "Outputs":
        """Several batches as one."""
        return Outputs(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "logits", "embeddings")))


class Engine:
    """A tagger ready to run; made by `load`. `run` is the same for all."""

    name: str
    """`torch`, `onnx` or `openvino`."""
    labels: LabelSet
    """In the order of the scores."""
    clips_at_once: int = CLIPS_AT_ONCE
    """Clips of one pass; a larger batch is cut."""

    def run(self, waveforms: np.ndarray, lengths: np.ndarray | None = None) -> Outputs:
        """Scores, logits and embeddings.

        Args:
            waveforms: `(batch, samples)` float32 in [-1, 1], 16 kHz, zero after each clip's end; at least `windows.MIN_SAMPLES` long.
            lengths: Samples of each clip, `(batch,)` int64, each at least `windows.MIN_SAMPLES`; None when nothing is padded.
        """
        whole = np.full(len(waveforms), waveforms.shape[1], np.int64) if lengths is None else lengths.astype(np.int64)
        size = self.clips_at_once
        return Outputs.join([self._pass(waveforms[i : i + size], whole[i : i + size]) for i in range(0, len(waveforms), size)])

    def scores(self, waveforms: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """`run`'s scores."""
        return self.run(waveforms, lengths).scores

    def logits(self, waveforms: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """`run`'s logits."""
        return self.run(waveforms, lengths).logits

    def _pass(self, waveforms: np.ndarray, lengths: np.ndarray) -> Outputs:
        raise NotImplementedError


class TorchEngine(Engine):
    """A `Tagger` on a CPU or a GPU."""

    name = "torch"

    def __init__(self, tagger: Any, labels: LabelSet, device: Any = "cpu", precision: Precision = "float32"):
        import torch

        self.device, self.precision, self.labels = torch.device(device), precision, labels
        self.tagger = tagger.to(self.device).eval()
        if self.device.type != "cpu":
            self.clips_at_once = 64

    def _pass(self, waveforms: np.ndarray, lengths: np.ndarray) -> Outputs:
        import torch

        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits, embeddings = self.tagger.logits_and_embeddings(torch.from_numpy(waveforms).to(self.device), torch.from_numpy(lengths).to(self.device))
            scores = self.tagger.score(logits)
        return Outputs(*(tensor.float().cpu().numpy() for tensor in (scores, logits, embeddings)))


class GraphEngine(Engine):
    """An exported folder on onnxruntime or OpenVINO; see `export`. Whether the folder is whole is for `load_export` to say.

    Raises:
        UserError: `missing-package`; `bad-config` where the export lacks the precision.
    """

    def __init__(self, folder: Path, runtime: Literal["onnx", "openvino"], precision: Precision = "float32", threads: int = 0):
        if find_spec(EXTRA[runtime]) is None:
            raise UserError("missing-package", f"engine {runtime}", f"{EXTRA[runtime]} is not installed", "pip install 'beatline[export]'")
        self.name, self.file = runtime, folder / GRAPHS["int8" if precision == "int8" else "float32"]
        if not self.file.exists():
            raise UserError("bad-config", f"cannot use {folder} with precision {precision}", "it was exported without", "export it again with --int8")
        self.labels = LabelSet.from_csv((folder / "labels.csv").read_text(encoding="utf-8"), str(folder / "labels.csv"))
        self._call = _onnxruntime(self.file, threads) if runtime == "onnx" else _openvino(self.file, precision, threads)

    def _pass(self, waveforms: np.ndarray, lengths: np.ndarray) -> Outputs:
        padding = -waveforms.shape[1] % STEP
        return Outputs(*self._call(np.pad(waveforms.astype(np.float32, copy=False), ((0, 0), (0, padding))), lengths))


def _onnxruntime(file: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # busy waiting makes two threads slower than one on a shared machine
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda waveforms, lengths: session.run(["scores", "logits", "embeddings"], {"waveforms": waveforms, "lengths": lengths})


def _openvino(file: Path, precision: Precision, threads: int) -> Any:
    import openvino

    hint = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}[precision]
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    model = openvino.Core().compile_model(str(file), "CPU", settings)

    def call(waveforms: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        results = model([waveforms, lengths], share_inputs=True)
        return [np.array(results[name]) for name in ("scores", "logits", "embeddings")]

    return call


def is_export(source: Path) -> bool:
    """Whether a folder is one that `export` wrote."""
    return (artefact.read_manifest(source) or {}).get("kind") == "export" if source.is_dir() else False


def load_export(folder: Path, name: Name = "auto", precision: Precision = "float32", threads: int = 0) -> GraphEngine:
    """An exported folder as an engine; `auto` takes OpenVINO for float32 and bfloat16 where it is installed, onnxruntime for the rest.

    Args:
        threads: CPU threads; 0 leaves it to the runtime.

    Raises:
        UserError: As `GraphEngine`; `bad-config` for an engine that cannot run it.
    """
    if name == "torch":
        raise UserError("bad-config", "setting engine", f"{folder} is an export, which PyTorch does not run", "leave --engine out, or give the checkpoint")
    if name == "auto":
        name = "openvino" if precision != "int8" and find_spec(EXTRA["openvino"]) else "onnx"
    file = GRAPHS["int8" if precision == "int8" else "float32"]
    artefact.verify(folder, select=lambda other: other == file or not other.endswith(".onnx"))
    return GraphEngine(folder, name, precision, threads)


def load_checkpoint(source: Path | str, precision: Precision = "float32", device: str = "auto") -> TorchEngine:
    """A checkpoint of any family on PyTorch.

    Raises:
        UserError: See `model.checkpoint.load_checkpoint`; `bad-config` for int8.
    """
    if precision == "int8":
        raise UserError("bad-config", "setting precision", "PyTorch runs float32 and bfloat16 here", "leave --engine out: int8 runs on onnxruntime")
    import torch

    from beatline.model import checkpoint

    loaded = checkpoint.load_checkpoint(source)
    tagger, labels = loaded.tagger(), loaded.labels
    assert labels is not None  # tagger() refuses a model without a head
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return TorchEngine(tagger, labels, device, precision)
