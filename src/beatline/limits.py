"""Bounds on what beatline accepts from outside, in one place.

Outside the straight line: `audio`, `media` and `manifest` ask here before they allocate anything.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one input may cost; the defaults suit labelled clips of some seconds."""

    max_clip_seconds: float = 600.0
    """Longest stretch decoded into one clip, seconds; memory is bounded by it (64 kB a second and channel)."""
    max_channels: int = 64
    """Most channels of an input file."""
    min_sample_rate: int = 1000
    """Lowest sample rate of an input file, Hz."""
    max_sample_rate: int = 768_000
    """Highest sample rate of an input file, Hz."""
    max_spooled_bytes: int = 1 << 30
    """Most bytes taken from a pipe, which are copied to a temporary file."""
    max_decode_wait: float = 60.0
    """Longest wait for one decoding in a child process, seconds; then the child is killed."""
    max_decoder_bytes: int = 192 << 20
    """Memory that decoding a small file in a child process may take, bytes; a large one may take its size more, up to four times this (enforced on Linux)."""
    max_member_bytes: int = 128 << 20
    """Largest audio file read out of an archive, bytes."""
    max_row_group_bytes: int = 1 << 30
    """Largest group of Parquet rows whose audio is read, bytes; one is held in memory, because Parquet gives no smaller piece."""
    max_table_bytes: int = 1 << 30
    """Largest CSV or text table read, bytes."""
    max_checkpoint_bytes: int = 16 << 30
    """Largest checkpoint file read, bytes."""


LIMITS = Limits()
