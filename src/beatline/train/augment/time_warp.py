"""Time warp: the frames before a random frame stretched or pressed, and the others made to fill the rest."""

import torch
from torch import Tensor
from torch.nn import functional as F

from beatline.train.augmentation import Augmentation, Change, Rows


def warp_frames(draws: tuple[float, float], frames: int, window: int) -> tuple[int, int] | None:
    """The frame that a warp moves and where it goes; None where the clip is too short, or the window 0."""
    if window == 0 or frames - window <= window:
        return None
    centre = window + int(draws[0] * (frames - 2 * window))
    return centre, centre - window + int(draws[1] * 2 * window) + 1


def time_warp(fbank: Tensor, centre: int, target: int) -> Tensor:
    """Stretches the frames before `centre` to end at `target` and the rest to fill; bicubic. `(rows, frames,
    mels)`.

    Source: SpecAugment (arXiv 1904.08779) as ESPnet does it, one warp for the batch.
    """
    frames, mels = fbank.shape[1:]
    parts = ((fbank[:, None, :centre], target), (fbank[:, None, centre:], frames - target))
    return torch.cat(
        [F.interpolate(part, (size, mels), mode="bicubic", align_corners=False) for part, size in parts],
        dim=2,
    )[:, 0]


class TimeWarp(Augmentation):
    """Warps all fbanks of a step alike."""

    on = "fbank"

    def change(self, rows: Rows) -> Change | None:
        draws = (rows.of_batch.random(), rows.of_batch.random())
        moved = warp_frames(draws, rows.frames, self.settings.time_warp)
        return None if moved is None else lambda fbank: time_warp(fbank, *moved)
