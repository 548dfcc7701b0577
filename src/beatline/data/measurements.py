"""store -> what an inspection counts: measurements from the store's table and from the sound itself.

In: an opened store. Out: `Table` of `clips.csv`, `Heard` of the samples, and the pairs of near-duplicates.
The sound is heard in a single pass, a few clips in memory at a time. Near-duplicates are then compared in
pairs. Imports no torch.
"""

import csv
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from beatline.core.threads import in_order
from beatline.data import fingerprint, label_noise
from beatline.data.manifest.recordings import names_of
from beatline.data.store import CODING, Store

WORKERS = min(8, os.cpu_count() or 1)  # NumPy's transforms run without the interpreter's lock


@dataclass(frozen=True)
class Table:
    """What `clips.csv` says: measurements of every clip, and the recordings of the compared clips."""

    peak: np.ndarray
    """`(clips,)`, full scale 1."""
    rms: np.ndarray
    """`(clips,)`, full scale 1."""
    quiet: np.ndarray
    """Share of quiet frames, `(clips,)`, 0 to 1."""
    clipped: np.ndarray
    """Share of samples at full scale, `(clips,)`, 0 to 1."""
    rate: Counter[int]
    """Clips by the source's sample rate, Hz."""
    channels: Counter[int]
    """Clips by the source's channels."""
    recordings: list[tuple[str, ...]]
    """Of the compared clips, in order."""


def read_table(store: Store, compared: np.ndarray) -> Table:
    """The table of a store.

    Args:
        compared: Indices of the clips whose recording is wanted, in order, int64.
    """
    wanted = set(compared.tolist())
    levels = np.zeros((4, len(store.ids)))
    rate = Counter[int]()
    channels = Counter[int]()
    recordings = []
    with (store.folder / "clips.csv").open(newline="", **CODING) as lines:
        for clip, row in enumerate(csv.DictReader(lines)):
            levels[:, clip] = [float(row[name]) for name in ("peak", "rms", "quiet", "clipped")]
            rate[int(row["rate_in"])] += 1
            channels[int(row["channels_in"])] += 1
            if clip in wanted:
                recordings.append(names_of(row["recording"], row["source"]))
    peak, rms, quiet, clipped = levels
    return Table(peak, rms, quiet, clipped, rate, channels, recordings)


@dataclass(frozen=True)
class Heard:
    """Measurements of the sound: `sketches` of every clip, `sounds` of the compared clips."""

    sketches: np.ndarray
    """As from `fingerprint.sketch`, `(clips, 64)` uint32."""
    sounds: np.ndarray
    """As from `label_noise.features`, `(compared, 72)` float32."""


def hear(store: Store, compared: np.ndarray, progress: Callable[[int], Any]) -> Heard:
    """The measurements of a store's sound.

    Args:
        compared: Indices of the clips whose `sounds` are wanted, int64.
        progress: Called with the number of clips measured since the last call.

    Raises:
        UserError: `corrupt-artefact` where a clip is not what was written.
    """
    clips = len(store.ids)
    row_of = {clip: k for k, clip in enumerate(compared.tolist())}
    heard = Heard(
        np.full((clips, fingerprint.SKETCH), fingerprint.ABSENT),
        np.empty((len(compared), label_noise.FEATURES), np.float32),
    )

    def measure(clip: int) -> tuple[np.ndarray, np.ndarray | None]:
        power = fingerprint.band_power(store.samples(clip))
        sound = label_noise.features(power) if clip in row_of else None
        return fingerprint.sketch(fingerprint.contrast(power)), sound

    for clip, (sketch, sound) in enumerate(in_order(range(clips), measure, WORKERS)):
        heard.sketches[clip] = sketch
        if sound is not None:
            heard.sounds[row_of[clip]] = sound
        progress(1)
    return heard


def near_duplicates(store: Store, heard: Heard) -> list[tuple[float, int, int]]:
    """Similarity, at most 1, and the indices of two clips with the same sound; the pairs most alike first."""
    likely: dict[int, list[int]] = {}
    for a, b in fingerprint.candidates(heard.sketches).tolist():
        likely.setdefault(a, []).append(b)

    def seen(clip: int) -> np.ndarray:
        return fingerprint.contrast(fingerprint.band_power(store.samples(clip)))

    def compare(a: int) -> list[tuple[float, int, int]]:
        first = seen(a)
        return [(fingerprint.similarity(first, seen(b)), a, b) for b in likely[a]]

    found = [
        pair for pairs in in_order(likely, compare, WORKERS) for pair in pairs if pair[0] >= fingerprint.SAME
    ]
    found.sort(key=lambda pair: (-pair[0], pair[1:]))
    return found
