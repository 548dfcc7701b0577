"""store -> batches: which clips make a step, read ahead by threads.

In: a store and the indices of a split. Out: `Batch`es in an order that is a pure function of (seed, epoch),
each with what its augmentations have drawn. Threads only read; their number cannot change anything.
`augmented_waveforms` and `augmented_fbank` make the changes, on the device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from beatline.config import TrainConfig
from beatline.data.store import Store
from beatline.model.geometry import SAMPLE_RATE, frame_count, tile_short, tiled_length
from beatline.model.tagger import Tagger
from beatline.train.augmentation import Augmentation, Change, Mix, Mixing, Rows, generator
from beatline.train.draws import NAMED, Draws

COMMON = 10
"""Clips that are added to those of a label before its rarity is taken, so that a lone clip is not all."""


def read_clips(store: Store, indices: np.ndarray, width: int, crops: Sequence[slice] = ()) -> Tensor:
    """Clips of a store as one zero-padded tensor `(clips, width)` int16. The tensor is in pinned memory where
    this process computes on a GPU, which then copies meanwhile.

    Args:
        crops: The samples of each clip that are wanted; all of them where it is left out.
    """
    block = torch.zeros(len(indices), width, dtype=torch.int16, pin_memory=torch.cuda.is_initialized())
    for row, index, crop in zip(block.numpy(), indices, crops or [slice(None)] * len(indices), strict=True):
        samples = tile_short(store.samples(int(index))[crop])
        row[: len(samples)] = samples
    return block


def to_waveforms(samples: Tensor, device: torch.device) -> Tensor:
    """int16 samples as waveforms on the device, float32 in [-1, 1)."""
    return samples.to(device, non_blocking=True).float() / 32768.0


def takes_crops(config: TrainConfig, epoch: int) -> bool:
    """Whether an epoch trains on crops of clips."""
    return config.crop_seconds > 0 and (config.crop_epochs == 0 or epoch < config.crop_epochs)


def epoch_batches(store: Store, clips: np.ndarray, config: TrainConfig, epoch: int) -> list[np.ndarray]:
    """The clip indices of each step of an epoch.

    `fresh`: clips shuffled anew, or drawn by rarity, `batch` at a time. `fixed-batches`: made once in order
    of length (ESPnet's folded batches), only their order is shuffled. The last batch may be smaller.
    """
    rng = generator(config.seed, epoch, "order")
    largest = config.crop_batch if config.crop_batch and takes_crops(config, epoch) else config.batch
    if config.order == "fresh":
        shuffled = (
            drawn_by_rarity(store, clips, config.balance, rng) if config.balance else rng.permutation(clips)
        )
        return [shuffled[i : i + largest] for i in range(0, len(clips), largest)]
    by_length = clips[np.argsort(store.lengths[clips], kind="stable")]
    batches = []
    begin = 0
    while begin < len(by_length):
        fold = (
            int(store.lengths[by_length[begin]] / (config.fold_seconds * SAMPLE_RATE))
            if config.fold_seconds
            else 0
        )
        size = max(1, largest // (1 + fold))
        batches.append(by_length[begin : begin + size])
        begin += size
    return [batches[i] for i in rng.permutation(len(batches))]


def steps_of_epochs(store: Store, clips: np.ndarray, config: TrainConfig) -> list[int]:
    """How many steps each epoch has: those on crops alike, and those on whole clips."""

    @cache
    def steps(crops: bool) -> int:
        return len(epoch_batches(store, clips, config, 0 if crops else config.epochs - 1))

    return [steps(takes_crops(config, epoch)) for epoch in range(config.epochs)]


def drawn_by_rarity(store: Store, clips: np.ndarray, power: float, rng: np.random.Generator) -> np.ndarray:
    """As many clips as there are, in random order: each as often as its rarity to that power says, rounded up
    or down at random.

    A clip's rarity is the sum of 1 / (`COMMON` + clips with the label) over its labels, among which is one
    that every clip has.
    """
    totals = store.label_totals(clips)
    rarity = store.label_sums(1 / (COMMON + totals))[clips] + 1 / (COMMON + len(clips))
    shuffled = rng.permutation(len(clips))
    ends = np.cumsum(rarity[shuffled] ** power)
    marks = (np.arange(len(clips)) + rng.random()) * (ends[-1] / len(clips))
    drawn = shuffled[np.minimum(np.searchsorted(ends, marks, side="right"), len(clips) - 1)]
    return clips[rng.permutation(drawn)]


@dataclass(frozen=True)
class Crop:
    """Which part of each clip is read."""

    samples: int = 0
    """Its length at most; 0 is the whole clip."""
    hop: int = 1
    """Its begin is a multiple of so many samples."""

    def lengths(self, lengths: np.ndarray) -> np.ndarray:
        """Samples that are left of clips of these lengths."""
        return np.minimum(lengths, self.samples) if self.samples else lengths

    def begins(self, lengths: np.ndarray, *key: object, names: Sequence[str]) -> np.ndarray:
        """The first sample of each clip's crop, `(clips,)` int64: a function of the key and the clip's
        name.
        """
        if not self.samples:
            return np.zeros(len(lengths), np.int64)
        choices = np.maximum(0, lengths - self.samples) // self.hop + 1
        draws = [generator(*key, "crop", name).random() for name in names]
        return self.hop * (np.array(draws) * choices).astype(np.int64)


WHOLE = Crop()


@dataclass(frozen=True)
class Batch:
    """This process's share of a microstep, read but not yet augmented."""

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
    clips: np.ndarray
    """Indices into the store of the clips needed, `(n,)`."""
    begins: np.ndarray
    """First sample of each that was read, `(n,)`; 0 but for crops."""
    targets: Tensor
    """Soft after mixup, `(rows, labels)` float32."""
    of_waveforms: tuple[Change, ...]
    """What augmentations do to the waveforms, in order."""
    of_fbank: tuple[Change, ...]
    """What augmentations do to the fbank after that, in order."""
    ids: tuple[str, ...]
    share: float
    """Rows of this batch over the clips of the whole step."""

    def mixed(self, values: np.ndarray) -> Tensor:
        """What the clips needed have, `(n, ...)`, as the rows mix it: `(rows, ...)` float32."""
        of_clips = torch.from_numpy(values)
        weights = self.weights.view(-1, *[1] * (values.ndim - 1))
        return torch.lerp(of_clips[self.partners], of_clips[self.rows], weights)


def make_batch(
    store: Store,
    clips: np.ndarray,
    share: slice,
    augmentations: Mapping[str, Augmentation],
    seed: int,
    epoch: int,
    number: int,
    rule: int = NAMED,
    crop: Crop = WHOLE,
    again: bool = False,
) -> Batch:
    """Reads the rows `share` of a step's clips, with partners from the whole step, and draws for them.

    Args:
        clips: Indices of all clips of the step.
        share: The rows of this process and microstep.
        augmentations: In the order in which they apply, see `augment.named`.
        number: The step's number within the epoch.
        rule: Of draws, see `Draws`.
        crop: What is read of a clip.
        again: Whether a clip may come more than once an epoch; its draws are then those of its position.
    """
    lengths = tiled_length(crop.lengths(store.lengths[clips]))
    width = int(lengths.max())
    mine = np.arange(len(clips))[share]
    ids = tuple(store.ids[i] for i in clips[mine])

    def names(positions: np.ndarray) -> list[str]:
        found = [store.ids[i] for i in clips[positions]]
        return [f"{name} {number} {i}" for name, i in zip(found, positions, strict=True)] if again else found

    draws = Draws(rule, (seed, epoch, number), names(mine))
    mix, changes = _drawn(augmentations, draws, mine, lengths, frame_count(width))
    needed, found = np.unique(np.concatenate([mine, mix.partners]), return_inverse=True)
    targets = store.targets(clips[needed])
    begins = crop.begins(store.lengths[clips[needed]], seed, epoch, names=names(needed))
    crops = [slice(begin, begin + crop.samples) for begin in begins] if crop.samples else []
    own, partners = found[: len(mine)], found[len(mine) :]
    weights = mix.weights[:, None]
    return Batch(
        samples=read_clips(store, clips[needed], width, crops),
        rows=torch.from_numpy(own),
        partners=torch.from_numpy(partners),
        weights=torch.from_numpy(mix.weights.astype(np.float32)),
        lengths=torch.from_numpy(_mixed_lengths(lengths, mine, mix)),
        clips=clips[needed],
        begins=begins,
        targets=torch.from_numpy(
            (weights * targets[own] + (1 - weights) * targets[partners]).astype(np.float32)
        ),
        of_waveforms=_of(augmentations, changes, "waveforms"),
        of_fbank=_of(augmentations, changes, "fbank"),
        ids=ids,
        share=len(mine) / len(clips),
    )


def _drawn(
    augmentations: Mapping[str, Augmentation],
    draws: Draws,
    mine: np.ndarray,
    lengths: np.ndarray,
    frames: int,
) -> tuple[Mix, dict[str, Change]]:
    """How the rows are mixed, and what else is done to them, by the augmentation's name.

    Args:
        mine: The rows' positions in the step.
        lengths: Samples of all clips of the step.
        frames: Frames of each row's fbank.
    """
    mix = Mix(mine, np.ones(len(mine)))
    changes = {}
    mixing_first = sorted(augmentations, key=lambda name: augmentations[name].on != "clips")
    for name in draws.turns(mixing_first):
        augmentation = augmentations[name]
        rows = Rows(*draws.of(name), mine, len(lengths), _mixed_lengths(lengths, mine, mix), frames)
        if isinstance(augmentation, Mixing):
            mix = augmentation.mix(rows)
        elif change := augmentation.change(rows):
            changes[name] = change
    return mix, changes


def _mixed_lengths(lengths: np.ndarray, mine: np.ndarray, mix: Mix) -> np.ndarray:
    """Samples of each row, int64: of two clips the shorter's."""
    return np.minimum(lengths[mine], lengths[mix.partners]).astype(np.int64)


def _of(
    augmentations: Mapping[str, Augmentation], changes: Mapping[str, Change], what: str
) -> tuple[Change, ...]:
    """The changes of the waveforms or of the fbank, in the order of the augmentations."""
    return tuple(changes[name] for name, each in augmentations.items() if each.on == what and name in changes)


def augmented_waveforms(batch: Batch, device: torch.device) -> Tensor:
    """The batch's waveforms on the device, mixed and changed, `(rows, samples)` float32."""
    clips = to_waveforms(batch.samples, device)
    weights = batch.weights.to(device)
    own, partners = clips[batch.rows.to(device)], clips[batch.partners.to(device)]
    index = torch.arange(clips.shape[1], device=device)
    waveforms = torch.lerp(partners, own, weights[:, None]) * (index < batch.lengths.to(device)[:, None])
    for change in batch.of_waveforms:
        waveforms = change(waveforms)
    return waveforms


def augmented_fbank(batch: Batch, tagger: Tagger, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The batch on the device, augmented: fbank `(rows, frames, 128)` and its padding `(rows, tokens)` or
    None.
    """
    waveforms = augmented_waveforms(batch, device)
    fbank = tagger.fbank(waveforms)
    for change in batch.of_fbank:
        fbank = change(fbank)
    return fbank, tagger.is_padding(batch.lengths.to(device), waveforms.shape[1])
