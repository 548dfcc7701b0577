"""Data that its owner listed: a CSV, Kaldi folders, a folder per class.

In: a table or a folder. Out: a `Manifest`. Reads tables and folder listings only. A file that is listed and
not there is found out at decoding.
"""

import csv
import io
import math
import os
from pathlib import Path

from beatline.config import DataConfig
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.data.manifest.rows import Row
from beatline.data.manifest.splits import assemble
from beatline.data.manifest.table import (
    SPLIT_NAMES,
    SPLITS,
    Manifest,
    as_text,
    file_in,
    listed,
    read_labels,
    read_text,
)


def read_csv(path: Path, data: DataConfig) -> Manifest:
    """The manifest of a table with columns `file,labels` and optionally `split,id,recording,start,end`.

    Files are relative to the table's folder and lie below it, or have absolute paths. Labels are mids or
    names joined by `;`. Label set: `data.labels`, or `classes.csv` beside the table, or AudioSet's where it
    knows every label, or the labels found, sorted.

    Raises:
        UserError: as `manifest.read`.
    """
    return assemble(*csv_rows(path, data), path.parent, data)


def csv_rows(path: Path, data: DataConfig) -> tuple[list[Row], LabelSet | None]:
    """The rows of such a table, and its label set where a table or a setting names a label set.

    Raises:
        UserError: `missing-file`, `not-a-file`, `bad-table`.
    """
    table = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = [(name or "").strip().lower() for name in table.fieldnames or ()]
        if not {"file", "labels"} <= set(columns):
            raise UserError(
                "bad-table",
                f"cannot use {path}",
                f"no columns file and labels among {', '.join(columns) or 'none'}",
                "name the columns in the first line, separated by commas",
            )
        table.fieldnames = columns
        rows = [_csv_row(cells, path, f"{path.name} line {table.line_num}") for cells in table]
    except csv.Error as error:
        raise UserError(
            "bad-table",
            f"cannot use {path} line {table.line_num}",
            str(error),
            "write it as plain CSV: commas, double quotes",
        ) from error
    beside = path.parent / "classes.csv"
    return rows, read_labels(data.labels or beside) if data.labels or beside.exists() else None


def _csv_row(cells: dict, table: Path, line: str) -> Row:
    if None in cells or None in cells.values():
        return Row(id=line, problem=("bad-row", "it has more or fewer cells than the first line"))
    cells = {name: value.strip() for name, value in cells.items()}
    file = cells["file"]
    split = cells.get("split", "")
    labels = [label.strip() for label in cells["labels"].split(";") if label.strip()]
    try:
        start, end = float(cells.get("start") or 0), float(cells["end"]) if cells.get("end") else None
        good = 0 <= start < (math.inf if end is None else end) and (end is None or end < math.inf)
    except ValueError:
        start = 0.0
        end = None
        good = False
    stretch = f"@{cells.get('start') or 0}-{cells.get('end', '')}" if start or end is not None else ""
    path, problem = file_in(table.parent, file)
    row = Row(
        cells.get("id") or file + stretch or line,
        path,
        cells.get("recording") or os.path.normpath(file),
        labels,
        start=start,
        end=end,
        problem=problem,
    )
    if problem is None and not good:
        row.problem = ("bad-row", "start and end must be seconds, start before end")
    elif problem is None and split and split.lower() not in SPLIT_NAMES:
        row.problem = ("bad-row", f"unknown split {split!r}")
    elif split:
        row.splits = (SPLIT_NAMES[split.lower()],) if split.lower() in SPLIT_NAMES else ()
    return row


def read_kaldi(folder: Path, data: DataConfig) -> Manifest:
    """The manifest of Kaldi folders `train`, `val` (or `valid`, `dev`) and `test` (or `eval`), each with
    `wav.scp` and `text`.

    Relative paths are looked for in `folder`, then, as in Kaldi, in the current directory. A `wav.scp` entry
    that is a command is rejected.

    Raises:
        UserError: as `manifest.read`.
    """
    rows = []
    for split, part in _split_folders(folder):
        if not (part / "wav.scp").exists():
            continue
        audio, texts = _kaldi_table(part / "wav.scp"), _kaldi_table(part / "text")
        labels = {name: text.split() for name, text in texts}
        for name, value in audio:
            path, problem = file_in(
                folder if os.path.exists(folder / value) else Path(), value
            )  # not Path.exists, which fails where a name is too long
            if value.endswith("|"):
                problem = ("bad-row", "its wav.scp entry is a command, and beatline runs none")
            rows.append(
                Row(name, path, os.path.normpath(value), labels.get(name, ()), (split,), problem=problem)
            )
        without = labels.keys() - {name for name, _ in audio}
        rows += [
            Row(
                name,
                labels=labels[name],
                splits=(split,),
                problem=("missing-file", "it is in text but not in wav.scp"),
            )
            for name, _ in texts
            if name in without
        ]
    if not rows:
        raise UserError(
            "missing-file",
            f"cannot use {folder}",
            "no wav.scp in its train, val or test folder",
            "give the folder that holds them",
        )
    return assemble(rows, read_labels(data.labels) if data.labels else None, folder, data)


def _kaldi_table(path: Path) -> list[tuple[str, str]]:
    """Key and rest of each line."""
    pairs = (line.strip().split(maxsplit=1) for line in read_text(path).splitlines() if line.strip())
    return [(pair[0], pair[1] if len(pair) > 1 else "") for pair in pairs]


def _split_folders(folder: Path) -> list[tuple[str, Path]]:
    """Folders below that are named like a split, in the order train, val, test."""
    found = [
        (SPLIT_NAMES[part.name.lower()], part)
        for part in listed(folder)
        if part.is_dir() and part.name.lower() in SPLIT_NAMES
    ]
    return sorted(found, key=lambda pair: SPLITS.index(pair[0]))


def read_folder(folder: Path, data: DataConfig) -> Manifest:
    """The manifest of a folder per class, `<class>/<file>` or `<split>/<class>/<file>`. Every file in a class
    folder that is not hidden is an input.

    Raises:
        UserError: as `manifest.read`.
    """
    return assemble(*folder_rows(folder, data), folder, data)


def folder_rows(folder: Path, data: DataConfig) -> tuple[list[Row], LabelSet]:
    """The rows of such a folder, and its label set.

    Raises:
        UserError: `missing-file`, `bad-table`; `no-clips` where no folder holds a file.
    """
    parts = [part for part in listed(folder) if part.is_dir()]
    has_splits = bool(parts) and all(part.name.lower() in SPLIT_NAMES for part in parts)
    rows = []
    for split, part in _split_folders(folder) if has_splits else [("", folder)]:
        for class_folder in (entry for entry in listed(part) if entry.is_dir()):
            for file in listed(class_folder):
                name = as_text(file.relative_to(folder).as_posix())
                rows.append(Row(name, file, name, [as_text(class_folder.name)], (split,) if split else ()))
    if not rows:
        raise UserError(
            "no-clips",
            f"cannot use {folder}",
            "no files in folders named after classes",
            "arrange the data as <class>/<file> or <split>/<class>/<file>",
        )
    return rows, read_labels(data.labels) if data.labels else LabelSet.from_names(
        sorted({label for row in rows for label in row.labels})
    )
