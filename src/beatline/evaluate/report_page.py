"""What a run ends with, as one page: curves, labels, mistakes, the best and the worst clips to listen to.

In: `ReportInputs`. Out: the text of `report.html`, which needs nothing else and asks no server for anything.
No score is made here. The published results are in `assets/report`; the page's frame and its pieces come from
`markup`.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beatline.core.html import (
    POINTS,
    bar,
    cell,
    frame,
    line_plot,
    number,
    picture,
    player,
    resource,
    table,
    text,
    thin,
)
from beatline.core.labels import audioset
from beatline.evaluate import metrics
from beatline.evaluate.metrics import Figures
from beatline.evaluate.predictions import Predictions
from beatline.model.fbank import log_mel
from beatline.model.geometry import FRAME_SAMPLES, SAMPLE_RATE

CLIPS_SHOWN = 6  # best, and as many worst
ALIKE_SHOWN = 2  # of them with the same labels: the rest says nothing new
SECONDS_SHOWN = 20  # of a clip, at most: bounds the page
MATRIX_LABELS = 60  # a matrix of more labels cannot be read
PAIRS_SHOWN = 40
LOSERS_SHOWN = 40
DYNAMIC_RANGE = 14.0  # nats below the loudest point of a spectrogram, 60 dB
HEADLINES = {
    "mAP": ("mAP", 100, "mean over labels of the average precision"),
    "mean_auc": ("Mean AUC", 100, "mean over labels of the area under the ROC curve"),
    "d_prime": ("d′", 1, "the mean AUC as a distance of two normal distributions"),
    "top1_hit_rate": ("Top-1 hit rate", 100, "clips whose highest score is one of their labels"),
    "mean_acc": (
        "mean_acc",
        100,
        "as ESPnet counts it: the highest score is the clip's first label, most frequent label first",
    ),
}


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Everything a report is made of."""

    title: str
    """Name of the run."""
    figures: Figures
    """Figures of the predictions."""
    predictions: Predictions
    """Scores and targets of the test clips."""
    train_positives: np.ndarray
    """Training clips of each label, `(labels,)`."""
    config: Mapping[str, Any]
    """The resolved configuration, nested."""
    data_summary: Mapping[str, Any]
    """What `prepare` made of the inputs: the store's summary."""
    validation_rule: str
    """How the validation clips were chosen."""
    environment: Mapping[str, str]
    """As from `environment`."""
    baseline: Mapping[str, float] = field(default_factory=dict)
    """mAP of simpler methods on the same clips, 0 to 1, by name."""
    log: list[dict[str, Any]] = field(default_factory=list)
    """Records of the training log; empty where there was no training."""
    samples_of: Callable[[str], np.ndarray] | None = None
    """Gives a clip's samples, int16 at 16 kHz, by its id; without it the page has no pictures and no
    sound.
    """
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further facts for the folder's manifest."""


SECTIONS: dict[str, Callable[[ReportInputs], str]] = {}


def _section(title: str) -> Callable[[Callable[[ReportInputs], str]], Callable[[ReportInputs], str]]:
    """Registers a part of the page; one that returns nothing is left out."""

    def register(function: Callable[[ReportInputs], str]) -> Callable[[ReportInputs], str]:
        SECTIONS[title] = function
        return function

    return register


def page(inputs: ReportInputs) -> str:
    """The report as one HTML file."""
    f, ran = inputs.figures, inputs.environment
    facts = [f"{dataset_name(inputs.config)}: {f.n_instances} test clips, {f.n_labels} labels"]
    facts += [f"beatline {text(ran.get('beatline version', ''))}", text(ran.get("date", ""))]
    footer = " · ".join(f"{text(name)}: <code>{text(value)}</code>" for name, value in ran.items())
    return frame(
        inputs.title,
        "report",
        " · ".join(facts),
        {title: make(inputs) for title, make in SECTIONS.items()},
        footer,
    )


def dataset_name(config: Mapping[str, Any]) -> str:
    """The data set's name as HTML, from the configuration's source."""
    data = config.get("data", {})
    source = next(
        (name for name in ("audioset", "dataset", "kaldi", "csv", "folder") if data.get(name) is not None),
        None,
    )
    if source is None:
        return "unnamed data"
    if source == "audioset":
        return "AudioSet"
    if source == "dataset":
        return text(data["dataset"]) + (f", fold {data['fold']}" if data.get("fold") is not None else "")
    return "mini-audioset (embedded)" if str(data[source]) == "mini" else text(Path(str(data[source])).name)


@_section("Figures")
def headline(inputs: ReportInputs) -> str:
    """The figures with their intervals, and mAP beside chance and the baselines."""
    f, cards = inputs.figures, []
    for name, (title, scale, meaning) in HEADLINES.items():
        interval = f.intervals.get(name)
        span = (
            f"95 %: {number(interval[0], 2, scale)} to {number(interval[1], 2, scale)}<br>"
            if interval
            else ""
        )
        cards.append(
            f'<div class="card"><dt>{title}</dt><dd '
            f'class="figure">{number(getattr(f, name), 2, scale)}</dd><dd '
            f'class="about">{span}{meaning}</dd></div>'
        )
    rows = [f'<th scope="row">Chance</th>{bar(f.chance, series=4)}{cell(f.chance, 2, 100)}<td></td>']
    rows += [
        f'<th scope="row">{text(name)}</th>{bar(value, series=4)}{cell(value, 2, 100)}<td></td>'
        for name, value in inputs.baseline.items()
    ]
    interval = f.intervals.get("mAP")
    span = f"{number(interval[0], 2, 100)} to {number(interval[1], 2, 100)}" if interval else ""
    rows.append(
        f'<tr class="ours"><th scope="row">This model</th>{bar(f.mAP, interval)}{cell(f.mAP, 2, 100)}<td '
        f'class="n">{span}</td></tr>'
    )
    unscored = f.n_labels - f.n_labels_scored
    without = (
        f" {unscored} of {f.n_labels} labels have no positive test clip and are left out of the means."
        if unscored
        else ""
    )
    return (
        f'<dl class="cards">{"".join(cards)}</dl>'
        + table(["", "", "#mAP", "#95 % interval"], rows, "mAP on the same test clips")
        + f'<p class="note">{f.n_labels_scored} labels scored on {f.n_instances} clips.{without} '
        + "Chance is what scores without any knowledge of the clips reach. Intervals are a bootstrap over "
        "clips. " + f"Clip list: SHA-256 <code>{text(f.clips_hash)}</code>. Validation clips: "
        f"{text(inputs.validation_rule)}.</p>"
    )


@_section("Published results")
def published(inputs: ReportInputs) -> str:
    """The published AS-20K results with this run among them."""
    f = inputs.figures

    def line(
        name: str, value: float, train: int | None, test: int | None, own: bool = False
    ) -> tuple[float, str]:
        drawn = bar(value, f.intervals.get("mAP"), series=0) if own else bar(value, series=4)
        row = f'<th scope="row">{name}</th>{drawn}{cell(value, 2, 100)}{cell(train)}{cell(test)}'
        return value, f'<tr class="ours">{row}</tr>' if own else row

    def count(field: str) -> int | None:
        return int(field) if field else None

    table_of_others = csv.DictReader(io.StringIO(resource("published.csv")))
    others = [
        line(text(o["system"]), float(o["mAP"]) / 100, count(o["train_clips"]), count(o["eval_clips"]))
        for o in table_of_others
    ]
    train_clips = inputs.data_summary.get("splits", {}).get("train")
    ours = line(f"This model on {dataset_name(inputs.config)}", f.mAP, train_clips, f.n_instances, own=True)
    same = set(inputs.predictions.labels.mids) == set(audioset().mids)
    # a figure on other data takes no place in the ranking
    rows = sorted([*others, ours], key=lambda pair: -pair[0]) if same else [*others, ours]
    if same:
        warning = (
            "Everybody's copy of AudioSet differs: evaluation sets differ by up to 15 %, and the same model "
            "scores differently on them. "
            "Compare with the clip counts in hand."
        )
    else:
        warning = (
            "<strong>These figures do not compare with this run's:</strong> they were measured on "
            "AudioSet's evaluation clips with 527 labels, "
            f"this run's on {dataset_name(inputs.config)} with {f.n_labels} labels and {f.n_instances} "
            f"clips. They stand here to show where the recipe belongs."
        )
    caption = (
        "AudioSet-20K: single models, audio only, as published; a dash where the count is not known here"
    )
    return f"<p>{warning}</p>" + table(
        ["System", "", "#mAP", "#Training clips", "#Test clips"], [row for _, row in rows], caption
    )


@_section("Learning curves")
def learning_curves(inputs: ReportInputs) -> str:
    """Loss, learning rate, gradient norm and validation figures over steps."""

    def line(event: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        points = [
            (r["step"], r[name]) for r in inputs.log if r.get("event") == event and r.get(name) is not None
        ]
        return thin(*np.array(points, dtype=np.float64).reshape(-1, 2).T)

    plots = {
        "Loss": ("loss", {"training": line("step", "loss"), "validation": line("validation", "loss")}),
        "Validation": (
            "share",
            {"mAP": line("validation", "mAP"), "mean AUC": line("validation", "mean_auc")},
        ),
        "Learning rate": ("learning rate", {"learning rate": line("step", "lr")}),
        "Gradient norm": ("norm before clipping", {"gradient norm": line("step", "grad_norm")}),
    }
    drawn = []
    for title, (y_name, lines) in plots.items():
        known = {name: points for name, points in lines.items() if len(points[0])}
        if known:
            drawn.append(line_plot(title, known, "step", y_name))
    note = '<p class="note">A long curve is drawn as the means of neighbouring steps.</p>'
    return f'<div class="plots">{"".join(drawn)}</div>{note}' if drawn else ""


@_section("Average precision per label")
def per_label(inputs: ReportInputs) -> str:
    """AP of each label as bars, best first, with its counts."""
    f, labels = inputs.figures, inputs.predictions.labels
    rows = []
    for i in sorted(
        range(len(labels)), key=lambda i: (np.isnan(f.ap[i]), -f.ap[i] if not np.isnan(f.ap[i]) else 0.0, i)
    ):
        counts = cell(int(f.positives[i])) + cell(int(inputs.train_positives[i]))
        rows.append(
            f'<th scope="row">{text(labels.names[i])}</th>{bar(f.ap[i])}{cell(f.ap[i], 1, 100)}'
            f"{cell(f.auc[i], 1, 100)}{counts}"
        )
    caption = f"{len(labels)} labels: average precision and counts of clips; a click on a heading sorts"
    return table(
        ["Label", "", "#AP", "#AUC", "#Test", "#Train"], rows, caption, sortable=True, tall=len(labels) > 30
    )


@_section("Precision and recall")
def precision_recall(inputs: ReportInputs) -> str:
    """Curves of the best, the middle and the worst label, and of all decisions together."""
    f, p = inputs.figures, inputs.predictions
    ranked = [int(i) for i in np.argsort(-f.ap, kind="stable") if not np.isnan(f.ap[i])]
    if not ranked:
        return ""
    chosen = (
        {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
        if len(ranked) > 2
        else {"label": ranked[0]}
    )
    curves = {
        f"{role}: {p.labels.names[i]} (AP {number(f.ap[i], 1, 100)})": precision_recall_curve(
            p.scores[:, i], p.targets[:, i]
        )
        for role, i in chosen.items()
    }
    curves["all decisions together (micro)"] = precision_recall_curve(p.scores.ravel(), p.targets.ravel())

    def whole(axes: Any) -> None:
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))

    note = (
        "A curve that stays at the top is a label found without false alarms. Micro: every pair of clip "
        "and label is one decision, at one common threshold."
    )
    return (
        f'<div class="plots">{line_plot("Precision over recall", curves, "recall", "precision", whole)}'
        f'<p class="note">{note}</p></div>'
    )


def precision_recall_curve(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall, evenly spaced as far as it goes, and the highest precision at each."""
    precision, recall = metrics.precision_recall(scores, targets)
    keep = np.unique(np.searchsorted(recall, np.linspace(0, 1, POINTS)))
    return recall[keep], precision[keep]


@_section("What is scored instead of what")
def confusion(inputs: ReportInputs) -> str:
    """Mean scores of every label on the clips of every label, and which wrong label comes first."""
    p = inputs.predictions
    mass, first = confusion_mass(p.scores, p.targets)
    pairs = _pairs_table(p, mass, first)
    if len(p.labels) > MATRIX_LABELS:
        return pairs
    heads = "".join(
        f'<th scope="col" title="{text(name)}"><span>{text(name)}</span></th>' for name in p.labels.names
    )
    rows = []
    for i, name in enumerate(p.labels.names):
        if p.targets[:, i].any():
            cells = "".join(_matrix_cell(float(v), own=i == j) for j, v in enumerate(mass[i]))
            rows.append(f'<tr><th scope="row" title="{text(name)}">{text(name)}</th>{cells}</tr>')
    caption = (
        "Row: clips with this label. Column: mean score, times 100, of that label on those clips that "
        "do not have it; framed: of the label itself."
    )
    matrix = (
        f'<table class="matrix"><thead><tr><td></td>{heads}</tr></thead><tbody>{"".join(rows)}</tbody>'
        f"</table>"
    )
    scroller = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Matrix of mean scores">{matrix}</div>'
    )
    return f'<p class="note">{caption}</p>{scroller}<h3>Most frequent wrong first places</h3>{pairs}'


def _matrix_cell(score: float, own: bool) -> str:
    return (
        "<td></td>"
        if np.isnan(score)
        else f'<td{" class=own" if own else ""} style="--v:{100 * score:.0f}%">{100 * score:.0f}</td>'
    )


def confusion_mass(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is scored on the clips of each label, both `(true labels, scored labels)`.

    First the mean score: of the label itself on its clips, of another label on those of the clips that do not
    have it (NaN where there is none). Second the number of the clips where that other label has the highest
    score of all without being there.
    """
    true, absent = targets.astype(np.float32), (~targets).astype(np.float32)
    with np.errstate(invalid="ignore"):
        mass = (true.T @ (scores * absent)) / (true.T @ absent)
        np.fill_diagonal(mass, (scores * true).sum(axis=0) / true.sum(axis=0))
    top = scores.argmax(axis=1)
    wrong = np.flatnonzero(~targets[np.arange(len(top)), top])
    first = np.zeros(mass.shape, dtype=np.int64)
    clip, label = np.nonzero(targets[wrong])
    np.add.at(first, (label, top[wrong][clip]), 1)
    return mass, first


def _pairs_table(p: Predictions, mass: np.ndarray, first: np.ndarray) -> str:
    pairs = sorted(zip(*np.nonzero(first), strict=True), key=lambda pair: (-first[pair], -mass[pair], pair))[
        :PAIRS_SHOWN
    ]
    if not pairs:
        return "<p>The highest score is one of the clip's labels on every clip.</p>"
    count, names = p.targets.sum(axis=0), p.labels.names
    rows = [
        f'<th scope="row">{text(names[i])}</th><td>{text(names[j])}</td>{cell(first[i, j])}{cell(count[i])}'
        f"{cell(float(mass[i, j]), 1, 100)}"
        for i, j in pairs
    ]
    caption = (
        f"Clips of a label on which a label they do not have gets the highest score; the {len(pairs)} "
        f"most frequent pairs"
    )
    return table(
        ["True label", "Scored first instead", "#On clips", "#Of its clips", "#Mean score"],
        rows,
        caption,
        sortable=True,
        tall=len(rows) > 20,
    )


@_section("Best and worst clips")
def clips(inputs: ReportInputs) -> str:
    """The clips with the best and the worst order of scores, to look at and to listen to."""
    p = inputs.predictions
    order, ap = rank_clips(p.scores, p.targets)
    shown = min(CLIPS_SHOWN, len(order) // 2)
    if not shown:
        return ""
    half = len(order) // 2
    worst, best = (
        "".join(_clip(inputs, i, float(ap[i])) for i in of_different_labels(some, p.targets)[:shown])
        for some in (order[:half], order[::-1][:half])
    )
    note = (
        "By the average precision of one clip over the labels: 100 where every label it has is scored above "
        "every label it has not; equals are ordered by "
        f"the distance between the two. At most {ALIKE_SHOWN} clips with the same labels are shown. "
        f"Pictures: log-mel energies, 20 Hz to 8 kHz upwards, down to 60 dB below the loudest point."
    )
    return (
        f'<p class="note">{note}</p><h3>Worst</h3><div class="clips">{worst}</div><h3>Best</h3><div '
        f'class="clips">{best}</div>'
    )


def of_different_labels(order: np.ndarray, targets: np.ndarray) -> list[int]:
    """The clips in this order, of those with the same labels the first `ALIKE_SHOWN`."""
    seen: Counter[bytes] = Counter()
    chosen = []
    for i in order.tolist():
        labels = targets[i].tobytes()
        seen[labels] += 1
        if seen[labels] <= ALIKE_SHOWN:
            chosen.append(i)
    return chosen


def rank_clips(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the clips that have a label, worst first, and the average precision of each clip over the
    labels, `(clips,)`.
    """
    ap = metrics.average_precision(scores.T, targets.T)
    lowest_true = np.where(targets, scores, np.inf).min(axis=1)
    highest_wrong = np.where(targets, -np.inf, scores).max(axis=1)
    order = np.lexsort((lowest_true - highest_wrong, ap))
    return order[targets[order].any(axis=1)], ap


def _clip(inputs: ReportInputs, index: int, ap: float) -> str:
    p = inputs.predictions
    name, names, true = p.ids[index], p.labels.names, p.targets[index]
    media = ""
    if inputs.samples_of is not None:
        samples = np.asarray(inputs.samples_of(name), dtype=np.int16)
        cut = (
            f", first {SECONDS_SHOWN} s of {len(samples) / SAMPLE_RATE:.0f}"
            if len(samples) > SECONDS_SHOWN * SAMPLE_RATE
            else ""
        )
        samples = samples[: SECONDS_SHOWN * SAMPLE_RATE]
        media = spectrogram(samples, f"Log-mel spectrogram of {name}{cut}") + player(
            samples, SAMPLE_RATE, f"Sound of {name}{cut}"
        )
    rows = []
    for j in np.argsort(-p.scores[index], kind="stable")[:5]:
        mark = (
            f'<span class="true" title="a label of this clip">✓ {text(names[j])}</span>'
            if true[j]
            else text(names[j])
        )
        rows.append(
            f'<tr><th scope="row">{mark}</th>{bar(float(p.scores[index, j]), series=2 if true[j] else 4)}'
            f"{cell(float(p.scores[index, j]), 1, 100)}</tr>"
        )
    labels = ", ".join(text(names[j]) for j in np.flatnonzero(true))
    facts = f'<p>True: <span class="true">{labels}</span> · AP {number(ap, 1, 100)}</p>'
    return (
        f'<article><h4><code>{text(name)}</code></h4>{media}{facts}<table aria-label="Five highest '
        f'scores">{"".join(rows)}</table></article>'
    )


def spectrogram(samples: np.ndarray, described: str) -> str:
    """The clip's log-mel energies as a picture: time to the right, 20 Hz to 8 kHz upwards."""
    waveform = torch.zeros(1, max(FRAME_SAMPLES, len(samples)))
    waveform[0, : len(samples)] = torch.from_numpy(samples.astype(np.float32) / 2**15)
    energies = log_mel(waveform)[0].T.numpy()
    return picture(energies, described, float(energies.max()) - DYNAMIC_RANGE, float(energies.max()))


@_section("Data")
def data(inputs: ReportInputs) -> str:
    """What became of the inputs, and which labels lost most clips."""
    summary = inputs.data_summary
    if not summary:
        return ""
    rejected, splits = summary.get("rejected", {}), summary.get("splits", {})
    sizes = ", ".join(f"{text(name)} {int(count)}" for name, count in splits.items())
    counted = (
        f"{summary['inputs']} inputs = {summary['ok']} clips accepted + {sum(rejected.values())} rejected"
    )
    parts = [f"<p>{counted}; {summary['hours']:.2f} hours. Clips: {sizes}.</p>"]
    if rejected:
        rows = []
        for code, count in sorted(rejected.items(), key=lambda item: -item[1]):
            rows.append(
                f'<th scope="row"><code>{text(code)}</code></th>{bar(count / summary["inputs"], series=1)}'
                f"{cell(count)}"
            )
        parts.append(
            table(
                ["Reason", "", "#Inputs"],
                rows,
                "Rejected inputs by reason; the store's ledger.jsonl names each",
            )
        )
    losers = sorted(
        (row for row in summary.get("labels", []) if row["lost"]),
        key=lambda row: (-row["lost"] / (row["lost"] + row["present"]), -row["lost"]),
    )
    if losers:
        rows = []
        for row in losers[:LOSERS_SHOWN]:
            share = row["lost"] / (row["lost"] + row["present"])
            rows.append(
                f'<th scope="row">{text(row["name"])}</th>{bar(share, series=1)}{cell(share, 1, 100)}'
                f"{cell(row['lost'])}{cell(row['present'])}"
            )
        caption = (
            f"Labels that lost clips: {len(losers)} of {len(summary['labels'])}; the largest shares first"
        )
        parts.append(
            table(
                ["Label", "", "#% lost", "#Lost", "#Left"], rows, caption, sortable=True, tall=len(rows) > 20
            )
        )
    else:
        parts.append("<p>No label lost a clip.</p>")
    return "".join(parts)


@_section("Configuration")
def configuration(inputs: ReportInputs) -> str:
    """Every setting of the run, by its dotted name."""

    def flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from flat(inner, f"{name}.{key}" if name else str(key))
        else:
            yield name, value

    rows = []
    for name, value in flat(inputs.config, ""):
        shown = json.dumps(value, default=str, ensure_ascii=False)
        rows.append(f'<th scope="row"><code>{text(name)}</code></th><td><code>{text(shown)}</code></td>')
    listed = table(
        ["Setting", "Value"], rows, "Resolved configuration: every setting with the value this run had"
    )
    return f"<details><summary>{len(rows)} settings</summary>{listed}</details>" if rows else ""
