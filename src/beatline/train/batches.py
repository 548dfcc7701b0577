"""store -> batches: which clips make a step, read ahead by threads.

In: a store and the indices of a split. Out: `Batch`es in an order that is a pure function of (seed, epoch),
each with its augmentation draws already turned into numbers. Threads only read; their number cannot change
anything. `augmented_fbank` applies the draws, on the device.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from beatline.config import AugmentConfig, TrainConfig
from beatline.data.store import Store
from beatline.model.geometry import SAMPLE_RATE, frame_count, tile_short, tiled_length
from beatline.model.tagger import Tagger
from beatline.train import augment


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


def epoch_batches(store: Store, clips: np.ndarray, config: TrainConfig, epoch: int) -> list[np.ndarray]:
    """The clip indices of each step of an epoch.

    `fresh`: clips shuffled anew, `batch` at a time. `fixed-batches`: made once in order of length (ESPnet's
    folded batches), only their order is shuffled. The last batch may be smaller.
    """
    rng = augment.generator(config.seed, epoch, "order")
    if config.order == "fresh":
        shuffled = rng.permutation(clips)
        return [shuffled[i : i + config.batch] for i in range(0, len(clips), config.batch)]
    by_length = clips[np.argsort(store.lengths[clips], kind="stable")]
    batches, begin = [], 0
    while begin < len(by_length):
        fold = (
            int(store.lengths[by_length[begin]] / (config.fold_seconds * SAMPLE_RATE))
            if config.fold_seconds
            else 0
        )
        size = max(1, config.batch // (1 + fold))
        batches.append(by_length[begin : begin + size])
        begin += size
    return [batches[i] for i in rng.permutation(len(batches))]


@dataclass(frozen=True)
class Batch:
    """This process's share of one microstep, read but not yet augmented."""

    samples: Tensor
    """The clips needed, `(n, width)` int16; n exceeds the rows where a partner belongs to another share."""
    rows: Tensor
    """Which of them each row is, `(rows,)`."""
    partners: Tensor
    """Which of them each row is mixed with, `(rows,)`."""
    weights: Tensor
    """Share of the clip itself, `(rows,)` float32; 1 is unmixed."""
    lengths: Tensor
    """Samples after mixing, `(rows,)`."""
    shifts: Tensor
    """Roll in samples, `(rows,)`."""
    gains: Tensor
    """Factor on the waveform, `(rows,)`."""
    targets: Tensor
    """Soft after mixup, `(rows, labels)` float32."""
    warp: tuple[int, int] | None
    time_ranges: list[list[tuple[int, int]]]
    mel_ranges: list[list[tuple[int, int]]]
    ids: tuple[str, ...]
    share: float
    """Rows of this batch over the clips of the whole step."""


def make_batch(
    store: Store,
    clips: np.ndarray,
    share: slice,
    augmentation: AugmentConfig,
    seed: int,
    epoch: int,
    number: int,
) -> Batch:
    """Reads the rows `share` of a step's clips, with partners from the whole step.

    Args:
        clips: Indices of all clips of the step.
        share: The rows of this process and microstep.
        number: The step's number within the epoch.
    """
    draws = [augment.clip_draws(augmentation, seed, epoch, store.ids[i]) for i in clips]
    together = augment.batch_draws(seed, epoch, number, len(clips))
    lengths = tiled_length(store.lengths[clips])
    width = int(lengths.max())
    mine = np.arange(len(clips))[share]
    partner = np.where([draws[i].mixed for i in mine], together.partners[mine], mine)
    weights = np.where(partner == mine, 1.0, [draws[i].weight for i in mine])
    needed, places = np.unique(np.concatenate([mine, partner]), return_inverse=True)
    targets = store.targets(clips[needed])
    rows, partners = places[: len(mine)], places[len(mine) :]
    mixed_lengths = np.minimum(lengths[mine], lengths[partner])
    frames = frame_count(width)
    longest = int(augmentation.time_mask_fraction * frames)
    return Batch(
        samples=read_clips(store, clips[needed], width),
        rows=torch.from_numpy(rows),
        partners=torch.from_numpy(partners),
        weights=torch.from_numpy(weights.astype(np.float32)),
        lengths=torch.from_numpy(mixed_lengths.astype(np.int64)),
        shifts=torch.tensor(
            [
                augment.shift_samples(draws[i].shift, int(n), augmentation.roll_step)
                if augmentation.roll
                else 0
                for i, n in zip(mine, mixed_lengths, strict=True)
            ]
        ),
        gains=torch.tensor([draws[i].gain for i in mine], dtype=torch.float32),
        targets=torch.from_numpy(
            (weights[:, None] * targets[rows] + (1 - weights[:, None]) * targets[partners]).astype(np.float32)
        ),
        warp=augment.warp_frames(together.warp, frames, augmentation.time_warp),
        time_ranges=[augment.mask_ranges(draws[i].time_masks, frames, longest) for i in mine],
        mel_ranges=[augment.mask_ranges(draws[i].mel_masks, 128, augmentation.mel_mask_bins) for i in mine],
        ids=tuple(store.ids[i] for i in clips[mine]),
        share=len(mine) / len(clips),
    )


def augmented_fbank(batch: Batch, tagger: Tagger, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The batch on the device, augmented: fbank `(rows, frames, 128)` and its padding `(rows, tokens)` or
    None.
    """
    clips = to_waveforms(batch.samples, device)
    lengths, place = batch.lengths.to(device), torch.arange(clips.shape[1], device=device)
    waveforms = augment.mixup(
        clips[batch.rows.to(device)], clips[batch.partners.to(device)], batch.weights.to(device)
    )
    waveforms = waveforms * batch.gains.to(device)[:, None] * (place < lengths[:, None])
    waveforms = augment.roll(waveforms, lengths, batch.shifts.to(device))
    fbank = tagger.fbank(waveforms)
    if batch.warp is not None:
        fbank = augment.time_warp(fbank, *batch.warp)
    fbank = augment.apply_masks(fbank, batch.time_ranges, batch.mel_ranges)
    return fbank, tagger.is_padding(lengths, waveforms.shape[1])
