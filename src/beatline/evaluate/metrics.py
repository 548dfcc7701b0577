"""scores -> metrics: AP, AUC, d', accuracies and their intervals, exactly as the recipe defines them.

In: scores `(clips, labels)` and targets of the same shape. Out: `Figures`, all as fractions. NumPy only. Ties
are handled as scikit-learn does: clips with equal scores enter together. Each label is sorted once; a
bootstrap resample is a vector of clip weights on that order.
"""

import csv
import dataclasses
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from beatline.core.errors import UserError
from beatline.core.labels import LabelSet

# resamples at once: 0.6 MB of weights for 20 123 clips, which stays in the cache; more was six times slower
BOOTSTRAP_CHUNK = 32
# of a label that gets an interval of its own: it held the expected difference in 93 % of simulated cases,
# with 5 in 88 %, with 3 in 81 %
LEAST_POSITIVES = 8
THREADS = min(8, os.cpu_count() or 1)  # NumPy's kernels run without the interpreter's lock


def _bad(cause: str) -> UserError:
    return UserError(
        "bad-scores", "scores and targets", cause, "score the clips again, or give matching files"
    )


def check(scores: np.ndarray, targets: np.ndarray) -> None:
    """Makes sure that scores and targets are tables of one shape, of finite floats and of bools.

    Raises:
        UserError: `bad-scores`.
    """
    if scores.ndim != 2 or scores.shape != targets.shape or 0 in scores.shape:
        raise _bad(f"shapes {scores.shape} and {targets.shape} are not one table of clips and labels")
    if targets.dtype != bool or scores.dtype.kind != "f":
        raise _bad(f"scores are {scores.dtype} and targets {targets.dtype}, not floats and bool")
    if not np.isfinite(scores).all():
        raise _bad(f"clip {int(np.argwhere(~np.isfinite(scores))[0][0])} has a score that is not finite")


@dataclass(frozen=True)
class _Ranking:
    """One label's clips from the highest score down, cut where a group of equal scores that holds a positive
    begins or ends.
    """

    order: np.ndarray
    """Clips by falling score, `(clips,)`."""
    borders: np.ndarray
    """The cuts, as places in `order`: 0, then rising, last the number of clips."""
    begins: np.ndarray
    ends: np.ndarray
    """Which borders each group with a positive lies between, `(groups,)`."""
    positives: np.ndarray
    """Positive clips by falling score, `(positives,)`."""
    first_positives: np.ndarray
    """Where each group's positives begin in `positives`, `(groups,)`."""


def _rank(scores: np.ndarray, targets: np.ndarray) -> _Ranking:
    order = np.argsort(-scores)  # not stable: the order inside a group of equal scores does not matter
    falling, positive = scores[order], targets[order]
    starts = np.flatnonzero(np.append(True, falling[1:] != falling[:-1]))
    group_of_positive = np.searchsorted(starts, np.flatnonzero(positive), side="right") - 1
    groups, first_positives = np.unique(group_of_positive, return_index=True)
    begins, ends = starts[groups], np.append(starts, len(order))[groups + 1]
    borders = np.unique(np.concatenate([[0, len(order)], begins, ends]))
    return _Ranking(
        order,
        borders,
        np.searchsorted(borders, begins),
        np.searchsorted(borders, ends),
        order[positive],
        first_positives,
    )


def rank(scores: np.ndarray, targets: np.ndarray) -> list[_Ranking]:
    """The ranking of the clips by each label, of `(clips, labels)`."""
    check(scores, targets)
    return [_rank(scores[:, i], targets[:, i]) for i in range(scores.shape[1])]


def ap_and_auc(ranking: _Ranking, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AP and AUC of one label for each column of clip weights `(clips, resamples)`; NaN where they are not
    defined.
    """
    if len(ranking.positives) == 0:
        return np.full(weights.shape[1], np.nan), np.full(weights.shape[1], np.nan)
    between = np.add.reduceat(
        np.take(weights, ranking.order, axis=0), ranking.borders[:-1], axis=0, dtype=np.int32
    )
    at_border = np.vstack([np.zeros((1, weights.shape[1])), between.cumsum(axis=0)])  # clips above it
    at_begin, at_end = at_border[ranking.begins], at_border[ranking.ends]
    hits = np.add.reduceat(
        weights[ranking.positives], ranking.first_positives, axis=0, dtype=np.int32
    ).astype(np.float64)
    found = hits.cumsum(axis=0)
    positive, negative = found[-1], at_border[-1] - found[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ap = np.where(hits > 0, hits * found / at_end, 0.0).sum(axis=0) / positive
        # a positive beats the negatives below its group and half of those inside it
        inside = at_end - at_begin - hits
        below = negative - (at_end - found)
        auc = (hits * (below + inside / 2)).sum(axis=0) / (positive * negative)
    return np.where(positive > 0, ap, np.nan), np.where((positive > 0) & (negative > 0), auc, np.nan)


def _per_label(rankings: list[_Ranking]) -> tuple[np.ndarray, np.ndarray]:
    once = np.ones((len(rankings[0].order), 1), np.uint8)
    pairs = [ap_and_auc(ranking, once) for ranking in rankings]
    return np.array([ap[0] for ap, _ in pairs]), np.array([auc[0] for _, auc in pairs])


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """AP of each label, `(labels,)` float64, NaN for a label without positives.

    Source: equals scikit-learn's average_precision_score, which gives 0 for such a label.

    Raises:
        UserError: `bad-scores`.
    """
    return _per_label(rank(scores, targets))[0]


def roc_auc(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each label, `(labels,)` float64, NaN where all or no clips are positive.

    Source: equals scikit-learn's roc_auc_score.

    Raises:
        UserError: `bad-scores`.
    """
    return _per_label(rank(scores, targets))[1]


def d_prime(auc: float) -> float:
    """Separation of two unit normal distributions with that AUC: sqrt(2) times the normal quantile; infinite
    at 0 and 1.

    Source: PSLA and AST, which take it of the mean AUC, as we do.
    """
    if not 0.0 < auc < 1.0:
        return float("nan") if np.isnan(auc) else float(np.copysign(np.inf, auc - 0.5))
    return 2**0.5 * NormalDist().inv_cdf(auc)


def precision_recall(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of one label at each distinct score from the highest down; both `(points,)`."""
    order = np.argsort(-scores, kind="stable")
    last_of_group = np.append(scores[order][1:] != scores[order][:-1], True)
    found = np.cumsum(targets[order])[last_of_group]
    return found / (np.flatnonzero(last_of_group) + 1), found / max(1, targets.sum())


def frequency_order(counts: np.ndarray) -> np.ndarray:
    """Labels by falling training count, `(labels,)`: ESPnet's order of labels.

    Source: ESPnet's token list, which puts labels of equal count in the order of their first appearance in
    its training text. Here they keep the table's order; give the token list itself where that matters.
    """
    return np.argsort(-np.asarray(counts, np.int64), kind="stable")


def first_positive_hits(scores: np.ndarray, targets: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Whether the top label is the clip's first positive one in `order`, `(clips,)`: the recipe's mean_acc is
    its mean.

    The reference takes argmax of the multi-hot target, so a clip without any label counts as label 0 of that
    order, as it does there.
    """
    return scores[:, order].argmax(axis=1) == targets[:, order].argmax(axis=1)


def top1_hits(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Whether the top label is any of the clip's, `(clips,)`; of equal scores the first counts. A clip
    without labels is a miss.
    """
    return targets[np.arange(len(scores)), scores.argmax(axis=1)]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Every figure of a scored test set, as fractions (d' as it is)."""

    mAP: float
    """Mean AP over labels with a positive."""
    mean_auc: float
    """Mean AUC over labels where it is defined."""
    d_prime: float
    """d' of the mean AUC."""
    mean_acc: float
    """The recipe's accuracy; depends on the label order."""
    top1_hit_rate: float
    """Share of clips whose top label is one of theirs; depends on no order, but where the highest score
    occurs twice.
    """
    chance: float
    """mAP expected of random scores: mean share of positives."""
    mAP_reference: float
    """mAP where a label without positives counts as 0, as in the reference."""
    mean_auc_reference: float
    """mean_auc likewise; a label that every clip has counts as 0 too (scikit-learn leaves it undefined)."""
    n_labels: int
    n_labels_scored: int
    """Labels with at least one positive."""
    n_instances: int
    """Clips."""
    clips_hash: str
    """SHA-256 of the clip list."""
    intervals: dict[str, tuple[float, float]]
    """95 % bootstrap intervals over clips, by name: where the figure is expected on test sets of this size.
    An undefined figure has none.
    """
    ap: np.ndarray
    auc: np.ndarray
    positives: np.ndarray
    """Per label, `(labels,)`."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN as None, infinity as a string, neither of which JSON has."""
        return {f.name: _to_json(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Figures":
        """What `to_dict` gave."""
        arrays = {
            name: np.array([_from_json(v) for v in values[name]], kind)
            for name, kind in (("ap", np.float64), ("auc", np.float64), ("positives", np.int64))
        }
        intervals = {
            name: (_from_json(low), _from_json(high)) for name, (low, high) in values["intervals"].items()
        }
        return Figures(
            **(
                {name: _from_json(value) for name, value in values.items()}
                | arrays
                | {"intervals": intervals}
            )
        )


def _to_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _to_json(v) for name, v in value.items()}
    if isinstance(value, (np.ndarray, tuple)):
        return [_to_json(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    return value


def _from_json(value: Any) -> Any:
    return float("nan") if value is None else float(value) if value in ("inf", "-inf") else value


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def resample_counts(clips: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """Weights `(clips, up to BOOTSTRAP_CHUNK)` uint8: how often each clip is drawn in each resample."""
    rng = np.random.Generator(np.random.Philox(seed))
    for begin in range(0, count, BOOTSTRAP_CHUNK):
        columns = [
            np.bincount(rng.integers(clips, size=clips), minlength=clips)
            for _ in range(min(BOOTSTRAP_CHUNK, count - begin))
        ]
        yield np.stack(columns, axis=1).astype(
            np.uint8
        )  # a clip is drawn once on average; more than 255 times has a chance below 1e-500


def _draws(
    rankings: list[_Ranking], hits: dict[str, np.ndarray], resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Figures of each resample by name, `(resamples,)`, and `ap`, `(labels, resamples)`; two sets of scores
    of the same clips meet the same resamples.
    """
    clips = len(rankings[0].order)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("ap", "mAP", "mean_auc", *hits)}
    with ThreadPoolExecutor(THREADS) as pool, np.errstate(invalid="ignore"):
        for weights in resample_counts(clips, resamples, seed):
            pairs = list(pool.map(lambda ranking, weights=weights: ap_and_auc(ranking, weights), rankings))
            for k, name in enumerate(("mAP", "mean_auc")):
                table = np.stack([pair[k] for pair in pairs])
                parts[name].append(np.nansum(table, axis=0) / (~np.isnan(table)).sum(axis=0))
            parts["ap"].append(np.stack([ap for ap, _ in pairs]))
            for name, hit in hits.items():
                parts[name].append(weights[hit].sum(axis=0, dtype=np.int64) / clips)
    return {name: np.concatenate(drawn, axis=-1) for name, drawn in parts.items()}


def _interval(drawn: np.ndarray, value: float, lowest: float, highest: float) -> tuple[float, float] | None:
    """The 95 % interval of a value: percentiles over resamples, moved by the difference between the
    resamples' mean and the value.

    A positive clip drawn twice stands beside itself in the ranking, which lifts AP: with rare labels every
    resample's mAP lies above the value. Unmoved percentiles then held the mAP expected on such a test set in
    80 % of simulated cases, these in 95 %.
    """
    known = drawn[np.isfinite(drawn)]
    if len(known) == 0 or not np.isfinite(value):
        return None
    low, high = np.clip(np.percentile(known, [2.5, 97.5]) - known.mean() + value, lowest, highest)
    return float(low), float(high)


def _intervals(
    rankings: list[_Ranking], hits: dict[str, np.ndarray], values: dict[str, float], resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """95 % intervals of `values`, by name."""
    drawn = _draws(rankings, hits, resamples, seed)
    intervals = {
        name: found for name, value in values.items() if (found := _interval(drawn[name], value, 0.0, 1.0))
    }
    if "mean_auc" in intervals:
        low, high = intervals["mean_auc"]
        intervals["d_prime"] = (d_prime(low), d_prime(high))
    return intervals


def difference_intervals(
    scores: np.ndarray, others: np.ndarray, targets: np.ndarray, resamples: int = 1000, seed: int = 0
) -> tuple[dict[str, tuple[float, float]], list[tuple[float, float] | None]]:
    """95 % intervals of `others` less `scores`: in mAP, mean_auc, d_prime and top1_hit_rate, by name, and in
    the AP of each label. A paired bootstrap over clips.

    Both are scored on the same resamples, so that what makes a resample hard for both drops out. An undefined
    difference has none; nor has the AP of a label with fewer than `LEAST_POSITIVES`, whose resamples know too
    little of what other clips of the label would do.

    Args:
        scores: `(clips, labels)` float.
        others: Scores of the same clips and labels by something else.
        targets: `(clips, labels)` bool.

    Raises:
        UserError: `bad-scores`.
    """
    values, draws, aps = [], [], []
    for table in (scores, others):
        rankings, hit = rank(table, targets), top1_hits(table, targets)
        ap, auc = _per_label(rankings)
        drawn = _draws(rankings, {"top1_hit_rate": hit}, resamples, seed)
        values.append(
            {
                "mAP": _mean(ap),
                "mean_auc": _mean(auc),
                "d_prime": d_prime(_mean(auc)),
                "top1_hit_rate": float(hit.mean()),
            }
        )
        draws.append(drawn | {"d_prime": np.array([d_prime(value) for value in drawn["mean_auc"]])})
        aps.append(ap)
    with np.errstate(invalid="ignore"):  # d' may be infinite on both sides
        differences = {
            name: (draws[1][name] - draws[0][name], values[1][name] - values[0][name]) for name in values[0]
        }
    intervals = {
        name: found
        for name, (drawn, value) in differences.items()
        if (found := _interval(drawn, value, -np.inf, np.inf))
    }
    enough = targets.sum(axis=0) >= LEAST_POSITIVES
    by_label = zip(draws[1]["ap"] - draws[0]["ap"], aps[1] - aps[0], enough, strict=True)
    return intervals, [
        _interval(drawn, value, -1.0, 1.0) if known else None for drawn, value, known in by_label
    ]


def figures(
    scores: np.ndarray,
    targets: np.ndarray,
    *,
    order: np.ndarray | None = None,
    clips_hash: str = "",
    resamples: int = 1000,
    seed: int = 0,
) -> Figures:
    """Every figure of `scores` against `targets`.

    Args:
        scores: `(clips, labels)` float.
        targets: `(clips, labels)` bool.
        order: Label order behind mean_acc, every label's index once, `(labels,)`; the table's own when left
            out.
        resamples: Bootstrap resamples; 0 gives no intervals.

    Raises:
        UserError: `bad-scores`.
    """
    rankings = rank(scores, targets)
    own_order = np.arange(scores.shape[1])
    order = own_order if order is None else order
    if not np.array_equal(np.sort(order), own_order):
        raise _bad(f"the label order does not name each of the {len(own_order)} labels once")
    ap, auc = _per_label(rankings)
    positives = targets.sum(axis=0)
    hits = {
        "mean_acc": first_positive_hits(scores, targets, order),
        "top1_hit_rate": top1_hits(scores, targets),
    }
    values = {"mAP": _mean(ap), "mean_auc": _mean(auc)} | {
        name: float(hit.mean()) for name, hit in hits.items()
    }
    return Figures(
        **values,
        d_prime=d_prime(values["mean_auc"]),
        chance=float(targets.mean(axis=0)[positives > 0].mean()) if positives.any() else float("nan"),
        mAP_reference=float(np.nan_to_num(ap).mean()),
        mean_auc_reference=float(np.nan_to_num(auc).mean()),
        n_labels=scores.shape[1],
        n_labels_scored=int((positives > 0).sum()),
        n_instances=len(scores),
        clips_hash=clips_hash,
        intervals=_intervals(rankings, hits, values, resamples, seed) if resamples else {},
        ap=ap,
        auc=auc,
        positives=positives.astype(np.int64),
    )


def label_table(result: Figures, labels: LabelSet, train_positives: np.ndarray | None = None) -> str:
    """The figures per label as CSV; an undefined one is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["index", "mid", "display_name", "ap", "auc", "d_prime", "positives_test"]
        + (["positives_train"] if train_positives is not None else [])
    )
    for i, label in enumerate(labels.labels):
        numbers = [
            "" if np.isnan(v) else f"{v:.6f}" for v in (result.ap[i], result.auc[i], d_prime(result.auc[i]))
        ]
        writer.writerow(
            [i, label.mid, label.name, *numbers, result.positives[i]]
            + ([int(train_positives[i])] if train_positives is not None else [])
        )
    return out.getvalue()
