"""A data set by name, from a local copy as its publisher packs it -> a manifest with the official splits.

In: `data.dataset`, the folder `data.root`, and `data.fold` where the protocol has folds. Out: a `Manifest`,
with a notice where the copy has not as many clips as were published. Each data set is a file in `sets`,
which says what was published and reads its tables. What several data sets need is here.
"""

import csv
import io
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from beatline.config import DataConfig
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.data.manifest.audioset import locate
from beatline.data.manifest.rows import Row, Rows
from beatline.data.manifest.sets import data_set
from beatline.data.manifest.sources import Tree
from beatline.data.manifest.splits import assemble
from beatline.data.manifest.table import Manifest, as_text, read_labels, read_text


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a data set's tables say."""

    rows: list[Row]
    """Every row of the tables, a bad row with its problem; whether its file is there is asked later."""
    labels: LabelSet
    """In the order of the data set's own numbers, where it has any."""
    counted: list[Row] | None = None
    """Rows that the publisher counts; None for all."""
    tree: Tree | None = None
    """Where the audio is looked for by its recording's id, of rows that name no file."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set as it was published."""

    title: str
    clips: int
    """Rows or files of the full set."""
    folds: int = 0
    """Folds of the official protocol; 0 where it has none."""
    read: Callable[[Path, int], Found]
    """Called with the folder of the local copy and the fold held out for test, 0 without folds."""


def read_named(data: DataConfig) -> Manifest:
    """The manifest of `data.dataset` in `data.root`.

    Raises:
        UserError: as `manifest.read`; `bad-config` for an unknown name or without a root. Also for a missing
            fold where the data set has folds, or a fold where it has no folds.
    """
    assert data.dataset is not None
    published = data_set(data.dataset)
    root = data.root
    if root is None:
        raise UserError(
            "bad-config",
            "setting data.root",
            f"{published.title} needs the folder of its local copy",
            "give it: data.root",
        )
    if published.folds and not 1 <= (data.fold or 0) <= published.folds:
        raise UserError(
            "bad-config",
            "setting data.fold",
            f"{published.title} is scored in {published.folds} folds",
            f"name the fold to hold out, 1 to {published.folds}, and average over all",
        )
    if data.fold is not None and not published.folds:
        raise UserError("bad-config", "setting data.fold", f"{published.title} has no folds", "leave it out")
    found = published.read(root, data.fold or 0)
    labels = read_labels(data.labels) if data.labels else found.labels
    if found.tree is not None:
        notices = _notices(published, len(found.rows), "in the table")
        return locate(Rows(found.rows), labels, root, found.tree, data, notices)
    for row in found.rows:
        if row.problem is None and not os.path.exists(row.path):  # Path.exists fails where a name is too long
            row.problem = ("missing-file", f"no {as_text(str(row.path.relative_to(root)))}")
    counted = found.rows if found.counted is None else found.counted
    notices = _notices(published, sum(row.problem is None for row in counted), "here")
    return assemble(found.rows, labels, root, data, notices)


def _notices(published: DataSet, count: int, where: str) -> tuple[str, ...]:
    """What the copy lacks."""
    if count == published.clips:
        return ()
    return (f"{published.title}: {count} of {published.clips} published clips are {where}",)


# --- for the data sets


def table(root: Path, names: Iterable[str], columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of the first of these tables that is there.

    Raises:
        UserError: `missing-file`, `bad-table`.
    """
    path = next((root / name for name in names if (root / name).exists()), root / next(iter(names)))
    table = csv.DictReader(io.StringIO(read_text(path), newline=""))
    missing = [name for name in columns if name not in (table.fieldnames or ())]
    if missing:
        raise UserError(
            "bad-table", f"cannot use {path}", f"no column {missing[0]}", "get the data set's own table again"
        )
    return [{name: row.get(name) or "" for name in columns} for row in table]


def plain_file(folder: Path, name: str) -> tuple[Path, tuple[str, str] | None]:
    """A file that a table names, which must be a plain name, and the problem with it, if any."""
    return (
        (folder / name, None)
        if name and Path(name).name == name and "\0" not in name
        else (folder, ("unsafe-path", f"{name!r} is not a file's name"))
    )


def fold_split(fold: str, held_out: int) -> tuple[str]:
    """The split of a clip in this fold, where another or the same is held out for test."""
    return ("test",) if fold == str(held_out) else ("train",)


def fold_problem(fold: str, folds: int) -> tuple[str, str] | None:
    """The problem with a fold that is not 1 to `folds`, if any."""
    return (
        None if fold in map(str, range(1, folds + 1)) else ("bad-row", f"fold {fold!r} is not 1 to {folds}")
    )


def labels_by_number(pairs: Iterable[tuple[str, str]]) -> LabelSet:
    """Labels in the order of the data set's own numbers."""
    numbered = {name: int(number) if number.isdigit() else math.inf for number, name in pairs if name}
    return LabelSet.from_names(sorted(numbered, key=lambda name: (numbered[name], name)) or ["none"])
