"""store -> what stands on both sides of its split although no name says so: told before anybody trains.

In: the arrays of a store and its samples. Out: facts for the store's summary, and lines for people.
Near-duplicates are those of `inspection`, of train against validation and test only, and of a sample where
there is more sound than can be heard in about a minute. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from beatline.audio.samples import SAMPLE_RATE
from beatline.core.console import say
from beatline.core.text import printable
from beatline.core.threads import in_order
from beatline.data import fingerprint
from beatline.data.manifest.table import SharedColumn
from beatline.data.measurements import WORKERS
from beatline.data.store import Store

MOST_SECONDS = 24 * 3600  # of sound that is heard: a minute on two cores
SAID_FROM = 3600  # seconds of sound from which it is said that they are heard
MOST_PAIRS = 5_000  # of clips that may be alike, compared in full: half a minute at most


def of_column(column: SharedColumn | None) -> dict[str, Any]:
    """What the table's own columns say, for a summary."""
    return {} if column is None else {"column": asdict(column)}


def near_duplicates(store: Store) -> dict[str, Any]:
    """How many validation and test clips sound like a train clip, and the first such pair, for a summary.

    Empty where there is no such clip.

    Raises:
        UserError: `corrupt-artefact` where a clip is not what was written.
    """
    train = store.splits["train"]
    held = np.setdiff1d(np.union1d(store.splits["val"], store.splits["test"]), train)
    some_train, some_held = _sample(store, train, held)
    clips = np.sort(np.concatenate([some_train, some_held]))
    trains = np.isin(clips, train)
    if store.lengths[clips].sum() > SAID_FROM * SAMPLE_RATE:
        say("prepare", f"{len(clips)} clips are heard, for sounds on both sides of the split")

    def seen(clip: int) -> np.ndarray:
        return fingerprint.contrast(fingerprint.band_power(store.samples(clip)))

    sketches = np.full((len(clips), fingerprint.SKETCH), fingerprint.ABSENT)
    for k, sketch in enumerate(
        in_order(clips.tolist(), lambda clip: fingerprint.sketch(seen(clip)), WORKERS)
    ):
        sketches[k] = sketch
    pairs = fingerprint.candidates(sketches)
    across = pairs[trains[pairs[:, 0]] != trains[pairs[:, 1]]]
    likely: dict[int, list[int]] = {}
    for a, b in across[:MOST_PAIRS].tolist():
        own, other = (b, a) if trains[a] else (a, b)
        likely.setdefault(int(clips[own]), []).append(int(clips[other]))

    def twin(clip: int) -> int | None:
        own = seen(clip)
        return next(
            (other for other in likely[clip] if fingerprint.similarity(own, seen(other)) >= fingerprint.SAME),
            None,
        )

    twins = in_order(sorted(likely), twin, WORKERS)
    found = [(other, clip) for clip, other in zip(sorted(likely), twins, strict=True) if other is not None]
    if not found:
        return {}
    return {
        "near_duplicates": {
            "clips": len(found),
            "of": len(held),
            "first": [store.ids[clip] for clip in found[0]],
            "all_heard": len(clips) == len(train) + len(held) and len(across) <= MOST_PAIRS,
        }
    }


def _sample(store: Store, train: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides, or of each as much as there is time for: half, or what the other side leaves."""
    most = MOST_SECONDS * SAMPLE_RATE
    of_train, of_held = (int(store.lengths[clips].sum()) for clips in (train, held))
    return (
        _spread(train, max(most - of_held, most // 2), of_train),
        _spread(held, max(most - of_train, most // 2), of_held),
    )


def _spread(clips: np.ndarray, most: int, length: int) -> np.ndarray:
    """All clips, or a share of them evenly spread."""
    if length <= most:
        return clips
    count = len(clips) * most // length
    return clips[np.arange(count) * len(clips) // max(1, count)]


def lines(leaks: Mapping[str, Any], folder: str = "") -> list[str]:
    """What a store's `leaks` say to people, a line each.

    Args:
        folder: The store, where its folder is known.
    """
    said = []
    if column := leaks.get("column"):
        name = printable(column["name"])
        counts = " and ".join(
            f"{count} of {column['clips'][split]} {split}"
            for split, count in column["shared"].items()
            if count
        )
        remedy = " and mend or leave out the column split" if column["own_splits"] else ""
        said.append(
            f"column {name} looks like the recordings that clips come from, and {counts} clips "
            f"share a value with train: figures come out too high; if so, rename it to recording{remedy}"
        )
    if twins := leaks.get("near_duplicates"):
        least = "" if twins["all_heard"] else "at least "
        one, other = map(printable, twins["first"])
        command = f"beatline inspect {printable(folder)}".strip()
        said.append(
            f"{least}{twins['clips']} of {twins['of']} val and test clips sound like a train clip, the first "
            f"{one} and {other}: figures come out too high; `{command}` lists such pairs"
        )
    return said
