"""logits of labelled clips -> a temperature and thresholds, so that scores mean probabilities and decisions
are as good as they can be.

In: `Evidence`, a model's logits of clips that neither trained nor test it. Out: a `Calibration`, and a
published folder beside the model: `calibration.json`, to which `calibration_page` adds a page. What is
reported of it comes from clips that had no part in it (`cross_fitted`). NumPy only.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from beatline import artefact, windows
from beatline.errors import UserError
from beatline.labels import Label, LabelSet

FILE = "calibration.json"
DEFAULT = 0.5  # threshold of a label without positives
COLDEST, HOTTEST = 0.05, 20.0  # temperatures that are looked at
GRID = 25  # of them at first, evenly on a logarithmic scale
LEAST = 1e-7  # probability that a score is taken for at least, so that one clip cannot cost infinitely much
BINS = 15

State = Literal["learned", "default", "unreached"]
"""Of a threshold: learned; the default, for want of positives; or above every score, because none reached the
precision wanted.
"""


@dataclass(frozen=True)
class Calibration:
    """How a model's scores become probabilities, and from where on each label counts as heard."""

    labels: LabelSet = field(repr=False)
    thresholds: np.ndarray = field(repr=False)
    """`(labels,)` float32: a label counts where its score, with the temperature, is at least this."""
    temperature: float
    """What logits are divided by before they become scores, above 0."""
    states: tuple[State, ...] = field(repr=False)
    """Of each threshold."""
    positives: np.ndarray = field(repr=False)
    """Clips that had each label, `(labels,)` int64."""
    about: dict[str, Any] = field(default_factory=dict, repr=False)
    """JSON facts: goal, clips and their hash, the model's hash, what it gains."""

    def save(self, folder: Path, page: Callable[[Path], object] = lambda partial: None) -> None:
        """Publishes the folder; `page` may add to it.

        Raises:
            UserError: `disk-full` or `not-writable`.
        """
        columns = (self.labels.labels, self.thresholds.tolist(), self.positives.tolist(), self.states)
        rows = [
            {"mid": label.mid, "name": label.name, "threshold": threshold, "positives": count, "state": state}
            for label, threshold, count, state in zip(*columns, strict=True)
        ]
        with artefact.publish(folder, {"kind": "calibration", "labels_hash": self.labels.hash}) as partial:
            (partial / FILE).write_text(
                json.dumps({"temperature": self.temperature, "labels": rows, "about": self.about}, indent=1)
                + "\n"
            )
            page(partial)

    @staticmethod
    def load(source: Path | str, labels: LabelSet | None = None) -> "Calibration":
        """The calibration in a folder, or the one that belongs to a model.

        Args:
            source: Such a folder; or a model or run folder, checkpoint file or export, for the calibration in
                its `place`.
            labels: Those of the model it is for.

        Raises:
            UserError: `missing-file`, `corrupt-artefact`; `label-mismatch` where it is for other labels;
                `missing-stage` where it is for a model that was in this place before.
        """
        source = Path(source)
        own = _is_calibration(source)
        folder = source if own else place(source)
        if not _is_calibration(folder):
            raise UserError(
                "missing-file",
                f"no calibration in {folder}",
                "nothing was learned there" if not folder.exists() else "it is no folder of a calibration",
                "run `beatline calibrate` for this model first",
            )
        artefact.verify(folder)
        content = json.loads((folder / FILE).read_text())
        rows, about = content["labels"], content["about"]
        found = LabelSet(tuple(Label(row["mid"], row["name"]) for row in rows))
        if labels is not None and labels.hash != found.hash:
            raise UserError(
                "label-mismatch",
                f"cannot use {folder}",
                "it is for a model of other labels",
                "run `beatline calibrate` for this model",
            )
        if not own and about.get("model_hash") != model_hash(source):
            raise UserError(
                "missing-stage",
                f"cannot use {folder}",
                f"it was made for another model than what {source} is now",
                "run `beatline calibrate` again",
            )
        thresholds, positives = (
            np.array([row["threshold"] for row in rows], np.float32),
            np.array([row["positives"] for row in rows], np.int64),
        )
        return Calibration(
            found, thresholds, content["temperature"], tuple(row["state"] for row in rows), positives, about
        )


def _is_calibration(folder: Path) -> bool:
    return (artefact.read_manifest(folder) or {}).get("kind") == "calibration"


def _model(source: Path) -> Path:
    return source / "model" if (source / "model").is_dir() else source


def place(source: Path) -> Path:
    """Where a model's calibration lies: `RUN/calibration` of a run, `MODEL/calibration` of one packed for a
    hub, `MODEL.calibration` beside any other folder or file.
    """
    model = _model(source)
    if _is_calibration(model / "calibration"):
        return model / "calibration"
    if model.name in ("", ".."):  # of the folder that one is in, or of one above it
        model = Path(os.path.abspath(model))
    return model.with_name("calibration" if model.name == "model" else f"{model.name}.calibration")


def model_hash(source: Path) -> str:
    """SHA-256 that changes with what a model folder, export, checkpoint file or folder of checkpoint files
    holds.
    """
    model = _model(source)
    manifest = model / artefact.MANIFEST
    if model.is_file() or manifest.exists():
        return artefact.sha256_file(manifest if manifest.exists() else model)
    return artefact.hash_json(
        sorted((path.name, artefact.sha256_file(path)) for path in model.iterdir() if path.is_file())
    )


# --- learning


@dataclass(frozen=True)
class Evidence:
    """What a model says of labelled clips."""

    logits: Sequence[np.ndarray]
    """Of each clip `(windows, labels)` float32."""
    targets: np.ndarray
    """`(clips, labels)` bool."""
    known: np.ndarray
    """Labels that the clips were labelled with, `(labels,)` bool; of the others nobody said that they are
    absent.
    """
    score: Callable[[np.ndarray], np.ndarray]
    """Logits to scores, as the model does."""
    merge: windows.Merge = "mean"
    task: str = "multi-label"

    def part(self, rows: np.ndarray) -> "Evidence":
        """Some of the clips."""
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
    """The temperature of the least loss on the labels that are known, between `COLDEST` and `HOTTEST`: a
    grid, then golden sections of the best part of it.

    Source: temperature scaling of Guo et al., arXiv 1706.04599; with several labels a clip all share the one
    temperature.
    """
    targets = evidence.targets[:, evidence.known]

    def cost(exponent: float) -> float:
        return loss(evidence.scores(math.exp(exponent))[:, evidence.known], targets, evidence.task)

    grid = np.linspace(math.log(COLDEST), math.log(HOTTEST), GRID).tolist()
    best = int(np.argmin([cost(exponent) for exponent in grid]))
    return math.exp(golden_section(cost, grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]))


def golden_section(cost: Callable[[float], float], low: float, high: float, within: float = 1e-3) -> float:
    """Where a function with one valley is lowest between `low` and `high`."""
    share = (math.sqrt(5) - 1) / 2
    left, right = high - share * (high - low), low + share * (high - low)
    at_left, at_right = cost(left), cost(right)
    while high - low > within:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - share * (high - low)
            at_left = cost(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + share * (high - low)
            at_right = cost(right)
    return (low + high) / 2


def fit_thresholds(
    scores: np.ndarray, targets: np.ndarray, precision: float | None = None
) -> tuple[np.ndarray, tuple[State, ...]]:
    """A threshold for each label, `(labels,)` float32, and what each one is.

    Args:
        scores: `(clips, labels)` float32.
        targets: `(clips, labels)` bool.
        precision: Take the lowest threshold whose precision is at least this; None is the one of the highest
            F1, the higher of equal ones.
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
    hits, chosen = np.cumsum(targets[order])[last], last + 1
    if precision is None:
        best = int(np.argmax(2 * hits / (chosen + positives)))
    else:
        good = np.flatnonzero((hits >= precision * chosen) & (hits > 0))
        if len(good) == 0:
            return 1.0, "unreached"
        best = int(good[-1])
    least, below = falling[last[best]], falling[last[best] + 1] if best + 1 < len(last) else np.float32(0)
    middle = np.float32((np.float64(least) + below) / 2)  # other clips' scores lie around these
    return float(middle if middle > below else least), "learned"


# --- what it is worth


def cross_fitted(
    evidence: Evidence, parts: np.ndarray, precision: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and decisions `(clips, labels)`, each clip's by temperature and thresholds learned from the
    other parts' clips alone.

    Args:
        parts: Which part each clip belongs to, `(clips,)`; with one part there are no others, and the clips'
            own are taken.
        precision: As `fit_thresholds`.
    """
    scores, decisions = np.zeros(evidence.targets.shape, np.float32), np.zeros(evidence.targets.shape, bool)
    for part in np.unique(parts):
        inside, others = np.flatnonzero(parts == part), np.flatnonzero(parts != part)
        learned = evidence.part(others if len(others) else inside)
        temperature = fit_temperature(learned)
        thresholds, _ = fit_thresholds(learned.scores(temperature), learned.targets, precision)
        scores[inside] = evidence.part(inside).scores(temperature)
        decisions[inside] = scores[inside] >= thresholds
    return scores, decisions


@dataclass(frozen=True)
class Worth:
    """What a calibration gains on clips that had no part in it; of each pair the first is without it, decided
    at `DEFAULT`.
    """

    bins: tuple[np.ndarray, np.ndarray]
    """`reliability` of the scores."""
    decisions: tuple[dict[str, float], dict[str, float]]
    """`decided`, over the labels that are known."""
    label_f1: tuple[np.ndarray, np.ndarray]
    """F1 of each label, `(labels,)`; nan where it is neither there nor decided."""
    parts: int
    """How many times some clips were left out and the others learned from."""

    @property
    def errors(self) -> tuple[float, float]:
        """Expected calibration errors."""
        return expected_error(self.bins[0]), expected_error(self.bins[1])


def worth(evidence: Evidence, parts: np.ndarray, precision: float | None = None) -> Worth:
    """What is gained, by `cross_fitted`; its arguments."""
    scores, decisions = cross_fitted(evidence, parts, precision)
    raw, known, targets = evidence.scores(1.0), evidence.known, evidence.targets
    pairs = ((raw, raw >= DEFAULT), (scores, decisions))
    bins = [reliability(some[:, known], targets[:, known], evidence.task) for some, _ in pairs]
    whole = [decided(made[:, known], targets[:, known]) for _, made in pairs]
    each = [
        np.array([decided(made[:, k], targets[:, k])["f1"] for k in range(len(known))]) for _, made in pairs
    ]
    return Worth((bins[0], bins[1]), (whole[0], whole[1]), (each[0], each[1]), len(np.unique(parts)))


def reliability(scores: np.ndarray, targets: np.ndarray, task: str) -> np.ndarray:
    """Of each of `BINS` stretches of scores that has some: their mean, the share that is right, their count,
    which stretch it is; `(bins, 4)` float64.

    What counts is every score with several labels a clip, and each clip's highest score with one.
    """
    if task != "multi-label":
        clips, best = np.arange(len(scores)), scores.argmax(axis=1)
        scores, targets = scores[clips, best], targets[clips, best]
    said, right = scores.ravel().astype(np.float64), targets.ravel()
    bins = np.minimum((said * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=values, minlength=BINS)[counts > 0] for values in (said, right)]
    filled = np.flatnonzero(counts)
    return np.stack([sums[0] / counts[filled], sums[1] / counts[filled], counts[filled], filled], axis=1)


def expected_error(bins: np.ndarray) -> float:
    """Expected calibration error: the mean over scores of how far their bin's mean score lies from its share
    that is right.

    Args:
        bins: As `reliability`.

    Source: Guo et al., arXiv 1706.04599, equation 3, with bins of equal width; there the highest score of a
    clip counts, with several labels a clip here all do.
    """
    return float(np.abs(bins[:, 0] - bins[:, 1]).dot(bins[:, 2]) / max(1, bins[:, 2].sum()))


def decided(decisions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of decisions, all clips and labels together."""
    hits = int((decisions & targets).sum())
    said, there = int(decisions.sum()), int(targets.sum())
    return {
        "precision": hits / said if said else float("nan"),
        "recall": hits / there if there else float("nan"),
        "f1": 2 * hits / (said + there) if said + there else float("nan"),
    }
