"""Tagging files: order, refusals, windows, batches shared between recordings, what is printed."""

import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from beatline import cli, engine, tag
from beatline.errors import UserError
from beatline.model.checkpoint import save
from tests.unit.test_engine import LABELS, make_tagger


@pytest.fixture(scope="module")
def tagger():
    return engine.TorchEngine(make_tagger(), LABELS)


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


def test_every_recording_gets_one_result_in_order(tagger, sounds):
    paths = [*sorted(sounds.glob("*.wav")), sounds / "gone.wav", sounds / "deep/6.flac"]
    results = list(tag.tag(tagger, paths))
    assert [result.source for result in results] == [str(path) for path in paths]
    assert [result.error.code for result in results if isinstance(result, tag.Refused)] == ["broken-audio", "missing-file"]
    good = [result for result in results if isinstance(result, tag.Tagged)]
    assert len(good) == 7 and all(np.isfinite(result.scores).all() for result in good)


def test_scores_are_those_of_the_clip_alone(tagger, sounds):
    for number, result in enumerate(tag.tag(tagger, [sounds / f"{number}.wav" for number in range(4)])):
        samples, _ = soundfile.read(sounds / f"{number}.wav", dtype="int16")
        alone = tag.windows.tile_short(samples).astype(np.float32) / 32768
        np.testing.assert_allclose(result.scores, tagger.scores(alone[None])[0], atol=1e-6)
        assert result.starts.tolist() == [0.0] and result.seconds == pytest.approx(len(samples) / 16_000)


def test_a_long_recording_is_the_mean_of_its_windows(tagger, sounds):
    result = next(iter(tag.tag(tagger, [sounds / "5.wav"], window=10, hop=5)))
    assert result.starts.tolist() == [0.0, 5.0, 10.0, 15.0, 17.3]
    np.testing.assert_allclose(result.scores, result.window_scores.mean(axis=0), atol=1e-7)
    highest = next(iter(tag.tag(tagger, [sounds / "5.wav"], merge="max")))
    np.testing.assert_allclose(highest.scores, result.window_scores.max(axis=0), atol=1e-6)


def test_more_windows_than_one_batch_holds_and_an_error_between(tagger, sounds, monkeypatch):
    monkeypatch.setattr(tag, "WINDOWS_AT_ONCE", 3)
    paths = [sounds / name for name in ("5.wav", "broken.wav", "4.wav", "0.wav", "5.wav")]
    results = list(tag.tag(tagger, paths))
    assert [isinstance(result, tag.Refused) for result in results] == [False, True, False, False, False]
    np.testing.assert_allclose(results[0].scores, results[4].scores, atol=1e-6)


def test_bytes_and_streams_are_sources_too(tagger, sounds):
    content = (sounds / "2.wav").read_bytes()
    path, held, stream = tag.tag(tagger, [sounds / "2.wav", content, io.BytesIO(content)])
    assert np.array_equal(path.scores, held.scores) or np.allclose(path.scores, held.scores, atol=1e-6)
    np.testing.assert_allclose(path.scores, stream.scores, atol=1e-6)


def test_a_tagger_takes_paths_bytes_streams_and_arrays(tagger, sounds):
    ready = tag.AudioTagger(tagger)
    path = sounds / "2.wav"
    samples, rate = soundfile.read(path)
    wanted = ready(path).scores
    for same in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        np.testing.assert_array_equal(ready(same).scores, wanted)
    for array in (samples, samples.astype(np.float32), np.stack([samples, samples], axis=1), (samples * 32768).astype(np.int16)):
        np.testing.assert_allclose(ready(array, rate).scores, wanted, atol=1e-6)
    one, other = ready([path, sounds / "deep/6.flac"])
    np.testing.assert_allclose(one.scores, wanted, atol=1e-6)
    np.testing.assert_allclose(ready(*soundfile.read(sounds / "deep/6.flac")).scores, other.scores, atol=1e-6)
    for bad, options in ((samples, {}), (samples.astype(np.int64), {"rate": rate}), (np.zeros(0), {"rate": rate}), (np.full(9000, np.nan), {"rate": rate}), (samples, {"rate": 5}), ([path, sounds / "broken.wav"], {})):
        with pytest.raises(UserError):
            ready(bad, **options)


def test_threads_share_one_tagger(tagger, sounds):
    ready, paths = tag.AudioTagger(tagger), [sounds / f"{i}.wav" for i in range(4)] * 3
    with ThreadPoolExecutor(4) as pool:
        for path, result in zip(paths, pool.map(ready, paths), strict=True):
            np.testing.assert_array_equal(result.scores, ready(path).scores)


def test_merging_by_attention_counts_a_label_where_it_is_heard():
    scores = np.array([[0.9, 0.0], [0.1, 0.0]], np.float32)
    np.testing.assert_allclose(tag.windows.merge(scores, "attention"), [0.82, 0.0], atol=1e-6)


def test_folders_globs_and_odd_names_are_found(sounds, tmp_path):
    assert [path.name for path in tag.find([str(sounds)])] == ["0.wav", "1.wav", "2.wav", "3.wav", "4.wav", "5.wav", "broken.wav", "6.flac"]
    assert [path.name for path in tag.find([str(sounds / "[12].wav")])] == ["1.wav", "2.wav"]
    (tmp_path / "a[1].wav").write_bytes(b"x")
    assert [path.name for path in tag.find([str(tmp_path / "a[1].wav")])] == ["a[1].wav"]


def test_the_program_prints_what_it_was_asked_for(sounds, tmp_path, capsys):
    save(tmp_path / "run/model", make_tagger(), LABELS, {})
    files = [str(sounds / "1.wav"), str(sounds / "2.wav")]
    assert cli.main(["tag", *files, "--model", str(tmp_path / "run"), "--format", "jsonl", "--top", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == files and all(len(row["tags"]) == 2 for row in rows)
    assert cli.main(["tag", str(sounds / "1.wav"), "--model", str(tmp_path / "run"), "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(LABELS)
    assert cli.main(["tag", str(sounds / "broken.wav"), str(sounds / "1.wav"), "--model", str(tmp_path / "run")]) == 3
    out, errors = capsys.readouterr()
    assert "1.wav" in out and errors.count("\n") == 1 and "broken.wav" in errors


@pytest.mark.parametrize("words", [["a.wav"], ["--model", "m"], ["a.wav", "--model", "m", "--frobnicate"], ["a.wav", "--model", "m", "--top", "-1"], ["a.wav", "--model", "m", "--hop", "20"], ["a.wav", "--model", "m", "--format", "xml"]])
def test_wrong_usage_is_one_line(words, capsys):
    assert cli.main(["tag", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_export_is_used_without_importing_torch(sounds, tmp_path):
    from beatline import export

    export.export(make_tagger(), LABELS, tmp_path / "out")
    code = f"import sys; from beatline import cli; cli.main(['tag', {str(sounds / '1.wav')!r}, '--model', {str(tmp_path / 'out')!r}]); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"}, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "1.wav" in done.stdout


def test_nothing_found_and_a_missing_model_are_said(sounds, tmp_path, capsys):
    assert cli.main(["tag", str(tmp_path), "--model", "m"]) == 3
    assert cli.main(["tag", str(sounds / "1.wav"), "--model", str(tmp_path / "none")]) == 3
    assert capsys.readouterr().err.count("\n") == 2
    with pytest.raises(UserError):
        tag.load(tmp_path / "none")
