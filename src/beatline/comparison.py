"""predictions of two runs -> what tells them apart: both scored on their common clips.

In: two `Predictions`. Out: a `Comparison`: how many clips each has and both have, the figures of both on these, and the differences with their paired
bootstrap intervals. Copies of AudioSet differ by up to 15 % of their clips, so figures of different clip lists say little beside each other.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beatline import metrics
from beatline.errors import UserError
from beatline.labels import LabelSet
from beatline.metrics import Figures
from beatline.predictions import Predictions, common

NAMES = {"mAP": ("mAP", 100), "mean_auc": ("mean_auc", 100), "d_prime": ("d'", 1), "top1_hit_rate": ("top-1 hit rate", 100)}
LABELS_SHOWN = 5  # on each side


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs on their common clips; differences are the second less the first."""

    names: tuple[str, str]
    clips: tuple[int, int]
    """Clips of each run."""
    hashes: tuple[str, str]
    """SHA-256 of each run's clip list."""
    figures: tuple[Figures, Figures]
    """On the common clips, in one order of labels; their `n_instances` and `clips_hash` are those of the common clips."""
    intervals: dict[str, tuple[float, float]]
    """95 % intervals of the differences, by figure."""
    labels: LabelSet

    def differences(self) -> dict[str, float]:
        """The second run's figures less the first's, by name."""
        return {name: getattr(self.figures[1], name) - getattr(self.figures[0], name) for name in NAMES}

    def to_dict(self) -> dict[str, Any]:
        """JSON values, AP and AUC of every label among them."""
        a, b = self.figures
        runs = [{"name": n, "clips": c, "clips_hash": h, "figures": f.to_dict()} for n, c, h, f in zip(self.names, self.clips, self.hashes, self.figures, strict=True)]
        differences = {name: {"value": float(value) if np.isfinite(value) else None, "interval": self.intervals.get(name)} for name, value in self.differences().items()}
        shared = {"clips": a.n_instances, "clips_hash": a.clips_hash, "labels_scored": b.n_labels_scored, "mids": list(self.labels.mids)}
        return {"common": shared, "runs": runs, "differences": differences}


def find_predictions(folder: Path) -> Predictions:
    """The predictions of a run's folder, or in the folder itself.

    Raises:
        UserError: `missing-file` where there are none, `corrupt-artefact`.
    """
    return Predictions.load(folder / "predictions" if (folder / "predictions").is_dir() else folder)


def compare(first: Predictions, second: Predictions, names: tuple[str, str], resamples: int = 1000) -> Comparison:
    """Both scored on the clips that both have.

    Raises:
        UserError: `label-mismatch`, also where the runs disagree about the labels of a common clip; `no-clips` where they share none.
    """
    a, b = common(first, second)
    different = np.flatnonzero((a.targets != b.targets).any(axis=1))
    if len(different):
        cause = f"they disagree about the labels of {len(different)} of {len(a.ids)} common clips, the first is {a.ids[different[0]]}"
        raise UserError("label-mismatch", f"cannot compare {names[0]} and {names[1]}", cause, "predict both with one label table, or check that their ids mean the same clips")
    return Comparison(
        names=names,
        clips=(len(first.ids), len(second.ids)),
        hashes=(first.clips_hash, second.clips_hash),
        figures=(_figures(a), _figures(b)),
        intervals=metrics.difference_intervals(a.scores, b.scores, a.targets, resamples),
        labels=a.labels,
    )


def _figures(predictions: Predictions) -> Figures:
    return metrics.figures(predictions.scores, predictions.targets, clips_hash=predictions.clips_hash, resamples=0)


def console(result: Comparison) -> str:
    """The comparison as text."""
    a, b = result.figures
    lines = [f"{letter}  {name}: {clips} clips, clip list {hash_[:12]}" for letter, name, clips, hash_ in zip("AB", result.names, result.clips, result.hashes, strict=True)]
    lines += [f"common: {a.n_instances} clips, clip list {a.clips_hash[:12]}; {result.clips[0] - a.n_instances} only in A, {result.clips[1] - a.n_instances} only in B; {a.n_labels_scored} of {a.n_labels} labels scored", ""]
    lines += [f"{'':16}{'A':>8}{'B':>8}{'B - A':>9}   95 % interval (paired bootstrap over clips)"]
    for name, difference in result.differences().items():
        title, scale = NAMES[name]
        interval = result.intervals.get(name)
        span = f"   {scale * interval[0]:+.2f} to {scale * interval[1]:+.2f}{'' if interval[0] <= 0 <= interval[1] else '   excludes 0'}" if interval else ""
        lines.append(f"{title:16}{scale * getattr(a, name):8.2f}{scale * getattr(b, name):8.2f}{scale * difference:+9.2f}{span}")
    gain = b.ap - a.ap
    order = [k for k in np.argsort(-gain, kind="stable") if not np.isnan(gain[k])]
    best, worst = [k for k in order[:LABELS_SHOWN] if gain[k] > 0], [k for k in order[: -LABELS_SHOWN - 1 : -1] if gain[k] < 0]
    for title, some in (("AP gained most", best), ("AP lost most", worst)):
        if some:
            lines.append(f"{title}: " + ", ".join(f"{result.labels.names[k]} {100 * gain[k]:+.1f}" for k in some))
    return "\n".join(lines)
