"""Sound files in every form, made here: by soundfile where it can, else by PyAV."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import soundfile

# container, codec, rate, channels, largest difference from the original at the same place (0: the codec
# delays or changes it)
CONTAINED = [
    ("mp4", "alac", 44_100, 2, 1e-4),
    ("mov", "pcm_s16be", 16_000, 1, 1e-4),
    ("mov", "pcm_s24le", 48_000, 2, 1e-4),
    ("mov", "adpcm_ima_qt", 44_100, 2, 0.0),
    ("ipod", "aac", 44_100, 2, 0.0),
    ("adts", "aac", 44_100, 2, 0.0),
    ("latm", "aac", 44_100, 1, 0.0),
    ("3gp", "libopencore_amrnb", 8000, 1, 0.0),
    ("amr", "libopencore_amrnb", 8000, 1, 0.0),
    ("webm", "libopus", 48_000, 2, 0.02),
    ("webm", "vorbis", 44_100, 2, 0.0),
    ("matroska", "pcm_s16le", 16_000, 1, 1e-4),
    ("matroska", "pcm_f32le", 44_100, 2, 1e-4),
    ("matroska", "flac", 48_000, 2, 1e-4),
    ("asf", "wmav2", 44_100, 2, 0.0),
    ("avi", "pcm_s16le", 16_000, 2, 1e-4),
    ("avi", "mp3", 44_100, 2, 0.0),
    ("wav", "adpcm_yamaha", 44_100, 1, 0.0),
    ("wav", "ac3", 48_000, 2, 0.0),
    ("ac3", "ac3", 48_000, 2, 0.0),
    ("eac3", "eac3", 48_000, 2, 0.0),
    ("flv", "aac", 44_100, 2, 0.0),
    ("mpegts", "mp2", 44_100, 2, 0.0),
    ("vob", "mp2", 48_000, 2, 0.0),
    ("wv", "wavpack", 44_100, 2, 1e-2),
    ("tta", "tta", 44_100, 2, 1e-2),
    ("ogg", "flac", 44_100, 1, 1e-4),
    ("rm", "real_144", 8000, 1, 0.0),
]

# form and subtype of soundfile
PLAIN = [
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("WAV", "IMA_ADPCM"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_24"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def chord(rate: int, channels: int = 1, seconds: float = 2.0) -> np.ndarray:
    """`(frames, channels)` float32: another tone in each channel."""
    time = np.arange(round(rate * seconds)) / rate
    return np.stack(
        [0.4 * np.sin(2 * np.pi * (440 + 110 * channel) * time) for channel in range(channels)], axis=1
    ).astype(np.float32)


def contained(container: str, codec: str, rate: int, samples: np.ndarray, picture: bool = False) -> bytes:
    """A file of PyAV's; `samples` are `(frames, channels)` float32. With `picture`, a video track comes
    first.
    """
    out, layout = (
        io.BytesIO(),
        {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}[samples.shape[1]],
    )
    with av.open(out, "w", format=container) as file:
        if picture:
            video = file.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        stream = file.add_stream(codec, rate=rate, layout=layout)
        stream.options = {"strict": "experimental"}
        if codec.startswith("wma"):
            stream.bit_rate = 128_000
        form = stream.codec_context.codec.audio_formats[0].name if codec != "pcm_f32le" else "flt"
        stream.codec_context.format = form
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        stream.codec_context.open()
        resampler = av.AudioResampler(
            format=form, layout=layout, rate=rate, frame_size=stream.codec_context.frame_size or 1024
        )
        if picture:
            for number in range(10):
                shown = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number, np.uint8), format="rgb24")
                file.mux(video.encode(shown))
            file.mux(video.encode(None))
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    return out.getvalue()


def plain(form: str, subtype: str, rate: int, samples: np.ndarray) -> bytes:
    """A file of soundfile's."""
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate, samples.shape[1], subtype, format=form) as file:
        for begin in range(0, len(samples), rate):  # libsndfile overflows its stack on long writes of Vorbis
            file.write(samples[begin : begin + rate])
    return out.getvalue()


def patched(content: bytes, place: int, form: str, *values: int) -> bytes:
    """The content with other numbers at one place."""
    changed = bytearray(content)
    struct.pack_into(form, changed, place, *values)
    return bytes(changed)
