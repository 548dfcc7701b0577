"""What a run ends with, as a page: curves, labels, mistakes, the best and the worst clips to listen to.

In: `ReportInputs`. Out: the text of `report.html`, which needs nothing else and asks no server for anything.
The template is `assets/pages/report.html`; functions give the values of its sections. No score is made.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from beatline.core import html
from beatline.core.html import POINTS, Plot, Sound, line_plot, number, thin
from beatline.core.labels import audioset
from beatline.evaluate import ranking
from beatline.evaluate.metrics import Figures
from beatline.evaluate.predictions import Predictions
from beatline.model.fbank import log_mel
from beatline.model.geometry import FRAME_SAMPLES, SAMPLE_RATE

CLIPS_SHOWN = 6  # best, and as many worst
ALIKE_SHOWN = 2  # of them with the same labels: the rest says nothing new
SCORES_SHOWN = 5  # of a clip, the highest
SECONDS_SHOWN = 20  # of a clip, at most: bounds the page
MATRIX_LABELS = 60  # a matrix of more labels cannot be read
PAIRS_SHOWN = 40
LOSERS_SHOWN = 40
DYNAMIC_RANGE = 14.0  # nats below the loudest point of a spectrogram, 60 dB


class Headline(NamedTuple):
    """A figure as the report shows it."""

    title: str
    scale: int
    meaning: str


HEADLINES = {
    "mAP": Headline("mAP", 100, "mean over labels of the average precision"),
    "mean_auc": Headline("Mean AUC", 100, "mean over labels of the area under the ROC curve"),
    "d_prime": Headline("d′", 1, "the mean AUC as a distance of two normal distributions"),
    "top1_hit_rate": Headline("Top-1 hit rate", 100, "clips whose highest score is among their labels"),
    "mean_acc": Headline(
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
    """Gives a clip's samples, int16 at 16 kHz, by its id. When left out, the page has no pictures and no
    sound.
    """
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further facts for the folder's manifest."""


def page(inputs: ReportInputs) -> str:
    """The report as an HTML file."""
    return html.page(
        "report.html",
        inputs=inputs,
        figures=inputs.figures,
        names=inputs.predictions.labels.names,
        dataset=dataset_name(inputs.config),
        headlines=HEADLINES,
        published=published(inputs),
        curves=learning_curves(inputs),
        best_first=best_first(inputs.figures.ap),
        precision_recall=precision_recall(inputs),
        confusion=confusion(inputs.predictions),
        clips=clips(inputs),
        alike_shown=ALIKE_SHOWN,
        data=inputs.data_summary,
        losers=losers(inputs.data_summary),
        losers_shown=LOSERS_SHOWN,
        settings=list(settings(inputs.config)),
    )


def dataset_name(config: Mapping[str, Any]) -> str:
    """The data set's name, from the configuration's source."""
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
        return str(data["dataset"]) + (f", fold {data['fold']}" if data.get("fold") is not None else "")
    return "mini-audioset (embedded)" if str(data[source]) == "mini" else Path(str(data[source])).name


def published(inputs: ReportInputs) -> dict[str, Any]:
    """The published AS-20K results with this run among them.

    It is ranked by mAP where its labels are AudioSet's. Else it stands last: a figure on other data has no
    rank.
    """
    ours = {
        "system": f"This model on {dataset_name(inputs.config)}",
        "mAP": inputs.figures.mAP,
        "train": inputs.data_summary.get("splits", {}).get("train"),
        "test": inputs.figures.n_instances,
        "ours": True,
    }
    rows: list[dict[str, Any]] = [
        {
            "system": row["system"],
            "mAP": float(row["mAP"]) / 100,
            "train": int(row["train_clips"]) if row["train_clips"] else None,
            "test": int(row["eval_clips"]) if row["eval_clips"] else None,
            "ours": False,
        }
        for row in csv.DictReader(io.StringIO(html.resource("published.csv")))
    ]
    rows.append(ours)
    comparable = set(inputs.predictions.labels.mids) == set(audioset().mids)
    if comparable:
        rows.sort(key=lambda row: -row["mAP"])
    return {"rows": rows, "comparable": comparable}


def learning_curves(inputs: ReportInputs) -> list[Plot]:
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
    return drawn


def best_first(ap: np.ndarray) -> list[int]:
    """Indices of the labels, `(labels,)`, by falling AP; labels without AP come last."""
    return [int(i) for i in np.argsort(np.where(np.isnan(ap), np.inf, -ap), kind="stable")]


def precision_recall(inputs: ReportInputs) -> Plot | None:
    """Curves of the best, the middle and the worst label, and of all decisions together."""
    p = inputs.predictions
    ap = inputs.figures.ap
    ranked = [i for i in best_first(ap) if not np.isnan(ap[i])]
    if not ranked:
        return None
    chosen = {"label": ranked[0]}
    if len(ranked) > 2:
        chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    curves = {
        f"{role}: {p.labels.names[i]} (AP {number(ap[i], 1, 100)})": precision_recall_curve(
            p.scores[:, i], p.targets[:, i]
        )
        for role, i in chosen.items()
    }
    curves["all decisions together (micro)"] = precision_recall_curve(p.scores.ravel(), p.targets.ravel())

    def whole(axes: Any) -> None:
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))

    return line_plot("Precision over recall", curves, "recall", "precision", whole)


def precision_recall_curve(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall, evenly spaced as far as it goes, and the highest precision at each."""
    precision, recall = ranking.precision_recall(scores, targets)
    keep = np.unique(np.searchsorted(recall, np.linspace(0, 1, POINTS)))
    return recall[keep], precision[keep]


def confusion(p: Predictions) -> dict[str, Any]:
    """Mean scores of every label on the clips of every label, and which wrong labels come first most often.

    `matrix` has the indices of the rows, or None where there are too many labels to read it.
    """
    mass, first = confusion_mass(p.scores, p.targets)
    readable = len(p.labels) <= MATRIX_LABELS
    pairs = sorted(zip(*np.nonzero(first), strict=True), key=lambda pair: (-first[pair], -mass[pair], pair))
    return {
        "mass": mass,
        "matrix": np.flatnonzero(p.targets.any(axis=0)).tolist() if readable else None,
        "first": first,
        "pairs": pairs[:PAIRS_SHOWN],
        "clips": p.targets.sum(axis=0),
    }


def confusion_mass(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is scored on the clips of each label, both `(true labels, scored labels)`.

    First the mean score. Of the label itself it is over the label's clips. Of another label it is over those
    of these clips that lack the other label (NaN without such a clip). Second the number of the clips where
    that other label has the highest score of all without being there.
    """
    true = targets.astype(np.float32)
    absent = (~targets).astype(np.float32)
    with np.errstate(invalid="ignore"):
        mass = (true.T @ (scores * absent)) / (true.T @ absent)
        np.fill_diagonal(mass, (scores * true).sum(axis=0) / true.sum(axis=0))
    top = scores.argmax(axis=1)
    wrong = np.flatnonzero(~targets[np.arange(len(top)), top])
    first = np.zeros(mass.shape, dtype=np.int64)
    clip, label = np.nonzero(targets[wrong])
    np.add.at(first, (label, top[wrong][clip]), 1)
    return mass, first


def clips(inputs: ReportInputs) -> dict[str, list[dict[str, Any]]]:
    """The clips with the worst and the best order of scores, to look at and to listen to."""
    p = inputs.predictions
    order, ap = rank_clips(p.scores, p.targets)
    half = len(order) // 2
    halves = {"Worst": order[:half], "Best": order[::-1][:half]}
    return {
        title: [clip(inputs, i, float(ap[i])) for i in of_different_labels(part, p.targets)[:CLIPS_SHOWN]]
        for title, part in halves.items()
        if half
    }


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
    """Indices of the clips that have a label, worst first; and each clip's average precision over the labels,
    `(clips,)`.
    """
    ap = ranking.average_precision(scores.T, targets.T)
    lowest_true = np.where(targets, scores, np.inf).min(axis=1)
    highest_wrong = np.where(targets, -np.inf, scores).max(axis=1)
    order = np.lexsort((lowest_true - highest_wrong, ap))
    return order[targets[order].any(axis=1)], ap


def clip(inputs: ReportInputs, index: int, ap: float) -> dict[str, Any]:
    """A clip with its highest scores."""
    p = inputs.predictions
    names = p.labels.names
    true = p.targets[index]
    scores = p.scores[index]
    return {
        "name": p.ids[index],
        "ap": ap,
        "sound": heard(np.asarray(inputs.samples_of(p.ids[index]))) if inputs.samples_of else None,
        "true": [names[j] for j in np.flatnonzero(true)],
        "scores": [
            (names[j], bool(true[j]), float(scores[j]))
            for j in np.argsort(-scores, kind="stable")[:SCORES_SHOWN]
        ],
    }


def heard(samples: np.ndarray) -> Sound:
    """The first `SECONDS_SHOWN` of a clip, int16 at 16 kHz, to look at and to listen to."""
    cut = ""
    if len(samples) > SECONDS_SHOWN * SAMPLE_RATE:
        cut = f", first {SECONDS_SHOWN} s of {len(samples) / SAMPLE_RATE:.0f}"
    samples = samples[: SECONDS_SHOWN * SAMPLE_RATE].astype(np.int16)
    return Sound(spectrogram(samples), html.flac(samples, SAMPLE_RATE), cut)


def spectrogram(samples: np.ndarray) -> str:
    """The clip's log-mel energies as a picture, a data URI: time to the right, 20 Hz to 8 kHz upwards."""
    waveform = torch.zeros(1, max(FRAME_SAMPLES, len(samples)))
    waveform[0, : len(samples)] = torch.from_numpy(samples.astype(np.float32) / 2**15)
    energies = log_mel(waveform)[0].T.numpy()
    return html.picture(energies, float(energies.max()) - DYNAMIC_RANGE, float(energies.max()))


def losers(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The labels that lost clips, with the `share` they lost, the largest first."""
    rows: list[dict[str, Any]] = [
        row | {"share": row["lost"] / (row["lost"] + row["present"])}
        for row in summary.get("labels", [])
        if row["lost"]
    ]
    return sorted(rows, key=lambda row: (-row["share"], -row["lost"]))


def settings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every setting of a configuration by its dotted name, as JSON."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from settings(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, json.dumps(value, default=str, ensure_ascii=False)
