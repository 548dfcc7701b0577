"""any sound -> 16 kHz mono int16: the only way to decode, whatever the sound comes in.

In: a file, bytes, a stream, a pipe, or samples with their rate. Out: `samples.Decoded`, or blocks of a
recording of any length. libsndfile is asked first (`decoders.sndfile`), FFmpeg where libsndfile refuses
(`decoders.ffmpeg`). Mean of channels, resampler and rounding are the same for both. What strangers send
belongs into child processes: `pool`. Imports no torch.
"""

import io
import math
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from beatline.audio import stream as pcm
from beatline.audio.decoders import ffmpeg, sndfile
from beatline.audio.samples import (
    SAMPLE_RATE,
    Decoded,
    Samples,
    Source,
    Stretch,
    Unusable,
    collect,
    refusals_about,
)
from beatline.core.artefact import disk_errors
from beatline.core.errors import UserError
from beatline.core.limits import LIMITS

Audio = Path | bytes | BinaryIO | tuple[np.ndarray, int]
"""A file, its bytes, a binary stream, or samples with their rate (as `samples.Samples`). A file is never a
pipe or a device; a stream may be a pipe.
"""


def decode(
    source: Audio, start: float = 0.0, end: float | None = None, max_seconds: float = LIMITS.max_clip_seconds
) -> Decoded:
    """The stretch from `start` to `end` as 16 kHz mono int16.

    Of a container with several sound tracks the track that players choose is taken. Time counts from the
    track's first sample.

    Args:
        source: See `Audio`. A name's extension means nothing. A pipe's PCM WAV is taken as it comes; anything
            else goes into a temporary file first.
        start: Seconds, exact to a sample of the source; where FFmpeg decodes, so is everything before it.
        end: Seconds; None is the end of the recording.
        max_seconds: Longest stretch accepted.

    Raises:
        UserError: as `sndfile.decode`; `decoder-memory`; `too-large` (more than `limits.max_spooled_bytes`
            from a pipe that is no PCM WAV).
    """
    with _opened(source) as sound:
        return collect(Stretch(sound, start, end, max_seconds))


def blocks(
    source: Audio, seconds: float, start: float = 0.0, end: float | None = None
) -> Generator[np.ndarray, None, str]:
    """A recording of any length in blocks of `seconds`, `(samples,)` int16 at 16 kHz, the last block
    shorter. Joined, the blocks are `decode`'s samples.

    Holds little more than one block at a time. The generator's return value is the note of `Decoded`.

    Raises:
        UserError: as `decode`, but never `too-long`; also after the first blocks.
    """
    with _opened(source) as sound:
        stretch = Stretch(sound, start, end, math.inf)
        yield from _regrouped(stretch, max(1, round(seconds * SAMPLE_RATE)))
        return stretch.note


def _regrouped(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in pieces of `size`, the last piece shorter."""
    held: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        while count + len(piece) >= size:
            yield np.concatenate([*held, piece[: size - count]])
            piece = piece[size - count :]
            held = []
            count = 0
        held.append(piece)
        count += len(piece)
    if count:
        yield np.concatenate(held)


@contextmanager
def spooled(stream: BinaryIO | pcm.Bytes) -> Iterator[BinaryIO]:
    """A temporary file with everything that comes out of a pipe, at its `name` until the block ends.

    Raises:
        UserError: `too-large`, `disk-full`, `not-writable`.
    """
    with disk_errors(Path(tempfile.gettempdir())), tempfile.NamedTemporaryFile(prefix="beatline-") as file:
        size = 0
        while part := stream.read(1 << 20):
            size += len(part)
            if size > LIMITS.max_spooled_bytes:
                raise UserError(
                    "too-large",
                    "cannot use the stream",
                    f"it is longer than {LIMITS.max_spooled_bytes} bytes",
                    "save it to a file and name that",
                )
            file.write(part)
        file.flush()
        file.seek(0)
        yield cast(BinaryIO, file)


@contextmanager
def _opened(source: Audio) -> Iterator[Source]:
    """The recording opened by libsndfile, or else by FFmpeg."""
    with refusals_about(str(source) if isinstance(source, Path) else "audio"), ExitStack() as stack:
        if isinstance(source, tuple):
            yield Samples(*source)
            return
        if not isinstance(source, Path | bytes) and not getattr(source, "seekable", bool)():
            piped = pcm.Bytes(source.read)
            if (plain := pcm.wav(piped)) is not None:
                yield plain
                return
            source = stack.enter_context(spooled(piped))
        try:
            sound = stack.enter_context(sndfile.opened(source))
        except Unusable as refused:
            if refused.code not in ("not-audio", "broken-audio"):
                raise
            if isinstance(source, Path):
                source = stack.enter_context(sndfile.open_regular(source))
            sound = stack.enter_context(
                ffmpeg.opened(io.BytesIO(source) if isinstance(source, bytes) else source, refused)
            )
        yield sound
