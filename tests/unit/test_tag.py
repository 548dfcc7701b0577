"""Tagging files: order, refusals, windows, batches shared between recordings, what is printed."""

import io
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from beatline import cli
from beatline.audio import inputs, media, windows
from beatline.audio.pool import Decoders, Job
from beatline.audio.signatures import EXTENSIONS
from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet
from beatline.model import geometry
from beatline.model.checkpoints.own import save
from beatline.model.engines.pytorch import TorchEngine
from beatline.tag import ray as bulk_tag
from beatline.tag import recordings
from beatline.tag import tagger as tag
from beatline.tag.calibration import Calibration, model_hash
from beatline.tag.events import EventOptions, Events, in_order
from tests.helpers.models import LABELS, make_tagger, tiny_export
from tests.helpers.processes import children, until


@pytest.fixture(scope="module")
def tagger():
    return TorchEngine(make_tagger(), LABELS)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for number, seconds in enumerate((0.05, 0.5, 3.0, 10.0, 10.5, 27.3)):
        soundfile.write(folder / f"{number}.wav", 0.1 * rng.standard_normal(round(seconds * 16_000)), 16_000)
    (folder / "deep").mkdir()
    soundfile.write(folder / "deep/6.flac", 0.1 * rng.standard_normal(44_100), 44_100)
    (folder / "broken.wav").write_bytes(b"RIFF0000WAVEjunk")
    (folder / "notes.txt").write_text("not audio")
    return folder


@pytest.fixture
def fast(tagger, monkeypatch):
    """The same tagger, read ahead for as beside a GPU."""
    monkeypatch.setattr(tagger, "readers", 3)
    return tagger


def test_recordings_are_begun_ahead_of_their_turn_with_the_same_results(tagger, sounds, fast):
    paths = [*sorted(sounds.glob("*.wav")), sounds / "gone.wav", sounds / "deep/6.flac"] * 3
    met, seen = threading.Barrier(3), list[str]()

    def read(source, seconds):
        seen.append(source.name)
        if len(seen) <= 3:
            met.wait(20)  # three are begun at once, or never
        return (yield from media.blocks(source, seconds))

    ahead = list(tag.AudioTagger(fast).tag(paths, read=read))
    fast.readers = 0
    one_by_one = list(tag.AudioTagger(tagger).tag(paths))
    assert len(seen) == len(paths) and [result.source for result in ahead] == [str(path) for path in paths]
    for got, expected in zip(ahead, one_by_one, strict=True):
        assert type(got) is type(expected)
        if isinstance(got, tag.Refused):
            assert (got.error.code, got.error.cause) == (expected.error.code, expected.error.cause)
        else:
            assert np.array_equal(got.scores, expected.scores) and got.seconds == expected.seconds


def test_who_leaves_early_ends_what_was_begun_ahead(fast, sounds):
    before = set(children())
    with Decoders(8) as decoders:
        results = tag.AudioTagger(fast, window=1.0, hop=0.5).tag(
            [Job(sounds / "5.wav")] * 12, read=decoders.blocks
        )
        next(results)
        results.close()
        until(
            lambda: not [one for one in threading.enumerate() if one.name.startswith(("ahead", "buffered"))]
        )
    assert set(children()) <= before


def test_every_recording_gets_one_result_in_order(tagger, sounds):
    paths = [*sorted(sounds.glob("*.wav")), sounds / "gone.wav", sounds / "deep/6.flac"]
    results = list(tag.AudioTagger(tagger).tag(paths))
    assert [result.source for result in results] == [str(path) for path in paths]
    assert [result.error.code for result in results if isinstance(result, tag.Refused)] == [
        "broken-audio",
        "missing-file",
    ]
    good = [result for result in results if isinstance(result, tag.Result)]
    assert len(good) == 7 and all(np.isfinite(result.scores).all() for result in good)


def test_scores_are_those_of_the_clip_alone(tagger, sounds):
    for number, result in enumerate(
        tag.AudioTagger(tagger).tag([sounds / f"{number}.wav" for number in range(4)])
    ):
        samples, _ = soundfile.read(sounds / f"{number}.wav", dtype="int16")
        alone = geometry.tile_short(samples).astype(np.float32) / 32768
        np.testing.assert_allclose(result.scores, tagger.scores(alone[None])[0], atol=1e-6)
        assert result.starts.tolist() == [0.0] and result.seconds == pytest.approx(len(samples) / 16_000)


def test_a_long_recording_is_the_mean_of_its_windows(tagger, sounds):
    result = next(iter(tag.AudioTagger(tagger, window=10, hop=5).tag([sounds / "5.wav"])))
    assert result.starts.tolist() == [0.0, 5.0, 10.0, 15.0, 17.3]
    np.testing.assert_allclose(result.scores, result.window_scores.mean(axis=0), atol=1e-7)
    highest = next(iter(tag.AudioTagger(tagger, merge="max").tag([sounds / "5.wav"])))
    np.testing.assert_allclose(highest.scores, result.window_scores.max(axis=0), atol=1e-6)


def test_more_windows_than_one_batch_holds_and_an_error_between(tagger, sounds, monkeypatch):
    monkeypatch.setattr(recordings, "WINDOWS_AT_ONCE", 3)
    paths = [sounds / name for name in ("5.wav", "broken.wav", "4.wav", "0.wav", "5.wav")]
    results = list(tag.AudioTagger(tagger).tag(paths))
    assert [isinstance(result, tag.Refused) for result in results] == [False, True, False, False, False]
    np.testing.assert_allclose(results[0].scores, results[4].scores, atol=1e-6)


def test_bytes_and_streams_are_sources_too(tagger, sounds):
    content = (sounds / "2.wav").read_bytes()
    path, held, stream = tag.AudioTagger(tagger).tag([sounds / "2.wav", content, io.BytesIO(content)])
    assert np.array_equal(path.scores, held.scores) or np.allclose(path.scores, held.scores, atol=1e-6)
    np.testing.assert_allclose(path.scores, stream.scores, atol=1e-6)


class Pipe:
    """A stream of bytes that knows nothing but to be read, such as an HTTP response of some libraries."""

    def __init__(self, content: bytes):
        self.read = io.BytesIO(content).read


def test_a_tagger_takes_paths_bytes_streams_and_arrays(tagger, sounds):
    ready = tag.AudioTagger(tagger)
    path = sounds / "2.wav"
    samples, rate = soundfile.read(path)
    wanted = ready(path).scores
    for same in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        np.testing.assert_array_equal(ready(same).scores, wanted)
    for array in (
        samples,
        samples.astype(np.float32),
        np.stack([samples, samples], axis=1),
        (samples * 32768).astype(np.int16),
    ):
        np.testing.assert_allclose(ready(array, rate).scores, wanted, atol=1e-6)
    whole = (samples * 32768).astype(np.int64)
    for integers in (whole.astype(np.int32) << 16, np.stack([whole << 16] * 2, axis=1).astype(np.int32)):
        np.testing.assert_allclose(ready(integers, rate).scores, wanted, atol=1e-6)
    coarse = np.round(samples * 128).clip(-128, 127)
    np.testing.assert_array_equal(
        ready((coarse + 128).astype(np.uint8), rate).scores, ready(coarse / 128, rate).scores
    )
    np.testing.assert_array_equal(ready(Pipe(path.read_bytes())).scores, wanted)
    one, other = ready([path, sounds / "deep/6.flac"])
    np.testing.assert_allclose(one.scores, wanted, atol=1e-6)
    np.testing.assert_allclose(ready(*soundfile.read(sounds / "deep/6.flac")).scores, other.scores, atol=1e-6)
    np.testing.assert_allclose(ready(soundfile.read(path)).scores, wanted, atol=1e-6)
    assert [result.source for result in ready(([path, (samples, rate), samples]), rate)] == [
        str(path),
        "audio",
        "audio",
    ]
    strange = [
        (None, {}, "NoneType"),
        (3.0, {}, "float"),
        (io.StringIO("x"), {}, "binary mode"),
        (np.stack([samples, samples]), {"rate": rate}, r"array\.T"),
        (samples, {"rate": "16000"}, "'16000'"),
    ]
    strange += [
        (samples, {"rate": float("nan")}, "bad-sample-rate"),
        (samples, {"rate": float("inf")}, "bad-sample-rate"),
        (torch.zeros(9000, requires_grad=True), {"rate": rate}, "not-audio"),
        (torch.zeros(9000, device="meta"), {"rate": rate}, "not-audio"),
    ]
    for bad, options, words in strange:
        with pytest.raises(UserError, match=words):
            ready(bad, **options)
    for bad, options in (
        (samples, {}),
        (samples.astype(np.int64), {"rate": rate}),
        (np.zeros(0), {"rate": rate}),
        (np.full(9000, np.nan), {"rate": rate}),
        (samples, {"rate": 5}),
        ([path, sounds / "broken.wav"], {}),
    ):
        with pytest.raises(UserError):
            ready(bad, **options)


def test_threads_share_one_tagger(tagger, sounds):
    ready, paths = tag.AudioTagger(tagger), [sounds / f"{i}.wav" for i in range(6)] * 4
    with ThreadPoolExecutor(8) as pool:
        for path, result in zip(paths, pool.map(ready, paths), strict=True):
            np.testing.assert_array_equal(result.scores, ready(path).scores)


def waveform_of(path):
    samples, _ = soundfile.read(path, dtype="int16")
    return samples, geometry.tile_short(samples).astype(np.float32) / 32768


@pytest.mark.parametrize("level", ["steps", "windows"])
def test_events_are_those_of_the_windows_one_by_one(tagger, sounds, level, monkeypatch):
    monkeypatch.setattr(recordings, "WINDOWS_AT_ONCE", 5)
    ready = tag.AudioTagger(tagger, window=4, hop=1.6)
    paths = [sounds / f"{number}.wav" for number in range(6)]
    middle = float(np.median([ready(path).scores.mean() for path in paths]))
    options = EventOptions(level=level, threshold=middle, low=0.98, median=0.48, gap=0.16)
    count = 0
    for path, result in zip(paths, ready(paths, events=options), strict=True):
        samples, _ = waveform_of(path)
        finder, events = Events(LABELS, options), []
        for begin, part in windows.cut([samples], 64_000, 25_600):
            alone = tagger.run(geometry.tile_short(part).astype(np.float32)[None] / 32768, detail=True)
            events += finder.add(
                begin, len(part), tagger.score(alone.step_logits[0]) if level == "steps" else alone.scores
            )
        wanted = in_order(events + finder.finish(len(samples) / 16_000))
        assert [replace(event, score=0) for event in result.events] == [
            replace(event, score=0) for event in wanted
        ]
        np.testing.assert_allclose(
            [event.score for event in result.events], [event.score for event in wanted], atol=1e-6
        )
        np.testing.assert_allclose(result.scores, ready(path).scores, atol=1e-6)
        count += len(wanted)
    assert count > 6 and ready(paths[0]).events is None


def test_silence_and_short_clips_have_events_or_none(tagger):
    ready = tag.AudioTagger(tagger)
    for seconds in (0.001, 0.1, 0.3, 25.0):
        silent = np.zeros(max(1, round(seconds * 16_000)), np.float32)
        (loud,) = {event.offset for event in ready(silent, 16_000, events=EventOptions(threshold=0.0)).events}
        assert loud == pytest.approx(len(silent) / 16_000)
        assert ready(silent, 16_000, events=EventOptions(threshold=1.0)).events == ()


def test_embeddings_of_clips_and_tokens(tagger, sounds):
    ready = tag.AudioTagger(tagger, window=4, hop=2)
    paths = [sounds / f"{number}.wav" for number in range(6)]
    clips, tokens = ready.embed(paths), ready.embed(paths, level="token")
    for path, clip, some, result in zip(paths, clips, tokens, ready(paths), strict=True):
        _, whole = waveform_of(path)
        assert clip.dtype == some.dtype == np.float32
        np.testing.assert_array_equal(clip, result.embedding)
        steps = int(geometry.step_count(np.array(len(whole))))
        assert some.shape == (8 * steps, 32)
        if len(whole) <= 64_000:
            np.testing.assert_allclose(some, tagger.run(whole[None], detail=True).tokens[0], atol=1e-5)
            np.testing.assert_allclose(some.mean(axis=0), clip, atol=1e-5)
            continue
        first = int(geometry.step_count(np.array(64_000)))
        for begin in (0, 2560 * first):
            part = tagger.run(whole[None, begin : begin + 64_000], detail=True).tokens[0]
            np.testing.assert_allclose(some[8 * begin // 2560 :][: 8 * first], part, atol=1e-5)
        last = -(
            -(len(whole) - 64_000) // 2560
        )  # the last window begins on the grid and ends with the recording
        np.testing.assert_allclose(
            some[-8:], tagger.run(whole[None, 2560 * last :], detail=True).tokens[0, -8:], atol=1e-5
        )
    assert ready.embed(paths[0].read_bytes()).shape == (32,)
    with pytest.raises(UserError, match="clip, window or token"):
        ready.embed(paths[0], level="frame")
    with pytest.raises(UserError, match="broken"):
        ready.embed([paths[0], sounds / "broken.wav"], level="token")


def test_parents_are_raised_everywhere_or_refused(sounds):
    model, family = (
        make_tagger(),
        LabelSet((Label("/m/0jbk", "Animal"), Label("/m/05tny_", "Bark"), Label("mine", "Mine"))),
    )
    plain = tag.AudioTagger(TorchEngine(model, family), window=4, hop=2)
    raised = tag.AudioTagger(plain.engine, window=4, hop=2, parents=True)
    options = EventOptions(threshold=0.0, median=0)
    before, after = plain(sounds / "5.wav", events=options), raised(sounds / "5.wav", events=options)
    assert after.scores.tolist() == [max(before.scores[:2]), *before.scores[1:].tolist()]
    assert (after.window_scores[:, 0] == before.window_scores[:, :2].max(axis=1)).all()
    first, second = ({event.label.name: event.score for event in result.events} for result in (before, after))
    assert second == first | {"Animal": max(first["Animal"], first["Bark"])}
    with pytest.raises(UserError, match="no label of this model is a kind of another"):
        tag.AudioTagger(TorchEngine(model, LABELS), parents=True)
    model.task = "single-label"
    with pytest.raises(UserError, match="exclude each other"):
        tag.AudioTagger(TorchEngine(model, family), parents=True)


def test_a_calibration_changes_scores_and_where_events_begin(tagger, sounds):
    ready = tag.AudioTagger(tagger, window=4, hop=2)
    plain = ready(sounds / "5.wav", events=EventOptions(median=0))
    ready.calibration = Calibration(
        LABELS, np.array([1.0, 0.0, 1.0], np.float32), 2.0, ("learned",) * 3, np.ones(3, np.int64)
    )
    result = ready(sounds / "5.wav", events=EventOptions(median=0))
    logits = np.log(plain.window_scores / (1 - plain.window_scores))
    np.testing.assert_allclose(result.window_scores, 1 / (1 + np.exp(-logits / 2)), atol=1e-6)
    assert [(event.label.mid, event.onset, event.offset) for event in result.events] == [
        (LABELS.mids[1], 0.0, 27.3)
    ]
    assert len(ready(sounds / "5.wav", events=EventOptions(median=0, threshold=0.0)).events) == 3


@pytest.mark.parametrize(
    ("window", "hop"),
    [(10, 0), (10, 1e-6), (10, 11), (float("inf"), 5), (float("nan"), 5), (10, float("nan"))],
)
def test_windows_that_cannot_be_are_refused(tagger, window, hop):
    with pytest.raises(UserError, match="hop"):
        tag.AudioTagger(tagger, window, hop)


def test_merging_by_attention_counts_a_label_where_it_is_heard():
    scores = np.array([[0.9, 0.0], [0.1, 0.0]], np.float32)
    np.testing.assert_allclose(windows.merge(scores, "attention"), [0.82, 0.0], atol=1e-6)


def test_folders_globs_and_odd_names_are_found(sounds, tmp_path):
    assert [path.name for path in inputs.find_audio([str(sounds)])] == [
        "0.wav",
        "1.wav",
        "2.wav",
        "3.wav",
        "4.wav",
        "5.wav",
        "broken.wav",
        "6.flac",
    ]
    assert [path.name for path in inputs.find_audio([str(sounds / "[12].wav")])] == ["1.wav", "2.wav"]
    (tmp_path / "a[1].wav").write_bytes(b"x")
    assert [path.name for path in inputs.find_audio([str(tmp_path / "a[1].wav")])] == ["a[1].wav"]
    assert list(inputs.find_audio([str(sounds / "dee*")])) == [sounds / "deep/6.flac"]
    assert sorted(inputs.find_audio([str(sounds / "**")])) == sorted(
        [*inputs.find_audio([str(sounds)]), sounds / "notes.txt"]
    )  # none twice, whatever else matches them


def test_the_library_and_bulk_tagging_find_the_same_files(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for extension in EXTENSIONS:
        (tmp_path / "a/b" / f"x{extension}").touch()
    for name in ("a/notes.txt", "a/UPPER.Mp3", "elsewhere/linked.ts"):
        (tmp_path / name).touch()
    (tmp_path / "a/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a/b/circle").symlink_to(tmp_path / "a")
    found = [str(path) for path in inputs.find_audio([str(tmp_path / "a")])]
    assert sorted(found) == [
        name for name, _ in bulk_tag.find_inputs([str(tmp_path / "a")], str(tmp_path / "out"))
    ]
    assert len(found) == len(EXTENSIONS) + 2 and str(tmp_path / "a/link/linked.ts") in found


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save(folder / "model", make_tagger(), LABELS, {})
    return folder


def test_the_program_prints_what_it_was_asked_for(sounds, run_folder, capsys):
    def printed(*words, code=0):
        assert cli.main(["tag", *map(str, words), "--model", str(run_folder)]) == code
        return capsys.readouterr()

    files = [str(sounds / "1.wav"), str(sounds / "2.wav")]
    rows = [json.loads(line) for line in printed(*files, "--format", "jsonl", "--top", 2).out.splitlines()]
    assert [row["file"] for row in rows] == files and all(len(row["tags"]) == 2 for row in rows)
    assert json.loads(printed(*files, "--format", "json", "--top", 2).out) == rows
    assert len(printed(files[0], "--format", "csv").out.splitlines()) == 1 + len(LABELS)
    assert len(printed(files[0], "--format", "csv", "--threshold", 1).out.splitlines()) == 1
    assert len(printed(files[0], "--format", "csv", "--labels", "BARK;/m/rain").out.splitlines()) == 3
    assert (
        printed(files[0], "--format", "csv", "--labels", "bark", "--labels", "rain").out
        == printed(files[0], "--format", "csv", "--labels", "rain;bark").out
    )
    out, errors = printed(sounds / "broken.wav", files[0], code=3)
    assert "1.wav" in out and errors.count("\n") == 1 and "broken.wav" in errors


def test_the_program_writes_events_and_time_lines(sounds, run_folder, capsys, tmp_path):
    def lines(*words):
        assert cli.main(["tag", str(sounds / "5.wav"), "--model", str(run_folder), *map(str, words)]) == 0
        return capsys.readouterr().out.splitlines()

    whole = ["--threshold", 0, "--labels", "rain"]
    for form, wanted in {
        "audacity": ["0.000000\t27.300000\tRain"],
        "dcase": ["filename\tonset\toffset\tevent_label", "5.wav\t0.000\t27.300\tRain"],
    }.items():
        assert lines("--format", form, *whole) == wanted
    assert lines("--events", "windows", *whole)[1].split()[:2] == ["0.00", "27.30"]
    assert lines("--format", "audacity", "--threshold", 1) == []
    assert [line.split()[:2] for line in lines("--timeline", "--top", 1)[1:]] == [
        ["0.00", "10.00"],
        ["5.00", "15.00"],
        ["10.00", "20.00"],
        ["15.00", "25.00"],
        ["17.30", "27.30"],
    ]
    (row,) = (
        json.loads(line)
        for line in lines("--format", "jsonl", "--events", "steps", "--threshold", 0, "--top", 1)
    )
    assert len(row["tags"]) == 1 and len(row["events"]) == 3
    assert lines("--format", "raven", *whole, "--out", tmp_path / "table.txt") == []
    assert len((tmp_path / "table.txt").read_text().splitlines()) == 2 and len(list(tmp_path.iterdir())) == 1


def test_calibrated_results_have_their_thresholds_and_temperature(sounds, run_folder, capsys):
    Calibration(
        LABELS,
        np.array([1.0, 0.0, 1.0], np.float32),
        1.5,
        ("learned",) * 3,
        np.ones(3, np.int64),
        {"model_hash": model_hash(run_folder)},
    ).save(run_folder / "calibration")
    words = ["tag", str(sounds / "5.wav"), "--model", str(run_folder), "--format", "csv"]
    tagger = tag.load(run_folder)
    tagger.calibration = Calibration.load(run_folder)
    assert cli.main([*words, "--calibrated"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"{sounds / '5.wav'},0.000,27.300,{LABELS.mids[1]},Rain,{tagger(sounds / '5.wav').scores[1]:.6f}"
    ]
    assert cli.main([*words, "--calibrated", "--events", "steps", "--labels", "rain;speech"]) == 0
    assert [row.split(",")[4] for row in capsys.readouterr().out.splitlines()[1:]] == ["Rain"]


def test_standard_input_is_a_recording(sounds, run_folder, capsys, monkeypatch):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def isatty(self):
            return False

    content = (sounds / "2.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(content)))
    assert cli.main(["tag", "-", str(sounds / "2.wav"), "--model", str(run_folder), "--format", "jsonl"]) == 0
    one, other = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert one == other | {"file": "audio"}


WRONG = [
    ["--model", "m"],
    ["a.wav", "--model", "m", "--frobnicate"],
    ["a.wav", "--model", "m", "--top", "-1"],
    ["a.wav", "--model", "m", "--hop", "20"],
    ["a.wav", "--model", "m", "--format", "xml"],
    ["a.wav", "--model", "m", "--labels", " ; "],
    ["a.wav", "--model", "m", "--format", "parquet"],
    ["a.wav", "b.wav", "--model", "m", "--format", "audacity"],
    ["a.wav", "--model", "m", "--median", "1"],
    ["a.wav", "--model", "m", "--events", "steps", "--low", "0"],
    ["a.wav", "--model", "m", "--events", "steps", "--median", "100"],
    ["a.wav", "--model", "m", "--events", "steps", "--gap", "nan"],
    ["a.wav", "--model", "m", "--format", "rttm", "--timeline"],
    ["a.wav", "--model", "m", "--format", "rttm", "--top", "3"],
    ["a.wav", "--model", "m", "--threshold", "2"],
    ["a.wav", "--model", "m", "--threshold", "0.5", "--calibrated"],
    ["-", "-", "--model", "m"],
]


@pytest.mark.parametrize("words", WRONG)
def test_wrong_usage_is_one_line(words, capsys):
    assert cli.main(["tag", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.xdist_group("export")
def test_an_export_is_used_without_importing_torch(sounds, tmp_path_factory):
    exported = tiny_export(tmp_path_factory)
    code = (
        f"import sys; from beatline import cli; cli.main(['tag', '-', '--model', {str(exported)!r}, "
        f"'--format', 'rttm', '--threshold', '0']); assert 'torch' not in sys.modules"
    )
    piped = subprocess.Popen(["cat", sounds / "1.wav"], stdout=subprocess.PIPE)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=piped.stdout,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        timeout=120,
    )
    piped.stdout.close()
    assert piped.wait() == 0 and done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3 and all(
        line.startswith("SPEAKER audio 1 0.000 0.500 ") for line in done.stdout.splitlines()
    )


@pytest.mark.xdist_group("export")
def test_the_bar_is_for_several_files_on_a_terminal_and_leaves_the_output_alone(sounds, tmp_path_factory):
    exported = tiny_export(tmp_path_factory)

    def seen(*files):
        ours, theirs = os.openpty()
        words = [sys.executable, "-m", "beatline", "tag", *files, "--model", exported, "--format", "jsonl"]
        with subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm"},
        ) as program:
            os.close(theirs)
            rows = [json.loads(line) for line in program.stdout]
        shown = b""
        with suppress(OSError):  # what Linux says at the end of a terminal
            while part := os.read(ours, 4096):
                shown += part
        os.close(ours)
        return [row["file"] for row in rows], shown

    files = [str(sounds / "1.wav"), str(sounds / "2.wav")]
    names, shown = seen(*files)
    assert names == files and b"2/2" in shown and b"1.wav" not in shown
    assert seen(files[0]) == ([files[0]], b"")


def test_nothing_found_and_a_missing_model_are_said(sounds, tmp_path, capsys):
    assert cli.main(["tag", str(tmp_path), "--model", "m"]) == 3
    assert cli.main(["tag", str(sounds / "1.wav"), "--model", str(tmp_path / "none")]) == 3
    assert capsys.readouterr().err.count("\n") == 2
    with pytest.raises(UserError):
        tag.load(tmp_path / "none")
    save(tmp_path / "model", make_tagger(), LABELS, {})
    for option, value in (
        ("engine", "tensorflow"),
        ("precision", "fp16"),
        ("merge", "median"),
        ("device", "tpu"),
        *([] if torch.cuda.is_available() else [("device", "cuda")]),
    ):
        with pytest.raises(UserError, match=f"{option} .*{value}"):
            tag.load(tmp_path / "model", **{"engine": "torch", option: value})
