"""What an augmentation is, and what it may draw.

An augmentation turns draws into a change of a batch. A thread makes the draws where the batch is read. The
device makes the change where the batch is trained on. Every draw is a pure function of (seed, epoch, clip) or
(seed, epoch, batch) and of the augmentation's name. So no worker, device, resume or other augmentation can
change a draw.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from beatline.config import AugmentConfig

Change = Callable[[Tensor], Tensor]
"""Waveforms `(rows, samples)` or fbanks `(rows, frames, 128)`, float32, to the same, on any device. What is
zero after a clip's end stays zero in a waveform.
"""


def generator(*key: object) -> np.random.Generator:
    """A random generator that is a function of `key` alone: NumPy's counter-based Philox."""
    digest = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


@dataclass(frozen=True)
class Rows:
    """The rows of a microstep, as an augmentation sees them."""

    of_clip: list[np.random.Generator]
    """For each row a generator: a function of (seed, epoch, clip, the augmentation's name)."""
    of_batch: np.random.Generator
    """A generator that all rows of the step share: a function of (seed, epoch, batch, that name)."""
    positions: np.ndarray
    """Position of each row in the step, `(rows,)`; the other positions belong to other microsteps."""
    clips: int
    """Clips of the whole step."""
    lengths: np.ndarray
    """Samples of each row, `(rows,)`."""
    frames: int
    """Frames of each row's fbank, padding included."""


class Augmentation:
    """What training does to a batch; each is a file of `train/augment`.

    Args:
        settings: All settings of augmentations; those of an augmentation without fields there are in
            `settings.more`, by its name.
    """

    on: ClassVar[Literal["clips", "waveforms", "fbank"]]
    """What is changed. `clips` are mixed with each other before anything else, see `Mixing`."""

    def __init__(self, settings: AugmentConfig):
        self.settings = settings

    def change(self, rows: Rows) -> Change | None:
        """Draws for these rows, and returns what is to be done to the rows; None is nothing."""
        raise NotImplementedError


@dataclass(frozen=True)
class Mix:
    """Which clips are mixed; a row is its weight times itself plus the rest times its partner."""

    partners: np.ndarray
    """Position in the step of each row's partner, `(rows,)`; the row's own where nothing is mixed."""
    weights: np.ndarray
    """Share of the row itself, `(rows,)`, 0 to 1."""


class Mixing(Augmentation):
    """An augmentation that mixes clips and their targets; a list has a single such name at most."""

    on = "clips"

    def mix(self, rows: Rows) -> Mix:
        """Draws who is mixed with whom."""
        raise NotImplementedError
