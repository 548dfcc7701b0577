"""Two runs are compared on the clips that both have, and their difference has an honest interval."""

import json

import numpy as np
import pytest

from beatline import comparison, metrics
from beatline.cli import main
from beatline.comparison import compare, find_predictions
from beatline.labels import LabelSet, audioset
from beatline.predictions import Predictions
from tests.stores import refused

LABELS = LabelSet(audioset().labels[:4])


def make(first: int, last: int, noise: float, seed: int = 0, labels: LabelSet = LABELS) -> Predictions:
    """Scores of clips `first` to `last` of one test set; the lower the noise, the better."""
    truth = np.random.default_rng(7).random((200, 4)) < 0.3
    rng = np.random.default_rng(seed)
    scores = np.clip(0.5 + 0.2 * (truth - 0.5) + noise * rng.standard_normal(truth.shape), 0, 1).astype(np.float32)
    some, columns = slice(first, last), [LABELS.index_of_mid[mid] for mid in labels.mids]
    return Predictions(tuple(f"clip-{i}" for i in range(first, last)), scores[some][:, columns], truth[some][:, columns], labels)


def test_only_common_clips_count():
    a, b = make(0, 150, 0.1), make(50, 200, 0.2, 1, LabelSet(LABELS.labels[::-1]))
    found = compare(a, b, ("a", "b"), 50)
    assert found.clips == (150, 150) and found.hashes == (a.clips_hash, b.clips_hash) and found.labels == LABELS
    for figures, own in zip(found.figures, (make(50, 150, 0.1), make(50, 150, 0.2, 1)), strict=True):
        expected = metrics.figures(own.scores, own.targets, clips_hash=own.clips_hash, resamples=0)
        assert figures.n_instances == 100 and figures.clips_hash == own.clips_hash and figures.mAP == expected.mAP
    assert found.differences()["mAP"] == found.figures[1].mAP - found.figures[0].mAP < 0


def test_a_run_does_not_differ_from_itself():
    found = compare(make(0, 200, 0.2), make(0, 200, 0.2), ("a", "a"), 50)
    assert set(found.differences().values()) == {0.0} and set(found.intervals.values()) == {(0.0, 0.0)}


def test_the_interval_is_that_of_differences_on_the_same_resamples():
    a, b = make(0, 120, 0.2), make(0, 120, 0.25, 1)
    intervals = metrics.difference_intervals(a.scores, b.scores, a.targets, 100, seed=3)
    drawn = []
    for weights in metrics._resamples(120, 100, 3):
        for column in weights.T:
            again = np.repeat(np.arange(120), column)
            pair = [float(np.nanmean(metrics.average_precision(p.scores[again], p.targets[again]))) for p in (a, b)]
            drawn.append(pair[1] - pair[0])
    value = float(np.mean(metrics.average_precision(b.scores, b.targets)) - np.mean(metrics.average_precision(a.scores, a.targets)))
    expected = np.percentile(drawn, [2.5, 97.5]) - np.mean(drawn) + value
    assert np.allclose(intervals["mAP"], expected) and intervals["mAP"][0] < value < intervals["mAP"][1]
    assert set(intervals) == {"mAP", "mean_auc", "d_prime", "top1_hit_rate"}


def test_pairing_makes_the_interval_narrower():
    a = make(0, 200, 0.2)
    b = Predictions(a.ids, np.clip(a.scores + np.float32(0.01) * np.random.default_rng(2).standard_normal(a.scores.shape).astype(np.float32), 0, 1), a.targets, LABELS)
    low, high = metrics.difference_intervals(a.scores, b.scores, a.targets, 200)["mAP"]
    alone = metrics.figures(a.scores, a.targets, resamples=200).intervals["mAP"]
    assert high - low < 0.3 * (alone[1] - alone[0])


def test_an_undefined_difference_has_no_interval():
    a = make(0, 5, 0.2)
    nothing = Predictions(a.ids, a.scores, np.zeros_like(a.targets), LABELS)
    found = compare(nothing, nothing, ("a", "b"), 10)
    assert set(found.intervals) == {"top1_hit_rate"} and found.to_dict()["differences"]["mAP"] == {"value": None, "interval": None}
    json.dumps(found.to_dict(), allow_nan=False)
    assert "0 of 4 labels scored" in comparison.console(found)
    perfect = Predictions(a.ids, a.targets.astype(np.float32), a.targets, LABELS)
    found = compare(perfect, perfect, ("a", "b"), 10)
    json.dumps(found.to_dict(), allow_nan=False)
    comparison.console(found)


def test_runs_that_cannot_be_compared_are_refused():
    a = make(0, 100, 0.2)
    assert "no clip in common" in refused("no-clips", compare, a, make(100, 200, 0.2), ("a", "b"))
    refused("label-mismatch", compare, a, Predictions(a.ids, a.scores, a.targets, LabelSet(audioset().labels[1:5])), ("a", "b"))
    other = a.targets.copy()
    other[[3, 9], 0] ^= True
    message = refused("label-mismatch", compare, a, Predictions(a.ids, a.scores, other, LABELS), ("a", "b"))
    assert "2 of 100" in message and "clip-3" in message


@pytest.fixture
def runs(tmp_path):
    make(0, 150, 0.1).save(tmp_path / "a/predictions", {"kind": "predictions"})
    make(50, 200, 0.4, 1).save(tmp_path / "b", {"kind": "predictions"})
    return tmp_path


def test_the_program_takes_runs_and_folders_of_predictions(runs, capsys):
    assert main(["common", str(runs / "a"), str(runs / "b")]) == 0
    table = capsys.readouterr().out
    assert "common: 100 clips" in table and "50 only in A, 50 only in B" in table and "excludes 0" in table and "AP lost most" in table
    assert main(["common", str(runs / "a/predictions"), str(runs / "b"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["common"]["clips"] == 100 and found["runs"][1]["clips"] == 150 and found["differences"]["mAP"]["interval"][1] < 0
    assert find_predictions(runs / "a").ids == find_predictions(runs / "a/predictions").ids


def test_the_program_says_what_is_wrong_in_one_line(runs, capsys):
    (runs / "empty").mkdir()
    scores = runs / "b/scores.npy"
    damaged = scores.read_bytes()[:-1]
    for arguments, code in ((["a"], 2), (["a", "b", "b"], 2), (["a", "nothing"], 3), (["a", "empty"], 4), (["a", "b", "--wrong"], 2)):
        assert main(["common", *(str(runs / x) if not x.startswith("--") else x for x in arguments)]) == code
        assert len(capsys.readouterr().err.splitlines()) == 1
    scores.write_bytes(damaged)
    assert main(["common", str(runs / "a"), str(runs / "b")]) == 4
    assert "scores.npy" in capsys.readouterr().err
