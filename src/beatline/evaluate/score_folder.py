"""score folder -> figures, and the table that the console shows.

In: the folder that `recipe.score` published. Out: its `Figures` and the baselines' mAP; a table as text.
Imports no torch.
"""

import json
from pathlib import Path

import numpy as np

from beatline.evaluate import ranking
from beatline.evaluate.metrics import Figures


def mean_ap(scores: np.ndarray, targets: np.ndarray) -> float:
    """mAP over labels with a positive."""
    return ranking.mean_of_known(ranking.average_precision(scores, targets))


def read_score(folder: Path) -> tuple[Figures, dict[str, float]]:
    """The figures and the baselines' mAP by name, from the folder that `score` published."""
    content = json.loads((folder / "figures.json").read_text())
    return Figures.from_dict(content["figures"]), content["baselines"]


def score_table(figures: Figures, baselines: dict[str, float]) -> str:
    """The score table for the console."""
    rows = [
        ("mAP", "mAP"),
        ("mean_auc", "mean_auc"),
        ("d_prime", "d'"),
        ("mean_acc", "mean_acc"),
        ("top1_hit_rate", "top-1 hit rate"),
    ]
    width = (
        max(len(name) for name in ["top-1 hit rate", *(f"{name} (mAP)" for name in ("chance", *baselines))])
        + 1
    )
    lines = [f"{'':{width}}{'value':>8}   95 % interval (bootstrap over clips)"]
    for name, title in rows:
        scale = 1 if name == "d_prime" else 100
        interval = figures.intervals.get(name)
        text = f"   {scale * interval[0]:.2f} to {scale * interval[1]:.2f}" if interval else ""
        lines.append(f"{title:{width}}{scale * getattr(figures, name):8.2f}{text}")
    lines += [
        f"{name + ' (mAP)':{width}}{100 * value:8.2f}"
        for name, value in {"chance": figures.chance, **baselines}.items()
    ]
    if figures.n_labels_scored < figures.n_labels:
        lines.append(
            f"by the reference's convention, 0 for a label without a positive: mAP "
            f"{100 * figures.mAP_reference:.2f}, mean_auc {100 * figures.mean_auc_reference:.2f}"
        )
    lines.append(
        f"{figures.n_labels_scored} of {figures.n_labels} labels scored on {figures.n_instances} clips, "
        f"clip list {figures.clips_hash[:12]}"
    )
    return "\n".join(lines)
