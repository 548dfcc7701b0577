"""comparison -> one page: the figures of two models, label by label, and the clips to listen to where they
disagree.

In: a `Comparison`, and the samples of clips. Out: one HTML file that needs nothing else. Nothing is scored
here; which clips are worth listening to is decided here. Its frame and pieces come from `markup`, its
spectrograms are the report's.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from beatline.audio.samples import SAMPLE_RATE
from beatline.core.html import cell, frame, number, player, table, text
from beatline.data.inspection_page import plain
from beatline.evaluate import metrics
from beatline.evaluate.compare import NAMES, Comparison, Interval
from beatline.evaluate.predictions import Predictions
from beatline.evaluate.report_page import SECONDS_SHOWN, spectrogram

CLIPS_SHOWN = 6  # of each kind
LABELS_OF_A_CLIP = 4  # best of each model

KINDS = {
    "Furthest apart": "The clips on which one label's scores differ most, whatever the clip's labels say.",
    "B is right where A is not": "The clips whose labels B puts further ahead of the others than A does, by "
    "the average precision of one clip over the labels.",
    "A is right where B is not": "The clips where A does.",
}


def disagreements(result: Comparison) -> dict[str, list[int]]:
    """Up to `CLIPS_SHOWN` places of common clips for each of `KINDS`, the largest disagreement first; no clip
    is in two.
    """
    a, b = result.predictions
    distance = np.abs(a.scores - b.scores).max(axis=1)
    gain = np.nan_to_num(_clip_ap(b) - _clip_ap(a))
    taken: set[int] = set()
    found = {}
    for kind, sizes in zip(KINDS, (distance, gain, -gain), strict=True):
        order = [int(i) for i in np.lexsort((-distance, -sizes)) if sizes[i] > 0 and i not in taken]
        found[kind] = order[:CLIPS_SHOWN]
        taken.update(found[kind])
    return found


def _clip_ap(predictions: Predictions) -> np.ndarray:
    return metrics.average_precision(predictions.scores.T, predictions.targets.T)


def page(result: Comparison, sounds: Mapping[str, np.ndarray] = MappingProxyType({})) -> str:
    """The comparison as one HTML file.

    Args:
        sounds: Samples, int16 at 16 kHz, by clip id; a clip without them has no picture and no player.
    """
    sections = {
        "Figures": _figures(result),
        "Where they disagree": _clips(result, sounds),
        "Average precision per label": _labels(result),
    }
    names = " · ".join(
        f'<span style="color:var(--c{i})">{letter}</span> <code>{text(plain(name))}</code>'
        for i, (letter, name) in enumerate(zip("AB", result.names, strict=True))
    )
    title = " and ".join(plain(name).rstrip("/").rsplit("/", 1)[-1] for name in result.names)
    return frame(
        title,
        "comparison",
        names,
        sections,
        f"Clip list: SHA-256 <code>{text(result.figures[0].clips_hash)}</code>",
    )


def _figures(result: Comparison) -> str:
    a, b = result.figures
    cards, rows = [], []
    for name, difference in result.differences().items():
        title, scale = NAMES[name]
        cards.append(
            f'<div class="card"><dt>{text(title)}, B less A</dt><dd '
            f'class="figure">{_signed(difference, 2, scale)}</dd>'
            f'<dd class="about">95 %: {_span(result.intervals.get(name), 2, scale)}<br>A '
            f"{number(getattr(a, name), 2, scale)}, B {number(getattr(b, name), 2, scale)}</dd></div>"
        )
    for i, (letter, name) in enumerate(zip("AB", result.names, strict=True)):
        counts = (
            cell(result.clips[i])
            + cell(result.clips[i] - a.n_instances)
            + cell(result.labels_each[i])
            + cell(result.labels_each[i] - a.n_labels)
        )
        rows.append(f'<th scope="row">{letter}: <code>{text(plain(name))}</code></th>{counts}')
    headings = ["", "#Clips", "#Not in the other", "#Labels", "#Not in the other"]
    return (
        f'<dl class="cards">{"".join(cards)}</dl>'
        + table(
            headings,
            rows,
            f"Compared on the {a.n_instances} clips and {a.n_labels} labels that both have, "
            f"{a.n_labels_scored} of them with a positive clip",
        )
        + '<p class="note">Intervals are a paired bootstrap over clips: both models meet the same '
        "resamples. One that leaves out 0 is a difference that other test clips like these would show "
        "too.</p>"
    )


def _labels(result: Comparison) -> str:
    a, b = result.figures
    rows = []
    for k in sorted(range(len(result.labels)), key=lambda k: (np.isnan(result.gains[k]), -result.gains[k])):
        gain, span = float(result.gains[k]), result.label_intervals[k]
        figures = (
            cell(float(a.ap[k]), 1, 100)
            + cell(float(b.ap[k]), 1, 100)
            + f'<td class="n" data-v="{"" if np.isnan(gain) else gain}">{_signed(gain, 1, 100)}</td>'
        )
        rows.append(
            f'<th scope="row">{text(result.labels.names[k])}</th>{_lean(gain, span)}{figures}<td '
            f'class="n">{_span(span, 1, 100)}</td>{cell(int(a.positives[k]))}'
        )
    sure, known = result.certain()
    note = (
        f"{sure} of {known} labels have an interval of their own that leaves out 0; chance alone gives some "
        f"{known / 20:.0f}. "
        f"A label with fewer than {metrics.LEAST_POSITIVES} clips has no interval: they say too little "
        f"about others. Bars lean to the side of the model with the higher AP."
    )
    headings = ["Label", "", "#AP of A", "#AP of B", "#B less A", "#95 % interval", "#Clips"]
    listed = table(
        headings,
        rows,
        f"{len(rows)} labels: average precision of both; a click on a heading sorts",
        sortable=True,
        tall=len(rows) > 30,
    )
    return f'{listed}<p class="note">{note}</p>'


def _lean(gain: float, span: Interval | None) -> str:
    """A table cell with a bar from its middle: to the left where A is higher, to the right where B is."""
    size = 0.0 if np.isnan(gain) else 50 * min(abs(gain), 1.0)
    drawn = (
        f'<i style="left:{50 - size if gain < 0 else 50:.1f}%;--v:{size:.1f}%;--series:var(--c'
        f'{int(gain > 0)})"></i>'
    )
    whisker = f'<b style="--lo:{50 + 50 * span[0]:.1f}%;--hi:{50 + 50 * span[1]:.1f}%"></b>' if span else ""
    return (
        f'<td class="bar" data-v="{"" if np.isnan(gain) else gain}" '
        f'aria-hidden="true"><span>{drawn}{whisker}</span></td>'
    )


def _clips(result: Comparison, sounds: Mapping[str, np.ndarray]) -> str:
    a, b = (_clip_ap(one) for one in result.predictions)
    parts = []
    for kind, places in disagreements(result).items():
        if places:
            articles = "".join(
                _clip(result, i, (float(a[i]), float(b[i])), sounds.get(result.predictions[0].ids[i]))
                for i in places
            )
            parts.append(
                f'<h3>{text(kind)}</h3><p class="note">{text(KINDS[kind])}</p><div '
                f'class="clips">{articles}</div>'
            )
    return "".join(parts) or "<p>They say the same of every clip.</p>"


def _clip(result: Comparison, place: int, ap: tuple[float, float], samples: np.ndarray | None) -> str:
    a, b = result.predictions
    name, names, true, scores = (
        plain(a.ids[place]),
        result.labels.names,
        a.targets[place],
        (a.scores[place], b.scores[place]),
    )
    media = ""
    if samples is not None:
        cut = (
            f", first {SECONDS_SHOWN} s of {len(samples) / SAMPLE_RATE:.0f}"
            if len(samples) > SECONDS_SHOWN * SAMPLE_RATE
            else ""
        )
        samples = samples[: SECONDS_SHOWN * SAMPLE_RATE]
        media = spectrogram(samples, f"Log-mel spectrogram of {name}{cut}") + player(
            samples, SAMPLE_RATE, f"Sound of {name}{cut}"
        )
    shown = {int(k) for one in scores for k in np.argsort(-one, kind="stable")[:LABELS_OF_A_CLIP]}
    rows = []
    for k in sorted(shown, key=lambda k: -max(scores[0][k], scores[1][k])):
        mark = (
            f'<span class="true" title="a label of this clip">✓ {text(names[k])}</span>'
            if true[k]
            else text(names[k])
        )
        bars = "".join(
            f'<span><i style="--v:{100 * one[k]:.1f}%;--series:var(--c{i})"></i></span>'
            for i, one in enumerate(scores)
        )
        rows.append(
            f'<th scope="row">{mark}</th><td class="bar" '
            f'aria-hidden="true">{bars}</td>{cell(float(scores[0][k]), 1, 100)}'
            f"{cell(float(scores[1][k]), 1, 100)}"
        )
    labels = ", ".join(text(names[k]) for k in np.flatnonzero(true)) or "none of these labels"
    facts = (
        f'<p>True: <span class="true">{labels}</span> · AP of A {number(ap[0], 1, 100)}, of B '
        f"{number(ap[1], 1, 100)}</p>"
    )
    return (
        f"<article><h4><code>{text(name)}</code></h4>{media}{facts}"
        f"{table(['Label', '', '#A', '#B'], rows, 'Scores times 100: A above, B below')}</article>"
    )


def _signed(value: float, digits: int, scale: float) -> str:
    return f"{'+' * (value > 0)}{number(value, digits, scale)}"


def _span(span: Interval | None, digits: int, scale: float) -> str:
    return f"{_signed(span[0], digits, scale)} to {_signed(span[1], digits, scale)}" if span else "–"
