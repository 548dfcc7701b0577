"""One table says what a file is, and who reads it."""

import io
import struct

import pytest

from beatline.audio.signatures import FORMS, HEAD, form_of, looks_like, riff_chunks, tag_length
from tests.helpers.sounds import CONTAINED, PLAIN, chord, contained, plain

NAMES = {"IMA_ADPCM": "WAV", "RF64": "RF64", "W64": "W64", "OGG": "Ogg"}


@pytest.mark.parametrize(("form", "subtype"), PLAIN)
def test_what_libsndfile_writes_is_known_by_its_first_bytes(form, subtype):
    found = form_of(plain(form, subtype, 24_000, chord(24_000))[:HEAD])
    assert found is not None and found.name == NAMES.get(form, form) and found.sndfile


@pytest.mark.parametrize(("container", "codec", "rate", "channels", "_"), CONTAINED)
def test_what_ffmpeg_writes_has_a_demuxer(container, codec, rate, channels, _):
    found = form_of(contained(container, codec, rate, chord(rate, channels, 0.5))[:HEAD])
    assert found is not None and found.ffmpeg


@pytest.mark.parametrize(
    ("first", "name", "demuxer"),
    [
        (b"RIFF\0\0\0\0WAVE", "WAV", "wav"),
        (b"RIFF\0\0\0\0AVI ", "AVI", "avi"),
        (b"RIFF\0\0\0\0ACON", "WAV", ""),
        (b"FORM\0\0\0\0AIFC", "AIFF", "aiff"),
        (b"FORM\0\0\0\0ILBM", "AIFF", ""),
        (b"\x0b\x77\0\0\0\x50", "AC-3", "ac3"),
        (b"\x0b\x77\0\0\0\x80", "AC-3", "eac3"),
        (b"\xff\xf1", "AAC", "aac"),
        (b"\xff\xfb", "MP3", "mp3"),
        (b"\xff\xfd", "", "mp3"),
        (b"\xff\xe0", None, None),
        (b"V\xe0", "", "loas"),
        (b"\n\n\n\n\n", None, None),
        (b"\n\n\n\nftyp", "MP4 or M4A", "mov"),
        (b"G" + (bytes(187) + b"G") * 2, "MPEG", "mpegts"),
        (b"", None, None),
    ],
)
def test_the_first_form_that_matches_counts(first, name, demuxer):
    found = form_of(first)
    assert (found.name, found.ffmpeg) == (name, demuxer) if found else name is None


def test_two_bytes_do_not_refuse_raw_samples():
    assert {form.begins[:4] for form in FORMS if form.short and form.sndfile} == {rb"\xff"}
    assert form_of(b"\xff\xff\xfe\xff").short and looks_like(b"\xff\xff\xfe\xff")[0].startswith(
        "nothing known"
    )


def test_a_tag_has_its_length_in_four_times_seven_bits():
    assert tag_length(b"ID3\x04\0\0\0\0\x02\x01\xff") == 10 + 2 * 128 + 1
    assert tag_length(b"ID3\x04\0\0\x7f\x7f\x7f\x7f\0") == 10 + (1 << 28) - 1
    assert tag_length(b"ID3") == tag_length(b"RIFF" + bytes(20)) == 0


def test_chunks_are_what_their_headers_claim():
    content = b"RIFF\0\0\0\0WAVE" + struct.pack("<4sI3sx", b"odd ", 3, b"abc")
    content += struct.pack("<4sI", b"data", 2**32 - 1) + b"cut"

    def read_at(offset: int, count: int) -> bytes:
        return content[offset : offset + count]

    assert list(riff_chunks(read_at)) == [(b"odd ", 20, 3), (b"data", 32, 2**32 - 1)]
    assert list(riff_chunks(lambda offset, count: io.BytesIO().read(count))) == []
