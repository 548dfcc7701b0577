"""logits of labelled clips -> a temperature and thresholds. Scores then mean probabilities, and decisions are
as good as they can be.

In: `Evidence`, a model's logits of clips that neither trained nor test it. Out: a temperature, thresholds,
and their worth on clips that had no part in them (`cross_fitted`). `tag.calibration` keeps them in a folder,
to which `calibrate_page` adds a page. NumPy only.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from beatline.audio import windows
from beatline.tag.calibration import DEFAULT, State

COLDEST = 0.05  # lowest temperature tried
HOTTEST = 20.0  # highest temperature tried
GRID = 25  # temperatures tried at first, evenly on a logarithmic scale
LEAST = 1e-7  # lowest probability that a score is taken for, so that no clip costs infinitely much
BINS = 15

# --- learning


@dataclass(frozen=True)
class Evidence:
    """What a model says of labelled clips."""

    logits: Sequence[np.ndarray]
    """Of each clip `(windows, labels)` float32."""
    targets: np.ndarray
    """`(clips, labels)` bool."""
    known: np.ndarray
    """Labels that the clips were labelled with, `(labels,)` bool; the other labels may be there unsaid."""
    score: Callable[[np.ndarray], np.ndarray]
    """Logits to scores, as the model does."""
    merge: windows.Merge = "mean"
    task: str = "multi-label"

    def part(self, rows: np.ndarray) -> "Evidence":
        """The evidence of the clips with these indices."""
        return Evidence(
            [self.logits[i] for i in rows], self.targets[rows], self.known, self.score, self.merge, self.task
        )

    def scores(self, temperature: float) -> np.ndarray:
        """The clips' scores at a temperature, `(clips, labels)` float32, merged over windows as a tagger
        does.
        """
        scores = self.score(np.concatenate(self.logits) / np.float32(temperature))
        if len(scores) == len(self.logits):
            return scores
        ends = np.cumsum([len(clip) for clip in self.logits])[:-1]
        return np.stack([windows.merge(clip, self.merge) for clip in np.split(scores, ends)])


def loss(scores: np.ndarray, targets: np.ndarray, task: str) -> float:
    """Mean surprise: binary cross-entropy over clips and labels, or cross-entropy over the clips that have a
    label.
    """
    scores = np.clip(scores.astype(np.float64), LEAST, 1 - LEAST)
    if task == "multi-label":
        return float(-np.log(np.where(targets, scores, 1 - scores)).mean()) if scores.size else 0.0
    counts = targets.sum(axis=1)
    return float(
        -np.where(targets, np.log(scores), 0.0).sum(axis=1)[counts > 0].dot(1 / counts[counts > 0])
        / max(1, (counts > 0).sum())
    )


def fit_temperature(evidence: Evidence) -> float:
    """The temperature of the least loss on the labels that are known, between `COLDEST` and `HOTTEST`. A grid
    is tried, then golden sections of the best part of the grid.

    Source: temperature scaling of Guo et al., arXiv 1706.04599; with several labels a clip all share a single
    temperature.
    """
    targets = evidence.targets[:, evidence.known]

    def cost(exponent: float) -> float:
        return loss(evidence.scores(math.exp(exponent))[:, evidence.known], targets, evidence.task)

    grid = np.linspace(math.log(COLDEST), math.log(HOTTEST), GRID).tolist()
    best = int(np.argmin([cost(exponent) for exponent in grid]))
    return math.exp(golden_section(cost, grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]))


def golden_section(cost: Callable[[float], float], low: float, high: float, within: float = 1e-3) -> float:
    """Where a function with a single valley is lowest between `low` and `high`."""
    share = (math.sqrt(5) - 1) / 2
    left = high - share * (high - low)
    right = low + share * (high - low)
    at_left = cost(left)
    at_right = cost(right)
    while high - low > within:
        if at_left <= at_right:
            high = right
            right = left
            at_right = at_left
            left = high - share * (high - low)
            at_left = cost(left)
        else:
            low = left
            left = right
            at_left = at_right
            right = low + share * (high - low)
            at_right = cost(right)
    return (low + high) / 2


def fit_thresholds(
    scores: np.ndarray, targets: np.ndarray, precision: float | None = None
) -> tuple[np.ndarray, tuple[State, ...]]:
    """A threshold for each label, `(labels,)` float32, and the state of each.

    Args:
        scores: `(clips, labels)` float32.
        targets: `(clips, labels)` bool.
        precision: Take the lowest threshold whose precision is at least this. None takes the threshold of the
            highest F1, the higher of equal thresholds.
    """
    found = [_threshold(scores[:, k], targets[:, k], precision) for k in range(scores.shape[1])]
    return np.array([threshold for threshold, _ in found], np.float32), tuple(state for _, state in found)


def _threshold(scores: np.ndarray, targets: np.ndarray, precision: float | None) -> tuple[float, State]:
    positives = int(targets.sum())
    if positives == 0:
        return DEFAULT, "default"
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # of each group of equal scores
    hits = np.cumsum(targets[order])[last]
    chosen = last + 1
    if precision is None:
        best = int(np.argmax(2 * hits / (chosen + positives)))
    else:
        good = np.flatnonzero((hits >= precision * chosen) & (hits > 0))
        if len(good) == 0:
            return 1.0, "unreached"
        best = int(good[-1])
    least = falling[last[best]]
    below = falling[last[best] + 1] if best + 1 < len(last) else np.float32(0)
    middle = np.float32((np.float64(least) + below) / 2)  # other clips' scores lie around these
    return float(middle if middle > below else least), "learned"


# --- what it is worth


def cross_fitted(
    evidence: Evidence, parts: np.ndarray, precision: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and decisions `(clips, labels)`, each clip's by temperature and thresholds learned from the
    other parts' clips alone.

    Args:
        parts: Which part each clip belongs to, `(clips,)`; a single part learns from its own
            clips.
        precision: As `fit_thresholds`.
    """
    scores = np.zeros(evidence.targets.shape, np.float32)
    decisions = np.zeros(evidence.targets.shape, bool)
    for part in np.unique(parts):
        inside = np.flatnonzero(parts == part)
        others = np.flatnonzero(parts != part)
        learned = evidence.part(others if len(others) else inside)
        temperature = fit_temperature(learned)
        thresholds, _ = fit_thresholds(learned.scores(temperature), learned.targets, precision)
        scores[inside] = evidence.part(inside).scores(temperature)
        decisions[inside] = scores[inside] >= thresholds
    return scores, decisions


@dataclass(frozen=True)
class Worth:
    """What a calibration gains on clips that had no part in it. Of each pair the first is without it, decided
    at `DEFAULT`.
    """

    bins: tuple[np.ndarray, np.ndarray]
    """`reliability` of the scores."""
    decisions: tuple[dict[str, float], dict[str, float]]
    """`decided`, over the labels that are known."""
    label_f1: tuple[np.ndarray, np.ndarray]
    """F1 of each label, `(labels,)`; nan where it is neither there nor decided."""
    parts: int
    """How many times a part of the clips was left out and the others learned from."""

    @property
    def errors(self) -> tuple[float, float]:
        """Expected calibration errors."""
        return expected_error(self.bins[0]), expected_error(self.bins[1])


def worth(evidence: Evidence, parts: np.ndarray, precision: float | None = None) -> Worth:
    """What a calibration gains, by `cross_fitted`, whose arguments these are."""
    scores, decisions = cross_fitted(evidence, parts, precision)
    raw = evidence.scores(1.0)
    known = evidence.known
    targets = evidence.targets
    pairs = ((raw, raw >= DEFAULT), (scores, decisions))
    bins = [reliability(table[:, known], targets[:, known], evidence.task) for table, _ in pairs]
    whole = [decided(made[:, known], targets[:, known]) for _, made in pairs]
    each = [
        np.array([decided(made[:, k], targets[:, k])["f1"] for k in range(len(known))]) for _, made in pairs
    ]
    return Worth((bins[0], bins[1]), (whole[0], whole[1]), (each[0], each[1]), len(np.unique(parts)))


def reliability(scores: np.ndarray, targets: np.ndarray, task: str) -> np.ndarray:
    """Of each bin that has scores: their mean, the share that is right, their count, the bin's index.

    `(bins, 4)` float64; `BINS` bins of equal width. With several labels a clip every score counts, with a
    single label each clip's highest score.
    """
    if task != "multi-label":
        clips = np.arange(len(scores))
        best = scores.argmax(axis=1)
        scores = scores[clips, best]
        targets = targets[clips, best]
    said = scores.ravel().astype(np.float64)
    right = targets.ravel()
    bins = np.minimum((said * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=values, minlength=BINS)[counts > 0] for values in (said, right)]
    filled = np.flatnonzero(counts)
    return np.stack([sums[0] / counts[filled], sums[1] / counts[filled], counts[filled], filled], axis=1)


def expected_error(bins: np.ndarray) -> float:
    """Expected calibration error: the mean distance, over scores, of their bin's mean score from its share
    that is right.

    Args:
        bins: As `reliability`.

    Source: Guo et al., arXiv 1706.04599, equation 3, with bins of equal width. There the highest score of a
    clip counts. With several labels a clip all scores count here.
    """
    return float(np.abs(bins[:, 0] - bins[:, 1]).dot(bins[:, 2]) / max(1, bins[:, 2].sum()))


def decided(decisions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of decisions, all clips and labels together."""
    hits = int((decisions & targets).sum())
    said = int(decisions.sum())
    there = int(targets.sum())
    return {
        "precision": hits / said if said else float("nan"),
        "recall": hits / there if there else float("nan"),
        "f1": 2 * hits / (said + there) if said + there else float("nan"),
    }
