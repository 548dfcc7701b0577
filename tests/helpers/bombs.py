"""Small files that want to become large ones, made here: decompression bombs and headers that lie."""

import gzip
import struct
import zlib

import numpy as np

from tests.helpers.sounds import chord, contained, patched, plain


def bombs() -> dict[str, bytes]:
    """Name and content of each; none is over some megabytes."""
    quiet = np.zeros((16_000 * 4, 1), np.float32)
    wav = plain("WAV", "PCM_16", 16_000, quiet)
    rf64, w64, caf, au, aiff = (
        plain(form, "PCM_16", 16_000, quiet) for form in ("RF64", "W64", "CAF", "AU", "AIFF")
    )
    mp3 = plain("MP3", "MPEG_LAYER_III", 16_000, quiet)
    m4a = contained("mp4", "alac", 44_100, chord(44_100))
    aac = contained("adts", "aac", 16_000, quiet)
    tta, wv = (
        contained(form, codec, 44_100, chord(44_100)) for form, codec in (("tta", "tta"), ("wv", "wavpack"))
    )
    return {
        "hours.flac": _flac(2 * 3600),
        "wide.flac": _flac(20, channels=8, rate=192_000),
        "silence.ogg": plain("OGG", "VORBIS", 8000, np.zeros((8000 * 600, 1), np.float32)),
        "silence.mp3": mp3 + mp3[len(mp3) // 2 :] * 1000,
        "silence.aac": aac * 500,
        "lies.wav": patched(patched(wav, wav.index(b"data") + 4, "<I", 2**32 - 1), 4, "<I", 2**32 - 1),
        "wide.wav": patched(patched(wav, 22, "<H", 64), 32, "<H", 128),
        "lies.rf64": patched(rf64, rf64.index(b"ds64") + 8, "<QQQ", 2**62, 2**62, 2**62),
        "lies.w64": patched(w64, w64.index(b"data") + 16, "<Q", 2**62),
        "lies.caf": patched(caf, caf.index(b"data") + 4, ">q", 2**62),
        "lies.au": patched(au, 8, ">I", 2**32 - 2),
        "lies.aiff": patched(aiff, aiff.index(b"SSND") + 4, ">I", 2**31 - 1),
        "table.m4a": patched(m4a, m4a.index(b"stsz") + 8, ">II", 1, 2**28),
        "chunks.m4a": patched(
            patched(m4a, m4a.index(b"stsz") + 8, ">II", 1, 2**27), m4a.index(b"stsc") + 16, ">I", 2**27
        ),
        "times.m4a": patched(m4a, m4a.index(b"stts") + 12, ">I", 2**31 - 1),
        "table.tta": patched(tta, 14, "<I", 2**32 - 1),
        "length.wv": patched(wv, 12, "<I", 2**31),
        "zlib.mka": _matroska(4 << 20),
        "zlib-deep.mka": _matroska(400 << 20),
        "words.wav": _words(),
        "tag.mp3": b"ID3\x04\0\0\x7f\x7f\x7f\x7fAPIC" + struct.pack(">I", 2**31 - 1) + bytes(1000),
        "packed-tag.aac": _packed_tag(200 << 20) + aac,
        "sound.gz": gzip.compress(bytes(50 << 20)),
    }


def _flac(seconds: int, channels: int = 1, rate: int = 16_000) -> bytes:
    return plain("FLAC", "PCM_16", rate, np.zeros((seconds * rate, channels), np.int16))


def _words() -> bytes:
    """A WAV, in a form that libsndfile leaves to FFmpeg, whose title claims to be a gigabyte."""
    form = struct.pack("<4sIHHIIHHH", b"fmt ", 18, 0x20, 1, 44_100, 22_050, 1024, 4, 0)
    return (
        b"RIFF\0\0\1\0WAVE"
        + form
        + struct.pack("<4sI4s4sI", b"LIST", 2**32 - 1, b"INFO", b"INAM", 2**30)
        + bytes(65_536)
    )


def _packed_tag(size: int) -> bytes:
    """An ID3 tag whose one frame is zeros that zlib has packed."""
    packed = zlib.compress(bytes(size))
    frame = b"TXXX" + _sevens(len(packed) + 4) + b"\0\x09" + _sevens(size) + packed
    return b"ID3\x04\0\0" + _sevens(len(frame)) + frame


def _sevens(number: int) -> bytes:
    return bytes(number >> shift & 127 for shift in (21, 14, 7, 0))


def _matroska(size: int) -> bytes:
    """A sound track of silence in blocks of `size` bytes that zlib has packed."""

    def element(name: str, content: bytes) -> bytes:
        return bytes.fromhex(name) + struct.pack(">Q", len(content) | 1 << 56) + content

    encodings = element("6d80", element("6240", element("5034", element("4254", b"\0"))))
    audio = element(
        "e1", element("b5", struct.pack(">d", 16_000.0)) + element("9f", b"\1") + element("6264", b"\x10")
    )
    track = element(
        "ae",
        element("d7", b"\1")
        + element("73c5", b"\1")
        + element("83", b"\2")
        + element("86", b"A_PCM/INT/LIT")
        + audio
        + encodings,
    )
    block = element("a3", b"\x81\0\0\x80" + zlib.compress(bytes(size)))
    head = element("1a45dfa3", element("4282", b"matroska"))
    return head + element(
        "18538067",
        element("1549a966", element("2ad7b1", struct.pack(">I", 1_000_000)))
        + element("1654ae6b", track)
        + element("1f43b675", element("e7", b"\0") + block * 8),
    )
