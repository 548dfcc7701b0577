"""which recordings are those of clips that must not be learned, or nearly so.

In: the prints of recordings (`sound.print_of`). Out: the recordings to leave out. A short sound is compared
over its sounding frames alone: padding would make all short sounds alike.
"""

from collections.abc import Iterator

import numpy as np

ALIKE = 0.93
"""Correlation of log spectra from which two recordings count as one."""


def sounding_frames(prints: np.ndarray) -> np.ndarray:
    """How many of its 62 frames a recording sounds; what follows is padding, equal to the last frame."""
    floor = np.abs(prints - prints[:, -1:]).max(2) < 2e-3
    return np.array(
        [62 - int(np.argmin(frames[::-1])) if frames[-2] else 62 for frames in floor], dtype=np.int64
    )


def alike(prints: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The best correlation of each recording with any of the wanted, `(recordings,)`.

    Args:
        prints: `(recordings, 62, 28)`.
        wanted: Indices.
    """
    best = np.zeros(len(prints), np.float32)
    for own in correlations(prints, wanted):
        best = np.maximum(best, own)
    return best


def correlations(prints: np.ndarray, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """For each of the wanted its correlation with all, `(recordings,)`; 0 where lengths differ."""
    prints = prints.astype(np.float32)
    frames = sounding_frames(prints)
    for index in wanted:
        best = np.zeros(len(prints), np.float32)
        count = max(4, int(frames[index]))
        slack = 2 if count > 8 else 0
        reference = _normal(prints[None, index, slack : count - slack or None])[0]
        near = np.flatnonzero(np.abs(frames - count) <= max(2, 0.12 * count))
        width = count - 2 * slack
        for shift in range(-slack, slack + 1):
            part = prints[near, slack + shift : slack + shift + width]
            if part.shape[1] == width:
                best[near] = np.maximum(best[near], _normal(part) @ reference)
        yield best


def _normal(parts: np.ndarray) -> np.ndarray:
    centred = parts - parts.mean(1, keepdims=True)
    flat = centred.reshape(len(parts), -1)
    return flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-9)
