"""store -> samples and targets: every clip decoded once, with random access ever after.

In: a folder made by `prepare`. Its shards are raw little-endian int16 at 16 kHz. Plain `.npy` arrays say
where each clip lies and which labels it has. Tables are for people. Out: any clip by its index or id. On
opening, sizes and all small files are checked; a clip's checksum each time it is read. What grows with the
number of clips is held as arrays, so that two million open in seconds. Imports no torch.
"""

import csv
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np

from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.data.manifest import SPLITS

FORMAT = 2
CODING: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}
"""Of every text in a store: names of files may be any bytes."""


def shard_name(number: int) -> str:
    """The file with a shard's samples."""
    return f"shard-{number:05d}.i16"


class Ids(Sequence[str]):
    """Clip ids as a single text: two million take 50 MB, where a list takes 200."""

    def __init__(self, text: bytes, starts: np.ndarray):
        """Takes the ids, each followed by a line feed, and where each begins and the last ends."""
        self._text = text
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return self._text[self._starts[i] : self._starts[i + 1] - 1].decode(**CODING)

    def __iter__(self) -> Iterator[str]:
        for begin, end in pairwise(self._starts.tolist()):
            yield self._text[begin : end - 1].decode(**CODING)


class Store:
    """A store opened for reading, by any number of threads."""

    labels: LabelSet
    """In the order of the targets."""
    ids: Ids
    """Clip ids, in the manifest's order; their positions are the indices used everywhere."""
    splits: dict[str, np.ndarray]
    """Indices of `train`, `val` and `test`, int64; val may be empty."""
    lengths: np.ndarray
    """Samples of each clip, int64."""
    summary: dict[str, Any]
    """Counts, hours, reasons of rejection, and what each label lost."""
    about: dict[str, Any]
    """Facts of the folder's manifest; `content` identifies what a model sees."""

    @staticmethod
    def open(folder: Path, full: bool = False) -> "Store":
        """The store in a folder.

        Args:
            full: Also hash the shards (seconds for 7 GB). Otherwise their sizes are checked here, and each
                clip's checksum when it is read.

        Raises:
            UserError: `corrupt-artefact`, naming the file; `missing-stage` for a store of another version of
                beatline.
        """
        about = artefact.verify(folder, select=lambda name: full or not name.startswith("shard-"))
        if about.get("format") != FORMAT:
            raise UserError(
                "missing-stage",
                f"cannot use {folder}",
                "another version of beatline made it",
                "run `beatline prepare` again",
            )
        return Store(folder, about)

    def __init__(self, folder: Path, about: dict[str, Any]):
        self.folder = folder
        self.about = about
        self.labels = LabelSet.from_csv(
            (folder / "labels.csv").read_text(encoding="utf-8"), str(folder / "labels.csv")
        )
        self.ids = Ids((folder / "ids.txt").read_bytes(), np.load(folder / "id_starts.npy"))
        self.splits = {name: np.load(folder / f"{name}.npy") for name in SPLITS}
        self.summary = json.loads((folder / "summary.json").read_text())
        self._index = np.load(folder / "index.npy")
        self._label_starts = np.load(folder / "label_starts.npy")
        self._label_places = np.load(folder / "label_places.npy")
        self.lengths = np.ascontiguousarray(self._index[:, 2])

    def samples(self, index: int) -> np.ndarray:
        """A clip's 16 kHz samples, `(samples,)` int16, read anew from the file.

        Raises:
            UserError: `corrupt-artefact` where they are not what was written.
        """
        shard, begin, length, crc = self._index[index].tolist()
        path = self.folder / shard_name(shard)
        # read, not mapped: a mapped file that is cut later kills the process
        samples = np.fromfile(path, "<i2", length, offset=2 * begin) if path.exists() else np.empty(0, "<i2")
        if zlib.crc32(samples.data) != crc:
            raise UserError(
                "corrupt-artefact",
                f"cannot use {path}",
                f"clip {self.ids[index]} is not what was written",
                f"`beatline verify {self.folder} --repair` makes it again",
            )
        return samples.astype(np.int16, copy=False)

    def samples_of(self, clip_id: str) -> np.ndarray:
        """As `samples`, by clip id."""
        return self.samples(self._index_of[clip_id])

    def targets(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The clips' labels, multi-hot `(clips, labels)` float32."""
        targets = np.zeros((len(indices), len(self.labels)), np.float32)
        for row, index in zip(targets, indices, strict=True):
            row[self._label_places[self._label_starts[index] : self._label_starts[index + 1]]] = 1.0
        return targets

    def label_totals(self, indices: np.ndarray) -> np.ndarray:
        """How many of these clips, each named once, have each label, `(labels,)`."""
        chosen = np.zeros(len(self.ids), bool)
        chosen[indices] = True
        return np.bincount(
            self._label_places[np.repeat(chosen, np.diff(self._label_starts))], minlength=len(self.labels)
        )

    def label_sums(self, values: np.ndarray) -> np.ndarray:
        """The sum of its labels' values for each clip, `(clips,)`, of a value for each label."""
        clips = np.repeat(np.arange(len(self.ids)), np.diff(self._label_starts))
        return np.bincount(clips, values[self._label_places], minlength=len(self.ids))

    def label_counts(self, indices: np.ndarray) -> np.ndarray:
        """How many labels each of these clips has, `(clips,)`."""
        return np.diff(self._label_starts)[indices]

    def clip(self, index: int) -> dict[str, str]:
        """A clip's row of `clips.csv`: recording, splits, source, rate, channels, what was measured."""
        begin, end = self._row_starts[index : index + 2].tolist()
        with (self.folder / "clips.csv").open("rb") as file:
            names = file.readline().decode().strip().split(",")
            file.seek(begin)
            cells = next(csv.reader(io.StringIO(file.read(end - begin).decode(**CODING), newline="")))
        return dict(zip(names, cells, strict=True))

    @cached_property
    def _row_starts(self) -> np.ndarray:
        return np.load(self.folder / "row_starts.npy")

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {clip_id: index for index, clip_id in enumerate(self.ids)}
