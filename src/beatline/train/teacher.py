"""A teacher's table: what another model says of each patch of each clip.

In: a folder with `teacher.json`, `ids.txt`, `scores.npy` and, where the teacher has them, `embeddings.npy`;
`docs/distil.md` has the form. Out: the rows of a batch. A table may exceed memory, so rows are read when they
are wanted. Imports no torch.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from beatline.core.errors import UserError
from beatline.data.store import Store
from beatline.model.geometry import STEP_SAMPLES, STEP_SECONDS

ABOUT = "teacher.json"


def is_table(folder: Path) -> bool:
    """Whether a folder is a teacher's table, or means to be."""
    return (folder / ABOUT).is_file()


class TeacherTable:
    """The table of a store's clips, its labels in the store's order.

    Args:
        folder: Of the table.
        store: Its clips are looked up by id, its labels by mid.

    Raises:
        UserError: `missing-file`, `bad-table`; `label-mismatch` where the teacher lacks a label of the store;
            `bad-config` for clips without a row.
    """

    patch_steps: int
    """Time steps of a patch; 0 where a row has one patch, the whole clip."""
    hop_steps: int
    """Time steps between the begins of neighbouring patches."""

    def __init__(self, folder: Path, store: Store):
        self.folder = folder
        about = self._about()
        try:
            mids = [str(mid) for mid in about["labels"]]
            self.patch_steps = self._steps(about, "patch_seconds")
            self.hop_steps = self._steps(about, "hop_seconds")
        except (KeyError, TypeError, ValueError) as error:
            raise self._bad(ABOUT, f"it lacks a setting, or a setting has another form ({error})") from error
        if bool(self.patch_steps) != bool(self.hop_steps):
            raise self._bad(ABOUT, "patch_seconds and hop_seconds must both be null, or neither")
        column = {mid: index for index, mid in enumerate(mids)}
        lacking = [mid for mid in store.labels.mids if mid not in column]
        if lacking:
            raise UserError(
                "label-mismatch",
                f"teacher {folder}",
                f"it lacks {len(lacking)} of the {len(store.labels)} labels, the first is {lacking[0]}",
                "give the teacher's labels with --data.labels, or another teacher",
            )
        order = [column[mid] for mid in store.labels.mids]
        self._columns: slice | list[int] = slice(None) if order == list(range(len(mids))) else order
        ids = self._read("ids.txt").removesuffix("\n").split("\n")
        self._scores = self._array("scores.npy", len(ids), len(mids))
        has_embeddings = (folder / "embeddings.npy").exists()
        self._embeddings = self._array("embeddings.npy", len(ids), None) if has_embeddings else None
        row = {clip: index for index, clip in enumerate(ids)}
        self._rows = np.array([row.get(clip, -1) for clip in store.ids], np.int64)
        wanted = np.concatenate([store.splits["train"], store.splits["val"]])
        missing = wanted[self._rows[wanted] < 0]
        if len(missing):
            first = store.ids[int(missing[0])]
            cause = f"it has no row for {len(missing)} clips of train and val, the first is {first}"
            raise UserError(
                "bad-config", f"teacher {folder}", cause, "score them too, or leave them out of the data"
            )

    @property
    def patches(self) -> int:
        """Patches of a row."""
        return int(self._scores.shape[1])

    @property
    def width(self) -> int:
        """Numbers of an embedding; 0 where there are none."""
        return 0 if self._embeddings is None else int(self._embeddings.shape[2])

    @property
    def hop(self) -> int:
        """Samples between the begins of patches, at which a crop may begin too."""
        return (self.hop_steps or 1) * STEP_SAMPLES

    def scores(self, clips: np.ndarray, begins: np.ndarray | None = None, count: int = 0) -> np.ndarray:
        """Scores `(clips, count, labels)` float32 of neighbouring patches of clips; NaN where the table has
        no such patch.

        Args:
            clips: Indices into the store.
            begins: The first sample that is wanted of each clip, a multiple of `hop`; 0 when left out.
            count: All patches of a row when 0.
        """
        return self._part(self._scores, clips, begins, count)[:, :, self._columns]

    def embeddings(self, clips: np.ndarray, begins: np.ndarray | None = None, count: int = 0) -> np.ndarray:
        """Embeddings `(clips, count, width)` float32; as `scores`."""
        assert self._embeddings is not None
        return self._part(self._embeddings, clips, begins, count)

    def _part(
        self, table: np.ndarray, clips: np.ndarray, begins: np.ndarray | None, count: int
    ) -> np.ndarray:
        first = (
            np.zeros(len(clips), np.int64) if begins is None or not self.patch_steps else begins // self.hop
        )
        part = np.full((len(clips), count or self.patches, table.shape[2]), np.nan, np.float32)
        for target, row, begin in zip(part, self._rows[clips], first, strict=True):
            there = table[row, begin : begin + len(target)]
            target[: len(there)] = there
        return part

    def _steps(self, about: dict[str, Any], name: str) -> int:
        seconds = about[name]
        if seconds is None:
            return 0
        steps = float(seconds) / STEP_SECONDS
        if not steps > 0.5 or abs(steps - round(steps)) > 1e-6:
            raise self._bad(ABOUT, f"{name} is {seconds}, not a multiple of {STEP_SECONDS} s")
        return round(steps)

    def _about(self) -> dict[str, Any]:
        try:
            about = json.loads(self._read(ABOUT))
        except ValueError as error:
            raise self._bad(ABOUT, f"it is no JSON ({error})") from error
        if not isinstance(about, dict):
            raise self._bad(ABOUT, "it is no JSON object")
        return about

    def _read(self, name: str) -> str:
        path = self.folder / name
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                "missing-file",
                f"teacher {self.folder}",
                f"cannot read {path} ({error})",
                "see docs/distil.md",
            ) from error

    def _array(self, name: str, rows: int, width: int | None) -> np.ndarray:
        try:
            array = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._bad(name, f"it cannot be read ({error})") from error
        fits = (
            array.ndim == 3
            and len(array) == rows
            and width in (None, array.shape[2])
            and array.dtype.kind == "f"
        )
        if not fits or (self.patch_steps == 0 and array.shape[1] != 1):
            patches = "patches" if self.patch_steps else "1"
            wanted = f"({rows}, {patches}, {width or 'width'}) of floats"
            raise self._bad(name, f"it holds {array.shape} of {array.dtype}, not {wanted}")
        return array

    def _bad(self, name: str, cause: str) -> UserError:
        return UserError("bad-table", f"teacher {self.folder / name}", cause, "see docs/distil.md")
