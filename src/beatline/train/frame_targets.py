"""events -> frame targets: what sounds when, for models that learn it.

In: the events of clips, as AudioSet's strong labels give them, in a manifest (`Clip.events`) or a store
(`events.csv`). Out: for each clip a row of labels per frame. Imports no torch.
"""

import csv
import math
from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from beatline.core.labels import LabelSet
from beatline.data.manifest import Event
from beatline.data.store import CODING, Store
from beatline.model.geometry import STEP_SECONDS


def frame_targets(
    events: Iterable[Event], labels: LabelSet, frames: int, seconds: float = STEP_SECONDS
) -> np.ndarray:
    """What sounds when: `(frames, labels)` float32, 1 where an event with the label sounds at the middle of
    the frame.

    No event is lost: between the middles of two frames it counts in the frame that holds its own middle.

    Args:
        events: Times in seconds from the begin of the first frame; what lies outside of the frames is left
            out.
        frames: How many; the encoder makes 62 of 10 s.
        seconds: Length of each; the encoder's by default.
    """
    targets = np.zeros((frames, len(labels)), np.float32)
    for start, end, mid in events:
        first, last = (
            math.ceil(start / seconds - 0.5),
            math.ceil(end / seconds - 0.5),
        )  # of the frames whose middles lie in [start, end)
        if first >= last:
            first = math.floor((start + end) / 2 / seconds)
            last = first + 1
        targets[max(0, first) : max(0, last), labels.index_of_mid[mid]] = 1.0
    return targets


class StoreEvents:
    """The events of a store's clips, held as arrays: the strong set has a million."""

    def __init__(self, store: Store):
        self._labels = store.labels
        counts = np.zeros(len(store.ids) + 1, np.int64)
        times = array("d")
        indices = array("i")
        clip_indices = {clip_id: i for i, clip_id in enumerate(store.ids)}
        with (store.folder / "events.csv").open(newline="", **CODING) as file:
            for row in csv.DictReader(file):
                counts[clip_indices[row["id"]] + 1] += 1
                times.extend((float(row["start"]), float(row["end"])))
                indices.append(store.labels.index_of_mid[row["mid"]])
        self._starts = np.cumsum(counts)
        self._times = np.array(times).reshape(-1, 2)
        self._indices = np.array(indices)

    def of(self, index: int) -> list[Event]:
        """The events of a clip, in order of time: start and end in seconds from the clip's begin, and mid.
        The list is empty where the data names no event.
        """
        events = slice(*self._starts[index : index + 2].tolist())
        return [
            (start, end, self._labels.mids[label])
            for (start, end), label in zip(
                self._times[events].tolist(), self._indices[events].tolist(), strict=True
            )
        ]

    def targets(
        self, indices: Sequence[int] | np.ndarray, frames: int, seconds: float = STEP_SECONDS
    ) -> np.ndarray:
        """What sounds when in these clips: `(clips, frames, labels)` float32, as `frame_targets`."""
        targets = np.zeros((len(indices), frames, len(self._labels)), np.float32)
        for row, index in zip(targets, indices, strict=True):
            row[:] = frame_targets(self.of(int(index)), self._labels, frames, seconds)
        return targets
