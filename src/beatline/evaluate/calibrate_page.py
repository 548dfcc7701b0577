"""calibration -> a page: whether scores mean probabilities, and what the thresholds do for each label.

In: a `Calibration` and its worth on clips that had no part in it. Out: an HTML file that needs
nothing else, `reliability.html` beside the calibration. Nothing is learned or measured here. The template is
`assets/pages/calibrate.html`.
"""

import math
from typing import Any

import numpy as np

from beatline.core import html
from beatline.core.html import LINES, SOFT, Plot, line_plot
from beatline.data.inspection_page import plain
from beatline.evaluate.calibrate import BINS, Worth
from beatline.tag.calibration import DEFAULT, Calibration

FILE = "reliability.html"
NAMES = ("as the model says them", "with the temperature")
STATES = {
    "learned": "learned",
    "default": f"no clip has it: {DEFAULT:g}",
    "unreached": "no score reaches the precision: never said",
}
Z = 1.96  # standard deviations, 95 %
BELOW = 0.1  # scores of an empty bin: below the axis, which is logarithmic


def page(name: str, calibration: Calibration, worth: Worth, task: str) -> str:
    """The calibration as an HTML file.

    Args:
        name: The model's name.
        task: `multi-label` or `single-label`.
    """
    return html.page(
        "calibrate.html",
        title=plain(name),
        goal=str(calibration.about["goal"]).removeprefix("precision="),
        task=task,
        calibration=calibration,
        worth=worth,
        decided={
            title: [decisions[key] for decisions in worth.decisions]
            for key, title in {"f1": "F1", "precision": "Precision", "recall": "Recall"}.items()
        },
        reliability=reliability(worth) if all(len(bins) for bins in worth.bins) else None,
        sides=NAMES,
        bin_count=BINS,
        order=sorted(
            range(len(calibration.labels)),
            key=lambda k: (calibration.states[k] != "learned", -calibration.positives[k], k),
        ),
        states=STATES,
        default=f"{DEFAULT:g}",
    )


def interval(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share among so many."""
    shrunk = Z * Z / count
    middle = share + shrunk / 2
    half = Z * math.sqrt(share * (1 - share) / count + shrunk / (4 * count))
    return (middle - half) / (1 + shrunk), (middle + half) / (1 + shrunk)


def reliability(worth: Worth) -> dict[str, Any]:
    """Plots of the bins, the bins by their number, and how many scores there are; no side may be empty."""
    return {
        "plots": plots(worth),
        "bins": [{int(row[3]): row.tolist() for row in bins} for bins in worth.bins],
        "scores": worth.bins[0][:, 2].sum(),
        "share_of_lowest": max(
            float(bins[bins[:, 3] == 0, 2].sum() / bins[:, 2].sum()) for bins in worth.bins
        ),
    }


def plots(worth: Worth) -> list[Plot]:
    """How often a label is there over its score, and how many scores there are."""

    def ideal(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for i, bins in enumerate(worth.bins):
            low, high = zip(*(interval(share, count) for share, count in bins[:, 1:3]), strict=True)
            axes.vlines(bins[:, 0], low, high, color=LINES[i], linewidth=1, alpha=0.6)
            axes.lines[i].set(marker="o", markersize=4.5)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))

    def counted(axes: Any) -> None:
        axes.set(xlim=(-0.02, 1.02), yscale="log", ylim=(0.8, None))

    edges = np.repeat(np.linspace(0, 1, BINS + 1), 2)
    points = {}
    counts = {}
    for name, bins in zip(NAMES, worth.bins, strict=True):
        points[name] = (bins[:, 0], bins[:, 1])
        all_counts = np.full(BINS, BELOW)
        all_counts[bins[:, 3].astype(int)] = bins[:, 2]
        counts[name] = (edges, np.concatenate([[BELOW], np.repeat(all_counts, 2), [BELOW]]))
    return [
        line_plot(
            "How often the label is there",
            points,
            "score",
            "share of clips that have the label",
            ideal,
            height=4.2,
        ),
        line_plot("How many scores there are", counts, "score", "scores in the bin", counted, height=4.2),
    ]
