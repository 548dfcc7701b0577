"""bytes of a pipe, or a microphone -> blocks of samples, as they come.

In: a way to read bytes. Out: `Sound`: rate, channels and blocks for `listening.Stream`, or a `Wav` for
`media`. The bytes are a WAV stream, whose header may leave the length open, or for `sound` raw 16-bit
samples. What needs a decoder is for `media`, which waits for the end. Imports no torch.
"""

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from beatline.audio.samples import SAMPLE_RATE, Unusable, channels_of, check_form, mean_of, refusals_about
from beatline.audio.signatures import ReadAt, form_of, riff_chunks
from beatline.core.errors import UserError

BLOCK = 1 << 16  # bytes taken at once, at most
UNKNOWN = (
    range(1),
    range(0x7F000000, 0x80000001),
    range(0xFFFF0000, 0x100000000),
)  # what programs write for a WAV stream's length that they do not know
MOST_HEADER = 1 << 20  # bytes of a part before the samples
LOOKED_AT = 1 << 16  # bytes of a stream in which `wav` looks for the samples' begin

Read = Callable[[int], bytes]
"""Up to so many bytes, as soon as they come; none at the end."""

FORMS: dict[
    tuple[int, int], Callable[[bytes], np.ndarray]
] = {  # by WAV's format tag and bits, as floats in [-1, 1] or int16
    (1, 8): lambda data: (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128,
    (1, 16): lambda data: np.frombuffer(data, "<i2").astype(np.int16, copy=False),
    (1, 24): lambda data: (
        np.pad(np.frombuffer(data, np.uint8).reshape(-1, 3), ((0, 0), (1, 0)))
        .view("<i4")[:, 0]
        .astype(np.float32)
        / 2**31
    ),
    (1, 32): lambda data: np.frombuffer(data, "<i4").astype(np.float32) / 2**31,
    (3, 32): lambda data: np.frombuffer(data, "<f4").astype(np.float32, copy=False),
    (3, 64): lambda data: np.frombuffer(data, "<f8").astype(np.float32),
}


@dataclass(frozen=True)
class Sound:
    """Sound that is being read."""

    rate: int
    channels: int
    blocks: Iterator[np.ndarray]
    """`(samples, channels)`, floats in [-1, 1] or int16, each as soon as it is there."""


class Bytes:
    """Bytes of a pipe, the first of which may be looked at and put back."""

    def __init__(self, read: Read):
        self._read = read
        self._held = b""

    def exactly(self, count: int) -> bytes:
        """So many bytes, or what there is up to the end."""
        while len(self._held) < count and (more := self._read(BLOCK)):
            self._held += more
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def back(self, data: bytes) -> None:
        self._held = data + self._held

    def next(self) -> bytes:
        """What is held, or else what comes next."""
        taken, self._held = self._held or self._read(BLOCK), b""
        return taken

    def read(self, count: int) -> bytes:
        """At most so many bytes, as a file's."""
        if not self._held:
            return self._read(count)
        taken, self._held = self._held[:count], self._held[count:]
        return taken


def sound(read: Read, name: str, rate: int = SAMPLE_RATE, channels: int = 1) -> Sound:
    """What a pipe carries.

    Args:
        name: What errors call the pipe.
        rate: Of raw samples, Hz; a WAV header knows better.
        channels: Of raw samples, likewise.

    Raises:
        UserError: `empty-file`, `not-audio`, `broken-audio`, `bad-sample-rate`, `too-many-channels`.
    """
    with refusals_about(name):
        data = Bytes(read)
        first = data.exactly(12)
        if not first:
            raise Unusable("empty-file", "nothing came out of it", "check the program that feeds it")
        form = (1, 16)
        left = float("inf")
        if first[:4] == b"RIFF" and first[8:] == b"WAVE":
            form, rate, channels, left = _header(data)
        else:
            form_there = form_of(first)
            if form_there is not None and not form_there.short:
                remedy = "decode it first, as by `ffmpeg -i FILE -f wav -`, or use `beatline tag`"
                raise Unusable(
                    "not-audio",
                    f"it looks like {form_there.name}, and only WAV and raw 16-bit samples are "
                    f"heard as they come",
                    remedy,
                )
            data.back(first)
        check_form(rate, channels)
        return Sound(rate, channels, _blocks(data, FORMS[form], channels, form[1] // 8 * channels, left))


class Wav:
    """An `samples.Source` whose samples are taken from a pipe as they come, however many they are; made by
    `wav`.
    """

    def __init__(self, data: Bytes, form: tuple[int, int], rate: int, channels: int, promised: float):
        self._data = data
        self.rate = rate
        self.channels = channels
        self._frame = form[1] // 8 * channels
        self._promised = promised
        self._blocks = _blocks(data, FORMS[form], channels, self._frame, promised)
        self._held = np.empty((0, channels), np.int16)

    def skip(self, frames: int) -> None:
        while frames > 0 and len(part := self._next()):
            self._held, frames = part[frames:], frames - len(part)

    def blocks(self, most: float) -> Iterator[tuple[np.ndarray, str]]:
        while most > 0 and len(part := self._next()):
            part = part[: int(min(most, len(part)))]
            most -= len(part)
            yield mean_of(channels_of(part)), ""
        while (
            self._data.next()
        ):  # what follows the samples: a pipe that is closed before its end stops the program that feeds it
            pass

    def broken_promise(self, frames: int) -> str:
        there = frames * self._frame
        return (
            f"the header promises {self._promised} bytes of audio, {there} are there"
            if there + self._frame <= self._promised < float("inf")
            else ""
        )

    def _next(self) -> np.ndarray:
        held, self._held = self._held, self._held[:0]
        return held if len(held) else next(self._blocks, held)


def wav(data: Bytes) -> Wav | None:
    """The recording, where these are the bytes of a WAV stream in a form of `FORMS`. Else None, and no byte
    was taken.
    """
    first = data.exactly(LOOKED_AT)
    seen = Bytes(io.BytesIO(first).read)
    try:
        if (start := seen.exactly(12))[:4] != b"RIFF" or start[8:] != b"WAVE":
            raise Unusable("not-audio", "it is no WAV")
        header = _header(seen)
    except Unusable:
        data.back(first)
        return None
    data.back(seen.exactly(LOOKED_AT))
    return Wav(data, *header)


def _header(data: Bytes) -> tuple[tuple[int, int], int, int, float]:
    """Form, rate, channels and length in bytes of a WAV stream; its samples come next."""
    form = None
    read_at = _forwards(data, 12)
    for name, offset, size in riff_chunks(read_at):
        if name == b"data" and form is not None:
            return *form, float("inf") if any(size in unknown for unknown in UNKNOWN) else size
        content = read_at(offset, size) if size <= MOST_HEADER else b""
        if len(content) < max(size, 16 if name == b"fmt " else 0):
            raise Unusable("broken-audio", "it looks like WAV, but its header cannot be read")
        if name == b"fmt ":
            tag, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", content)
            if tag == 0xFFFE and size >= 26:  # the extensible form, which says the tag later
                tag = struct.unpack_from("<H", content, 24)[0]
            if (tag, bits) not in FORMS or not channels or align != bits // 8 * channels:
                raise Unusable(
                    "not-audio",
                    f"it is WAV of a form that is not read (format {tag}, {bits} bits, {channels} channels)",
                    "convert it to 16-bit samples",
                )
            form = (tag, bits), rate, channels
    raise Unusable("broken-audio", "it looks like WAV, but ends before the samples")


def _forwards(data: Bytes, offset: int) -> ReadAt:
    """A reader of a pipe from this offset on, that only goes forwards."""

    def read_at(begin: int, count: int) -> bytes:
        nonlocal offset
        data.exactly(begin - offset)
        content = data.exactly(count)
        offset = begin + count
        return content

    return read_at


def _blocks(
    data: Bytes, convert: Callable[[bytes], np.ndarray], channels: int, frame: int, left: float
) -> Iterator[np.ndarray]:
    held = b""
    while left > 0 and (more := data.next()):
        held += more[: int(min(left, len(more)))]
        left -= len(more)
        whole = len(held) - len(held) % frame
        if whole:
            yield convert(held[:whole]).reshape(-1, channels)
        held = held[whole:]


def microphone(rate: int, channels: int) -> Sound:
    """What the default microphone hears.

    Raises:
        UserError: `missing-package`; `missing-file` where there is no microphone of this form; its blocks,
            where it goes away.
    """
    remedy = "or pipe it in: arecord -f S16_LE -r 16000 | beatline listen - --model MODEL"
    try:
        import sounddevice
    except ImportError as error:
        raise UserError(
            "missing-package",
            "cannot hear the microphone",
            "sounddevice is not installed",
            f"pip install 'beatline[listen]', {remedy}",
        ) from error
    except OSError as error:
        raise UserError(
            "missing-package",
            "cannot hear the microphone",
            f"sounddevice finds no PortAudio ({error})",
            f"install it, as by `apt-get install libportaudio2`, {remedy}",
        ) from error
    try:
        stream = sounddevice.InputStream(samplerate=rate, channels=channels, dtype="int16")
    except (sounddevice.PortAudioError, ValueError) as error:
        raise UserError(
            "missing-file", "cannot hear the microphone", str(error), f"check the device and --rate, {remedy}"
        ) from error

    def blocks() -> Iterator[np.ndarray]:
        try:
            with stream:
                while True:
                    yield stream.read(max(1, rate // 20))[0]
        except sounddevice.PortAudioError as error:
            raise UserError(
                "missing-file",
                "cannot hear the microphone any more",
                str(error),
                "plug it in and start again",
            ) from error

    return Sound(rate, channels, blocks())
