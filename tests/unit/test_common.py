"""Two models are compared on the clips and labels that both have, and their difference has an honest
interval.
"""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

import beatline
from beatline.cli import main
from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet, audioset
from beatline.data.store import Store
from beatline.evaluate import bootstrap, metrics, ranking
from beatline.evaluate import compare as comparison
from beatline.evaluate.compare import compare, find_predictions
from beatline.evaluate.predictions import Predictions
from beatline.model.checkpoints.own import save
from tests.helpers.models import LABELS as MODEL_LABELS
from tests.helpers.models import make_tagger
from tests.helpers.stores import refused

LABELS = LabelSet(audioset().labels[:4])


def make(first: int, last: int, noise: float, seed: int = 0, labels: LabelSet = LABELS) -> Predictions:
    """Scores of clips `first` to `last` of one test set; the lower the noise, the better."""
    truth = np.random.default_rng(7).random((200, 4)) < 0.3
    rng = np.random.default_rng(seed)
    scores = np.clip(0.5 + 0.2 * (truth - 0.5) + noise * rng.standard_normal(truth.shape), 0, 1).astype(
        np.float32
    )
    some, columns = slice(first, last), [LABELS.index_of_mid[mid] for mid in labels.mids]
    return Predictions(
        tuple(f"clip-{i}" for i in range(first, last)),
        scores[some][:, columns],
        truth[some][:, columns],
        labels,
    )


def test_only_common_clips_count():
    a, b = make(0, 150, 0.1), make(50, 200, 0.2, 1, LabelSet(LABELS.labels[::-1]))
    found = compare(a, b, ("a", "b"), 50)
    assert (
        found.clips == (150, 150) and found.hashes == (a.clips_hash, b.clips_hash) and found.labels == LABELS
    )
    for figures, own in zip(found.figures, (make(50, 150, 0.1), make(50, 150, 0.2, 1)), strict=True):
        expected = metrics.figures(own.scores, own.targets, clips_hash=own.clips_hash, resamples=0)
        assert (
            figures.n_instances == 100
            and figures.clips_hash == own.clips_hash
            and figures.mAP == expected.mAP
        )
    assert found.differences()["mAP"] == found.figures[1].mAP - found.figures[0].mAP < 0


def test_a_run_does_not_differ_from_itself():
    found = compare(make(0, 200, 0.2), make(0, 200, 0.2), ("a", "a"), 50)
    assert set(found.differences().values()) == {0.0} and set(found.intervals.values()) == {(0.0, 0.0)}


def test_the_interval_is_that_of_differences_on_the_same_resamples():
    a, b = make(0, 120, 0.2), make(0, 120, 0.25, 1)
    intervals, by_label = bootstrap.difference_intervals(a.scores, b.scores, a.targets, 100, seed=3)
    drawn, drawn_by_label = [], []
    for weights in bootstrap.resample_counts(120, 100, 3):
        for column in weights.T:
            again = np.repeat(np.arange(120), column)
            pair = [ranking.average_precision(p.scores[again], p.targets[again]) for p in (a, b)]
            drawn.append(np.nanmean(pair[1]) - np.nanmean(pair[0]))
            drawn_by_label.append(pair[1] - pair[0])
    gains = ranking.average_precision(b.scores, b.targets) - ranking.average_precision(a.scores, a.targets)
    value = float(np.mean(gains))
    expected = np.percentile(drawn, [2.5, 97.5]) - np.mean(drawn) + value
    assert np.allclose(intervals["mAP"], expected) and intervals["mAP"][0] < value < intervals["mAP"][1]
    assert set(intervals) == {"mAP", "mean_auc", "d_prime", "top1_hit_rate"}
    assert np.allclose(
        by_label,
        (np.percentile(drawn_by_label, [2.5, 97.5], axis=0) - np.mean(drawn_by_label, axis=0) + gains).T,
    )


def test_a_label_of_few_clips_has_no_interval_of_its_own():
    a, b = make(0, 200, 0.2), make(0, 200, 0.3, 1)
    targets = a.targets.copy()
    targets[:, 1], targets[:, 2] = False, False
    targets[: bootstrap.LEAST_POSITIVES - 1, 1] = True
    found = compare(*(Predictions(p.ids, p.scores, targets, LABELS) for p in (a, b)), ("a", "b"), 50)
    assert [span is None for span in found.label_intervals] == [False, True, True, False] and found.certain()[
        1
    ] == 2
    assert np.isnan(found.gains[2]) and not np.isnan(found.gains[1])
    labels = found.to_dict()["labels"]
    assert (
        labels[2] == {"mid": LABELS.mids[2], "name": LABELS.names[2], "ap_difference": None, "interval": None}
        and labels[0]["interval"][0] < labels[0]["ap_difference"]
    )
    assert "2 labels have an interval of their own" in comparison.console(found)


def test_pairing_makes_the_interval_narrower():
    a = make(0, 200, 0.2)
    b = Predictions(
        a.ids,
        np.clip(
            a.scores
            + np.float32(0.01) * np.random.default_rng(2).standard_normal(a.scores.shape).astype(np.float32),
            0,
            1,
        ),
        a.targets,
        LABELS,
    )
    low, high = bootstrap.difference_intervals(a.scores, b.scores, a.targets, 200)[0]["mAP"]
    alone = metrics.figures(a.scores, a.targets, resamples=200).intervals["mAP"]
    assert high - low < 0.3 * (alone[1] - alone[0])


def test_an_undefined_difference_has_no_interval():
    a = make(0, 5, 0.2)
    nothing = Predictions(a.ids, a.scores, np.zeros_like(a.targets), LABELS)
    found = compare(nothing, nothing, ("a", "b"), 10)
    assert set(found.intervals) == {"top1_hit_rate"} and found.to_dict()["differences"]["mAP"] == {
        "value": None,
        "interval": None,
    }
    json.dumps(found.to_dict(), allow_nan=False)
    assert "0 of 4 labels scored" in comparison.console(found)
    perfect = Predictions(a.ids, a.targets.astype(np.float32), a.targets, LABELS)
    found = compare(perfect, perfect, ("a", "b"), 10)
    json.dumps(found.to_dict(), allow_nan=False)
    comparison.console(found)


def test_runs_that_cannot_be_compared_are_refused():
    a = make(0, 100, 0.2)
    assert "no clip in common" in refused("no-clips", compare, a, make(100, 200, 0.2), ("a", "b"))
    assert "no label in common" in refused(
        "label-mismatch",
        compare,
        a,
        Predictions(a.ids, a.scores, a.targets, LabelSet(audioset().labels[4:8])),
        ("a", "b"),
    )
    other = a.targets.copy()
    other[[3, 9], 0] ^= True
    message = refused("label-mismatch", compare, a, Predictions(a.ids, a.scores, other, LABELS), ("a", "b"))
    assert "2 of 100" in message and "clip-3" in message


def test_models_of_other_labels_are_compared_on_those_that_both_have():
    a, b = make(0, 100, 0.2), make(0, 100, 0.3, 1)
    columns = [3, 1, 2]
    other = Predictions(
        b.ids,
        b.scores[:, columns],
        b.targets[:, columns],
        LabelSet((*(LABELS.labels[k] for k in columns[:2]), audioset().labels[9])),
    )
    found = compare(a, other, ("a", "b"), 20)
    assert found.labels.mids == (LABELS.mids[1], LABELS.mids[3]) and found.labels_each == (4, 3)
    alone = compare(
        *(Predictions(p.ids, p.scores[:, [1, 3]], p.targets[:, [1, 3]], found.labels) for p in (a, b)),
        ("a", "b"),
        20,
    )
    assert found.differences() == alone.differences() and found.intervals == alone.intervals
    assert "2 labels, 2 only in A, 1 only in B" in comparison.console(found)


@pytest.fixture
def runs(tmp_path):
    make(0, 150, 0.1).save(tmp_path / "a/predictions", {"kind": "predictions"})
    make(50, 200, 0.4, 1).save(tmp_path / "b", {"kind": "predictions"})
    return tmp_path


def test_the_program_takes_runs_and_folders_of_predictions(runs, capsys):
    assert main(["common", str(runs / "a"), str(runs / "b")]) == 0
    table = capsys.readouterr().out
    assert (
        "common: 100 clips" in table
        and "50 only in A, 50 only in B" in table
        and "excludes 0" in table
        and "AP lost most" in table
    )
    assert main(["common", str(runs / "a/predictions"), str(runs / "b"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["common"]["clips"] == 100
        and found["runs"][1]["clips"] == 150
        and found["differences"]["mAP"]["interval"][1] < 0
    )
    assert find_predictions(runs / "a").ids == find_predictions(runs / "a/predictions").ids


def test_the_program_says_what_is_wrong_in_one_line(runs, capsys):
    (runs / "empty").mkdir()
    scores = runs / "b/scores.npy"
    damaged = scores.read_bytes()[:-1]
    for arguments, code in (
        (["a"], 2),
        (["a", "b", "b"], 2),
        (["a", "nothing"], 3),
        (["a", "empty"], 3),
        (["a", "b", "--wrong"], 2),
    ):
        assert main(["common", *(str(runs / x) if not x.startswith("--") else x for x in arguments)]) == code
        assert len(capsys.readouterr().err.splitlines()) == 1
    scores.write_bytes(damaged)
    assert main(["common", str(runs / "a"), str(runs / "b")]) == 4
    assert "scores.npy" in capsys.readouterr().err


# --- models, on clips


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models that share two labels, and sounds in folders named after them, by name and by mid."""
    folder = tmp_path_factory.mktemp("models")
    save(folder / "a", make_tagger(), MODEL_LABELS, {})
    save(
        folder / "b", make_tagger(), LabelSet((*MODEL_LABELS.labels[::-1][:2], Label("/m/wind", "Wind"))), {}
    )
    rng = np.random.default_rng(0)
    for number, label in enumerate(["Rain"] * 4 + ["/m/speech".replace("/", "_")] * 3 + ["Horn"] * 2):
        (folder / "sounds" / label).mkdir(parents=True, exist_ok=True)
        soundfile.write(
            folder / "sounds" / label / f"{number}.wav",
            0.1 * rng.standard_normal(4000 + 400 * number),
            16_000,
        )
    (folder / "sounds/Rain/broken.wav").write_bytes(b"RIFF0000WAVEjunk")
    rows = [
        f"sounds/{'Rain' if i < 4 else '_m_speech'}/{i}.wav,{'Rain' if i < 4 else '/m/speech'},"
        f"{'train' if i % 2 else 'test'}"
        for i in range(7)
    ]
    (folder / "split.csv").write_text("file,labels,split\n" + "\n".join(rows) + "\nx.wav,,test\n")
    (folder / "whole.csv").write_text(
        "file,labels\n" + "\n".join(row.rsplit(",", 1)[0] for row in rows) + "\n"
    )
    return folder


def test_a_table_gives_its_test_clips_or_all_of_them(models):
    split, whole, classes = (
        comparison.find_clips(models / name) for name in ("split.csv", "whole.csv", "sounds")
    )
    assert (
        [name[-5] for name in split.ids] == list("0246")
        and len(split.rejected) == 1
        and "x.wav" in split.rejected[0].input
    )
    assert len(whole.ids) == 7 and whole.targets.sum() == 7 and len(classes.ids) == 10
    heard = split.samples_of(["nothing", split.ids[2], split.ids[0]])
    assert [len(heard[name]) for name in (split.ids[2], split.ids[0])] == [5600, 4000] and len(heard) == 2


def test_a_store_gives_its_test_clips(reference, tmp_path):
    store = Store.open(reference)
    for place in (reference, reference.parent):  # the store, or a run's folder
        clips = comparison.find_clips(place)
        assert (
            list(clips.ids) == [store.ids[int(i)] for i in store.splits["test"]]
            and clips.labels == store.labels
        )
        (samples,) = clips.samples_of([clips.ids[1]]).values()
        np.testing.assert_array_equal(samples, store.samples_of(clips.ids[1]))
    make(0, 10, 0.1).save(tmp_path / "p", {"kind": "predictions"})
    refused("not-a-file", comparison.find_clips, tmp_path / "p")
    refused("missing-file", comparison.find_clips, tmp_path / "none")


def test_a_model_is_scored_on_the_labels_that_it_and_the_clips_know(models):
    clips, tagger, done = comparison.find_clips(models / "sounds"), beatline.load(models / "a"), []
    found, unread = comparison.score(tagger, clips, done.append)
    assert (
        found.labels.mids == ("/m/rain",) and len(found.ids) == sum(done) == 9 and "broken.wav" in unread[0]
    )
    assert found.targets[:, 0].tolist() == [name.startswith("Rain") for name in found.ids]
    np.testing.assert_allclose(
        found.scores[3], tagger(models / "sounds" / found.ids[3]).scores[[1]], atol=1e-6
    )
    assert comparison.score(tagger, comparison.find_clips(models / "whole.csv"))[0].labels.mids == (
        "/m/rain",
        "/m/speech",
    )
    strange = dataclasses.replace(clips, name="x", labels=LabelSet.from_names(["p", "q", "r"]))
    assert "knows none" in refused("label-mismatch", comparison.score, tagger, strange)
    refused(
        "no-clips",
        comparison.score,
        tagger,
        dataclasses.replace(clips.part([0]), read=lambda some: iter([UserError("not-audio", "a", "b", "c")])),
    )


@pytest.mark.slow
def test_the_program_scores_models_and_writes_a_page(models, tmp_path, capsys):
    command = [
        "compare",
        str(models / "a"),
        str(models / "b"),
        "--clips",
        str(models / "whole.csv"),
        "--html",
        str(tmp_path / "page.html"),
    ]
    assert main(command) == 0
    out, errors = capsys.readouterr()
    assert "common: 7 clips" in out and "2 labels, 0 only in A, 0 only in B" in out and not errors
    assert (tmp_path / "page.html").read_text().count("<audio") >= 6
    assert main([*command, "--json"]) == 0
    out, errors = capsys.readouterr()
    assert [row["mid"] for row in json.loads(out)["labels"]] == [
        "/m/rain",
        "/m/speech",
    ] and "page.html" in errors
    assert main([*command[:3], "--clips", str(models / "sounds")]) == 0
    assert "1 of 10 clips cannot be read" in capsys.readouterr().err
    found, _ = comparison.score(beatline.load(models / "b"), comparison.find_clips(models / "whole.csv"))
    found.save(tmp_path / "predictions", {"kind": "predictions"})
    assert (
        main([*command[:2], str(tmp_path), "--clips", str(models / "whole.csv")]) == 3
    )  # a run without a model
    assert main([*command[:2], str(tmp_path / "predictions"), "--clips", str(models / "whole.csv")]) == 0
    assert "common: 7 clips" in capsys.readouterr().out


def test_a_model_of_mids_and_one_of_names_share_what_the_clips_are_called(models, tmp_path, capsys):
    save(tmp_path / "names", make_tagger(), LabelSet.from_names(["Rain", "Speech", "Horn"]), {})
    for first, second in ((models / "a", tmp_path / "names"), (tmp_path / "names", models / "a")):
        assert main(["compare", str(first), str(second), "--clips", str(models / "sounds"), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert [row["name"] for row in said["labels"]] == ["Rain"] and said["common"]["clips"] == 9
    taggers = [beatline.load(folder) for folder in (models / "a", tmp_path / "names")]
    by_mid, by_name = (
        comparison.score(tagger, comparison.find_clips(models / "sounds"))[0] for tagger in taggers
    )
    result = comparison.compare(by_mid, by_name, ("a", "b"), 10)
    assert result.labels.mids == ("/m/rain",) and np.array_equal(
        result.predictions[1].scores[:, 0], by_name.scores[:, by_name.labels.index_of_mid["Rain"]]
    )


def test_the_program_says_what_is_missing(models, runs, capsys):
    assert main(["compare", str(models / "a"), str(models / "b")]) == 3
    assert "--clips" in capsys.readouterr().err
    assert main(["compare", str(runs / "a"), str(runs / "b"), "--html", str(runs / "b/page.html")]) == 5
    assert not (runs / "b/page.html").exists()
    capsys.readouterr()
    assert main(["compare", str(runs / "a"), str(runs / "b"), "--html", str(runs / "page.html")]) == 0
    assert "no sound" in capsys.readouterr().err and "<audio" not in (runs / "page.html").read_text()
