"""What libsndfile does not read, opened by FFmpeg (PyAV, extra `media`) as a `samples.Source`.

In: a stream that can seek. Out: a source of frames, for `media`. `signatures` names the demuxer by the first
bytes, never by a name and never by FFmpeg's own guess. The codec must be in `CODECS`. Every further address
that a file could name is refused: no protocols, no playlists, no second file. Frames come in order from the
first frame on, so a cut is exact in every form. PyAV is imported when the first such file is met.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from beatline.audio.samples import BLOCK, Source, Unusable, mean_of
from beatline.audio.signatures import HEAD, form_of, looks_like, riff_chunks, tag_length

MOST_CHUNKS = 1000  # of a RIFF file
MOST_PLANES = 8  # from here on PyAV 18.1 counts planes past the end of their list, and crashes

# Decoders of sound that may run: those of today's files and of the archives people have.
CODECS = frozenset(
    {
        "aac",
        "aac_latm",
        "ac3",
        "adpcm_ima_qt",
        "adpcm_ima_wav",
        "adpcm_ms",
        "adpcm_swf",
        "adpcm_yamaha",
        "alac",
        "amrnb",
        "amrwb",
        "ape",
        "cook",
        "dca",
        "dsd_lsbf",
        "dsd_lsbf_planar",
        "dsd_msbf",
        "dsd_msbf_planar",
        "eac3",
        "flac",
        "g722",
        "g726",
        "gsm",
        "gsm_ms",
        "ilbc",
        "mlp",
        "mp1",
        "mp1float",
        "mp2",
        "mp2float",
        "mp3",
        "mp3float",
        "mpc7",
        "mpc8",
        "nellymoser",
        "opus",
        "pcm_alaw",
        "pcm_bluray",
        "pcm_dvd",
        "pcm_f32be",
        "pcm_f32le",
        "pcm_f64be",
        "pcm_f64le",
        "pcm_mulaw",
        "pcm_s16be",
        "pcm_s16le",
        "pcm_s24be",
        "pcm_s24le",
        "pcm_s32be",
        "pcm_s32le",
        "pcm_s8",
        "pcm_u8",
        "ralf",
        "real_144",
        "real_288",
        "sipr",
        "speex",
        "tak",
        "truehd",
        "tta",
        "vorbis",
        "wavpack",
        "wmalossless",
        "wmapro",
        "wmav1",
        "wmav2",
        "wmavoice",
    }
)


@contextmanager
def opened(stream: BinaryIO, refused: Unusable) -> Iterator[Source]:
    """The recording in the stream.

    Args:
        refused: What libsndfile said; raised again where FFmpeg should not try or knows no better.

    Raises:
        Unusable: `not-audio`, `broken-audio`, `empty-file`, `decoder-memory`.
    """
    first, begin, demuxer = _form(stream)
    if not demuxer or (demuxer in ("wav", "avi") and _lies(stream)):
        raise refused
    try:
        import av
    except ImportError:
        raise Unusable(
            refused.code,
            refused.cause,
            "pip install 'beatline[media]' to read it, convert it to WAV or FLAC, or leave it out",
        ) from None
    form, known = looks_like(first)
    try:
        container = av.open(
            _From(stream, begin),
            "r",
            format=demuxer,
            options={
                "format_whitelist": demuxer,
                "codec_whitelist": ",".join(sorted(CODECS)),
                "protocol_whitelist": "none",
            },
            metadata_errors="replace",
            io_open=nothing_else,
        )
    except MemoryError as error:
        raise too_much_memory() from error
    except (av.FFmpegError, OSError, ValueError) as error:
        if known:
            raise refused from error
        raise Unusable("broken-audio", f"it looks like {form}, but its header cannot be read") from error
    with container:
        yield _Container(container, form)


def too_much_memory() -> Unusable:
    """The refusal of a file whose decoder asks for more than a child process may hold."""
    return Unusable("decoder-memory", "decoding it takes more memory than a decoder may use")


class _From:
    """The stream from an offset on, as PyAV wants it: without a name, which FFmpeg would take for an address.

    It says -1 of an offset that cannot be, since PyAV prints a traceback of an exception in there.
    """

    def __init__(self, stream: BinaryIO, begin: int):
        self._stream = stream
        self._begin = begin
        self.read = stream.read
        stream.seek(begin)

    def seek(self, offset: int, origin: int = 0) -> int:
        try:
            return self._stream.seek(offset + self._begin if origin == 0 else offset, origin) - self._begin
        except (OSError, ValueError, OverflowError):
            return -1

    def tell(self) -> int:
        return self._stream.tell() - self._begin


def nothing_else(address: str, flags: int, options: dict[str, str]) -> Any:
    """Refuses to open whatever a container names."""
    raise PermissionError(f"a container may not name another file: {address}")


def _form(stream: BinaryIO) -> tuple[bytes, int, str]:
    """The stream's first bytes, the offset where its sound begins, and FFmpeg's demuxer for it or nothing.

    What follows a tag decides, and FFmpeg never sees the tag: a tag may unpack to gigabytes.
    """
    stream.seek(0)
    first = deciding = stream.read(HEAD)
    begin = tag_length(first)
    if begin:
        stream.seek(begin)
        deciding = stream.read(HEAD)
    stream.seek(0)
    form = form_of(deciding)
    return first, begin, form.ffmpeg if form else ""


def _lies(stream: BinaryIO) -> bool:
    """Whether a RIFF file is unsafe for FFmpeg. Words about itself may claim to end after the file, and
    FFmpeg takes as much memory as claimed. Or there are more chunks than can be looked through.
    """
    end = stream.seek(0, 2)

    def read_at(offset: int, count: int) -> bytes:
        stream.seek(offset)
        return stream.read(count)

    for count, (name, offset, length) in enumerate(riff_chunks(read_at), 1):
        words = name == b"LIST" and read_at(offset, 4) == b"INFO"
        if count == MOST_CHUNKS or (words and offset + length > end):
            return True
    return False


class _Container:
    """A `Source` read by FFmpeg: the sound track that players would choose, its time counted from its first
    frame.
    """

    def __init__(self, container: Any, form: str):
        import av

        stream = container.streams.best("audio")
        if stream is None:
            raise Unusable("not-audio", f"it looks like {form} and has no sound track", "leave it out")
        codec = stream.codec_context
        if codec is None or codec.name not in CODECS:
            name = codec.name if codec is not None else "unknown"
            raise Unusable(
                "not-audio",
                f"it looks like {form}, with a sound track that cannot be read ({name})",
                "convert it to WAV or FLAC, or leave it out",
            )
        codec.thread_count = 1
        # of other forms the duration is an estimate, or the picture's
        promised = stream.duration if container.format.name.startswith("mov") else None
        self._promised = None if promised is None else float(promised * stream.time_base)
        self._skip = 0
        self._trouble = ""
        self._interleaver = av.AudioResampler(format="flt")
        self._frames = self._decoded(lambda: container.demux(stream))
        first = next(self._frames, None)
        if first is None:
            raise (
                Unusable("broken-audio", f"nothing in it can be decoded ({self._trouble})")
                if self._trouble
                else Unusable("empty-file", "it has a header and no samples")
            )
        self._first = first
        self.rate = first.sample_rate
        self.channels = first.layout.nb_channels

    def skip(self, frames: int) -> None:
        self._skip = frames

    def broken_promise(self, frames: int) -> str:
        if (
            self._promised is None or frames / self.rate > self._promised - 0.1
        ):  # encoders may count their padding
            return ""
        return f"the header promises {self._promised:.3f} s, {frames / self.rate:.3f} s are there"

    def blocks(self, most: float) -> Iterator[tuple[np.ndarray, str]]:
        held = [np.empty(0, np.float32)]
        count = 0
        for mono in self._after_skip():
            part = mono[: int(min(len(mono), most))]
            most -= len(part)
            count += len(part)
            held.append(part)
            if most <= 0:
                break
            if count >= BLOCK:
                yield np.concatenate(held), ""
                held = []
                count = 0
        yield np.concatenate([np.empty(0, np.float32), *held]), self._trouble if most > 0 else ""

    def _after_skip(self) -> Iterator[np.ndarray]:
        frame = self._first
        while frame is not None:
            if self._skip < frame.samples:
                yield _mono(frame, self._interleaver)[self._skip :]
            self._skip = max(0, self._skip - frame.samples)
            frame = next(self._frames, None)

    def _decoded(self, demux: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """Frames up to the first trouble. Trouble before the first frame is passed over, as streams may begin
        anywhere.
        """
        import av

        begun = False
        packets = demux()
        while not (begun and self._trouble):
            try:
                frames = next(packets).decode()
            except (StopIteration, EOFError):
                return
            # a packet of a stream that appeared on the way, which PyAV does not know; the next packet is good
            except IndexError:
                packets = demux()
                continue
            except MemoryError as error:
                raise too_much_memory() from error
            except (av.FFmpegError, OSError, ValueError) as error:
                self._trouble = (getattr(error, "strerror", None) or type(error).__name__).lower()
                continue
            for frame in frames:
                if not begun:
                    begun, rate, self._trouble = True, frame.sample_rate, ""
                elif frame.sample_rate != rate:
                    self._trouble = "the sample rate changes"
                    return
                yield frame


def _mono(frame: Any, interleaver: Any) -> np.ndarray:
    """The mean of a frame's channels, float32 with full scale 1; `interleaver` changes the form of samples
    only.
    """
    channels = frame.layout.nb_channels
    form = frame.format.name
    try:
        if frame.format.is_planar and channels >= MOST_PLANES:
            (frame,) = interleaver.resample(frame)
        samples = frame.to_ndarray()
    except ValueError as error:
        raise Unusable(
            "not-audio",
            f"its form of samples cannot be read ({form})",
            "convert it to WAV or FLAC, or leave it out",
        ) from error
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    with np.errstate(all="ignore"):
        if samples.dtype == np.uint8:
            samples = (samples.astype(np.float32) - 128) / 128
        elif samples.dtype.kind == "i":
            samples = samples.astype(np.float32) / np.float32(2 ** (8 * samples.dtype.itemsize - 1))
        return mean_of(list(samples.astype(np.float32, copy=False)))
