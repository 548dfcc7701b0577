"""scores -> how well they rank the clips of each label: AP, AUC, d', accuracies of the top label.

In: scores `(clips, labels)` and targets of the same shape. Out: figures for each label or clip, as fractions.
NumPy only. Ties are handled as scikit-learn does: clips with equal scores enter together. Each label is
sorted once; clip weights on that order give the figures of a bootstrap resample.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from beatline.core.errors import UserError


def bad_scores(cause: str) -> UserError:
    """The error `bad-scores` for this cause."""
    return UserError(
        "bad-scores", "scores and targets", cause, "score the clips again, or give matching files"
    )


def check(scores: np.ndarray, targets: np.ndarray) -> None:
    """Makes sure that scores and targets are tables of the same shape, of finite floats and of bools.

    Raises:
        UserError: `bad-scores`.
    """
    if scores.ndim != 2 or scores.shape != targets.shape or 0 in scores.shape:
        raise bad_scores(f"shapes {scores.shape} and {targets.shape} are not one table of clips and labels")
    if targets.dtype != bool or scores.dtype.kind != "f":
        raise bad_scores(f"scores are {scores.dtype} and targets {targets.dtype}, not floats and bool")
    if not np.isfinite(scores).all():
        raise bad_scores(
            f"clip {int(np.argwhere(~np.isfinite(scores))[0][0])} has a score that is not finite"
        )


@dataclass(frozen=True)
class Ranking:
    """A label's clips from the highest score down. Cuts are at both ends of each group of equal scores that
    has a positive.
    """

    order: np.ndarray
    """Clips by falling score, `(clips,)`."""
    borders: np.ndarray
    """The cuts, as indices into `order`: 0, then rising, last the number of clips."""
    begins: np.ndarray
    ends: np.ndarray
    """Indices of the borders before and after each group with a positive, `(groups,)`."""
    positives: np.ndarray
    """Positive clips by falling score, `(positives,)`."""
    first_positives: np.ndarray
    """Index into `positives` at which each group begins, `(groups,)`."""


def _rank(scores: np.ndarray, targets: np.ndarray) -> Ranking:
    order = np.argsort(-scores)  # not stable: the order inside a group of equal scores does not matter
    falling = scores[order]
    positive = targets[order]
    starts = np.flatnonzero(np.append(True, falling[1:] != falling[:-1]))
    group_of_positive = np.searchsorted(starts, np.flatnonzero(positive), side="right") - 1
    groups, first_positives = np.unique(group_of_positive, return_index=True)
    begins = starts[groups]
    ends = np.append(starts, len(order))[groups + 1]
    borders = np.unique(np.concatenate([[0, len(order)], begins, ends]))
    return Ranking(
        order,
        borders,
        np.searchsorted(borders, begins),
        np.searchsorted(borders, ends),
        order[positive],
        first_positives,
    )


def rank(scores: np.ndarray, targets: np.ndarray) -> list[Ranking]:
    """The ranking of the clips by each label, of `(clips, labels)`."""
    check(scores, targets)
    return [_rank(scores[:, i], targets[:, i]) for i in range(scores.shape[1])]


def ap_and_auc(ranking: Ranking, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AP and AUC of a label for each column of clip weights `(clips, resamples)`; NaN where undefined."""
    if len(ranking.positives) == 0:
        return np.full(weights.shape[1], np.nan), np.full(weights.shape[1], np.nan)
    between = np.add.reduceat(
        np.take(weights, ranking.order, axis=0), ranking.borders[:-1], axis=0, dtype=np.int32
    )
    at_border = np.vstack([np.zeros((1, weights.shape[1])), between.cumsum(axis=0)])  # clips above it
    at_begin = at_border[ranking.begins]
    at_end = at_border[ranking.ends]
    hits = np.add.reduceat(
        weights[ranking.positives], ranking.first_positives, axis=0, dtype=np.int32
    ).astype(np.float64)
    found = hits.cumsum(axis=0)
    positive = found[-1]
    negative = at_border[-1] - found[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ap = np.where(hits > 0, hits * found / at_end, 0.0).sum(axis=0) / positive
        # a positive beats the negatives below its group and half of those inside it
        inside = at_end - at_begin - hits
        below = negative - (at_end - found)
        auc = (hits * (below + inside / 2)).sum(axis=0) / (positive * negative)
    return np.where(positive > 0, ap, np.nan), np.where((positive > 0) & (negative > 0), auc, np.nan)


def per_label(rankings: list[Ranking]) -> tuple[np.ndarray, np.ndarray]:
    """AP and AUC of each label, both `(labels,)` float64, NaN where undefined."""
    once = np.ones((len(rankings[0].order), 1), np.uint8)
    pairs = [ap_and_auc(ranking, once) for ranking in rankings]
    return np.array([ap[0] for ap, _ in pairs]), np.array([auc[0] for _, auc in pairs])


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """AP of each label, `(labels,)` float64, NaN for a label without positives.

    Source: equals scikit-learn's average_precision_score, which gives 0 for such a label.

    Raises:
        UserError: `bad-scores`.
    """
    return per_label(rank(scores, targets))[0]


def roc_auc(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each label, `(labels,)` float64, NaN where all or no clips are positive.

    Source: equals scikit-learn's roc_auc_score.

    Raises:
        UserError: `bad-scores`.
    """
    return per_label(rank(scores, targets))[1]


def d_prime(auc: float) -> float:
    """Separation of two unit normal distributions with that AUC: sqrt(2) times the normal quantile; infinite
    at 0 and 1.

    Source: PSLA and AST, which take it of the mean AUC, as we do.
    """
    if not 0.0 < auc < 1.0:
        return float("nan") if np.isnan(auc) else float(np.copysign(np.inf, auc - 0.5))
    return 2**0.5 * NormalDist().inv_cdf(auc)


def precision_recall(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of a label at each distinct score from the highest down; both `(points,)`."""
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
    """Whether the top label is the clip's first positive label in `order`, `(clips,)` bool. The recipe's
    mean_acc is the mean.

    The reference takes argmax of the multi-hot target. So a clip without labels counts as label 0 of that
    order, here as there.
    """
    return scores[:, order].argmax(axis=1) == targets[:, order].argmax(axis=1)


def top1_hits(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Whether the top label is among the clip's labels, `(clips,)` bool; of equal scores the first counts.

    A clip without labels is a miss.
    """
    return targets[np.arange(len(scores)), scores.argmax(axis=1)]


def mean_of_known(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN where all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
