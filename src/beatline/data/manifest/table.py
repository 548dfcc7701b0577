"""The table of clips, and what every reader of data hands to it: rows.

In: a row for each input, with labels as written. Out: a `Manifest` whose clips have mids of one label set.
Each row that became no clip is there with its reason. Where a table may point, and what a label may be
called, is decided here for all forms of data.
"""

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from beatline.core.errors import UserError
from beatline.core.labels import LabelSet, audioset, espnet_token
from beatline.core.limits import LIMITS
from beatline.data.manifest.rows import Clip, Problem, Rejected, Rows, View

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "eval": "test",
    "evaluation": "test",
}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The table of clips."""

    clips: Sequence[Clip]
    """In the order of the data."""
    splits: dict[str, tuple[int, ...]]
    """Indices in `clips` of `train`, `val` and `test`. A clip may be in val and in test under the recipe's
    rule.
    """
    rejected: Sequence[Rejected]
    """Inputs without a clip."""
    labels: LabelSet
    """In the order of the model's outputs."""
    val: str
    """How the validation split was made, as a sentence for the report."""
    inputs: int
    """Rows or files read: clips and rejected together."""
    root: Path
    """Folder that the store writes paths relative to."""
    min_seconds: float = 0.1
    """Shortest clip of train and val."""
    max_seconds: float = 12.0
    """Longest clip of train and val."""
    notices: tuple[str, ...] = ()
    """What a careful reader should know before preparing: what was recognised, what an official set lacks."""


@dataclass(frozen=True)
class Sorted:
    """Rows sorted into clips and rejected inputs."""

    clips: Sequence[Clip]
    recordings: Sequence[str]
    """Of each clip, as its `recording`: a part of a clip costs less than a clip."""
    labels: Sequence[tuple[str, ...]]
    """Of each clip, as its `labels`."""
    files: Sequence[tuple[str, str]]
    """Path and member of each clip."""
    homes: Sequence[tuple[str, ...]]
    """Splits of each clip, as far as the data names them."""
    rejected: Sequence[Rejected]


Judgement = tuple[tuple[str, ...], Problem | None]
"""Mids of the labels that are known, and why no clip can have these labels, if so."""
Judge = Callable[[tuple[str, ...]], Judgement]


def sort_rows(
    rows: Rows, labels: LabelSet, judge: Judge | None = None, order: Sequence[int] | None = None
) -> Sorted:
    """The rows as clips and rejected inputs.

    Args:
        judge: That of the labels, where the caller has asked it about the rows already.
        order: In which clips and rejected inputs come; as the rows do where it is left out.

    Raises:
        UserError: `split-overlap` where a clip is listed in two splits.
    """
    judge = judge or judge_of(labels)
    good = array("q")
    bad = array("q")
    any_split = rows.any_splits()
    first: dict[str, int] = {}
    for number in range(len(rows)) if order is None else order:
        problem = rows.problem(number)
        if problem is None and any_split and not rows.splits(number):
            problem = ("bad-row", "it names no split, and other rows do")
        problem = problem or judge(rows.labels(number))[1]
        if problem is None and (earlier := first.setdefault(rows.id(number), number)) != number:
            problem = ("duplicate-id", "an earlier input has the same id")
            first_row, row = rows.row(earlier), rows.row(number)
            if (first_row.path, first_row.member) == (
                row.path,
                row.member,
            ) and first_row.splits != row.splits:
                raise overlap(f"clip {row.id}", first_row.splits[0], row.splits[0], "it is listed in both")
        if problem is None:
            good.append(number)
        else:
            rows.refuse(number, problem)
            bad.append(number)

    def mids(number: int) -> tuple[str, ...]:
        return judge(rows.labels(number))[0]

    def rejected(number: int) -> Rejected:
        code, reason = rows.problem(number) or ("", "")
        return Rejected(rows.id(number), code, reason, mids(number), next(iter(rows.splits(number)), ""))

    return Sorted(
        clips=View(good, lambda number: rows.clip(number, mids(number))),
        recordings=View(good, rows.recording),
        labels=View(good, mids),
        files=View(good, rows.file),
        homes=View(good, rows.splits),
        rejected=View(bad, rejected),
    )


def judge_of(labels: LabelSet, unlabelled: bool = False) -> Judge:
    """What a label set makes of labels as written.

    Args:
        unlabelled: Whether there may be no label.
    """
    spellings = spellings_of(labels)

    @lru_cache(1 << 16)
    def judge(written: tuple[str, ...]) -> Judgement:
        found = [spellings.get(label, "") for label in written]
        mids = tuple(dict.fromkeys(filter(None, found)))
        if "" in found:
            return mids, ("unknown-label", f"label {written[found.index('')]!r} is not in the label table")
        return mids, None if mids or unlabelled else ("no-label", "it has no label")

    return judge


def spellings_of(labels: LabelSet) -> dict[str, str]:
    """Mid of each way to write a label: mid, display name, ESPnet's token."""
    return (
        {espnet_token(x.name): x.mid for x in labels.labels}
        | {x.name: x.mid for x in labels.labels}
        | {x.mid: x.mid for x in labels.labels}
    )


def shared(labels: LabelSet, others: LabelSet) -> list[tuple[int, int]]:
    """Where each label that both sets have stands in each, met by mid or else by name."""
    spelt = spellings_of(others)
    return [
        (k, others.index_of_mid[mid])
        for k, label in enumerate(labels.labels)
        if (mid := spelt.get(label.mid) or spelt.get(label.name))
    ]


def labels_of(rows: Rows) -> LabelSet:
    """AudioSet's label set if it has every label of the rows, else the labels found, sorted."""
    written = set(rows.all_labels())
    return (
        audioset()
        if written and written <= spellings_of(audioset()).keys()
        else LabelSet.from_names(sorted(written) or ["none"])
    )


def overlap(what: str, split: str, other: str, cause: str) -> UserError:
    """The error of something that stands on two sides."""
    return UserError(
        "split-overlap",
        f"{what} is in {split} and in {other}",
        cause,
        "keep all clips of a recording in one split",
    )


# --- what tables may say


def file_in(folder: Path, file: str) -> tuple[Path, Problem | None]:
    """The path that a table in `folder` names, and the problem with it, if any.

    An absolute path is taken as the user's own. A relative path that goes up by `..` must end inside the
    folder, links followed. Links are otherwise followed wherever they lead: download caches and data version
    control lay out their files so. Nothing but a regular file is ever opened.
    """
    if not file or "\0" in file:
        return folder, ("bad-row", "it names no file")
    path = folder / file
    if (
        ".." in Path(file).parts
        and not Path(file).is_absolute()
        and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    ):
        return path, ("unsafe-path", f"its path {file} climbs out of {folder}")
    return path, None


def read_labels(path: Path) -> LabelSet:
    """The label table in a file."""
    return LabelSet.from_csv(read_text(path), str(path))


def read_text(path: Path) -> str:
    """A table's text: UTF-8 with or without byte order mark, any line ends.

    Raises:
        UserError: `missing-file`, `not-a-file`, `bad-table` (too large or not UTF-8).
    """
    with opened_table(path) as file:
        return file.read()


@contextmanager
def opened_table(path: Path) -> Iterator[TextIO]:
    """A table to be read piece by piece, as `read_text`."""
    try:
        if path.exists() and not path.is_file():
            raise UserError("not-a-file", f"cannot read {path}", "it is not a file", "give the table itself")
        if path.stat().st_size > LIMITS.max_table_bytes:
            raise UserError(
                "bad-table",
                f"cannot read {path}",
                f"it is larger than {LIMITS.max_table_bytes} bytes",
                "give a smaller table",
            )
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except OSError as error:
        raise UserError(
            "missing-file",
            f"cannot read {path}",
            error.strerror or str(error),
            "check the path and its permissions",
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            "bad-table",
            f"cannot read {path}",
            f"it is not UTF-8 text (byte {_undecodable(path)})",
            "save it as UTF-8",
        ) from error


def _undecodable(path: Path) -> int:
    """The first byte that is not UTF-8; a decoder that reads in pieces counts within a piece."""
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def as_text(name: str) -> str:
    """A file's name as plain Unicode: names may be any bytes, ids and labels may not."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def listed(folder: Path) -> list[Path]:
    """Entries of a folder in order of name, hidden entries left out.

    Raises:
        UserError: `missing-file`.
    """
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError as error:
        raise UserError(
            "missing-file",
            f"cannot read folder {folder}",
            error.strerror or str(error),
            "check the path and its permissions",
        ) from error
