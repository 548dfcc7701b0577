"""Whatever container it comes in: the same waveform, by the same rules, or one clear line."""

import io
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from beatline.audio import media
from beatline.audio import samples as audio
from beatline.audio.decoders import ffmpeg, sndfile
from beatline.audio.samples import Decoded
from beatline.core.errors import UserError
from beatline.core.limits import LIMITS, Limits
from tests.helpers.sounds import CONTAINED, PLAIN, chord, contained, patched, plain

RATE = audio.SAMPLE_RATE


def refused(source: object, code: str, **options: object) -> UserError:
    with pytest.raises(UserError) as caught:
        media.decode(source, **options)
    assert caught.value.code == code, caught.value
    assert "\n" not in str(caught.value)
    return caught.value


def same(a: Decoded, b: Decoded) -> bool:
    return np.array_equal(a.samples, b.samples) and (a.rate_in, a.channels_in, a.seconds_in, a.note) == (
        b.rate_in,
        b.channels_in,
        b.seconds_in,
        b.note,
    )


@pytest.mark.parametrize(("form", "subtype"), PLAIN)
def test_what_libsndfile_reads_is_its_result(form, subtype):
    content = plain(form, subtype, 24_000, chord(24_000, 2))
    for start, end in ((0.0, None), (0.5, 1.25)):
        assert same(media.decode(content, start, end), sndfile.decode(content, start, end))


@pytest.mark.parametrize(("container", "codec", "rate", "channels", "tolerance"), CONTAINED)
def test_other_forms_give_the_same_sound(container, codec, rate, channels, tolerance):
    samples = chord(rate, channels)
    content = contained(container, codec, rate, samples)
    with pytest.raises(UserError):
        sndfile.decode(content)
    decoded, expected = media.decode(content), sndfile.decode(plain("WAV", "FLOAT", rate, samples))
    assert decoded.samples.dtype == np.int16 and (decoded.rate_in, decoded.channels_in, decoded.note) == (
        rate,
        channels,
        "",
    )
    assert abs(len(decoded.samples) - len(expected.samples)) < 0.05 * RATE  # encoders pad
    levels = [np.sqrt(np.mean((found.samples / 32768) ** 2)) for found in (decoded, expected)]
    assert levels[0] == pytest.approx(
        levels[1], rel=0.15
    )  # FFmpeg's own mix of two channels would be 1.41 times as loud
    if tolerance:
        np.testing.assert_allclose(decoded.samples / 32768, expected.samples / 32768, atol=tolerance)


def test_the_same_numbers_in_another_container_give_the_same_bits():
    samples = np.random.default_rng(0).uniform(-1, 1, (100_000, 2)).astype(np.float32)
    expected = sndfile.decode(plain("WAV", "FLOAT", 44_100, samples))
    assert np.array_equal(
        media.decode(contained("matroska", "pcm_f32le", 44_100, samples)).samples, expected.samples
    )
    mono = np.round(samples[:, :1] * 32767) / 32768
    assert np.array_equal(
        media.decode(contained("mov", "pcm_s16be", RATE, mono)).samples,
        sndfile.decode(plain("WAV", "PCM_16", RATE, mono)).samples,
    )


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [("mp4", "aac", 44_100), ("webm", "libopus", 48_000), ("matroska", "flac", 16_000)],
)
def test_cuts_are_exact_to_a_sample(container, codec, rate):
    content = contained(container, codec, rate, chord(rate, 2, 5.0))
    with ffmpeg.opened(io.BytesIO(content), audio.Unusable("not-audio", "")) as source:
        whole = np.concatenate([block for block, _ in source.blocks(np.inf)])
    for start, end in ((0.0, 1.0), (1.23456, 4.0), (3.0, 3.5), (4.0, None)):
        stop = len(whole) if end is None else round(end * rate)
        piece = plain("WAV", "FLOAT", rate, whole[round(start * rate) : stop, None])
        assert np.array_equal(media.decode(content, start, end).samples, sndfile.decode(piece).samples)
    assert media.decode(content, 4.5, 9.0).note.startswith("ends 3.9") or media.decode(
        content, 4.5, 9.0
    ).note.startswith("ends 4.0")
    for start in (6.0, 1e300):
        refused(content, "too-short", start=start)


def test_the_sound_track_of_a_film_is_taken():
    samples = np.round(chord(RATE) * 32768) / 32768
    for container, codec in (("matroska", "pcm_s16le"), ("avi", "pcm_s16le"), ("mov", "pcm_s16be")):
        decoded = media.decode(contained(container, codec, RATE, samples, picture=True))
        assert np.array_equal(decoded.samples, sndfile.decode(plain("WAV", "PCM_16", RATE, samples)).samples)


def test_a_track_that_begins_on_the_way_does_not_disturb():
    samples = chord(44_100, 2, 12.0)  # longer than FFmpeg looks ahead
    first, second = (
        contained("vob", "mp2", 44_100, samples),
        contained("vob", "mp2", 44_100, samples, picture=True),
    )
    alone, joined = media.decode(first), media.decode(first + second)
    assert joined.note == "" and len(joined.samples) == pytest.approx(2 * len(alone.samples), abs=RATE)


@pytest.mark.parametrize("channels", [6, 8, 16])
@pytest.mark.parametrize("codec", ["aac", "pcm_s16le", "wavpack"])
def test_many_channels_are_averaged(codec, channels):
    samples = chord(48_000, channels)
    decoded, level = (
        media.decode(contained("matroska", codec, 48_000, samples)),
        np.sqrt(np.mean(samples.mean(axis=1) ** 2)),
    )
    assert decoded.channels_in == channels
    assert np.sqrt(np.mean((decoded.samples / 32768) ** 2)) == pytest.approx(level, rel=0.1)


def test_limits_hold_as_for_any_file(tmp_path):
    content = contained("mp4", "alac", 44_100, chord(44_100, 2))
    assert len(media.decode(content, max_seconds=2.0).samples) == 2 * RATE
    assert "longer than 1.999 s" in str(refused(content, "too-long", max_seconds=1.999))
    loud = chord(RATE)
    loud[20_000] = np.nan
    refused(contained("matroska", "pcm_f32le", RATE, loud), "not-finite")
    loud[20_000] = 1e30
    refused(contained("matroska", "pcm_f32le", RATE, loud), "not-finite")


@pytest.mark.parametrize(
    "name",
    [
        "a.wav",
        "a.mp4",
        "a.txt",
        "http:--x.m3u8",
        "concat:a|b",
        "no extension",
        "-i",
        "ä ö.m4a",
        "nul\udce4.m4a",
    ],
)
def test_the_name_means_nothing(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(contained("mp4", "alac", 44_100, chord(44_100)))
    assert len(media.decode(path).samples) == 2 * RATE
    with path.open("rb") as file:
        assert len(media.decode(file).samples) == 2 * RATE


# --- what may not be read


SECRET = "the-secret-file.wav"


@pytest.mark.parametrize(
    "content",
    [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{SECRET}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {SECRET}\n",
        f"[playlist]\nFile1={SECRET}\n",
        f'<?xml version="1.0"?><MPD '
        f'xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet><Representation><BaseURL>{SECRET}'
        f"</BaseURL></Representation></AdaptationSet></Period></MPD>",
        f"<ASX version='3.0'><entry><ref href='{SECRET}'/></entry></ASX>",
        "1\n00:00:00,000 --> 00:00:01,000\na subtitle\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        "RTSPtext",
        ";FFMETADATA1\ntitle=x\n",
        "WEBVTT\n\n00:00.000 --> 00:01.000\nx\n",
    ],
)
@pytest.mark.parametrize("name", ["a.wav", "a.m3u8", "a.ffconcat", "a.mpd"])
def test_playlists_under_any_name_open_no_other_file(tmp_path, monkeypatch, content, name):
    (tmp_path / SECRET).write_bytes(plain("WAV", "PCM_16", RATE, chord(RATE)))
    (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    refused(Path(name), "not-audio")


def test_a_reference_inside_a_film_is_not_followed(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(
        ffmpeg,
        "nothing_else",
        lambda address, flags, options: (
            opened.append(address) or (_ for _ in ()).throw(PermissionError(address))
        ),
    )
    secret = tmp_path / SECRET
    secret.write_bytes(plain("WAV", "PCM_16", RATE, chord(RATE)))
    content = contained("mov", "pcm_s16be", RATE, chord(RATE))
    place = content.index(b"url ")  # a data reference to this file itself becomes an alias to another
    alias = b"alis" + b"\0\0\0\0" + bytes(150) + str(secret).encode()
    changed = content[:place] + alias[: len(content) - place]
    try:
        media.decode(changed)
    except UserError as error:
        assert error.code in ("broken-audio", "empty-file", "not-audio")
    assert opened == []


def test_codecs_and_containers_outside_the_white_list_are_refused(monkeypatch):
    film = contained("matroska", "pcm_s16le", RATE, chord(RATE))
    monkeypatch.setattr(ffmpeg, "CODECS", ffmpeg.CODECS - {"pcm_s16le"})
    assert "pcm_s16le" in str(refused(film, "not-audio"))
    for form in ("nut", "gxf", "sox"):
        out = io.BytesIO()
        with av.open(out, "w", format=form) as file:
            stream = file.add_stream(
                "pcm_s16le" if form != "sox" else "pcm_s32le", rate=48_000, layout="mono"
            )
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 4800), np.int16 if form != "sox" else np.int32),
                format="s16" if form != "sox" else "s32",
                layout="mono",
            )
            frame.sample_rate = 48_000
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        refused(out.getvalue(), "not-audio")


def test_a_picture_is_no_sound():
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    assert "no sound track" in str(refused(out.getvalue(), "not-audio"))
    for codec, form in (("png", "rgb24"), ("mjpeg", "yuvj420p")):
        context = av.CodecContext.create(codec, "w")
        context.width, context.height, context.pix_fmt, context.framerate = 64, 48, form, 1
        picture = b"".join(bytes(packet) for packet in context.encode(av.VideoFrame(64, 48, form)))
        refused(picture, "not-audio")


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "aac"),
        ("adts", "aac"),
        ("matroska", "flac"),
        ("webm", "libopus"),
        ("asf", "wmav2"),
        ("tta", "tta"),
    ],
)
def test_a_file_cut_anywhere_gives_its_beginning_or_one_line(container, codec):
    content = contained(container, codec, 48_000, chord(48_000, 2))
    whole, good = media.decode(content).samples, 0
    for size in range(1, len(content), len(content) // 25):
        try:
            samples = media.decode(content[:size]).samples
            good += 1
            assert len(samples) <= len(whole) + 1
        except UserError as error:
            assert error.code in ("broken-audio", "not-audio", "empty-file", "too-short")
    assert good or container in ("mp4", "tta")  # an MP4's index is at its end, TTA's is checked as a whole


def test_a_place_that_cannot_be_is_no_traceback(capfd, tmp_path):
    caf, path = plain("CAF", "PCM_16", RATE, chord(RATE)), tmp_path / "a.caf"
    path.write_bytes(patched(caf, caf.index(b"data") + 4, ">q", 2**62))
    assert np.array_equal(
        media.decode(path).samples, media.decode(caf).samples
    )  # by FFmpeg, since libsndfile refuses it
    assert capfd.readouterr() == ("", "")


def test_a_tag_before_the_sound_changes_nothing():
    content = contained("adts", "aac", 44_100, chord(44_100))
    tag = b"ID3\x04\0\0" + bytes((0, 0, 7, 104)) + b"TIT2" + bytes((0, 0, 0, 4)) + b"\0\0\3abc" + bytes(986)
    assert same(media.decode(tag + content), media.decode(content))


def test_an_mp4_that_promises_more_than_it_has_is_noted():
    content = contained("mp4", "alac", 44_100, chord(44_100))
    index, data = content.index(b"moov") - 4, content.index(b"mdat") - 4
    assert data < index
    half = (index - data) // 2
    # the index goes first, and half of the sound is cut off; offsets into the file move by the index's length
    place = content.index(b"stco") - index
    moved = bytearray(content[index:])
    count = int.from_bytes(moved[place + 8 : place + 12], "big")
    for entry in range(count):
        at = place + 12 + 4 * entry
        moved[at : at + 4] = (int.from_bytes(moved[at : at + 4], "big") + len(moved)).to_bytes(4, "big")
    decoded = media.decode(content[:data] + bytes(moved) + content[data : data + half])
    assert 0.2 * RATE < len(decoded.samples) < 1.8 * RATE and decoded.note


# --- pipes


def test_a_pipe_is_read_to_its_end_within_limits(monkeypatch):
    content = contained("mp4", "alac", 44_100, chord(44_100))

    def through_a_pipe() -> Decoded:
        reading, writing = os.pipe()

        def write() -> None:
            try:
                with os.fdopen(writing, "wb") as file:
                    file.write(content)
            except BrokenPipeError:
                pass

        thread = threading.Thread(target=write)
        thread.start()
        try:
            with os.fdopen(reading, "rb") as file:
                return media.decode(file)
        finally:
            thread.join()

    assert same(through_a_pipe(), media.decode(content))
    monkeypatch.setattr(media, "LIMITS", Limits(max_spooled_bytes=len(content) - 1))
    with pytest.raises(UserError) as caught:
        through_a_pipe()
    assert caught.value.code == "too-large"


class Pipe(io.BytesIO):
    """Bytes that cannot be had twice, a few at a time."""

    def seekable(self) -> bool:
        return False

    def seek(self, *place: int) -> int:
        raise io.UnsupportedOperation("seek")

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, 10_007))


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("WAV", one) for one in ("PCM_16", "PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM")]
    + [("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("FLAC", "PCM_16")],
)
def test_a_pipe_gives_the_bits_of_the_file(form, subtype, monkeypatch):
    content = plain(form, subtype, 44_100, chord(44_100, 2))
    small = form.startswith("WAV") and subtype not in ("ULAW", "IMA_ADPCM")
    if small:  # which needs no temporary file
        monkeypatch.setattr(media, "LIMITS", Limits(max_spooled_bytes=0))
    for data in (content, content + b"LIST\x04\0\0\0abcd"):
        pipe = Pipe(data)
        assert same(media.decode(pipe), media.decode(data)) and pipe.read() == b""
        assert same(media.decode(Pipe(data), 0.3, 1.1), media.decode(data, 0.3, 1.1))
    if small:
        place = content.index(b"data") + 4
        for length in (0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF):
            assert np.array_equal(
                media.decode(Pipe(patched(content, place, "<I", length))).samples,
                media.decode(content).samples,
            )
        cut = content[: place + 4 + 48_000]  # whole frames of each form
        assert "promises" in media.decode(Pipe(cut)).note and same(media.decode(Pipe(cut)), media.decode(cut))
        with pytest.raises(UserError) as caught:
            media.decode(Pipe(content[:place]))
        assert caught.value.code in ("empty-file", "broken-audio", "too-large")


def test_a_pipe_of_any_length_takes_little_memory(monkeypatch):
    monkeypatch.setattr(media, "LIMITS", Limits(max_spooled_bytes=0))
    content, size = plain("WAV", "PCM_16", RATE, np.zeros((16, 1), np.float32)), 2 * 3600 * RATE

    class Hour(Pipe):
        left = size

        def read(self, count: int | None = -1) -> bytes:
            first = super().read(count)
            if first or not self.left:
                return first
            self.left -= (count := min(self.left, count or 0))
            return bytes(count)

    tracemalloc.start()
    total = sum(
        len(block)
        for block in media.blocks(
            Hour(patched(content, content.index(b"data") + 4, "<I", size)[: content.index(b"data") + 8]), 10.0
        )
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == size // 2 and peak < 4_000_000


def test_spooling_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with media.spooled(io.BytesIO(b"x" * 3_000_000)) as file:
        assert Path(file.name).read_bytes() == file.read() == b"x" * 3_000_000
    assert list(tmp_path.iterdir()) == []


# --- blocks


@pytest.mark.parametrize("seconds", [0.1, 0.77, 1.0, 5.0, 10.0])
@pytest.mark.parametrize("form", ["wav", "mp3", "webm"])
def test_blocks_joined_are_the_whole(form, seconds):
    samples = chord(48_000, 2, 5.0)
    content = {
        "wav": lambda: plain("WAV", "PCM_16", 48_000, samples),
        "mp3": lambda: plain("MP3", "MPEG_LAYER_III", 48_000, samples),
        "webm": lambda: contained("webm", "libopus", 48_000, samples),
    }[form]()
    pieces = list(media.blocks(content, seconds))
    assert all(len(piece) == round(seconds * RATE) for piece in pieces[:-1]) and 0 < len(pieces[-1]) <= round(
        seconds * RATE
    )
    assert all(piece.dtype == np.int16 for piece in pieces)
    assert np.array_equal(np.concatenate(pieces), media.decode(content).samples)
    assert np.array_equal(
        np.concatenate(list(media.blocks(content, seconds, 1.1, 3.3))),
        media.decode(content, 1.1, 3.3).samples,
    )


def test_blocks_end_with_the_note_and_refuse_as_decode():
    content = plain("FLAC", "PCM_16", RATE, np.random.default_rng(0).uniform(-0.5, 0.5, (80_000, 1)))
    blocks, note = media.blocks(content[: len(content) // 2], 1.0), ""
    while not note:
        try:
            next(blocks)
        except StopIteration as end:
            note = end.value
    assert note.startswith("decoding stopped after")
    for source, code in (
        (b"hello, world", "not-audio"),
        (b"", "empty-file"),
        (Path("/nowhere/x.wav"), "missing-file"),
    ):
        with pytest.raises(UserError) as caught:
            next(media.blocks(source, 1.0))
        assert caught.value.code == code


def test_memory_is_that_of_a_block_however_long_the_recording(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(plain("WAV", "PCM_16", RATE, np.zeros((16, 1), np.float32)))
    hours = 1
    content = path.read_bytes()
    size = 2 * 3600 * RATE * hours
    path.write_bytes(patched(patched(content, content.index(b"data") + 4, "<I", size), 4, "<I", size + 36))
    os.truncate(path, size + 44)  # sparse: zeros that take no disk
    tracemalloc.start()
    total = sum(len(block) for block in media.blocks(path, 10.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 3600 * RATE * hours
    assert peak < 4_000_000
    assert len(media.decode(path, 3590.0, 3600.0).samples) == 10 * RATE  # from the far end at once
    refused(path, "too-long")


# --- without PyAV


def test_without_pyav_one_line_says_what_to_install(tmp_path):
    (tmp_path / "a.m4a").write_bytes(contained("mp4", "alac", 44_100, chord(44_100)))
    (tmp_path / "a.flac").write_bytes(plain("FLAC", "PCM_16", RATE, chord(RATE)))
    program = """
import sys
sys.modules["av"] = None
from pathlib import Path
from beatline.audio import media
from beatline.core.errors import UserError
assert len(media.decode(Path("a.flac")).samples) == 32000
try:
    media.decode(Path("a.m4a"))
except UserError as error:
    print(error)
"""
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (
        "looks like MP4" in found.stdout
        and "pip install 'beatline[media]'" in found.stdout
        and "[not-audio]" in found.stdout
    )


def test_importing_it_imports_neither_torch_nor_pyav():
    program = (
        "import sys, beatline.audio.media, beatline.audio.pool, beatline.audio.child; print([name for name "
        "in "
        "('torch', 'av', 'scipy', 'pyarrow') if name in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_limits_are_stated_in_bytes_that_a_child_fits_in():
    assert LIMITS.max_decoder_bytes + (64 << 20) <= 256 << 20
