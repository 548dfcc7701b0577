"""scores -> metrics: AP, AUC, d', accuracies and their intervals, exactly as the recipe defines them.

In: scores `(clips, labels)` and targets of the same shape. Out: `Figures`, all as fractions. NumPy only. Ties are handled as scikit-learn does: clips
with equal scores enter together. Each label is sorted once; a bootstrap resample is a vector of clip weights on that order.
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

from beatline.errors import UserError
from beatline.labels import LabelSet

BOOTSTRAP_CHUNK = 125  # resamples at once: 10 MB of weights for 20 123 clips, which stays in the cache


def _bad(cause: str) -> UserError:
    return UserError("bad-scores", "scores and targets", cause, "score the clips again, or give matching files")


def check(scores: np.ndarray, targets: np.ndarray) -> None:
    """Scores and targets are tables of one shape, finite and boolean.

    Raises:
        UserError: `bad-scores`.
    """
    if scores.ndim != 2 or scores.shape != targets.shape or 0 in scores.shape:
        raise _bad(f"shapes {scores.shape} and {targets.shape} are not one table of clips and labels")
    if targets.dtype != bool:
        raise _bad(f"targets are {targets.dtype}, not bool")
    if not np.isfinite(scores).all():
        raise _bad(f"clip {int(np.argwhere(~np.isfinite(scores))[0][0])} has a score that is not finite")


@dataclass(frozen=True)
class _Ranking:
    """One label's clips from the highest score down, and the groups of equal scores that hold a positive."""

    order: np.ndarray
    """Clips by falling score, `(clips,)`."""
    begins: np.ndarray
    ends: np.ndarray
    """Where each such group begins and ends in `order`, `(groups,)`."""
    positives: np.ndarray
    """Positive clips by falling score, `(positives,)`."""
    group_of_positive: np.ndarray
    """Where each group's positives begin in `positives`, `(groups,)`."""


def _rank(scores: np.ndarray, targets: np.ndarray) -> _Ranking:
    order = np.argsort(-scores, kind="stable")
    falling, positive = scores[order], targets[order]
    new_group = np.concatenate([[True], falling[1:] != falling[:-1]])
    begins = np.flatnonzero(new_group)
    ends = np.append(begins[1:], len(order))
    group = np.cumsum(new_group) - 1
    held, first = np.unique(group[positive], return_index=True)
    return _Ranking(order, begins[held], ends[held], order[positive], first)


def _ap_auc(ranking: _Ranking, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AP and AUC of one label for each column of clip weights `(clips, resamples)`; NaN where they are not defined."""
    total = weights.sum(axis=0).astype(np.float64)
    if len(ranking.positives) == 0:
        return np.full(total.shape, np.nan), np.full(total.shape, np.nan)
    hits = np.add.reduceat(weights[ranking.positives], ranking.group_of_positive, axis=0).astype(np.float64)
    # cumulative weight at the groups' borders only: sums between borders, then their running total
    borders = np.unique(np.concatenate([[0], ranking.begins, ranking.ends[ranking.ends < len(ranking.order)]]))
    between = np.add.reduceat(weights[ranking.order], borders, axis=0).astype(np.float64)
    before = np.vstack([np.zeros_like(total), between.cumsum(axis=0)])
    place = np.append(borders, len(ranking.order))
    at_begin, at_end = before[np.searchsorted(place, ranking.begins)], before[np.searchsorted(place, ranking.ends)]
    found = hits.cumsum(axis=0)
    positive = found[-1]
    negative = total - positive
    with np.errstate(divide="ignore", invalid="ignore"):
        ap = np.where(hits > 0, hits * found / at_end, 0.0).sum(axis=0) / positive
        # a positive beats the negatives below its group and half of those inside it
        in_group = at_end - at_begin - hits
        below = negative - (at_end - found)
        auc = (hits * (below + in_group / 2)).sum(axis=0) / (positive * negative)
    return np.where(positive > 0, ap, np.nan), np.where((positive > 0) & (negative > 0), auc, np.nan)


def _per_label(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    check(scores, targets)
    once = np.ones((len(scores), 1), np.int32)
    pairs = [_ap_auc(_rank(scores[:, i], targets[:, i]), once) for i in range(scores.shape[1])]
    return np.array([ap[0] for ap, _ in pairs]), np.array([auc[0] for _, auc in pairs])


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """AP of each label, `(labels,)` float64, NaN for a label without positives. Equals scikit-learn's average_precision_score."""
    return _per_label(scores, targets)[0]


def roc_auc(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each label, `(labels,)`, NaN where all or no clips are positive. Equals scikit-learn's roc_auc_score."""
    return _per_label(scores, targets)[1]


def d_prime(auc: float) -> float:
    """Separation of two unit normal distributions with that AUC: sqrt(2) times the normal quantile. Source: AudioSet's papers, PSLA, AST."""
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
    """Labels by falling training count, `(labels,)`: ESPnet's order of labels. Equal counts keep the table's order."""
    return np.argsort(-counts, kind="stable")


def first_positive_hits(scores: np.ndarray, targets: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Whether the top label is the clip's first positive one in `order`, `(clips,)`: the recipe's mean_acc is its mean.

    The reference takes argmax of the multi-hot target, so a clip without any label counts as label 0 of that order, as it does there.
    """
    return scores[:, order].argmax(axis=1) == targets[:, order].argmax(axis=1)


def top1_hits(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Whether the top label is any of the clip's, `(clips,)`."""
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
    """Share of clips whose top label is one of theirs; depends on no order."""
    chance: float
    """mAP expected of random scores: mean share of positives."""
    mAP_reference: float
    """mAP where a label without positives counts as 0, as in the reference."""
    mean_auc_reference: float
    """mean_auc likewise."""
    n_labels: int
    n_labels_scored: int
    """Labels with at least one positive."""
    n_instances: int
    """Clips."""
    clips_hash: str
    """SHA-256 of the clip list."""
    intervals: dict[str, tuple[float, float]]
    """95 % bootstrap intervals over clips, by name of the figure."""
    ap: np.ndarray
    auc: np.ndarray
    positives: np.ndarray
    """Per label, `(labels,)`."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN as None."""

        def plain(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return [plain(v) for v in value.tolist()]
            if isinstance(value, float) and not np.isfinite(value):
                return None
            return value

        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Figures":
        """What `to_dict` gave."""
        arrays = {name: np.array([np.nan if v is None else v for v in values[name]], np.float64) for name in ("ap", "auc")}
        intervals = {name: (low, high) for name, (low, high) in values["intervals"].items()}
        numbers = {name: float("nan") if value is None else value for name, value in values.items()}
        return Figures(**(numbers | arrays | {"positives": np.array(values["positives"], np.int64), "intervals": intervals}))


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _resamples(clips: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """Weights `(clips, up to BOOTSTRAP_CHUNK)` int32: how often each clip is drawn in each resample."""
    rng = np.random.Generator(np.random.Philox(seed))
    for begin in range(0, count, BOOTSTRAP_CHUNK):
        columns = [np.bincount(rng.integers(clips, size=clips), minlength=clips) for _ in range(min(BOOTSTRAP_CHUNK, count - begin))]
        yield np.stack(columns, axis=1).astype(np.int32)


def _intervals(scores: np.ndarray, targets: np.ndarray, hits: dict[str, np.ndarray], resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    rankings = [_rank(scores[:, i], targets[:, i]) for i in range(scores.shape[1])]
    values: dict[str, list[np.ndarray]] = {name: [] for name in ("mAP", "mean_auc", *hits)}
    with ThreadPoolExecutor(os.cpu_count()) as pool, np.errstate(all="ignore"):
        for weights in _resamples(len(scores), resamples, seed):
            pairs = list(pool.map(lambda ranking, weights=weights: _ap_auc(ranking, weights), rankings))
            for name, rows in (("mAP", [ap for ap, _ in pairs]), ("mean_auc", [auc for _, auc in pairs])):
                table = np.stack(rows)
                values[name].append(np.nansum(table, axis=0) / (~np.isnan(table)).sum(axis=0))
            for name, hit in hits.items():
                values[name].append(hit @ weights / len(scores))
    low_high = {name: np.nanpercentile(np.concatenate(parts), [2.5, 97.5]) for name, parts in values.items()}
    intervals = {name: (float(low), float(high)) for name, (low, high) in low_high.items()}
    intervals["d_prime"] = tuple(d_prime(edge) for edge in intervals["mean_auc"])  # type: ignore[assignment]
    return intervals


def figures(
    scores: np.ndarray, targets: np.ndarray, *, order: np.ndarray | None = None, clips_hash: str = "", resamples: int = 1000, seed: int = 0
) -> Figures:
    """Every figure of `scores` against `targets`.

    Args:
        scores: `(clips, labels)` float.
        targets: `(clips, labels)` bool.
        order: Label order behind mean_acc, `(labels,)` indices; the table's own when left out.
        resamples: Bootstrap resamples; 0 gives no intervals.

    Raises:
        UserError: `bad-scores`.
    """
    ap, auc = _per_label(scores, targets)
    positives = targets.sum(axis=0)
    hits = {
        "mean_acc": first_positive_hits(scores, targets, np.arange(scores.shape[1]) if order is None else order),
        "top1_hit_rate": top1_hits(scores, targets),
    }
    mean_auc = _mean(auc)
    return Figures(
        mAP=_mean(ap),
        mean_auc=mean_auc,
        d_prime=d_prime(mean_auc),
        mean_acc=float(hits["mean_acc"].mean()),
        top1_hit_rate=float(hits["top1_hit_rate"].mean()),
        chance=float(targets.mean(axis=0)[positives > 0].mean()) if positives.any() else float("nan"),
        mAP_reference=float(np.nan_to_num(ap).mean()),
        mean_auc_reference=float(np.nan_to_num(auc).mean()),
        n_labels=scores.shape[1],
        n_labels_scored=int((positives > 0).sum()),
        n_instances=len(scores),
        clips_hash=clips_hash,
        intervals=_intervals(scores, targets, hits, resamples, seed) if resamples else {},
        ap=ap,
        auc=auc,
        positives=positives.astype(np.int64),
    )


def label_table(result: Figures, labels: LabelSet, train_positives: np.ndarray | None = None) -> str:
    """The figures per label as CSV; an undefined one is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["index", "mid", "display_name", "ap", "auc", "d_prime", "positives_test"] + (["positives_train"] if train_positives is not None else []))
    for i, label in enumerate(labels.labels):
        numbers = ["" if np.isnan(v) else f"{v:.6f}" for v in (result.ap[i], result.auc[i], d_prime(result.auc[i]))]
        writer.writerow([i, label.mid, label.name, *numbers, result.positives[i]] + ([int(train_positives[i])] if train_positives is not None else []))
    return out.getvalue()
