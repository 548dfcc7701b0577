"""Streams: the windows of the offline tagger, however the sound is cut into blocks; bounded delay and memory;
the program on a real pipe in real time.
"""

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from beatline import cli
from beatline.audio import media, windows
from beatline.audio import stream as pcm
from beatline.audio.samples import to_waveform
from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet
from beatline.model import geometry
from beatline.model.checkpoints.own import save
from beatline.model.engines.base import Engine
from beatline.model.engines.pytorch import TorchEngine
from beatline.tag.calibration import Calibration, calibration_folder, model_hash
from beatline.tag.listening import Stream, every, live
from beatline.tag.tagger import AudioTagger
from tests.helpers.models import LABELS, make_tagger
from tests.helpers.sounds import chord

RATE = 16_000


class Meter(Engine):
    """Scores that any other sample would change; each pass takes so many seconds."""

    name, task, labels = "meter", "multi-label", LABELS

    def __init__(self, seconds: float = 0.0):
        super().__init__()
        self.seconds = seconds

    def run_pass(self, waveforms, lengths, names):
        time.sleep(self.seconds)
        scores = np.stack(
            [
                np.abs(waveforms).mean(axis=1),
                (waveforms**2).mean(axis=1),
                np.abs(np.diff(waveforms)).mean(axis=1),
            ],
            axis=1,
        )
        return [scores.astype(np.float32)] * len(names)


def meter(window: float = 0.5, hop: float = 0.2, seconds: float = 0.0) -> AudioTagger:
    return AudioTagger(Meter(seconds), window, hop)


def noise(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))).astype(
        np.float32
    )


def facts(moments):
    return [(moment.start, moment.time, moment.scores.tobytes()) for moment in moments]


def offline(tagger: AudioTagger, samples: np.ndarray, rate: int):
    """The same by the way of files: decoded whole, cut by `windows.cut`, each window scored alone."""
    decoded = media.decode((samples, rate)).samples
    cut = list(windows.cut([decoded], round(tagger.window * RATE), round(tagger.hop * RATE)))
    scores = [tagger.engine.run(to_waveform(geometry.tile_short(part))[None]).scores[0] for _, part in cut]
    return [
        (begin / RATE, (begin + len(part)) / RATE, score.tobytes())
        for (begin, part), score in zip(cut, scores, strict=True)
    ]


SCENES = {
    (rate, channels): noise(seconds, rate, channels)
    for rate, channels, seconds in ((16_000, 1, 1.73), (44_100, 2, 1.31), (8000, 1, 0.9))
}
EXPECTED = {(rate, channels): offline(meter(), samples, rate) for (rate, channels), samples in SCENES.items()}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(SCENES)), st.lists(st.integers(0, 30_000), max_size=12))
def test_any_blocks_give_the_moments_of_the_file(scene, sizes):
    samples, stream = SCENES[scene], Stream(meter(), *scene)
    found = [
        moment
        for part in np.split(samples, np.minimum(np.cumsum(sizes), len(samples)))
        for moment in stream.push(part)
    ] + stream.finish()
    assert facts(found) == EXPECTED[scene]


def test_one_sample_at_a_time_is_the_same_too():
    samples, stream = SCENES[8000, 1], Stream(meter(), 8000)
    assert (
        facts([moment for one in samples for moment in stream.push(one)] + stream.finish())
        == EXPECTED[8000, 1]
    )


@pytest.mark.parametrize("seconds", [0.0001, 0.05, 0.4999, 0.5, 0.5001, 0.7, 0.9, 0.9001, 2.0])
def test_the_last_window_ends_with_the_stream(seconds):
    samples = noise(seconds)
    assert facts(every(Stream(meter(), RATE), [samples])) == offline(meter(), samples, RATE)


def test_a_moment_comes_with_the_sample_that_fills_its_window():
    samples, stream = noise(1.0), Stream(meter(), RATE)
    assert stream.push(samples[:7999]) == [] and [m.time for m in stream.push(samples[7999:8000])] == [0.5]
    assert stream.push(samples[8000:11_199]) == [] and [
        m.time for m in stream.push(samples[11_199:11_200])
    ] == [0.7]
    assert stream.finish() == [] and stream.finish() == []
    with pytest.raises(ValueError):
        stream.push(samples)
    assert Stream(meter(), RATE).finish() == []


def test_scores_are_the_tagger_s():
    tagger = AudioTagger(TorchEngine(make_tagger(), LABELS), 1.0, 0.5)
    samples = noise(3.3, 22_050)
    moments, tagged = list(every(Stream(tagger, 22_050), [samples])), tagger(samples, 22_050)
    assert [moment.start for moment in moments] == tagged.starts.tolist() and moments[
        -1
    ].time == pytest.approx(3.3, abs=1e-3)
    np.testing.assert_allclose([moment.scores for moment in moments], tagged.window_scores, atol=1e-6)
    assert [score for _, score in moments[0].above(0.0)] == sorted(moments[0].scores.tolist(), reverse=True)
    assert moments[0].to_dict(2.0) == {"start": 0.0, "time": 1.0, "tags": [], "skipped": 0}


def made_calibration(labels: LabelSet, **about) -> Calibration:
    return Calibration(
        labels, np.array([0.4, 0.45, 0.6], np.float32), 3.0, ("learned",) * 3, np.array([9, 9, 9]), about
    )


def test_calibration_and_parents_are_heard_too():
    labels = LabelSet((Label("/m/0bt9lr", "Dog"), Label("/m/05tny_", "Bark"), Label("hum", "Hum")))
    plain, tagger = (
        AudioTagger(TorchEngine(make_tagger(), labels), 1.0, 0.5, parents=parents)
        for parents in (False, True)
    )
    tagger.calibration = made_calibration(labels)
    samples = noise(2.2)
    moments, raw = (list(every(Stream(one, RATE), [samples])) for one in (tagger, plain))
    np.testing.assert_allclose(
        [moment.scores for moment in moments], tagger(samples, RATE).window_scores, atol=1e-6
    )
    assert all(
        (moment.scores[0] >= moment.scores[1]).all() and (other.scores[0] < other.scores[1]).all()
        for moment, other in zip(moments, raw, strict=True)
    )
    assert [[label.name for label, _ in moment.select([2, 0]).above(0.0)] for moment in raw] == [
        [label.name for label, _ in moment.above(0.0) if label.name != "Bark"] for moment in raw
    ]
    thresholds = moments[0].scores + np.float32([0.01, 0, -0.01])
    assert {label.name for label, _ in moments[0].above(thresholds)} == {"Bark", "Hum"}


def test_memory_is_flat():
    stream, block = Stream(meter(), 48_000), noise(1.0, 48_000)
    for _ in range(5):
        stream.push(block)
    tracemalloc.start()
    for _ in range(300):
        stream.push(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_what_no_stream_takes():
    for options in ({"hop": 0.6}, {"hop": 0}, {"window": 0.1, "hop": 0.2}):
        with pytest.raises(UserError, match="bad-usage"):
            Stream(meter(), RATE, **options)
    for rate, channels in ((5, 1), (RATE, 65)):
        with pytest.raises(UserError, match="the stream"):
            Stream(meter(), rate, channels)
    for block in (noise(0.1, channels=2), np.array([np.nan], np.float32), np.zeros(3, np.int64)):
        with pytest.raises(UserError, match="the stream"):
            Stream(meter(), RATE).push(block)


# --- live


def paced(samples, seconds=0.02):
    """Blocks that come when they would from a microphone."""
    size, begun = round(seconds * RATE), time.monotonic()
    for number, begin in enumerate(range(0, len(samples), size), 1):
        time.sleep(max(0.0, begun + number * seconds - time.monotonic()))
        yield samples[begin : begin + size]


def test_live_skips_nothing_where_the_model_is_fast_enough():
    samples = noise(7.5)
    for blocks in (
        [samples],
        iter(np.split(samples, 16)),
    ):  # faster than real time: the source waits for the model
        found = list(live(Stream(meter(2.0, 1.0, seconds=0.02), RATE), blocks))
        assert facts(found) == offline(meter(2.0, 1.0), samples, RATE) and not any(
            moment.skipped for moment in found
        )
    found = list(live(Stream(meter(0.5, 0.5), RATE), paced(samples[:20_000])))
    assert facts(found) == offline(meter(0.5, 0.5), samples[:20_000], RATE)


@pytest.mark.slow
def test_a_slow_model_skips_and_never_falls_behind():
    samples, tagger = noise(2.0), meter(0.2, 0.05, seconds=0.17)
    given, behind, moments = [0.0], [], []

    def heard():
        for block in paced(samples):
            given.append(given[-1] + len(block) / RATE)
            yield block

    at_the_last = 0.0
    for moment in live(Stream(tagger, RATE), heard()):
        behind.append(at_the_last - moment.time)  # of what had come when its pass began
        at_the_last = given[-1]
        moments.append(moment)
    total = len(offline(meter(0.2, 0.05), samples, RATE))
    assert len(moments) + sum(moment.skipped for moment in moments) == total and len(moments) < total / 2
    assert all(
        moment.skipped == round((moment.start - last.start) / 0.05) - 1
        for last, moment in itertools.pairwise(moments)
    )
    assert moments[-1].time == pytest.approx(2.0)
    assert np.median(behind) < 0.05 + 0.1  # a hop, a busy machine


def test_a_fast_source_and_a_slow_model_end_up_in_real_time():
    moments = list(live(Stream(meter(0.2, 0.05, seconds=0.17), RATE), iter(np.split(noise(1.5), 30))))
    assert sum(moment.skipped for moment in moments) > 5


def test_what_the_source_raises_is_raised_and_the_thread_ends():
    def broken():
        yield noise(1.0)
        raise UserError("broken-audio", "a", "b", "c")

    found = live(Stream(meter(), RATE), broken())
    assert next(found).time == 0.5
    with pytest.raises(UserError):
        list(found)
    endless = live(Stream(meter(), RATE), itertools.repeat(noise(0.3)))
    next(endless)
    endless.close()
    until = time.monotonic() + 5
    while any(thread.name == "hear" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)


# --- pipes


def trickle(data: bytes, seed: int = 0):
    """Reads that give what they like."""
    file, rng = io.BytesIO(data), np.random.default_rng(seed)
    return lambda most: file.read(int(min(most, rng.integers(1, 5000))))


def wav(samples, rate, subtype, form="WAV"):
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=form, subtype=subtype)
    return out.getvalue()


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")]
    + [("WAVEX", "PCM_24"), ("WAVEX", "FLOAT")],
)
def test_a_wav_stream_is_heard_as_the_file_is_read(form, subtype):
    data = wav(noise(0.7, 22_050, 2), 22_050, subtype, form)
    sound = pcm.sound(trickle(data), "standard input")
    assert (sound.rate, sound.channels) == (22_050, 2)
    stream = Stream(meter(0.7, 0.7), sound.rate, sound.channels)
    heard = np.concatenate(
        [part for block in sound.blocks for _, part in stream.cut(block)] + [part for _, part in stream.end()]
    )
    np.testing.assert_array_equal(heard, media.decode(data).samples)


def test_a_wav_stream_without_a_length_and_one_with_more_behind_it():
    data = wav(noise(0.2), RATE, "PCM_16")
    place = data.index(b"data")
    for length in (0, 0x7FFFFF00, 0xFFFFFFFF):
        changed = data[: place + 4] + length.to_bytes(4, "little") + data[place + 8 :]
        assert sum(map(len, pcm.sound(trickle(changed), "x").blocks)) == 3200
    assert sum(map(len, pcm.sound(trickle(data + b"LIST\x04\0\0\0abcd"), "x").blocks)) == 3200


def test_raw_samples_of_any_rate_and_odd_bytes():
    samples = (1000 * noise(0.1, channels=2)).astype("<i2")
    sound = pcm.sound(trickle(samples.tobytes() + b"\1\2\3"), "x", 48_000, 2)
    blocks = list(sound.blocks)
    assert sound.rate == 48_000 and all(block.shape[1] == 2 for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), samples)
    assert sum(map(len, pcm.sound(trickle(b"\1\0\2"), "x").blocks)) == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty-file"),
        (b"fLaC" + bytes(100), "not-audio"),
        (b"OggS" + bytes(100), "not-audio"),
        (wav(noise(0.1), RATE, "ULAW"), "not-audio"),
        (b"RIFF\0\0\0\0WAVE", "broken-audio"),
        (b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\xff", "broken-audio"),
        (b"RIFF\0\0\0\0WAVEfmt \2\0\0\0ab" + bytes(99), "broken-audio"),
        (b"RIFF\0\0\0\0WAVEdata" + bytes(99), "broken-audio"),
    ],
)
def test_what_no_pipe_may_carry(data, code):
    with pytest.raises(UserError) as caught:
        pcm.sound(trickle(data), "standard input")
    assert caught.value.code == code and "standard input" in str(caught.value)


# --- the program


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("listen") / "model"
    save(folder, make_tagger(), LABELS, {})
    return str(folder)


@pytest.fixture
def program(model):
    command = [
        sys.executable,
        "-m",
        "beatline",
        "listen",
        "-",
        "--model",
        model,
        "--window",
        "0.4",
        "--hop",
        "0.2",
        "--format",
        "jsonl",
        "--threshold",
        "0",
    ]
    with subprocess.Popen(
        command,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
    ) as process:
        yield process
        process.kill()


@pytest.mark.slow
def test_the_program_hears_a_pipe_in_real_time_until_its_end(program, model):
    samples = (8000 * noise(1.5)).astype("<i2")[:, 0]
    for block in paced(samples):
        program.stdin.write(block.tobytes())
    out, errors = program.communicate(timeout=60)
    assert program.returncode == 0, errors
    rows = [json.loads(line) for line in out.splitlines()]
    assert (
        len(rows) + sum(row["skipped"] for row in rows) == 7
        and rows[-1]["time"] == 1.5
        and b"1.5 s heard" in errors
    )
    ready = AudioTagger(TorchEngine(make_tagger(), LABELS), 0.4, 0.2)
    wanted = {round(moment.start, 3): moment for moment in every(Stream(ready, RATE), [samples])}
    for row in rows:
        scores = {tag["mid"]: tag["score"] for tag in row["tags"]}
        np.testing.assert_allclose(
            [scores[mid] for mid in LABELS.mids], wanted[row["start"]].scores, atol=1e-5
        )


def test_the_program_stops_at_once_with_its_last_line_whole(program):
    over = threading.Event()

    def feed():
        for block in itertools.cycle(np.split((8000 * noise(1.0)).astype("<i2")[:, 0], 50)):
            if over.wait(0.02):
                return
            with suppress(BrokenPipeError):
                program.stdin.write(block.tobytes())

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        first = [program.stdout.readline() for _ in range(3)]
        program.send_signal(signal.SIGINT)
        rest, errors = program.stdout.read(), program.stderr.read()
        assert program.wait(20) == 130
    finally:
        over.set()
        feeder.join()
    lines = (b"".join(first) + rest).splitlines(keepends=True)
    assert (
        all(line.endswith(b"\n") and json.loads(line)["tags"] for line in lines)
        and b"stopped" in errors
        and b"Traceback" not in errors
    )


def test_the_program_hears_files_and_says_what_it_cannot(model, tmp_path, capsys, monkeypatch):
    soundfile.write(tmp_path / "a.wav", chord(44_100, 2), 44_100)
    assert (
        cli.main(
            [
                "listen",
                str(tmp_path / "a.wav"),
                "--model",
                model,
                "--window",
                "1",
                "--hop",
                "0.5",
                "--threshold",
                "0.999",
            ]
        )
        == 0
    )
    out, errors = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["1.0", "s"],
        ["1.5", "s"],
        ["2.0", "s"],
    ] and "2.0 s heard, 3 lines" in errors
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    for words, code in (
        ([], "missing-package"),
        (["-", "--hop", "20"], "bad-usage"),
        (["-", "--threshold", "2"], "bad-usage"),
        ([str(tmp_path / "none")], "missing-file"),
        (["-", "--rate", "0"], "bad-usage"),
    ):
        assert cli.main(["listen", *words, "--model", model]) in (2, 3)
        errors = capsys.readouterr().err
        assert code in errors and errors.count("\n") == 1


def test_the_program_takes_labels_and_a_calibration_as_tag_does(tmp_path, capsys):
    labels = LabelSet((Label("/m/0bt9lr", "Dog"), Label("/m/05tny_", "Bark"), Label("hum", "Hum")))
    save(tmp_path / "model", make_tagger(), labels, {})
    made_calibration(labels, model_hash=model_hash(tmp_path / "model")).save(
        calibration_folder(tmp_path / "model")
    )
    soundfile.write(tmp_path / "a.wav", noise(1.5), RATE, subtype="FLOAT")
    words = [
        str(tmp_path / "a.wav"),
        "--model",
        str(tmp_path / "model"),
        "--engine",
        "torch",
        "--window",
        "1",
        "--hop",
        "0.5",
    ]
    said = {}
    for name, options in (
        ("plain", ["--threshold", "0"]),
        ("calibrated", ["--calibrated"]),
        ("chosen", ["--threshold", "0", "--labels", "hum;Dog", "--parents"]),
    ):
        for command in (["listen", "--format", "jsonl"], ["tag", "--timeline", "--format", "json"]):
            assert cli.main([*command, *words, *options]) == 0
            out = (
                [json.loads(line) for line in capsys.readouterr().out.splitlines()]
                if command[0] == "listen"
                else json.loads(capsys.readouterr().out)[0]["windows"]
            )
            said[name, command[0]] = [
                [(tag["name"], pytest.approx(tag["score"], abs=1e-5)) for tag in one["tags"]] for one in out
            ]
        assert said[name, "listen"] == said[name, "tag"] and len(said[name, "tag"]) == 2
    assert {name for name, _ in said["chosen", "listen"][0]} == {"Hum", "Dog"} and said[
        "calibrated", "listen"
    ] != said["plain", "listen"]
    assert (
        cli.main(["listen", *words, "--labels", "Trombone"]) == 3
        and "unknown-label" in capsys.readouterr().err
    )


def test_the_example_of_the_documentation_runs(model, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs/compare-and-listen.md").read_text()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mini").symlink_to(Path(model).parent)
    monkeypatch.chdir(tmp_path)
    exec(page.split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out.splitlines()[0].startswith("2.0 [")
