"""checkpoint -> an engine on PyTorch, on a CPU or a GPU."""

import os
import sys
from pathlib import Path

import numpy as np
import torch

from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.model import cpu
from beatline.model.checkpoints import load
from beatline.model.checkpoints.loaded import LoadedTagger
from beatline.model.engines.base import Engine, Precision
from beatline.model.tagger import Tagger

CLIPS_ON_GPU = 64  # of a pass
BULK_SECONDS = {"cpu": 20.0, "cuda": 640.0}  # padded audio that fits a CPU's cache, or keeps a GPU busy
READERS = 16  # at most beside a GPU, for each of which a machine may have as many processors


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
        tagger: Tagger,
        labels: LabelSet,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
        bulk: bool = False,
    ):
        super().__init__()
        self.device = torch.device(device)
        self.precision: Precision = precision
        self.labels = labels
        self.task = tagger.task
        self.tagger = tagger.to(self.device).eval()
        self._bulk = bulk
        if self.device.type != "cpu":
            cpu.keep_gpu_exact()
            self.clips_at_once = CLIPS_ON_GPU
            self.readers = min(os.cpu_count() or 1, READERS)
        if bulk:
            self.clips_at_once = sys.maxsize
            self.seconds_at_once = BULK_SECONDS[self.device.type]

    def run_pass(
        self, waveforms: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]
    ) -> list[np.ndarray]:
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
        head: Whether the model must have a head. Without a head the single label means nothing, and only
            embeddings are of use.

    Raises:
        UserError: See `checkpoints.load.load_checkpoint`; `bad-config` for int8 and for a device that is not
            there.
    """
    if precision == "int8":
        raise UserError(
            "bad-config",
            "setting precision",
            "PyTorch runs float32 and bfloat16 here",
            "leave --engine out: int8 runs on onnxruntime",
        )
    loaded = load.load_tagger(source) if head else load.load_checkpoint(source)
    if not isinstance(loaded, LoadedTagger):
        width = loaded.config.encoder_embed_dim
        loaded = loaded.with_head(
            {"weight": torch.zeros(1, width), "bias": torch.zeros(1)},
            LabelSet.from_names(["none"]),
            "multi-label",
        )
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
    return TorchEngine(loaded.tagger(), loaded.labels, device, precision)
