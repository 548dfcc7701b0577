"""batches -> augment: mixup and roll on waveforms, time warp and masks on the fbank, as the AS-20K recipe
does.

In: a batch and its draws. Out: the batch changed. Every draw is a pure function of (seed, epoch, clip) or
(seed, epoch, batch), made here with NumPy's counter-based Philox, so neither workers nor devices nor a resume
can change it. The tensor work runs wherever the batch is.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from beatline.config import AugmentConfig
from beatline.model.geometry import SAMPLE_RATE


def generator(*key: object) -> np.random.Generator:
    """A random generator that is a function of `key` alone."""
    digest = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


@dataclass(frozen=True)
class ClipDraws:
    """What happens to one clip in one epoch; fractions are turned into samples and frames where lengths are
    known.
    """

    mixed: bool
    weight: float
    """Share of the clip itself in the mix, 0 to 1."""
    shift: float
    """Roll as a fraction of the clip, [0, 1)."""
    gain: float
    """Factor on the waveform."""
    time_masks: tuple[tuple[float, float], ...]
    """Width and place of each time mask, both fractions [0, 1) of what they may be."""
    mel_masks: tuple[tuple[float, float], ...]


def clip_draws(config: AugmentConfig, seed: int, epoch: int, clip: str) -> ClipDraws:
    """The draws of a clip in an epoch."""
    rng = generator(seed, epoch, "clip", clip)
    mixed, weight = rng.random() < config.mixup_probability, rng.beta(config.mixup_alpha, config.mixup_alpha)
    shift, gain = rng.random(), 10 ** (rng.uniform(-config.gain, config.gain) / 20)
    time_masks = tuple((rng.random(), rng.random()) for _ in range(config.time_masks))
    mel_masks = tuple((rng.random(), rng.random()) for _ in range(config.mel_masks))
    return ClipDraws(bool(mixed), float(weight), float(shift), float(gain), time_masks, mel_masks)


@dataclass(frozen=True)
class BatchDraws:
    """What a whole batch shares: who is mixed with whom, and one time warp."""

    partners: np.ndarray
    """Row that each row would be mixed with, a permutation, `(clips,)`."""
    warp: tuple[float, float]
    """Where the warp's centre is and where it goes, fractions [0, 1)."""


def batch_draws(seed: int, epoch: int, batch: int, clips: int) -> BatchDraws:
    """The draws of a batch of an epoch."""
    rng = generator(seed, epoch, "batch", batch)
    return BatchDraws(rng.permutation(clips), (rng.random(), rng.random()))


def mixup(waveforms: Tensor, partners: Tensor, weights: Tensor) -> Tensor:
    """Each row times its weight plus its partner times the rest; both `(batch, samples)`, weights
    `(batch,)`.
    """
    return torch.lerp(partners, waveforms, weights[:, None])


def roll(waveforms: Tensor, lengths: Tensor, shifts: Tensor) -> Tensor:
    """Shifts each clip circularly within its length by its number of samples; `(batch, samples)`, zero after
    each end stays zero.
    """
    place = torch.arange(waveforms.shape[1], device=waveforms.device)
    within = place < lengths[:, None]
    source = torch.where(within, (place - shifts[:, None]) % lengths[:, None], place)
    return waveforms.gather(1, source)


def shift_samples(fraction: float, length: int, step_seconds: float) -> int:
    """The roll of a clip of `length` samples: any number below it, or a multiple of the step."""
    step = max(1, round(step_seconds * SAMPLE_RATE))
    return int(fraction * max(1, length // step)) * step if step > 1 else int(fraction * length)


def warp_frames(draws: tuple[float, float], frames: int, window: int) -> tuple[int, int] | None:
    """The frame that a warp moves and where it goes, or None where the clip is too short to warp."""
    if window == 0 or frames - window <= window:
        return None
    centre = window + int(draws[0] * (frames - 2 * window))
    return centre, centre - window + int(draws[1] * 2 * window) + 1


def time_warp(fbank: Tensor, centre: int, target: int) -> Tensor:
    """Stretches the frames before `centre` to end at `target` and the rest to fill; bicubic. `(batch, frames,
    mels)`.

    Source: SpecAugment (arXiv 1904.08779) as ESPnet does it, one warp for the batch.
    """
    frames, mels = fbank.shape[1:]
    parts = ((fbank[:, None, :centre], target), (fbank[:, None, centre:], frames - target))
    return torch.cat(
        [F.interpolate(part, (size, mels), mode="bicubic", align_corners=False) for part, size in parts],
        dim=2,
    )[:, 0]


def mask_ranges(draws: tuple[tuple[float, float], ...], size: int, longest: int) -> list[tuple[int, int]]:
    """The masks' begins and ends: a width of 0 to `longest`, then a place where it fits into `size`."""
    ranges = []
    for width_fraction, place_fraction in draws:
        width = int(width_fraction * (longest + 1))
        begin = int(place_fraction * max(1, size - width))
        ranges.append((begin, begin + width))
    return ranges


def apply_masks(
    fbank: Tensor, time_ranges: list[list[tuple[int, int]]], mel_ranges: list[list[tuple[int, int]]]
) -> Tensor:
    """Sets each row's ranges of frames and mels to 0; `(batch, frames, mels)`."""
    frames, mels = (
        _within(ranges, size).to(fbank.device)
        for ranges, size in zip((time_ranges, mel_ranges), fbank.shape[1:], strict=True)
    )
    return fbank.masked_fill(frames[:, :, None] | mels[:, None, :], 0.0)


def _within(ranges: list[list[tuple[int, int]]], size: int) -> Tensor:
    """Which of `size` places each row's ranges take, `(rows, size)` bool."""
    within = np.zeros((len(ranges), size), bool)
    for row, some in zip(within, ranges, strict=True):
        for begin, end in some:
            row[begin:end] = True
    return torch.from_numpy(within)
