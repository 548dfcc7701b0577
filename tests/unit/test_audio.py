"""Any file becomes 16 kHz mono int16, or one clear line."""

import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from beatline.audio import samples as audio
from beatline.audio.decoders import sndfile
from beatline.audio.decoders.sndfile import decode
from beatline.audio.samples import to_waveform
from beatline.core.errors import UserError
from beatline.core.limits import LIMITS
from beatline.model import fbank

RNG = np.random.default_rng(1)
SECOND = 16_000


def noise(frames: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(frames).uniform(-0.5, 0.5, (frames, channels)).astype(np.float32)


def tone(rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def write(
    path: Path,
    samples: np.ndarray,
    rate: int = SECOND,
    subtype: str | None = "PCM_16",
    form: str | None = None,
) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype, format=form)
    return path


def refused(source: object, code: str, **options: object) -> UserError:
    with pytest.raises(UserError) as caught:
        decode(source, **options)
    assert caught.value.code == code, caught.value
    assert "\n" not in str(caught.value)
    if isinstance(source, Path):
        assert str(source).replace("\0", "\\x00") in str(caught.value)
    return caught.value


def test_the_rate_is_the_filter_banks():
    assert audio.SAMPLE_RATE == fbank.SAMPLE_RATE and fbank.FULL_SCALE == audio.FULL_SCALE


def test_16_bit_mono_at_16_khz_comes_back_bit_for_bit(tmp_path):
    samples = RNG.integers(-32768, 32768, 200_000).astype(np.int16)  # more than two blocks
    samples[:2] = -32768, 32767
    decoded = decode(write(tmp_path / "a.wav", samples))
    assert decoded.samples.dtype == np.int16 and np.array_equal(decoded.samples, samples)
    assert (decoded.rate_in, decoded.channels_in, decoded.seconds_in, decoded.note) == (16_000, 1, 12.5, "")


def test_the_waveform_of_int16_is_exact():
    everything = np.arange(-32768, 32768).astype(np.int16)
    waveform = to_waveform(everything)
    assert waveform.dtype == np.float32 and waveform.min() == -1.0 and waveform.max() == 32767 / 32768
    assert np.array_equal(waveform.astype(np.float64) * 32768, everything)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize(
    ("extension", "subtype", "tolerance"),
    [
        ("wav", "PCM_U8", 0.01),
        ("wav", "PCM_24", 1e-4),
        ("wav", "FLOAT", 1e-4),
        ("flac", "PCM_16", 1e-4),
        ("ogg", "VORBIS", 0.05),
    ],
)
def test_every_rate_and_form_gives_the_same_tone(tmp_path, rate, extension, subtype, tolerance):
    decoded = decode(write(tmp_path / f"a.{extension}", tone(rate, 1.0), rate, subtype))
    assert len(decoded.samples) == 16_000 and decoded.rate_in == rate
    error = to_waveform(decoded.samples) - tone(16_000, 1.0)
    assert np.abs(error[2000:-2000]).max() < tolerance + 1 / 32768


def test_mp3_decodes(tmp_path):
    decoded = decode(write(tmp_path / "a.mp3", tone(44_100, 1.0), 44_100, None))
    assert abs(len(decoded.samples) - 16_000) < 1200
    assert 0.3 < np.abs(to_waveform(decoded.samples)).max() < 0.7


def test_channels_are_averaged_also_a_dead_one(tmp_path):
    samples = noise(5000, 3)
    samples[:, 1] = 0
    decoded = decode(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert decoded.channels_in == 3
    np.testing.assert_allclose(decoded.samples / 32768, samples.mean(axis=1), atol=0.51 / 32768)


def test_resampling_equals_soxr_on_the_whole_signal_whatever_the_blocks(tmp_path, monkeypatch):
    samples = noise(100_000)[:, 0]
    path = write(tmp_path / "a.wav", samples, 44_100, "FLOAT")
    whole = (
        np.rint(soxr.resample(samples, 44_100, 16_000, "HQ") * np.float32(32768))
        .clip(-32768, 32767)
        .astype(np.int16)
    )
    for block in (sndfile.BLOCK, 4096, 777):
        monkeypatch.setattr(sndfile, "BLOCK", block)
        assert np.array_equal(decode(path).samples, whole)


@pytest.mark.parametrize("extension", ["flac", "ogg", "mp3"])
def test_blocks_leave_no_seams(tmp_path, monkeypatch, extension):
    path = write(tmp_path / f"a.{extension}", noise(80_000), 22_050, None)
    with soundfile.SoundFile(path) as file:
        soundfile.write(tmp_path / "whole.wav", file.read(dtype="float32"), 22_050, subtype="FLOAT")
    expected = decode(tmp_path / "whole.wav").samples
    for block in (sndfile.BLOCK, 4096, 777):
        monkeypatch.setattr(sndfile, "BLOCK", block)
        assert np.array_equal(decode(path).samples, expected)


def test_samples_beyond_full_scale_are_clipped_not_wrapped(tmp_path):
    decoded = decode(write(tmp_path / "a.wav", np.float32([1.0, -1.0, 1.5, -300.0, 0.0]), subtype="FLOAT"))
    assert decoded.samples.tolist() == [32767, -32768, 32767, -32768, 0]


@pytest.mark.parametrize(("extension", "tolerance"), [("wav", 0), ("flac", 0), ("ogg", 0), ("mp3", 1)])
def test_cuts_are_exact_to_a_sample(tmp_path, extension, tolerance):
    path = write(tmp_path / f"a.{extension}", noise(80_000), subtype=None)
    whole = decode(path).samples
    for start, end in ((0.0, 1.0), (0.5, 0.75), (1.23456, 4.0), (3.0, None)):
        begin, stop = round(start * 16_000), len(whole) if end is None else round(end * 16_000)
        cut = decode(path, start, end).samples
        assert len(cut) == stop - begin
        # the MP3 decoder starts its filters anew after a jump: float32 rounding, at most the last bit
        assert np.abs(cut.astype(int) - whole[begin:stop]).max() <= tolerance


def test_an_mp3_cut_is_as_good_at_its_first_sample(tmp_path):
    path = write(tmp_path / "a.mp3", noise(80_000), 22_050, None)
    with soundfile.SoundFile(path) as file:
        whole = file.read(dtype="float32")
    soundfile.write(tmp_path / "whole.wav", whole, 22_050, subtype="FLOAT")
    for begin in (20_000, 40_001, 79_000):
        cut, expected = (
            decode(p, begin / 22_050).samples.astype(int) for p in (path, tmp_path / "whole.wav")
        )
        assert np.abs(cut - expected).max() <= 1  # without a run-up: thousands


def test_a_cut_past_the_end_is_noted_and_one_beyond_it_refused(tmp_path):
    path = write(tmp_path / "a.wav", noise(32_000))
    short = decode(path, 1.5, 11.5)
    assert len(short.samples) == 8000 and short.note == "ends 9.500 s before the clip's end"
    assert decode(path, 0.0, 2.0).note == ""
    for start in (2.0, 5.0, 1e300):
        refused(path, "too-short", start=start)


def test_bytes_streams_and_files_give_the_same(tmp_path):
    path = write(tmp_path / "a.flac", noise(50_000), 22_050)
    expected = decode(path)
    assert np.array_equal(decode(path.read_bytes()).samples, expected.samples)
    path.rename(tmp_path / "a.raw")
    with (tmp_path / "a.raw").open("rb") as file:
        assert np.array_equal(decode(file).samples, expected.samples)
        file.seek(0, os.SEEK_END)  # as where it was just written
        assert np.array_equal(decode(file).samples, expected.samples)


@pytest.mark.parametrize(
    "name", ["a.wav", "a.mp3", "a.raw", "a.vox", "a.txt", "no extension", "-rf.wav", "ä ö.wav"]
)
def test_the_name_means_nothing(tmp_path, name):
    samples = noise(1000)
    path = write(tmp_path / "x.flac", samples).rename(tmp_path / name)
    assert np.array_equal(decode(path).samples, np.rint(samples[:, 0] * 32768).astype(np.int16))


def test_too_long_is_refused_at_the_bound_and_not_before(tmp_path):
    path = write(tmp_path / "a.wav", noise(32_000))
    assert len(decode(path, max_seconds=2.0).samples) == 32_000
    assert "longer than 1.999 s" in str(refused(path, "too-long", max_seconds=1.999))
    assert len(decode(path, 0.5, 1.0, max_seconds=0.5).samples) == 8000
    refused(path, "too-long", start=0.5, end=1.1, max_seconds=0.5)


def test_what_is_too_long_is_not_read_to_its_end(tmp_path):
    path = write(tmp_path / "a.flac", np.zeros(60 * SECOND))
    tracemalloc.start()
    refused(path, "too-long", max_seconds=0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # the whole would be 1.9 MB as int16


# --- not audio


def test_what_is_not_a_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.wav")
    assert "folder" in str(refused(tmp_path, "not-a-file"))
    for path in (tmp_path / "fifo.wav", Path("/dev/zero"), Path("/dev/null")):
        assert "device" in str(refused(path, "not-a-file"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("loop", "dangling", "none.wav", "x" * 300, "nul\0byte"):
        refused(tmp_path / name, "missing-file")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html><body>404 not found</body></html>" * 20, "looks like HTML"),
        (b"\n  <HTML>", "looks like HTML"),
        (b'{"error": "quota exceeded"}', "looks like JSON"),
        (b"hello, world\n" * 50, "looks like text"),
        (b"PK\x03\x04" + bytes(60), "ZIP"),
        (b"\0\0\0\x20ftypM4A " + bytes(60), "M4A"),
        (b"\x1a\x45\xdf\xa3" + bytes(60), "WebM"),
        (bytes(10_000), "zero bytes"),
        (b"\x93NUMPY\x01\x00" + bytes(100), "first bytes 93 4e 55 4d"),
        (np.random.default_rng(0).bytes(50_000), "nothing known"),
    ],
)
def test_what_is_not_audio_is_called_by_its_name(tmp_path, content, words):
    (tmp_path / "a.wav").write_bytes(content)
    assert words in str(refused(tmp_path / "a.wav", "not-audio"))
    refused(content, "not-audio")


def test_empty_files(tmp_path):
    (tmp_path / "a.wav").touch()
    assert "no bytes" in str(refused(tmp_path / "a.wav", "empty-file"))
    refused(b"", "empty-file")
    assert "no samples" in str(refused(write(tmp_path / "b.wav", noise(0)), "empty-file"))


# --- broken audio


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_a_file_cut_anywhere_gives_its_beginning_or_one_line(tmp_path, extension):
    path = write(tmp_path / f"a.{extension}", noise(60_000), subtype=None)
    whole, content = decode(path).samples, path.read_bytes()
    lengths = []
    for size in [*range(1, 100, 9), *range(100, len(content), max(1, len(content) // 40))]:
        path.write_bytes(content[:size])
        try:
            samples = decode(path).samples
        except UserError as error:
            assert error.code in ("broken-audio", "not-audio", "empty-file")
            samples = np.empty(0, np.int16)
        lengths.append(len(samples))
        if extension in ("wav", "flac", "aiff"):
            assert np.array_equal(samples, whole[: len(samples)])
    assert lengths[-1] > 0.8 * len(whole) and lengths == sorted(lengths)


def test_a_cut_file_is_noted(tmp_path):
    for extension, words in (
        ("wav", "header promises 80000 bytes of audio"),
        ("flac", "decoding stopped after"),
        ("mp3", "header promises"),
        ("aiff", "header promises"),
    ):
        path = write(tmp_path / f"a.{extension}", noise(40_000), subtype=None)
        assert decode(path).note == ""
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert words in decode(path).note


def test_garbage_in_the_middle_keeps_what_comes_before(tmp_path):
    path = write(tmp_path / "a.flac", noise(80_000))
    whole, content = decode(path).samples, bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    path.write_bytes(content)
    decoded = decode(path)
    assert 30_000 < len(decoded.samples) < 45_000 and "stopped after" in decoded.note
    assert np.array_equal(decoded.samples, whole[: len(decoded.samples)])


@pytest.mark.parametrize("promise", [2**31, 2**32 - 1, 2**31 - 1])
@pytest.mark.parametrize("both", [False, True])
def test_a_wav_header_that_promises_gigabytes_allocates_none(tmp_path, promise, both):
    samples = noise(20_000)
    path = write(tmp_path / "a.wav", samples)
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", promise)
    if both:
        content[4:8] = struct.pack("<I", promise)
    path.write_bytes(content)
    tracemalloc.start()
    decoded = decode(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(decoded.samples) == 20_000 and f"promises {promise}" in decoded.note
    assert peak < 4 << 20


@pytest.mark.parametrize("total", [0, 2**36 - 1, 1_000_000])
def test_a_flac_whose_header_lies_about_its_length_is_read_to_its_end(tmp_path, total):
    samples = noise(90_000)
    path = write(tmp_path / "a.flac", samples)
    content = bytearray(path.read_bytes())
    content[21] = (content[21] & 0xF0) | (total >> 32)
    content[22:26] = struct.pack(">I", total & 0xFFFFFFFF)
    path.write_bytes(content)
    decoded = decode(path)
    assert np.array_equal(decoded.samples, np.rint(samples[:, 0] * 32768).astype(np.int16))
    assert bool(decoded.note) == (total > 0)  # 0 means unknown, as in a FLAC written to a pipe
    refused(path, "too-long", max_seconds=5.0)


@pytest.mark.parametrize(
    ("offset", "form", "value", "code"),
    [
        (22, "<H", 0, "broken-audio"),
        (22, "<H", 65, "too-many-channels"),
        (24, "<I", 0, "broken-audio"),
        (24, "<I", 999, "bad-sample-rate"),
        (24, "<I", 900_000, "bad-sample-rate"),
        (34, "<H", 7, "broken-audio"),
    ],
)
def test_absurd_wav_headers(tmp_path, offset, form, value, code):
    path = write(tmp_path / "a.wav", noise(20_000))
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, value)
    path.write_bytes(content)
    try:
        refused(path, code)
    except pytest.fail.Exception:
        assert code == "broken-audio" and offset == 34  # some libsndfile versions round the bit width up


def test_limits_are_inclusive(tmp_path):
    assert len(decode(write(tmp_path / "a.wav", noise(100, LIMITS.max_channels))).samples) == 100
    refused(write(tmp_path / "b.wav", noise(100, LIMITS.max_channels + 1)), "too-many-channels")
    assert len(decode(write(tmp_path / "c.wav", noise(100), LIMITS.min_sample_rate)).samples) == 1600
    refused(write(tmp_path / "d.wav", noise(2), LIMITS.max_sample_rate), "too-short")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_samples_that_are_not_finite_are_refused(tmp_path, value, subtype, rate):
    samples = noise(70_000, 2).astype(np.float64)
    samples[69_000, 1] = value
    refused(write(tmp_path / "a.wav", samples, rate, subtype), "not-finite")


def test_random_damage_never_raises_anything_else(tmp_path):
    rng = np.random.default_rng(7)
    for extension in ("wav", "flac", "ogg"):
        path = write(tmp_path / f"a.{extension}", noise(8000), 22_050, subtype=None)
        content = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(content)
            for place in rng.integers(0, min(len(content), 400 if rng.random() < 0.7 else len(content)), 4):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                assert len(decode(path).samples) > 0
            except UserError as error:
                assert error.code in (
                    "broken-audio",
                    "not-audio",
                    "empty-file",
                    "too-many-channels",
                    "bad-sample-rate",
                    "not-finite",
                    "too-short",
                    "too-long",
                )


def test_integers_in_memory_are_scaled_by_their_type():
    for values, wanted in (
        (np.array([0, 64, 128, 192, 255], np.uint8), [-1, -0.5, 0, 0.5, 127 / 128]),
        (np.array([-(2**31), -(2**30), 0, 2**24], np.int32), [-1, -0.5, 0, 2**-7]),
        (np.array([-32768, 0, 16384], np.int16), [-1, 0, 0.5]),
    ):
        ((mono, _),) = audio.Samples(values, 16_000).blocks(np.inf)
        assert mono.dtype == np.float32 and mono.tolist() == wanted
    for kind in (np.int8, np.uint16, np.uint32, np.int64, bool):
        with pytest.raises(audio.Unusable, match="an array of"):
            audio.Samples(np.zeros(9, kind), 16_000)
