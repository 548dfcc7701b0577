"""store -> which labels to doubt: agreement of each clip's labels with those of the clips that sound most
alike.

In: band power and targets. Out: per label, how often its clips' nearest neighbours carry it; and the clips
whose neighbours contradict them. Agreement is an indicator, not a rate of errors. A label of varied sounds
agrees as little as a wrong label. So does a label that these plain statistics cannot hear. Agreement says
where to listen first. The rate, where it is known, comes from people: AudioSet's `qa_true_counts.csv`.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.data.manifest import read_text

NEIGHBOURS = 10
FEATURES = 72  # of a clip
MOST_CLIPS = (
    20_000  # compared each with each; of a larger store a sample, which keeps time and memory bounded
)
CHUNK = 512
LOWEST = 1e-9  # power below which nothing is told apart


@dataclass(frozen=True)
class Agreement:
    """What the neighbours say, for `clips` clips."""

    own: np.ndarray
    """Share of a clip's neighbours that carry a label, where the clip carries it, else NaN, `(clips, labels)`
    float32.
    """
    other: np.ndarray
    """Label that most neighbours carry and the clip does not, `(clips,)`; -1 where there is none."""
    other_share: np.ndarray
    """Share of neighbours that carry it, `(clips,)` float32."""


def features(power: np.ndarray) -> np.ndarray:
    """A clip's sound as `(72,)` float32, without its overall level. The numbers are mean and deviation over
    time of its log band power, and deviation of its change.

    Args:
        power: As from `fingerprint.band_power`.
    """
    level = np.log(power + np.float32(LOWEST))
    change = np.diff(level, axis=0) if len(level) > 1 else np.zeros_like(level)
    mean = level.mean(axis=0)
    return np.concatenate([mean - mean.mean(), level.std(axis=0), change.std(axis=0)])


def sample(clips: int) -> np.ndarray:
    """The clips that are compared: all, or `MOST_CLIPS` evenly spread over the store, `(compared,)` int64
    rising.
    """
    return np.arange(clips) if clips <= MOST_CLIPS else np.arange(MOST_CLIPS) * clips // MOST_CLIPS


def agreement(sounds: np.ndarray, targets: np.ndarray, together: np.ndarray) -> Agreement:
    """What each clip's ten nearest neighbours say of its labels.

    Args:
        sounds: As from `features`, `(clips, 72)`.
        targets: `(clips, labels)`, multi-hot.
        together: Group of each clip, `(clips,)`: clips of the same recording or sound, which do not count
            as each other's neighbours.
    """
    scaled = (sounds - sounds.mean(axis=0)) / (sounds.std(axis=0) + 1e-6)
    clips = len(scaled)
    own = np.full(targets.shape, np.nan, np.float32)
    other = np.full(len(scaled), -1)
    share = np.zeros(len(scaled), np.float32)
    squares = (scaled**2).sum(axis=1)
    for begin in range(0, clips, CHUNK):
        rows = slice(begin, begin + CHUNK)
        distance = squares - 2 * scaled[rows] @ scaled.T
        distance[together[rows, None] == together] = np.inf
        near = np.argpartition(distance, min(NEIGHBOURS, clips) - 1, axis=1)[:, :NEIGHBOURS]
        counts = np.isfinite(np.take_along_axis(distance, near, axis=1))
        carried = (targets[near] * counts[:, :, None]).sum(axis=1) / np.maximum(1, counts.sum(axis=1))[
            :, None
        ]
        carries = targets[rows] > 0.5
        own[rows] = np.where(carries & counts.any(axis=1)[:, None], carried, np.nan)
        strange = np.where(carries, -1.0, carried)
        other[rows], share[rows] = strange.argmax(axis=1), strange.max(axis=1)
    other[share <= 0] = -1
    return Agreement(own, other, np.maximum(share, 0))


def suspicion(found: Agreement) -> np.ndarray:
    """How strongly a clip's neighbours contradict it, `(clips,)`, -1 to 1. It is the share with the strange
    label less the best share of its own labels.
    """
    known = ~np.isnan(found.own).all(axis=1)
    best = np.where(known, np.nanmax(np.where(known[:, None], found.own, 0), axis=1, initial=0), 1.0)
    return found.other_share - best


def read_quality(path: Path, labels: LabelSet) -> dict[str, tuple[int, int]]:
    """By mid, how many clips of a label people rated again, and how many they found to have it.

    Any table with a mid and two counts a row does, whichever count comes first.

    Raises:
        UserError: `missing-file`, `bad-table`; `unknown-label` where no row names a label of the store.

    Source: AudioSet's `qa_true_counts.csv`.
    """
    quality: dict[str, tuple[int, int]] = {}
    rows = [
        row
        for row in csv.reader(io.StringIO(read_text(path)), skipinitialspace=True)
        if row and not row[0].startswith("#")
    ]
    for number, row in enumerate(rows):
        counts = [int(cell) for cell in row[1:] if cell.strip().isdecimal()]
        if len(counts) == 2:
            quality[row[0].strip()] = max(counts), min(counts)
        elif number:  # the first row may be a heading
            raise UserError(
                "bad-table",
                f"cannot use {path}",
                f"row {number + 1} is not a mid and two counts",
                "give AudioSet's qa_true_counts.csv",
            )
    if not quality.keys() & set(labels.mids):
        raise UserError(
            "unknown-label",
            f"cannot use {path}",
            "it names no label of the store",
            "give AudioSet's qa_true_counts.csv, and a store of AudioSet",
        )
    return quality
