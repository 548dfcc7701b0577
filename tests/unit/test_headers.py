"""The length in a file's header is the length of its audio, and hostile headers neither hang nor fail."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatline.audio import durations


def seconds(content: bytes) -> float | None:
    return durations.seconds(lambda offset, count: content[offset : offset + count], len(content))


def encoded(seconds: float, rate: int, channels: int = 1, **form: str) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels))
    soundfile.write(stream, noise, rate, **form)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("rate", "channels", "form", "tolerance"),
    [
        (48_000, 2, {"format": "WAV", "subtype": "PCM_24"}, 1e-9),
        (16_000, 1, {"format": "RF64", "subtype": "PCM_16"}, 1e-9),
        (44_100, 1, {"format": "FLAC"}, 1e-9),
        (44_100, 2, {"format": "OGG", "subtype": "VORBIS"}, 1e-9),
        (48_000, 1, {"format": "OGG", "subtype": "OPUS"}, 0.003),
        (16_000, 1, {"format": "OGG", "subtype": "OPUS"}, 0.003),
        (44_100, 2, {"format": "MP3"}, 0.1),
        (22_050, 1, {"format": "MP3"}, 0.1),
        (8000, 1, {"format": "MP3"}, 0.2),
    ],
)
def test_length_of_what_libsndfile_writes(rate, channels, form, tolerance):
    content = encoded(3.7, rate, channels, **form)
    assert seconds(content) == pytest.approx(3.7, abs=tolerance)
    if form["format"] == "MP3":
        tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)
        assert seconds(tag + content) == pytest.approx(3.7, abs=tolerance)


@pytest.mark.parametrize(
    ("form", "codec"), [("mp4", "aac"), ("matroska", "aac"), ("webm", "libopus"), ("ipod", "aac")]
)
def test_length_of_what_ffmpeg_writes(tmp_path, form, codec):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "x"), "w", format=form) as file:
        stream = file.add_stream(codec, rate=48_000, layout="mono")
        for _ in range(100):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 48_000
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    assert seconds((tmp_path / "x").read_bytes()) == pytest.approx(4.0, abs=0.1)


def test_fragments_of_a_stream_have_their_length_in_sidx():
    entries = b"".join(struct.pack(">III", 1000, 5 * 44_100, 0) for _ in range(12))
    content = struct.pack(">IIIII", 0, 1, 44_100, 0, 0) + struct.pack(">HH", 0, 12) + entries
    boxes = [
        (b"ftyp", b"dash0000"),
        (
            b"moov",
            struct.pack(">I4s", 8 + 100, b"mvhd") + struct.pack(">IIIII", 0, 0, 0, 44_100, 0) + bytes(80),
        ),
        (b"sidx", content),
        (b"mdat", bytes(100)),
    ]
    assert seconds(b"".join(struct.pack(">I4s", 8 + len(body), name) + body for name, body in boxes)) == 60.0


@pytest.mark.parametrize("form", ["AIFF", "AU", "W64"])
def test_samples_are_not_taken_for_the_start_of_an_mp3(form):
    stream = io.BytesIO()
    soundfile.write(
        stream,
        np.tile(np.array([-5, -28672, -1025, 144], np.int16), 4000),
        16_000,
        format=form,
        subtype="PCM_16",
    )  # ff fb 90 00, of both byte orders
    content = stream.getvalue()
    assert b"\xff\xfb\x90\0" in content and seconds(content) is None


def test_a_cut_file_counts_what_is_there():
    content = encoded(4.0, 16_000, format="WAV", subtype="PCM_16")
    assert seconds(content[: len(content) // 2]) == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF",
        b"RIFF\0\0\0\0WAVE",
        b"fLaC",
        b"OggS",
        b"\0\0\0\x08ftyp",
        b"\x1a\x45\xdf\xa3",
        b"ID3",
        b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
        b"not audio at all",
        bytes(5000),
        b"\xff" * 5000,
    ],
)
def test_what_is_no_header_has_no_length(content):
    assert seconds(content) is None


def test_any_damage_gives_a_number_or_nothing_and_reads_little():
    chance = np.random.default_rng(0)
    whole = [encoded(0.5, 16_000, format=form) for form in ("WAV", "FLAC", "OGG", "MP3")]
    whole += [
        b"\0\0\0\x10ftypisom\0\0\0\0" + (b"\0\0\0\x18moov\0\0\0\x10moov\0\0\0\x08moov" * 5000),
        b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff"
        + b"\x15\x49\xa9\x66\x84\x44\x89\x88\xff" * 100,
    ]
    reads = 0

    def read_at(offset: int, count: int) -> bytes:
        nonlocal reads
        reads += 1
        assert offset >= 0 and count <= 1 << 16
        return content[offset : offset + count]

    for original in whole:
        for _ in range(300):
            damaged = np.frombuffer(original, np.uint8).copy()
            places = chance.integers(0, min(len(damaged), 120), 6)
            damaged[places] = chance.integers(0, 256, 6)
            content = damaged.tobytes()
            reads = 0
            found = durations.seconds(read_at, len(content))
            assert (found is None or isinstance(found, float)) and reads < 500


def test_boxes_in_boxes_are_not_followed_down():
    depth = 3000
    assert (
        seconds(
            b"\0\0\0\x08ftyp"
            + b"".join(struct.pack(">I4s", 8 * (depth - level), b"moov") for level in range(depth))
        )
        is None
    )


def test_a_file_is_not_read_through(tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(encoded(1.0, 16_000, format="WAV", subtype="PCM_16")[:44])
    with path.open("r+b") as file:
        file.seek(40)
        file.write(struct.pack("<I", 2 * 16_000 * 3600))
        file.truncate(44 + 2 * 16_000 * 3600)  # an hour, sparse
    descriptor = os.open(Path(path), os.O_RDONLY)
    assert (
        durations.seconds(lambda offset, count: os.pread(descriptor, count, offset), path.stat().st_size)
        == 3600.0
    )
    os.close(descriptor)
