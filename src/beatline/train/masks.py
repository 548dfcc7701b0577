"""Ranges of a fbank's frames or mels that are set to zero."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Fractions = tuple[float, float]
"""Width and begin of a mask, each a fraction [0, 1) of what it may be."""


def draw(rng: np.random.Generator, count: int) -> list[Fractions]:
    """The draws of a row's masks."""
    return [(rng.random(), rng.random()) for _ in range(count)]


def ranges(draws: Sequence[Fractions], size: int, longest: int) -> list[tuple[int, int]]:
    """The masks' begins and ends: a width of 0 to `longest`, then a begin from which it fits into `size`."""
    found = []
    for width_fraction, begin_fraction in draws:
        width = int(width_fraction * (longest + 1))
        begin = int(begin_fraction * max(1, size - width))
        found.append((begin, begin + width))
    return found


def within(rows: Sequence[Sequence[tuple[int, int]]], size: int) -> Tensor:
    """Which of `size` indices each row's ranges take, `(rows, size)` bool."""
    taken = np.zeros((len(rows), size), bool)
    for row, ranges_of_row in zip(taken, rows, strict=True):
        for begin, end in ranges_of_row:
            row[begin:end] = True
    return torch.from_numpy(taken)
