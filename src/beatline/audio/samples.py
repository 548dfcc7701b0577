"""an opened recording -> 16 kHz mono int16: the canonical audio of beatline, whoever decoded it.

In: a `Source`, opened by a module of `decoders` or in memory already (`Samples`), and the stretch wanted.
Out: `Decoded`, whose samples over 32 768 are the waveform. A file tagged directly and the same clip read
from a store give the same bits. Read in blocks, mean of the channels, resampled as a stream, rounded. Memory
follows the result, never what a header promises. Imports no torch.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
import soxr

from beatline.core.errors import UserError
from beatline.core.limits import LIMITS

SAMPLE_RATE = 16_000
FULL_SCALE = 32_768
FULL_SCALES = {"int16": (0, FULL_SCALE), "int32": (0, 1 << 31), "uint8": (128, 128)}
"""Silence and full scale of integers in WAV files, by their NumPy types; 24 bits come as int32."""
RESAMPLER = f"soxr {soxr.__version__} HQ, float32"
BLOCK = 1 << 16  # frames of the source
LOUDEST = 1e6  # full scale is 1; beyond this a float file holds garbage, and the resampler could overflow

REMEDY = "replace the file or leave it out"


@dataclass(frozen=True)
class Decoded:
    """A clip's audio and what it was before."""

    samples: np.ndarray
    """16 kHz mono, `(samples,)` int16, not empty."""
    rate_in: int
    """Sample rate of the source, Hz."""
    channels_in: int
    """Channels of the source."""
    seconds_in: float
    """Length of the stretch that was decoded, at the source's rate, seconds."""
    note: str = ""
    """What a careful reader should know, e.g. that the file is cut short; empty for most."""


def to_waveform(samples: np.ndarray) -> np.ndarray:
    """int16 samples as float32 in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(FULL_SCALE)


class Unusable(Exception):
    """A `UserError` that does not know the file's name yet."""

    def __init__(self, code: str, cause: str, remedy: str = REMEDY):
        super().__init__(cause)
        self.code, self.cause, self.remedy = code, cause, remedy


@contextmanager
def refusals_about(name: str) -> Iterator[None]:
    """Turns what is refused inside into a `UserError` that names the file."""
    try:
        yield
    except Unusable as refused:
        raise UserError(
            refused.code, f"cannot use {name}", refused.cause, refused.remedy
        ) from refused.__cause__


class Source(Protocol):
    """A recording opened by a decoder; its frames are read once, in order."""

    rate: int
    """Frames a second."""
    channels: int
    """Channels of a frame."""

    def skip(self, frames: int) -> None:
        """Lets the first block begin this many frames into the recording.

        Raises:
            OSError: Nothing can be read there.
        """

    def blocks(self, most: float) -> Iterator[tuple[np.ndarray, str]]:
        """Blocks of the channels' mean, float32, up to `most` frames; the last block comes with the
        decoder's trouble, if any.
        """

    def broken_promise(self, frames: int) -> str:
        """A note where the header promised more than these frames, which were all there is; else empty."""


def check_form(rate: int, channels: int) -> None:
    """Raises `Unusable` (`bad-sample-rate`, `too-many-channels`) for sound of a form that is not read."""
    if not LIMITS.min_sample_rate <= rate <= LIMITS.max_sample_rate:
        raise Unusable(
            "bad-sample-rate",
            f"{rate} Hz is not between {LIMITS.min_sample_rate} and {LIMITS.max_sample_rate}",
        )
    if channels > LIMITS.max_channels:
        raise Unusable("too-many-channels", f"{channels} channels, at most {LIMITS.max_channels} are read")


class Stretch:
    """The samples of a source from `start` to `end`, 16 kHz int16, piece by piece; it can be iterated once.

    Raises:
        Unusable: as `decode`; while iterating too.
    """

    frames = 0
    """Frames of the source behind the pieces so far."""
    note = ""
    """As `Decoded.note`; final after the last piece."""

    def __init__(self, source: Source, start: float, end: float | None, max_seconds: float):
        rate = source.rate
        check_form(rate, source.channels)
        self.source = source
        self._start = start
        self._begin = round(start * rate)
        self._max_seconds = max_seconds
        self._wanted = math.inf if end is None else round(end * rate) - self._begin
        if self._begin:
            try:
                source.skip(self._begin)
            except (OSError, OverflowError) as error:
                raise Unusable(
                    "too-short",
                    f"nothing can be read at its start, {start:g} s into the recording",
                    "correct the clip's start or leave it out",
                ) from error

    def __iter__(self) -> Iterator[np.ndarray]:
        rate = self.source.rate
        count = 0
        longest = math.inf if self._max_seconds == math.inf else round(self._max_seconds * rate)
        resampler = Resampler(rate)
        for mono, trouble in self.source.blocks(min(self._wanted, longest + 1)):
            self.frames += len(mono)
            piece = resampler.push(mono)
            count += len(piece)
            yield piece
            if trouble:
                self.note = f"decoding stopped after {self.frames / rate:.3f} s ({trouble})"
        if self.frames > longest:
            raise Unusable(
                "too-long", f"it is longer than {self._max_seconds:g} s", "cut it into shorter clips"
            )
        if self.frames == 0:
            raise self._nothing_there()
        piece = resampler.finish()
        if count + len(piece) == 0:
            raise Unusable(
                "too-short", f"{self.frames} frames at {rate} Hz are less than one sample at {SAMPLE_RATE} Hz"
            )
        yield piece
        if not self.note and self.frames < self._wanted < math.inf:
            self.note = f"ends {(self._wanted - self.frames) / rate:.3f} s before the clip's end"
        if not self.note and self._wanted == math.inf:
            self.note = self.source.broken_promise(self._begin + self.frames)

    def _nothing_there(self) -> Unusable:
        if self.note:
            return Unusable("broken-audio", f"nothing in it can be decoded ({self.note.split('(', 1)[1]}")
        if self._begin:
            return Unusable(
                "too-short",
                f"the recording ends before the clip's start at {self._start:g} s",
                "correct the clip's start or leave it out",
            )
        return Unusable("empty-file", "it has a header and no samples")


def collect(stretch: Stretch) -> Decoded:
    """The whole stretch in one piece.

    Raises:
        Unusable: as `Stretch`.
    """
    samples = np.concatenate(list(stretch))
    return Decoded(
        samples,
        stretch.source.rate,
        stretch.source.channels,
        stretch.frames / stretch.source.rate,
        stretch.note,
    )


def mean_of(channels: Sequence[np.ndarray]) -> np.ndarray:
    """The channels' mean, float32, of float32 channels.

    Raises:
        Unusable: `not-finite`.
    """
    with np.errstate(all="ignore"):
        mono = reduce(np.add, channels) / np.float32(len(channels))
        if not (np.abs(mono) <= LOUDEST).all():  # also False for NaN
            raise Unusable("not-finite", "it has samples that are NaN, infinite or absurdly large")
    return mono


def channels_of(samples: np.ndarray) -> list[np.ndarray]:
    """Each channel, float32 in [-1, 1], of `(samples, channels)` floats, or integers of a type of
    `FULL_SCALES`.
    """
    middle, full = FULL_SCALES.get(samples.dtype.name, (0, 1))
    return list(((samples.astype(np.float32) - np.float32(middle)) / np.float32(full)).T)


class Samples:
    """A `Source` that is in memory already.

    Args:
        samples: `(samples,)` or `(samples, channels)`; floats in [-1, 1], or integers of a type of
            `FULL_SCALES`.
        rate: Samples a second.

    Raises:
        Unusable: `not-audio` for another shape or type, `empty-file`.
    """

    def __init__(self, samples: np.ndarray, rate: int):
        if samples.ndim not in (1, 2) or not (
            samples.dtype.name in FULL_SCALES or np.issubdtype(samples.dtype, np.floating)
        ):
            raise Unusable(
                "not-audio",
                f"an array of {samples.dtype} with shape {samples.shape}",
                "give floats in [-1, 1], int16, int32 or uint8, (samples,) or (samples, channels)",
            )
        if not samples.size:
            raise Unusable("empty-file", "it has no samples")
        if samples.ndim == 2 and samples.shape[0] <= LIMITS.max_channels < samples.shape[1]:
            raise Unusable(
                "too-many-channels",
                f"an array of {samples.shape[1]} channels of {samples.shape[0]} samples",
                "give (samples, channels), as array.T",
            )
        self._samples = samples[:, None] if samples.ndim == 1 else samples
        self.rate, self.channels = rate, self._samples.shape[1]

    def skip(self, frames: int) -> None:
        self._samples = self._samples[frames:]

    def broken_promise(self, frames: int) -> str:
        return ""

    def blocks(self, most: float) -> Iterator[tuple[np.ndarray, str]]:
        for begin in range(0, int(min(most, len(self._samples))), BLOCK):
            part = self._samples[begin : int(min(begin + BLOCK, most))]
            yield mean_of(channels_of(part)), ""


class Resampler:
    """float32 at any rate in, int16 at 16 kHz out. The result does not depend on how the input was cut into
    blocks.
    """

    def __init__(self, rate: int):
        self._stream = (
            None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, "float32", "HQ")
        )

    def push(self, mono: np.ndarray, last: bool = False) -> np.ndarray:
        """The next samples that are certain by now; all of them with the last block."""
        resampled = mono if self._stream is None else self._stream.resample_chunk(mono, last)
        return np.rint(resampled * np.float32(FULL_SCALE)).clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)

    def finish(self) -> np.ndarray:
        """The rest."""
        return self.push(np.empty(0, np.float32), last=True)
