"""store -> clips as tensors: a zero-padded batch, and its waveforms on a device."""

import numpy as np
import torch
from torch import Tensor

from beatline.audio.windows import tile_short
from beatline.data.store import Store


def read_clips(store: Store, indices: np.ndarray, width: int) -> Tensor:
    """Clips of a store as one zero-padded tensor `(clips, width)` int16, in pinned memory where this process
    computes on a GPU, which then copies meanwhile.
    """
    block = torch.zeros(len(indices), width, dtype=torch.int16, pin_memory=torch.cuda.is_initialized())
    for row, index in zip(block.numpy(), indices, strict=True):
        samples = tile_short(store.samples(int(index)))
        row[: len(samples)] = samples
    return block


def to_waveforms(samples: Tensor, device: torch.device) -> Tensor:
    """int16 samples as waveforms on the device, float32 in [-1, 1)."""
    return samples.to(device, non_blocking=True).float() / 32768.0
