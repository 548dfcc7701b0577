"""AP, AUC, accuracies and intervals equal what scikit-learn and the recipe say, ties and empty labels
included.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.evaluate import bootstrap, metrics, ranking

TOLERANCE = 1e-12  # float64 sums in another order than scikit-learn's


@st.composite
def scored(draw, least_clips=1, most_clips=40):
    """Scores with many ties (few levels), or none, in both float types; targets of any rate, from no positive
    to nothing else.
    """
    shape = draw(st.integers(least_clips, most_clips)), draw(st.integers(1, 4))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    kind = draw(st.sampled_from([np.float32, np.float64]))
    scores = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, levels - 1))).astype(kind) / kind(
        levels
    )
    rate = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    targets = rng.random(shape) < rate
    if draw(st.booleans()):
        targets[rng.integers(shape[0]), 0] = True  # a single positive
    return scores, targets


def reference(scores, targets, weights=None):
    """AP and AUC of one label by scikit-learn, NaN where not defined; `weights` repeat the rows."""
    if weights is not None:
        scores, targets = np.repeat(scores, weights), np.repeat(targets, weights)
    ap = sk.average_precision_score(targets, scores) if targets.any() else np.nan
    return ap, sk.roc_auc_score(targets, scores) if targets.any() and not targets.all() else np.nan


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE, equal_nan=True)


@settings(max_examples=150, deadline=None)
@given(scored())
def test_ap_and_auc_equal_scikit_learn(case):
    scores, targets = case
    expected = np.array([reference(scores[:, i], targets[:, i]) for i in range(scores.shape[1])])
    close(ranking.average_precision(scores, targets), expected[:, 0])
    close(ranking.roc_auc(scores, targets), expected[:, 1])


@settings(max_examples=100, deadline=None)
@given(scored(), st.integers(0, 2**32 - 1))
def test_weighted_figures_equal_scikit_learn_on_the_repeated_rows(case, seed):
    scores, targets = case
    weights = (
        np.random.default_rng(seed)
        .multinomial(len(scores), np.full(len(scores), 1 / len(scores)), size=3)
        .T.astype(np.uint8)
    )
    for i, by_label in enumerate(ranking.rank(scores, targets)):
        ap, auc = ranking.ap_and_auc(by_label, weights)
        expected = np.array([reference(scores[:, i], targets[:, i], column) for column in weights.T])
        close(ap, expected[:, 0])
        close(auc, expected[:, 1])


def test_many_clips_with_ties_and_tiny_differences():
    rng = np.random.default_rng(0)
    targets = rng.random((5000, 3)) < [0.001, 0.03, 0.6]
    scores = np.round(rng.random((5000, 3)) + 0.2 * targets, 2).astype(np.float32)
    scores[:, 2] = (
        np.nextafter(np.float32(0.5), np.float32(1)) * targets[:, 2] + np.float32(0.5) * ~targets[:, 2]
    )  # apart by one last bit
    expected = np.array([reference(scores[:, i], targets[:, i]) for i in range(3)])
    close(ranking.average_precision(scores, targets), expected[:, 0])
    close(ranking.roc_auc(scores, targets), expected[:, 1])
    assert ranking.roc_auc(scores, targets)[2] == 1.0


def test_by_hand():
    # falling: positive, negative, positive -> precision 1 at recall 1/2, 2/3 at recall 1
    scores, targets = np.array([[0.9], [0.5], [0.1]]), np.array([[True], [False], [True]])
    assert ranking.average_precision(scores, targets)[0] == pytest.approx((1 + 2 / 3) / 2)
    assert ranking.roc_auc(scores, targets)[0] == 0.5
    equal = np.full((4, 1), 0.3)
    assert ranking.average_precision(equal, np.array([[True], [False], [False], [False]]))[0] == 0.25
    assert ranking.roc_auc(equal, np.array([[True], [False], [False], [False]]))[0] == 0.5
    assert np.isnan(ranking.average_precision(equal, np.zeros((4, 1), bool))[0])
    assert ranking.average_precision(equal, np.ones((4, 1), bool))[0] == 1.0 and np.isnan(
        ranking.roc_auc(equal, np.ones((4, 1), bool))[0]
    )


@settings(max_examples=60, deadline=None)
@given(scored(least_clips=2))
def test_precision_recall_is_scikit_learns_curve(case):
    scores, targets = case[0][:, 0], case[1][:, 0]
    if targets.any():
        precision, recall = ranking.precision_recall(scores, targets)
        their_precision, their_recall, _ = sk.precision_recall_curve(targets, scores)
        close(precision, their_precision[:-1][::-1])  # theirs rises and ends in an extra point (1, 0)
        close(recall, their_recall[:-1][::-1])
    else:
        assert (ranking.precision_recall(scores, targets)[1] == 0).all()


def test_d_prime():
    assert ranking.d_prime(0.5) == 0.0
    assert ranking.d_prime(0.9750021048517795) == pytest.approx(2**0.5 * 1.96, abs=1e-9)
    assert (
        ranking.d_prime(1.0) == np.inf
        and ranking.d_prime(0.0) == -np.inf
        and np.isnan(ranking.d_prime(float("nan")))
    )


def test_mean_acc_is_the_recipes_in_the_order_of_training_frequency():
    # labels speech, music, dog; the first positive label in the order is the one that counts
    targets = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], bool)
    scores = np.array([[0.2, 0.9, 0.1], [0.1, 0.3, 0.8], [0.1, 0.2, 0.7], [0.6, 0.5, 0.4]], np.float32)
    order = ranking.frequency_order(np.array([5, 50, 20], np.uint16))
    assert order.tolist() == [1, 2, 0]
    # first positives in that order: music, music, dog, dog; top labels: music, dog, dog, speech
    assert ranking.first_positive_hits(scores, targets, order).tolist() == [True, False, True, False]
    # first positives in the table's order: speech, music, dog, speech
    assert ranking.first_positive_hits(scores, targets, np.arange(3)).tolist() == [False, False, True, True]
    assert ranking.top1_hits(scores, targets).tolist() == [True, True, True, True]
    result = metrics.figures(scores, targets, order=order, resamples=0)
    assert (result.mean_acc, result.top1_hit_rate) == (0.5, 1.0)
    assert metrics.figures(scores, targets, resamples=0).mean_acc == 0.5


def test_mean_acc_breaks_ties_by_the_order_and_counts_a_clip_without_labels_as_the_first_label():
    order = np.array([2, 0, 1])
    tied, nothing = np.array([[0.5, 0.5, 0.5]]), np.zeros((1, 3), bool)
    assert ranking.first_positive_hits(tied, np.array([[False, False, True]]), order).tolist() == [True]
    assert ranking.first_positive_hits(tied, np.array([[True, False, False]]), order).tolist() == [False]
    assert ranking.first_positive_hits(np.array([[0.1, 0.2, 0.9]]), nothing, order).tolist() == [True]
    assert ranking.first_positive_hits(np.array([[0.9, 0.2, 0.1]]), nothing, order).tolist() == [False]
    assert ranking.top1_hits(tied, nothing).tolist() == [False]


def test_labels_of_equal_count_keep_their_order():
    assert ranking.frequency_order(np.array([3, 7, 3, 0, 7], np.uint8)).tolist() == [1, 4, 0, 2, 3]


def example(clips=200, labels=6, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.random((clips, labels)) < [0.3, 0.2, 0.1, 0.05, 0.02, 0.0]
    scores = np.round(1 / (1 + np.exp(-rng.normal(size=(clips, labels)) - targets)), 2).astype(np.float32)
    return scores, targets


def test_figures_leave_out_labels_without_positives_and_the_reference_counts_them_as_zero():
    scores, targets = example()
    result = metrics.figures(scores, targets, clips_hash="ab", resamples=0)
    ap, auc = np.array([reference(scores[:, i], targets[:, i]) for i in range(5)]).T
    assert (result.n_labels, result.n_labels_scored, result.n_instances, result.clips_hash) == (
        6,
        5,
        200,
        "ab",
    )
    assert result.mAP == pytest.approx(ap.mean(), abs=TOLERANCE) and result.mAP_reference == pytest.approx(
        ap.sum() / 6, abs=TOLERANCE
    )
    assert result.mean_auc == pytest.approx(
        auc.mean(), abs=TOLERANCE
    ) and result.mean_auc_reference == pytest.approx(auc.sum() / 6, abs=TOLERANCE)
    assert result.d_prime == ranking.d_prime(result.mean_auc)
    assert result.chance == pytest.approx(targets.mean(axis=0)[:5].mean())
    assert (
        result.positives.tolist() == targets.sum(axis=0).tolist()
        and np.isnan(result.ap[5])
        and result.intervals == {}
    )


def test_chance_is_the_map_of_random_scores():
    rng = np.random.default_rng(1)
    targets = rng.random((2000, 4)) < [0.5, 0.2, 0.1, 0.05]
    drawn = [metrics.figures(rng.random((2000, 4)), targets, resamples=0).mAP for _ in range(20)]
    assert np.mean(drawn) == pytest.approx(
        metrics.figures(rng.random((2000, 4)), targets, resamples=0).chance, abs=0.01
    )


def test_intervals_are_percentiles_over_resampled_clips_about_the_value():
    scores, targets = example(clips=60)
    order = np.array([5, 3, 0, 1, 2, 4])
    result = metrics.figures(scores, targets, order=order, resamples=70, seed=3)
    assert set(result.intervals) == {"mAP", "mean_auc", "d_prime", "mean_acc", "top1_hit_rate"}
    weights = np.concatenate(list(bootstrap.resample_counts(60, 70, 3)), axis=1)
    assert weights.shape == (60, 70) and (weights.sum(axis=0) == 60).all()
    drawn = {name: [] for name in ("mAP", "mean_auc", "mean_acc", "top1_hit_rate")}
    for column in weights.T:
        rows = np.repeat(np.arange(60), column)
        again = metrics.figures(
            scores[rows], targets[rows], order=order, resamples=0
        )  # a label may lose all its positives here
        for name, values in drawn.items():
            values.append(getattr(again, name))
    for name, values in drawn.items():
        close(
            result.intervals[name],
            np.percentile(values, [2.5, 97.5]) - np.mean(values) + getattr(result, name),
        )
        assert result.intervals[name][0] < getattr(result, name) < result.intervals[name][1]
    assert result.intervals["d_prime"] == tuple(
        ranking.d_prime(edge) for edge in result.intervals["mean_auc"]
    )


def test_intervals_depend_on_the_seed_and_on_nothing_else(monkeypatch):
    scores, targets = example()
    first = metrics.figures(scores, targets, resamples=50, seed=1).intervals
    monkeypatch.setattr(bootstrap, "THREADS", 1)
    monkeypatch.setattr(bootstrap, "BOOTSTRAP_CHUNK", 7)
    assert metrics.figures(scores, targets, resamples=50, seed=1).intervals == first
    assert metrics.figures(scores, targets, resamples=50, seed=2).intervals != first


def test_intervals_hold_the_expected_figures_as_often_as_they_say():
    # few positives a label, where unmoved percentiles of mAP lie too high
    def drawn(seed):
        rng = np.random.default_rng(seed)
        targets = rng.random((400, 12)) < 0.01
        return rng.normal(size=(400, 12)) + 1.8 * targets, targets

    expected = np.mean(
        [
            [np.nanmean(of(*drawn(10_000 + k))) for of in (ranking.average_precision, ranking.roc_auc)]
            for k in range(150)
        ],
        axis=0,
    )
    found = [metrics.figures(*drawn(seed), resamples=64, seed=seed).intervals for seed in range(60)]
    for name, value in zip(("mAP", "mean_auc"), expected, strict=True):
        low, high = np.array([intervals[name] for intervals in found]).T
        assert 0.87 <= np.mean((low < value) & (value < high)) <= 1.0
        assert abs(np.mean(low > value) - np.mean(high < value)) < 0.1  # misses on both sides alike


def test_intervals_stay_within_what_a_figure_can_be():
    targets = np.arange(8)[:, None] < 4
    scores = -np.arange(8.0)[:, None]
    scores[4] += 1.5  # one pair the wrong way round: some resamples are perfect
    edges = np.array(
        [
            list(metrics.figures(scores, targets, resamples=60, seed=seed).intervals[name])
            for seed in range(20)
            for name in ("mAP", "mean_auc")
        ]
    )
    assert edges.min() >= 0 and edges.max() == 1.0


@pytest.mark.parametrize("targets", [np.zeros((5, 2), bool), np.ones((5, 2), bool), np.eye(5, 2, dtype=bool)])
def test_figures_without_any_positive_or_negative_and_perfect_ones_pass_through_json(targets):
    result = metrics.figures(targets.astype(np.float32), targets, resamples=30)
    again = metrics.Figures.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    for name, value in vars(result).items():
        np.testing.assert_equal(getattr(again, name), value)
        assert type(getattr(again, name)) is type(value)
    if not targets.any():
        assert (
            np.isnan([result.mAP, result.mean_auc, result.d_prime, result.chance]).all()
            and result.mAP_reference == 0.0
        )
        assert set(result.intervals) == {"mean_acc", "top1_hit_rate"}
    if targets.any() and not targets.all():
        assert result.d_prime == np.inf and result.intervals["d_prime"] == (np.inf, np.inf)


@pytest.mark.parametrize(
    ("scores", "targets", "words"),
    [
        (np.array([[0.1], [np.nan]]), np.zeros((2, 1), bool), "clip 1 has a score that is not finite"),
        (np.array([[np.inf], [0.1]]), np.zeros((2, 1), bool), "clip 0"),
        (np.zeros((2, 1)), np.zeros((2, 2), bool), "shapes"),
        (np.zeros(2), np.zeros(2, bool), "shapes"),
        (np.zeros((0, 2)), np.zeros((0, 2), bool), "shapes"),
        (np.zeros((2, 0)), np.zeros((2, 0), bool), "shapes"),
        (np.zeros((2, 1)), np.zeros((2, 1)), "float64, not floats and bool"),
        (np.zeros((2, 1), np.uint8), np.zeros((2, 1), bool), "scores are uint8"),
    ],
)
def test_bad_scores_are_refused(scores, targets, words):
    for of in (ranking.average_precision, ranking.roc_auc, metrics.figures):
        with pytest.raises(UserError, match=words) as caught:
            of(scores, targets)
        assert caught.value.code == "bad-scores"


@pytest.mark.parametrize("order", [[0, 1], [0, 0, 1], [1, 2, 3], [0, 1, 2, 3]])
def test_a_label_order_that_is_none_is_refused(order):
    with pytest.raises(UserError, match="label order"):
        metrics.figures(np.zeros((2, 3)), np.zeros((2, 3), bool), order=np.array(order), resamples=0)


def test_inputs_are_left_alone():
    scores, targets = example()
    before = scores.copy(), targets.copy()
    metrics.figures(scores, targets, resamples=5)
    assert (scores == before[0]).all() and (targets == before[1]).all()


def test_label_table():
    scores, targets = example()
    result = metrics.figures(scores, targets, resamples=0)
    rows = metrics.label_table(result, LabelSet.from_names("abcdef"), np.arange(6)).splitlines()
    assert rows[0] == "index,mid,display_name,ap,auc,d_prime,positives_test,positives_train"
    assert (
        rows[1] == f"0,a,a,{result.ap[0]:.6f},{result.auc[0]:.6f},{ranking.d_prime(result.auc[0]):.6f},"
        f"{targets[:, 0].sum()},0"
    )
    assert rows[6] == "5,f,f,,,,0,5"


def test_no_torch_is_imported():
    code = (
        "import sys, beatline.evaluate.metrics, beatline.evaluate.predictions, beatline.recipe; "
        "sys.exit(bool({'torch', "
        "'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
