"""What libsndfile reads, opened as a `samples.Source`: WAV, FLAC, Ogg, MP3, AIFF and their kin.

In: a file, bytes or a seekable stream. Out: a source of frames, for `media`. The file is asked what it is
before it is opened, so that a pipe or a device never waits. Imports no torch.
"""

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import soundfile

from beatline.audio.samples import (
    BLOCK,
    Decoded,
    Source,
    Stretch,
    Unusable,
    collect,
    mean_of,
    refusals_about,
)
from beatline.audio.signatures import HEAD, looks_like
from beatline.core.limits import LIMITS

DECODER = f"libsndfile {soundfile.__libsndfile_version__}"


def decode(
    source: Path | bytes | BinaryIO,
    start: float = 0.0,
    end: float | None = None,
    max_seconds: float = LIMITS.max_clip_seconds,
) -> Decoded:
    """The stretch from `start` to `end` as 16 kHz mono int16.

    A file that breaks off in the middle gives what decodes before the break, with a note. So does a recording
    that ends before `end`.

    Args:
        source: A file (never a pipe or a device), its bytes, or a seekable binary stream. The name's
            extension means nothing.
        start: Seconds, exact to a sample of the source.
        end: Seconds; None is the end of the recording.
        max_seconds: Longest stretch accepted.

    Raises:
        UserError: `missing-file`, `not-a-file`, `empty-file`, `not-audio`, `broken-audio`, `not-finite`,
            `too-many-channels`, `bad-sample-rate`, `too-short` (nothing there after `start`), `too-long`.
    """
    with refusals_about(str(source) if isinstance(source, Path) else "audio"), opened(source) as file:
        return collect(Stretch(file, start, end, max_seconds))


@contextmanager
def opened(source: Path | bytes | BinaryIO) -> Iterator[Source]:
    """The recording opened by libsndfile.

    Raises:
        Unusable: `missing-file`, `not-a-file`, `empty-file`, `not-audio`, `broken-audio`.
    """
    if isinstance(source, Path):
        with (
            open_regular(source) as file,
            _sound_file(file.fileno(), os.pread(file.fileno(), HEAD, 0)) as sound,
        ):
            yield sound
        return
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    stream.seek(0)  # a stream just written stands at its end
    first = stream.read(HEAD)
    stream.seek(0)
    if not first:
        raise Unusable("empty-file", "it has no bytes")
    # without the stream's name, from which soundfile would guess a headerless form
    with _sound_file(SimpleNamespace(read=stream.read, seek=stream.seek, tell=stream.tell), first) as sound:
        yield sound


def open_regular(path: Path) -> BinaryIO:
    """The file opened for reading. Asks first what the file is: opening a pipe waits, and opening a device
    may do anything.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            if stat.S_ISDIR(facts.st_mode):
                os.scandir(path).close()  # raises for a folder that cannot be read
            kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a pipe, a socket or a device"
            raise Unusable("not-a-file", f"it is {kind}, not a file", "give an audio file")
        if facts.st_size == 0:
            raise Unusable("empty-file", "it has no bytes")
        return open(path, "rb", opener=_open_without_waiting)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unusable("missing-file", cause, "check the path and its permissions") from error


class _Sequential(soundfile.SoundFile):
    """A file read from front to back. After each read soundfile seeks in a seekable file, and MP3 decoding is
    not the same after a jump.
    """

    def seekable(self) -> bool:
        return False


@contextmanager
def _sound_file(file: Any, first: bytes) -> Iterator[Source]:
    """libsndfile's view of a file descriptor or stream that begins with `first`."""
    try:
        sound = _Sequential(file, closefd=False)
    except (soundfile.LibsndfileError, OSError) as error:
        # not libsndfile's own words: they may depend on what other threads are reading
        form, readable = looks_like(first)
        if readable:
            raise Unusable("broken-audio", f"it looks like {form}, but its header cannot be read") from error
        raise Unusable(
            "not-audio",
            f"it looks like {form}, which cannot be read",
            "convert it to WAV or FLAC, or leave it out",
        ) from error
    with sound:
        yield _SoundFile(sound)


def _open_without_waiting(path: str, flags: int) -> int:
    """`os.open`, refusing what has replaced the file since it was asked."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no longer a file")
    return descriptor


class _SoundFile:
    """A `Source` read by libsndfile."""

    def __init__(self, file: soundfile.SoundFile):
        self._file = file
        self.rate = file.samplerate
        self.channels = file.channels

    def skip(self, frames: int) -> None:
        run_up = (
            min(frames, self.rate) if self._file.format == "MP3" else 0
        )  # its first frames after a jump lack what earlier frames left for them
        try:
            self._file.seek(frames - run_up)
            self._file.read(run_up, dtype="float32")
        except soundfile.LibsndfileError as error:
            raise OSError(str(error)) from error

    def broken_promise(self, frames: int) -> str:
        # libsndfile corrects the length itself and says so in its log
        corrected = re.search(r"(?:data|SSND) *: (\d+) \(should be (\d+)\)", self._file.extra_info)
        if corrected:
            return f"the header promises {corrected[1]} bytes of audio, {corrected[2]} are there"
        unknown = 2**63 - 1  # what libsndfile says of a FLAC stream without a length
        return (
            f"the header promises {self._file.frames} frames, {frames} are there"
            if frames < self._file.frames < unknown
            else ""
        )

    def blocks(self, most: float) -> Iterator[tuple[np.ndarray, str]]:
        block = np.empty((BLOCK, self.channels), np.float32)
        while most > 0:
            part = block[: int(min(BLOCK, most))]
            part.fill(np.nan)
            trouble = ""
            try:
                count = len(self._file.read(out=part))
            except (soundfile.LibsndfileError, OSError) as error:
                # the error hides how many frames came before it: those up to the first that was not written
                unwritten = np.isnan(part).all(axis=1)
                count = int(unwritten.argmax()) if unwritten.any() else len(part)
                trouble = getattr(error, "error_string", str(error)).removeprefix("Error : ").rstrip(".")
            yield mean_of(list(part[:count].T)), trouble
            most -= count
            if trouble or count == 0:
                return
