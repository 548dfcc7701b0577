"""two models -> what tells them apart on the same clips and labels, by figure and by label.

In: two `Predictions`, of runs, or made here by scoring labelled clips with any tagger. Out: a `Comparison`.
It has the figures of both on the clips and labels they share, and the differences with paired bootstrap
intervals. Copies of AudioSet differ by up to 15 % of their clips. Figures of different clip lists say little
beside each other. `compare_page` shows what to look at and to listen to.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from beatline.audio.samples import SAMPLE_RATE
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.data.manifest.table import shared
from beatline.data.store import Store
from beatline.evaluate import bootstrap, labelled, metrics
from beatline.evaluate.labelled import Labelled
from beatline.evaluate.metrics import Figures
from beatline.evaluate.predictions import Predictions, common
from beatline.tag.result import Refused
from beatline.tag.tagger import AudioTagger

NAMES = {
    "mAP": ("mAP", 100),
    "mean_auc": ("mean_auc", 100),
    "d_prime": ("d'", 1),
    "top1_hit_rate": ("top-1 hit rate", 100),
}
LABELS_SHOWN = 5  # on each side

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on their common clips and labels; differences are the second less the first."""

    names: tuple[str, str]
    clips: tuple[int, int]
    """Clips of each."""
    labels_each: tuple[int, int]
    """Labels of each."""
    hashes: tuple[str, str]
    """SHA-256 of each model's clip list."""
    predictions: tuple[Predictions, Predictions] = field(repr=False)
    """Of the common clips, with the common labels."""
    figures: tuple[Figures, Figures]
    """Of these predictions."""
    intervals: dict[str, Interval]
    """95 % intervals of the differences, by figure."""
    label_intervals: list[Interval | None] = field(repr=False)
    """95 % intervals of the difference in each label's AP; None where it is undefined, or the label has under
    `bootstrap.LEAST_POSITIVES` clips.
    """

    @property
    def labels(self) -> LabelSet:
        return self.predictions[0].labels

    @property
    def gains(self) -> np.ndarray:
        """The difference in each label's AP, `(labels,)`, NaN where it is undefined."""
        return self.figures[1].ap - self.figures[0].ap

    def differences(self) -> dict[str, float]:
        """The second model's figures less the first's, by name."""
        return {name: getattr(self.figures[1], name) - getattr(self.figures[0], name) for name in NAMES}

    def certain(self) -> tuple[int, int]:
        """How many labels have an interval without 0, and how many have an interval."""
        known = [span for span in self.label_intervals if span]
        return sum(not low <= 0 <= high for low, high in known), len(known)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, AP and AUC of every label among them."""
        a, b = self.figures
        runs = [
            {"name": n, "clips": c, "clips_hash": h, "labels": k, "figures": f.to_dict()}
            for n, c, h, k, f in zip(
                self.names, self.clips, self.hashes, self.labels_each, self.figures, strict=True
            )
        ]
        differences = {
            name: {"value": _known(value), "interval": self.intervals.get(name)}
            for name, value in self.differences().items()
        }
        shared = {
            "clips": a.n_instances,
            "clips_hash": a.clips_hash,
            "labels_scored": b.n_labels_scored,
            "mids": list(self.labels.mids),
        }
        labels = [
            {"mid": label.mid, "name": label.name, "ap_difference": _known(gain), "interval": span}
            for label, gain, span in zip(self.labels.labels, self.gains, self.label_intervals, strict=True)
        ]
        return {"common": shared, "runs": runs, "differences": differences, "labels": labels}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def find_predictions(folder: Path) -> Predictions:
    """The predictions of a run's folder, or in the folder itself.

    Raises:
        UserError: `missing-file` where there are none, `corrupt-artefact`.
    """
    return Predictions.load(folder / "predictions" if (folder / "predictions").is_dir() else folder)


def compare(
    first: Predictions, second: Predictions, names: tuple[str, str], resamples: int = 1000
) -> Comparison:
    """Both models scored on the clips and labels that both have. A label is the same by mid or else by name,
    and has the first model's name.

    Raises:
        UserError: `label-mismatch` where the models share no label, or disagree about the labels of a common
            clip; `no-clips` where they share no clip.
    """
    pairs = shared(first.labels, second.labels)
    if not pairs:
        raise UserError(
            "label-mismatch",
            f"cannot compare {names[0]} and {names[1]}",
            "they have no label in common",
            "compare models that share mids or names",
        )
    columns, others = map(list, zip(*pairs, strict=True))
    labels = first.labels.select(columns)
    a, b = common(_only(first, columns, labels), _only(second, others, labels))
    different = np.flatnonzero((a.targets != b.targets).any(axis=1))
    if len(different):
        cause = (
            f"they disagree about the labels of {len(different)} of {len(a.ids)} common clips, the "
            f"first is {a.ids[different[0]]}"
        )
        raise UserError(
            "label-mismatch",
            f"cannot compare {names[0]} and {names[1]}",
            cause,
            "predict both with one label table, or check that their ids mean the same clips",
        )
    intervals, label_intervals = bootstrap.difference_intervals(a.scores, b.scores, a.targets, resamples)
    return Comparison(
        names=names,
        clips=(len(first.ids), len(second.ids)),
        labels_each=(len(first.labels), len(second.labels)),
        hashes=(first.clips_hash, second.clips_hash),
        predictions=(a, b),
        figures=(_figures(a), _figures(b)),
        intervals=intervals,
        label_intervals=label_intervals,
    )


def _only(predictions: Predictions, columns: Sequence[int], labels: LabelSet) -> Predictions:
    return Predictions(
        predictions.ids, predictions.scores[:, columns], predictions.targets[:, columns], labels
    )


def _figures(predictions: Predictions) -> Figures:
    return metrics.figures(
        predictions.scores, predictions.targets, clips_hash=predictions.clips_hash, resamples=0
    )


# --- labelled clips, and what a model says of them


def find_clips(source: Path) -> Labelled:
    """The test clips of a store or of a run, or of a table or a folder of classes (`data.manifest.lists`).

    A table or folder that names no splits gives all its clips.

    Raises:
        UserError: `missing-file`, `corrupt-artefact`, `no-clips`, `bad-table`; `not-a-file` for a folder that
            holds something else.
    """
    folder = labelled.store_of(source)
    if folder is None:
        clips = labelled.listed(source)
        test = (
            [i for i, homes in enumerate(clips.splits) if "test" in homes]
            if any(clips.splits)
            else range(len(clips.ids))
        )
        if not test:
            raise UserError(
                "no-clips", f"cannot use {source}", "no row of it is a test clip", "check its column split"
            )
        return clips.part(test)
    kind = (artefact.read_contents(folder) or {}).get("kind", "store")
    if kind != "store":
        raise UserError(
            "not-a-file",
            f"cannot take clips from {folder}",
            f"it holds {kind}",
            "give a store, a table, or a folder with a folder for each class",
        )
    store = Store.open(folder)
    return labelled.of_store(str(source), store, store.splits["test"], "test")


def score(
    tagger: AudioTagger, clips: Labelled, advance: Callable[[int], object] = lambda count: None
) -> tuple[Predictions, list[str]]:
    """A tagger's predictions for clips, in the labels that both know. The clips that could not be read come
    with their reasons.

    Args:
        advance: Called with the number of clips just done.

    Raises:
        UserError: `label-mismatch` where tagger and clips share no label; `no-clips` where no clip can be
            read.
    """
    pairs = shared(tagger.labels, clips.labels)
    if not pairs:
        raise UserError(
            "label-mismatch",
            f"cannot score {clips.name}",
            "the model knows none of its labels",
            "write labels as the model does: `beatline tag --top 1000` shows them",
        )
    columns, truths = map(list, zip(*pairs, strict=True))
    indices: list[int] = []
    refused: list[str] = []

    def sources() -> Iterator[tuple[np.ndarray, int]]:
        for index, samples in enumerate(clips.read(range(len(clips.ids)))):
            if isinstance(samples, UserError):
                refused.append(f"{clips.ids[index]}: {samples.cause}")
                continue
            indices.append(index)
            yield samples, SAMPLE_RATE

    rows = []
    for result in tagger.tag(sources()):
        if isinstance(result, Refused):
            raise result.error
        rows.append(result.scores[columns])
        advance(1)
    if not rows:
        raise UserError(
            "no-clips",
            f"cannot score {clips.name}",
            f"no clip can be read; {refused[0]}" if refused else "it has none",
            "check its files",
        )
    labels = tagger.labels.select(columns)
    return Predictions(
        tuple(clips.ids[i] for i in indices), np.stack(rows), clips.targets[indices][:, truths], labels
    ), refused


# --- the console


def console(result: Comparison) -> str:
    """The comparison as text."""
    a, b = result.figures
    each = zip("AB", result.names, result.clips, result.labels_each, result.hashes, strict=True)
    lines = [
        f"{letter}  {name}: {clips} clips, {labels} labels, clip list {hash_[:12]}"
        for letter, name, clips, labels, hash_ in each
    ]
    lines += [
        f"common: {a.n_instances} clips, clip list {a.clips_hash[:12]}; {result.clips[0] - a.n_instances} "
        f"only in A, {result.clips[1] - a.n_instances} only in B; "
        f"{a.n_labels} labels, {result.labels_each[0] - a.n_labels} only in A, "
        f"{result.labels_each[1] - a.n_labels} only in B; {a.n_labels_scored} of {a.n_labels} labels scored",
        "",
    ]
    lines += [f"{'':16}{'A':>8}{'B':>8}{'B - A':>9}   95 % interval (paired bootstrap over clips)"]
    for name, difference in result.differences().items():
        title, scale = NAMES[name]
        span = _span(result.intervals.get(name), scale, 2)
        lines.append(
            f"{title:16}{scale * getattr(a, name):8.2f}{scale * getattr(b, name):8.2f}"
            f"{scale * difference:+9.2f}{span}"
        )
    gains = result.gains
    order = [k for k in np.argsort(-gains, kind="stable") if not np.isnan(gains[k])]
    best = [k for k in order[:LABELS_SHOWN] if gains[k] > 0]
    worst = [k for k in order[: -LABELS_SHOWN - 1 : -1] if gains[k] < 0]
    for title, shown in (("AP gained most", best), ("AP lost most", worst)):
        if shown:
            lines += ["", title]
            lines += [
                f"  {result.labels.names[k][:30]:30}{100 * a.ap[k]:6.1f}{100 * b.ap[k]:6.1f}"
                f"{100 * gains[k]:+7.1f}{_span(result.label_intervals[k], 100, 1)}"
                for k in shown
            ]
    sure, known = result.certain()
    if known:
        lines += [
            "",
            f"{sure} of {known} labels have an interval of their own that excludes 0; chance alone gives "
            f"about {known / 20:.0f}",
        ]
    return "\n".join(lines)


def _span(interval: Interval | None, scale: float, digits: int) -> str:
    if interval is None:
        return ""
    low, high = interval
    return (
        f"   {scale * low:+.{digits}f} to "
        f"{scale * high:+.{digits}f}{'' if low <= 0 <= high else '   excludes 0'}"
    )
