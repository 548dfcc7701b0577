"""scores -> metrics: every figure of a scored test set, exactly as the recipe defines them.

In: scores `(clips, labels)` and targets of the same shape. Out: `Figures`, all as fractions, and a table of
them by label. NumPy only. `ranking` computes the figures, `bootstrap` their intervals.
"""

import csv
import dataclasses
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from beatline.core.labels import LabelSet
from beatline.evaluate.bootstrap import intervals
from beatline.evaluate.ranking import (
    bad_scores,
    d_prime,
    first_positive_hits,
    mean_of_known,
    per_label,
    rank,
    top1_hits,
)


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
    """Share of clips whose top label is among their labels. The label order matters only where the highest
    score occurs twice.
    """
    chance: float
    """mAP expected of random scores: mean share of positives."""
    mAP_reference: float
    """mAP where a label without positives counts as 0, as in the reference."""
    mean_auc_reference: float
    """mean_auc by the same convention; a label that every clip has counts as 0 too.

    scikit-learn leaves such a label undefined.
    """
    n_labels: int
    n_labels_scored: int
    """Labels with at least one positive."""
    n_instances: int
    """Clips."""
    clips_hash: str
    """SHA-256 of the clip list."""
    intervals: dict[str, tuple[float, float]]
    """95 % bootstrap intervals over clips, by name: where the figure is expected on test sets of this size.
    An undefined figure has no interval.
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
        """The figures that `to_dict` gave."""
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
    if value is None:
        return float("nan")
    return float(value) if value in ("inf", "-inf") else value


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
        order: Label order behind mean_acc, every label's index once, `(labels,)`; the table's order when
            left out.
        resamples: Bootstrap resamples; 0 gives no intervals.

    Raises:
        UserError: `bad-scores`.
    """
    rankings = rank(scores, targets)
    own_order = np.arange(scores.shape[1])
    order = own_order if order is None else order
    if not np.array_equal(np.sort(order), own_order):
        raise bad_scores(f"the label order does not name each of the {len(own_order)} labels once")
    ap, auc = per_label(rankings)
    positives = targets.sum(axis=0)
    hits = {
        "mean_acc": first_positive_hits(scores, targets, order),
        "top1_hit_rate": top1_hits(scores, targets),
    }
    values = {"mAP": mean_of_known(ap), "mean_auc": mean_of_known(auc)} | {
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
        intervals=intervals(rankings, hits, values, resamples, seed) if resamples else {},
        ap=ap,
        auc=auc,
        positives=positives.astype(np.int64),
    )


def label_table(result: Figures, labels: LabelSet, train_positives: np.ndarray | None = None) -> str:
    """The figures of each label as CSV; an undefined figure is empty."""
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
