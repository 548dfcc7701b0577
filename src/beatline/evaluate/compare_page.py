"""comparison -> a page: two models label by label, and clips to listen to where they disagree.

In: a `Comparison`, and the samples of clips. Out: an HTML file that needs nothing else. Nothing is scored
here; this module chooses the clips to listen to. The template is `assets/pages/compare.html`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from beatline.core import html
from beatline.data.inspection_page import plain
from beatline.evaluate import bootstrap, ranking
from beatline.evaluate.compare import NAMES, Comparison
from beatline.evaluate.predictions import Predictions
from beatline.evaluate.report_page import heard

CLIPS_SHOWN = 6  # of each kind
LABELS_OF_A_CLIP = 4  # best of each model

KINDS = ("Furthest apart", "B is right where A is not", "A is right where B is not")


def disagreements(result: Comparison) -> dict[str, list[int]]:
    """Indices of up to `CLIPS_SHOWN` common clips for each of `KINDS`, the largest disagreement first.

    No clip is in two lists.
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
    return ranking.average_precision(predictions.scores.T, predictions.targets.T)


def page(result: Comparison, sounds: Mapping[str, np.ndarray] = MappingProxyType({})) -> str:
    """The comparison as an HTML file.

    Args:
        sounds: Samples, int16 at 16 kHz, by clip id; a clip without them has no picture and no player.
    """
    names = [plain(name) for name in result.names]
    a, b = result.figures
    sure, known = result.certain()
    gains = result.gains
    return html.page(
        "compare.html",
        title=" and ".join(name.rstrip("/").rsplit("/", 1)[-1] for name in names),
        models=names,
        result=result,
        a=a,
        b=b,
        figures=[
            {
                "title": NAMES[name][0],
                "scale": NAMES[name][1],
                "difference": difference,
                "span": result.intervals.get(name),
                "of": [getattr(figures, name) for figures in result.figures],
            }
            for name, difference in result.differences().items()
        ],
        clips=clips(result, sounds),
        names=result.labels.names,
        gains=gains,
        order=sorted(range(len(gains)), key=lambda k: (np.isnan(gains[k]), -gains[k])),
        sure=sure,
        known=known,
        least_positives=bootstrap.LEAST_POSITIVES,
    )


def clips(result: Comparison, sounds: Mapping[str, np.ndarray]) -> dict[str, list[dict[str, Any]]]:
    """What the page shows of the clips of each of `KINDS` that has any."""
    aps = [_clip_ap(predictions) for predictions in result.predictions]
    return {
        kind: [clip(result, i, [float(ap[i]) for ap in aps], sounds) for i in found]
        for kind, found in disagreements(result).items()
        if found
    }


def clip(result: Comparison, index: int, ap: list[float], sounds: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A clip with the labels that either model scores highest."""
    a, b = result.predictions
    names = result.labels.names
    true = a.targets[index]
    scores = np.stack([a.scores[index], b.scores[index]])
    best = {int(k) for row in scores for k in np.argsort(-row, kind="stable")[:LABELS_OF_A_CLIP]}
    samples = sounds.get(a.ids[index])
    return {
        "name": plain(a.ids[index]),
        "ap": ap,
        "sound": None if samples is None else heard(samples),
        "true": [names[k] for k in np.flatnonzero(true)],
        "scores": [
            (names[k], bool(true[k]), [float(score) for score in scores[:, k]])
            for k in sorted(best, key=lambda k: -scores[:, k].max())
        ],
    }
