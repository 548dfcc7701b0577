"""audio file -> waveform: decoding, mixing down and resampling, within bounds.

In: a file, bytes or a file object. Out: 16 kHz mono int16 samples, beatline's canonical waveform (a waveform is these over 32 768), so that a clip
gives the same bits from its file and from the store. Nothing is allocated by a header's word: blocks are read until the data ends.
"""

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from beatline.errors import UserError
from beatline.fbank import SAMPLE_RATE
from beatline.limits import LIMITS

BLOCK_SECONDS = 10
RESAMPLER = "soxr HQ; channels averaged before; rounded to int16"


@dataclass(frozen=True)
class Decoded:
    """A decoded clip: `samples` int16 mono at 16 kHz, and what its file was like."""

    samples: np.ndarray
    rate: int
    """The file's sample rate, Hz."""
    channels: int
    """The file's channels."""


def _open(source: Path | bytes) -> tuple[io.BufferedIOBase, str]:
    """The source as a seekable binary stream, and its name for messages.

    Raises:
        UserError: `missing-file`, `not-a-file`, `empty-file`.
    """
    if isinstance(source, bytes):
        if not source:
            raise UserError("empty-file", "audio", "it has no bytes", "give it again")
        return io.BytesIO(source), "audio"
    try:
        facts = os.stat(source)
        if not stat.S_ISREG(facts.st_mode):
            raise UserError("not-a-file", f"cannot decode {source}", "it is a folder, pipe or device", "give a regular file")
        if facts.st_size == 0:
            raise UserError("empty-file", f"cannot decode {source}", "it has no bytes", "copy or download it again")
        return open(source, "rb"), str(source)
    except OSError as error:
        raise UserError("missing-file", f"cannot decode {source}", os.strerror(error.errno or 0), "check the path and its permissions") from error


def _looks_like(stream: io.BufferedIOBase) -> str:
    """What the first bytes of something undecodable resemble."""
    stream.seek(0)
    head = stream.read(64).lstrip()
    known = {b"<": "HTML or XML", b"#EXTM3U": "a playlist", b"%PDF": "a PDF", b"PK": "a zip archive", b"\x1f\x8b": "a gzip archive", b"\x1aE\xdf\xa3": "a WebM or Matroska file"}
    for start, name in known.items():
        if head.startswith(start):
            return f"it looks like {name}"
    if head[4:8] == b"ftyp":
        return "it looks like an MP4 or M4A file"
    return "its content is no audio format that libsndfile knows"


def decode(source: Path | bytes, start: float = 0.0, end: float | None = None, max_seconds: float = LIMITS.max_clip_seconds) -> Decoded:
    """A clip of a recording as 16 kHz mono int16.

    The format is told by content, not by name. Channels are averaged, then resampled by soxr HQ. A file that ends before its header says is
    accepted as far as it goes.

    Args:
        source: A path, or the file's bytes.
        start: Begin of the clip, seconds.
        end: End of the clip, seconds; None is the end of the recording.
        max_seconds: Longest clip decoded.

    Raises:
        UserError: `missing-file`, `not-a-file`, `empty-file`, `not-audio`, `broken-audio`, `not-finite`, `too-short`, `too-long`,
            `too-many-channels`, `bad-sample-rate`.
    """
    stream, name = _open(source)

    def refuse(code: str, cause: str, remedy: str) -> UserError:
        return UserError(code, f"cannot decode {name}", cause, remedy)

    with stream:
        try:
            file = soundfile.SoundFile(stream)
        except (soundfile.LibsndfileError, TypeError, ValueError) as error:
            raise refuse("not-audio", _looks_like(stream), "convert it to FLAC or WAV") from error
        with file:
            rate, channels = file.samplerate, file.channels
            if not 1 <= channels <= LIMITS.max_channels:
                raise refuse("too-many-channels", f"{channels} channels, at most {LIMITS.max_channels} are read", "mix it down")
            if not LIMITS.min_sample_rate <= rate <= LIMITS.max_sample_rate:
                raise refuse("bad-sample-rate", f"{rate} Hz is not between {LIMITS.min_sample_rate} and {LIMITS.max_sample_rate}", "resample it")
            try:
                mono = _read_mono(file, round(start * rate), None if end is None else round(end * rate), round(max_seconds * rate))
            except soundfile.LibsndfileError as error:
                raise refuse("broken-audio", f"the decoder stopped: {error.error_string}", "copy or download it again") from error
            except _TooLong as error:
                raise refuse("too-long", f"longer than {max_seconds:g} s", "cut it, or raise the limit") from error
    if len(mono) == 0:
        if start > 0:
            raise refuse("too-short", f"it ends before the clip begins at {start:g} s", "check the clip's times")
        raise refuse("broken-audio", "no sample could be decoded", "copy or download it again")
    if not np.isfinite(mono).all():
        raise refuse("not-finite", "samples are NaN or infinite", "repair or drop it")
    resampled = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
    if len(resampled) == 0:
        raise refuse("too-short", "nothing is left after resampling", "drop it")
    samples = np.clip(np.rint(resampled * np.float32(32768)), -32768, 32767).astype(np.int16)
    return Decoded(samples, rate, channels)


class _TooLong(Exception):
    """More samples than allowed."""


def _read_mono(file: soundfile.SoundFile, begin: int, end: int | None, most: int) -> np.ndarray:
    """Samples `[begin, end)` of a file, channels averaged, read in blocks until they end; float32."""
    if begin:
        if begin >= file.frames:
            return np.empty(0, np.float32)
        file.seek(begin)
    wanted = most + 1 if end is None else min(end - begin, most + 1)
    blocks, got = [], 0
    while got < wanted:
        block = file.read(min(wanted - got, BLOCK_SECONDS * file.samplerate), dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        blocks.append(block.mean(axis=1) if block.shape[1] > 1 else block[:, 0])
        got += len(block)
    if got > most:
        raise _TooLong
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)
