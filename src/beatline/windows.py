"""waveform -> windows: how a recording of any length becomes clips that a tagger scores, and their scores become the recording's.

In: blocks of 16 kHz samples. Out: windows of at most a few seconds, overlapping; then one row of scores. Scoring is left to `engine`.
Imports no torch.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

MIN_SAMPLES = 3200  # the recipe repeats shorter clips until they are at least this long

Merge = Literal["mean", "max"]


def tile_short(samples: np.ndarray) -> np.ndarray:
    """A clip shorter than `MIN_SAMPLES` repeated until it is not; any other as it is."""
    if len(samples) >= MIN_SAMPLES:
        return samples
    return np.tile(samples, -(-MIN_SAMPLES // max(len(samples), 1)))


def tiled_length(lengths: np.ndarray) -> np.ndarray:
    """What `tile_short` makes of lengths in samples."""
    return np.where(lengths >= MIN_SAMPLES, lengths, lengths * -(-MIN_SAMPLES // np.maximum(lengths, 1)))


def cut(blocks: Iterable[np.ndarray], window: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    """The windows of a recording as `(first sample, samples)`, holding about one window and one block.

    A recording of at most one window is one window. Of a longer one every window is full: they begin every `hop` samples, and the last one
    ends with the recording.

    Args:
        blocks: The recording's samples in order, int16.
        window: Samples of a window, at least 1.
        hop: Samples from one window's begin to the next, 1 to `window`.
    """
    held, begin, end = np.empty(0, np.int16), 0, 0
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) - (begin - end) > window:  # more follows, so this one is surely not the last
            place = begin - end
            yield begin, held[place : place + window]
            begin += hop
            keep = max(0, min(begin - end, len(held) - window))
            held, end = held[keep:], end + keep
    total = end + len(held)
    if total:
        begin = max(0, total - window)
        yield begin, held[begin - end :]


def merge(scores: np.ndarray, how: Merge) -> np.ndarray:
    """A recording's scores `(labels,)` from those of its windows `(windows, labels)`."""
    return scores.mean(axis=0) if how == "mean" else scores.max(axis=0)
