"""calibration -> one page: whether scores mean probabilities, before and after, and what the thresholds do
for each label.

In: a `Calibration` and what it is worth on clips that had no part in it. Out: one HTML file that needs
nothing else, `reliability.html` beside the calibration. Nothing is learned or measured here. Its frame and
pieces come from `markup`.
"""

import math
from typing import Any

import numpy as np

from beatline.core.html import LINES, SOFT, bar, cell, frame, line_plot, number, table, text
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


def page(name: str, calibration: Calibration, worth: Worth, task: str) -> str:
    """The calibration as one HTML file.

    Args:
        name: The model's.
        task: `multi-label` or `single-label`.
    """
    about = calibration.about
    subtitle = (
        f"{about['clips']} labelled clips that did not train <code>{text(plain(name))}</code> · "
        f"thresholds for {_goal(str(about['goal']))}"
    )
    sections = {
        "Figures": _figures(calibration, worth),
        "Reliability": _reliability(worth, task),
        "Thresholds per label": _thresholds(calibration, worth),
    }
    return frame(
        plain(name),
        "calibration",
        subtitle,
        sections,
        f"Clip list: SHA-256 <code>{text(about['clips_hash'])}</code>",
    )


def interval(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share among so many."""
    shrunk = Z * Z / count
    middle, half = share + shrunk / 2, Z * math.sqrt(share * (1 - share) / count + shrunk / (4 * count))
    return (middle - half) / (1 + shrunk), (middle + half) / (1 + shrunk)


def _goal(goal: str) -> str:
    return (
        "the highest F1"
        if goal == "f1"
        else f"a precision of {text(goal.removeprefix('precision='))}, and as much recall as that leaves"
    )


def _figures(calibration: Calibration, worth: Worth) -> str:
    def card(title: str, figure: str, meaning: str) -> str:
        return (
            f'<div class="card"><dt>{title}</dt><dd class="figure">{figure}</dd><dd '
            f'class="about">{meaning}</dd></div>'
        )

    direction = (
        "above 1: the model is too sure"
        if calibration.temperature > 1
        else "below 1: the model is not sure enough"
    )
    before, after = (number(error, 3) for error in worth.errors)
    cards = [
        card(
            "Calibration error",
            after,
            f"{before} without the temperature; expected calibration error, 0 is best",
        ),
        card("Temperature", number(calibration.temperature, 3), f"what logits are divided by; {direction}"),
    ]
    for key, title in {"f1": "F1", "precision": "Precision", "recall": "Recall"}.items():
        before, after = (number(decided[key], 1, 100) for decided in worth.decisions)
        cards.append(
            card(title, after, f"{before} with {DEFAULT:g} for all labels; of all decisions together")
        )
    how = (
        f"Measured on the clips, but each clip by a temperature and thresholds learned without it and "
        f"without what was cut from the same recording ({worth.parts} parts, each left out once). "
        "What is saved was learned from all of them."
        if worth.parts > 1
        else "<strong>Measured on the clips that it was learned from</strong>: all come from one recording, "
        "so none could be left out."
    )
    return f'<dl class="cards">{"".join(cards)}</dl><p class="note">{how}</p>'


def _reliability(worth: Worth, task: str) -> str:
    if not all(len(bins) for bins in worth.bins):
        return ""

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
    points, counts = {}, {}
    for name, bins in zip(NAMES, worth.bins, strict=True):
        points[name] = (bins[:, 0], bins[:, 1])
        all_counts = np.full(BINS, 0.1)  # below the axis, which is logarithmic
        all_counts[bins[:, 3].astype(int)] = bins[:, 2]
        counts[name] = (edges, np.concatenate([[0.1], np.repeat(all_counts, 2), [0.1]]))
    what = (
        "a clip's highest score" if task != "multi-label" else "every score of every label that some clip has"
    )
    total = f"{worth.bins[0][:, 2].sum():,.0f}".replace(",", "\u202f")
    lowest = max(float(bins[bins[:, 3] == 0, 2].sum() / bins[:, 2].sum()) for bins in worth.bins)
    plots = line_plot(
        "How often the label is there",
        points,
        "score",
        "share of clips that have the label",
        ideal,
        height=4.2,
    )
    plots += line_plot("How many scores there are", counts, "score", "scores in the bin", counted, height=4.2)
    note = (
        f"Counted is {what}, {total} in all, in {BINS} bins of equal width. "
        "A score that means a probability lies on the dashed line: of the clips with a score of 0.7, seven "
        "in ten have the label. Whiskers are Wilson's 95 % interval of the share; "
        "scores of one clip hang together, so the truth is a little wider."
    )
    definition = (
        "<strong>Expected calibration error</strong>: the sum over bins of (scores in the bin / all scores) "
        "× |mean score of the bin − share that is right|."
        + (
            f" {100 * lowest:.0f} % of the scores lie in the lowest bin, most of them of labels that are "
            f"not there, so that bin decides most of it: look at the others in the plot."
            if task == "multi-label" and lowest > 0.5
            else ""
        )
    )
    return f'<div class="plots">{plots}</div><p class="note">{note}</p><p>{definition}</p>{_bins(worth)}'


def _bins(worth: Worth) -> str:
    rows = []
    found = [{int(row[3]): row for row in bins} for bins in worth.bins]
    for place in range(BINS):
        cells = "".join(
            cell(int(bins[place][2])) + cell(float(bins[place][0]), 3) + cell(float(bins[place][1]), 3)
            if place in bins
            else "<td></td>" * 3
            for bins in found
        )
        rows.append(f'<th scope="row">{place / BINS:.2f} to {(place + 1) / BINS:.2f}</th>{cells}')
    listed = table(
        ["Score", "#Scores", "#Mean", "#Right", "#Scores", "#Mean", "#Right"],
        rows,
        f"Left: {NAMES[0]}; right: {NAMES[1]}",
    )
    return f"<details><summary>The bins as a table</summary>{listed}</details>"


def _thresholds(calibration: Calibration, worth: Worth) -> str:
    rows = []
    for k in sorted(
        range(len(calibration.labels)),
        key=lambda k: (calibration.states[k] != "learned", -calibration.positives[k], k),
    ):
        threshold, state = float(calibration.thresholds[k]), calibration.states[k]
        count = int(calibration.positives[k])
        figures = cell(count) + "".join(
            cell(float(f1[k]) if count else None, 1, 100) for f1 in worth.label_f1
        )
        rows.append(
            f'<th scope="row">{text(calibration.labels.names[k])}</th>{bar(threshold)}{cell(threshold, 3)}'
            f"{figures}<td>{STATES[state]}</td>"
        )
    caption = (
        f"{len(rows)} labels; a label counts where its score, with the temperature, is at least its "
        f"threshold; a click on a heading sorts"
    )
    note = (
        "A threshold learned from a handful of clips is a guess: F1 is measured on clips that it was not "
        "learned from, so it can be lower than at 0.5."
    )
    listed = table(
        ["Label", "", "#Threshold", "#Clips", f"#F1 at {DEFAULT:g}", "#F1 at the threshold", "State"],
        rows,
        caption,
        sortable=True,
        tall=len(rows) > 30,
    )
    return f'{listed}<p class="note">{note}</p>'
