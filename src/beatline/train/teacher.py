"""A teacher's table: what another model says of each patch of each clip of a store.

In: a folder with `teacher.json`, `ids.txt`, `scores.npy` and, where the teacher has them, `embeddings.npy`;
the form is in `docs/distil.md`. Out: rows of a batch. Read by pieces, since a table may exceed memory.
"""

import json
from pathlib import Path

import numpy as np

from beatline.core.errors import UserError
from beatline.data.store import Store
from beatline.model.geometry import SAMPLE_RATE, STEP_SAMPLES


class TeacherTable:
    """The table of a store's clips.

    Args:
        folder: Of the table.
        store: Whose clips the rows are, in any order.

    Raises:
        UserError: `missing-file`, `bad-table`; `label-mismatch` where the teacher's labels are not the
            store's; `bad-config` for clips without a row.
    """

    def __init__(self, folder: Path, store: Store):
        self.folder = folder
        about = self._about()
        try:
            labels = [str(mid) for mid in about["labels"]]
            self.patch_steps = _steps(float(about["patch_seconds"]))
            self.hop_steps = _steps(float(about["hop_seconds"]))
            self.name = str(about.get("name", folder.name))
        except (KeyError, TypeError, ValueError) as error:
            raise self._bad("teacher.json", f"it lacks a setting or has another form ({error})") from error
        if min(self.patch_steps, self.hop_steps) < 1:
            raise self._bad("teacher.json", "patch_seconds and hop_seconds must be multiples of 0.16 s above 0")
        if labels != list(store.labels.mids):
            raise UserError(
                "label-mismatch",
                f"teacher {folder}",
                f"its {len(labels)} labels are not the {len(store.labels)} of the store, in their order",
                "make the store with a classes.csv of the teacher's labels",
            )
        ids = self._read("ids.txt").split("\n")
        rows = {clip: row for row, clip in enumerate(ids) if clip}
        self.scores = self._array("scores.npy", len(rows), len(labels))
        has_embeddings = (folder / "embeddings.npy").exists()
        self.embeddings = self._array("embeddings.npy", len(rows), None) if has_embeddings else None
        self.rows = np.array([rows.get(clip, -1) for clip in store.ids], np.int64)
        wanted = np.concatenate([store.splits["train"], store.splits["val"]])
        missing = wanted[self.rows[wanted] < 0]
        if len(missing):
            raise UserError(
                "bad-config",
                f"teacher {folder}",
                f"it has no row for {len(missing)} clips of train and val, the first is {store.ids[missing[0]]}",
                "score these clips too, or leave them out of the store",
            )

    @property
    def patches(self) -> int:
        """Patches of a row."""
        return int(self.scores.shape[1])

    @property
    def hop(self) -> int:
        """Samples between the begins of patches."""
        return self.hop_steps * STEP_SAMPLES

    def scores_of(self, clips: np.ndarray, first: np.ndarray, count: int) -> np.ndarray:
        """Scores `(clips, count, labels)` float32 of so many patches of clips, from the first wanted on."""
        return self._part(self.scores, clips, first, count)

    def embeddings_of(self, clips: np.ndarray, first: np.ndarray, count: int) -> np.ndarray:
        """Embeddings `(clips, count, width)` float32, as `scores_of`."""
        assert self.embeddings is not None
        return self._part(self.embeddings, clips, first, count)

    def _part(self, table: np.ndarray, clips: np.ndarray, first: np.ndarray, count: int) -> np.ndarray:
        part = np.empty((len(clips), count, table.shape[2]), np.float32)
        for target, row, begin in zip(part, self.rows[clips], first, strict=True):
            target[:] = table[row, begin : begin + count]
        return part

    def _about(self) -> dict:
        try:
            about = json.loads(self._read("teacher.json"))
        except ValueError as error:
            raise self._bad("teacher.json", f"it is no JSON ({error})") from error
        if not isinstance(about, dict):
            raise self._bad("teacher.json", "it is no JSON object")
        return about

    def _read(self, name: str) -> str:
        path = self.folder / name
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                "missing-file", f"teacher {self.folder}", f"cannot read {path} ({error})", "see docs/distil.md"
            ) from error

    def _array(self, name: str, rows: int, width: int | None) -> np.ndarray:
        try:
            array = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise self._bad(name, f"it cannot be read ({error})") from error
        if array.ndim != 3 or array.shape[0] != rows or array.dtype.kind != "f" or width not in (None, array.shape[2]):
            wanted = f"({rows}, patches, {width or 'width'}) of floats"
            raise self._bad(name, f"it holds {array.shape} of {array.dtype}, not {wanted}")
        return array

    def _bad(self, name: str, cause: str) -> UserError:
        return UserError("bad-table", f"teacher {self.folder / name}", cause, "see docs/distil.md")


def _steps(seconds: float) -> int:
    """How many of the encoder's time steps a length is; 0 where it is no multiple."""
    steps = seconds * SAMPLE_RATE / STEP_SAMPLES
    return round(steps) if abs(steps - round(steps)) < 1e-6 else 0
