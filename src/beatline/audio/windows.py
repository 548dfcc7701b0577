"""waveform -> windows: how a recording of any length becomes clips that a tagger scores, and their scores
become the recording's.

In: blocks of 16 kHz samples. Out: windows of at most a few seconds, overlapping; then a row of scores.
Scoring is left to `model/engines`. Imports no torch.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

Merge = Literal["mean", "max", "attention"]


def cut(
    blocks: Iterable[np.ndarray], window: int, hop: int, grid: int = 1
) -> Iterator[tuple[int, np.ndarray]]:
    """The windows of a recording as `(first sample, samples)`, holding about one window and one block.

    A recording of at most one window is one window. Of a longer recording every window is full. Windows begin
    every `hop` samples, and the last window ends with the recording.

    Args:
        blocks: The recording's samples in order, int16.
        window: Samples of a window, at least 1.
        hop: Samples from a window's begin to the next, 1 to `window`.
        grid: What the last window's begin is a multiple of; it is shorter by less than that.
    """
    held = np.empty(0, np.int16)
    begin = 0
    end = 0
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) - (begin - end) > window:  # more follows, so this window is surely not the last
            offset = begin - end
            yield begin, held[offset : offset + window]
            begin += hop
            keep = max(0, min(begin - end, len(held) - window))
            held, end = held[keep:], end + keep
    total = end + len(held)
    if total:
        begin = max(0, -(-(total - window) // grid) * grid)
        yield begin, held[begin - end :]


def merge(scores: np.ndarray, how: Merge) -> np.ndarray:
    """A recording's scores `(labels,)` from those of its windows `(windows, labels)`.

    `mean`; `max`; `attention`: a mean whose weights are the scores themselves, so that a label counts where
    it is heard.
    Source: the linear softmax pooling of Wang, Li and Metze, arXiv 1810.09050.
    """
    if how == "attention":
        return (scores * scores).sum(axis=0) / np.maximum(scores.sum(axis=0), np.finfo(np.float32).tiny)
    return scores.mean(axis=0) if how == "mean" else scores.max(axis=0)
