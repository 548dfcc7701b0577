"""How sound becomes tokens: samples -> frames -> patches -> time steps. The sizes stand here.

A frame covers 25 ms and begins every 10 ms. A patch is a square of 16 frames and 16 mels;
`config.EncoderConfig` refuses another size. A time step is a column of patches: 8 tokens that cover 0.16 s.
Imports no torch.
"""

from typing import TypeVar

import numpy as np

SAMPLE_RATE = 16_000
"""Samples a second, Hz."""
FRAME_SAMPLES = 400
"""Samples that a frame of the filter bank covers: 25 ms."""
FRAME_HOP = 160
"""Samples between the begins of neighbouring frames: 10 ms."""
MELS = 128
"""Mel bins of a frame."""
PATCH = 16
"""Side of a patch, in frames and in mels."""
TOKENS_OF_A_STEP = MELS // PATCH
"""Tokens of a time step, of rising frequency."""
STEP_SAMPLES = PATCH * FRAME_HOP
"""Samples between the begins of neighbouring time steps."""
STEP_SECONDS = STEP_SAMPLES / SAMPLE_RATE
"""`STEP_SAMPLES` in seconds."""
MIN_SAMPLES = 3200
"""The recipe repeats shorter clips until they are at least this long."""

Length = TypeVar("Length", int, np.ndarray)


def frame_count(samples: Length) -> Length:
    """Frames of a clip, 0 or more; only whole frames count (Kaldi's `snip_edges`)."""
    frames = 1 + (samples - FRAME_SAMPLES) // FRAME_HOP
    return np.maximum(0, frames) if isinstance(frames, np.ndarray) else max(0, frames)


def step_count(samples: Length) -> Length:
    """Time steps of a clip of at least `MIN_SAMPLES` samples; only whole steps count."""
    return frame_count(samples) // PATCH


def tile_short(samples: np.ndarray) -> np.ndarray:
    """The clip, repeated until it has `MIN_SAMPLES` or more.

    Args:
        samples: `(samples,)` of any dtype, not empty.
    """
    if len(samples) >= MIN_SAMPLES:
        return samples
    return np.tile(samples, -(-MIN_SAMPLES // max(len(samples), 1)))


def tiled_length(lengths: np.ndarray) -> np.ndarray:
    """What `tile_short` makes of lengths in samples."""
    return np.where(lengths >= MIN_SAMPLES, lengths, lengths * -(-MIN_SAMPLES // np.maximum(lengths, 1)))
