"""The table of clips, and what every reader of data hands to it: rows.

In: rows, one per input, with labels as written. Out: a `Manifest` whose clips have mids of one label set, with every row that became no clip and its reason.
Where a table may point, and what a label may be called, is decided here once for all forms of data.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from beatline.errors import UserError
from beatline.labels import LabelSet, audioset, espnet_token
from beatline.limits import LIMITS

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test", "eval": "test", "evaluation": "test"}

Event = tuple[float, float, str]
"""Start and end in seconds from the clip's start, and a mid."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A labelled excerpt of a recording."""

    id: str
    """Unique in the manifest."""
    recording: str
    """Clips of one recording never stand on both sides of a split."""
    path: Path
    """Audio file."""
    labels: tuple[str, ...]
    """Mids, at least one."""
    start: float = 0.0
    """Seconds into the file."""
    end: float | None = None
    """Seconds into the file; None is its end."""
    member: str = ""
    """What of the file it is, as `archives` names it: a place in a tar file, a row of Parquet or HDF5; empty where the file is the audio itself."""
    events: tuple[Event, ...] = ()
    """When its labels sound, in order of time, where the data says so; empty otherwise."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An input that did not become a clip."""

    input: str
    """The clip's id, or the place in its table."""
    code: str
    """A key of `errors.EXIT_CODES`."""
    reason: str
    """Why, in one clause."""
    labels: tuple[str, ...] = ()
    """Mids it would have had, as far as known."""
    split: str = ""
    """Split it would have been in, as far as known."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The table of clips."""

    clips: tuple[Clip, ...]
    """In the order of the data."""
    splits: dict[str, tuple[int, ...]]
    """Places in `clips` of `train`, `val` and `test`; a clip may be in val and in test under the recipe's rule."""
    rejected: tuple[Rejected, ...]
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


@dataclass(slots=True)
class Row:
    """One input as read: labels as written, not yet checked against a label set."""

    id: str
    path: Path = Path()
    recording: str = ""
    labels: Sequence[str] = ()
    splits: tuple[str, ...] = ()
    start: float = 0.0
    end: float | None = None
    problem: tuple[str, str] | None = None
    """Code and reason, where the row is already known to be no clip."""
    member: str = ""
    events: tuple[Event, ...] = ()


@dataclass
class Sorted:
    """Rows sorted into clips and rejected inputs."""

    clips: list[Clip] = field(default_factory=list)
    homes: list[tuple[str, ...]] = field(default_factory=list)
    """Splits of each clip, as far as the data names them."""
    rejected: list[Rejected] = field(default_factory=list)


Judgement = tuple[tuple[str, ...], tuple[str, str] | None]
"""Mids of the labels that are known, and why no clip can have these labels, if so."""
Judge = Callable[[tuple[str, ...]], Judgement]


def sort_rows(rows: Sequence[Row], labels: LabelSet, judge: Judge | None = None) -> Sorted:
    """The rows as clips and rejected inputs.

    Args:
        judge: That of the labels, where the caller has asked it about the rows already.

    Raises:
        UserError: `split-overlap` where a clip is listed in two splits.
    """
    judge, table = judge or judge_of(labels), Sorted()
    first: dict[str, int] = {}
    any_split = any(row.splits for row in rows)
    for row in rows:
        mids, label_problem = judge(tuple(row.labels))
        problem = row.problem
        if problem is None and any_split and not row.splits:
            problem = ("bad-row", "it names no split, and other rows do")
        problem = problem or label_problem
        if problem is None and row.id in first:
            problem = ("duplicate-id", "an earlier input has the same id")
            earlier, splits = table.clips[first[row.id]], table.homes[first[row.id]]
            if (row.path, row.member) == (earlier.path, earlier.member) and row.splits != splits:
                raise overlap(f"clip {row.id}", splits[0], row.splits[0], "it is listed in both")
        if problem is not None:
            table.rejected.append(Rejected(row.id, *problem, mids, row.splits[0] if row.splits else ""))
            continue
        first[row.id] = len(table.clips)
        table.clips.append(Clip(row.id, row.recording, row.path, mids, row.start, row.end, row.member, row.events))
        table.homes.append(row.splits)
    return table


def judge_of(labels: LabelSet) -> Judge:
    """What a label set makes of labels as written; the same ones are the same object, for millions of clips share some thousand combinations."""
    spellings = spellings_of(labels)

    @cache
    def judge(written: tuple[str, ...]) -> Judgement:
        found = [spellings.get(label, "") for label in written]
        mids = tuple(dict.fromkeys(filter(None, found)))
        if "" in found:
            return mids, ("unknown-label", f"label {written[found.index('')]!r} is not in the label table")
        return mids, None if mids else ("no-label", "it has no label")

    return judge


def spellings_of(labels: LabelSet) -> dict[str, str]:
    """Mid of each way to write a label: mid, display name, ESPnet's token."""
    return {espnet_token(x.name): x.mid for x in labels.labels} | {x.name: x.mid for x in labels.labels} | {x.mid: x.mid for x in labels.labels}


def shared(labels: LabelSet, others: LabelSet) -> list[tuple[int, int]]:
    """Where each label that both sets have stands in each, met by mid or else by name."""
    spelt = spellings_of(others)
    return [(k, others.index_of_mid[mid]) for k, label in enumerate(labels.labels) if (mid := spelt.get(label.mid) or spelt.get(label.name))]


def labels_of(rows: Iterable[Row]) -> LabelSet:
    """AudioSet's label set if it has every label of the rows, else the labels found, sorted."""
    written = {label for row in rows for label in row.labels}
    return audioset() if written and written <= spellings_of(audioset()).keys() else LabelSet.from_names(sorted(written) or ["none"])


def overlap(what: str, one: str, other: str, cause: str) -> UserError:
    """The error of something that stands on two sides."""
    return UserError("split-overlap", f"{what} is in {one} and in {other}", cause, "keep all clips of a recording in one split")


# --- what tables may say


def place_in(folder: Path, file: str) -> tuple[Path, tuple[str, str] | None]:
    """The path that a table in `folder` names, and the problem with it, if any.

    An absolute path is taken as the user's own. A relative one that goes up by `..` must end inside the folder, links followed. Links are otherwise
    followed wherever they lead: download caches and data version control lay out their files so. Nothing but a regular file is ever opened.
    """
    if not file or "\0" in file:
        return folder, ("bad-row", "it names no file")
    path = folder / file
    if ".." in Path(file).parts and not Path(file).is_absolute() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
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
    try:
        if path.exists() and not path.is_file():
            raise UserError("not-a-file", f"cannot read {path}", "it is not a file", "give the table itself")
        if path.stat().st_size > LIMITS.max_table_bytes:
            raise UserError("bad-table", f"cannot read {path}", f"it is larger than {LIMITS.max_table_bytes} bytes", "give a smaller table")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError("missing-file", f"cannot read {path}", error.strerror or str(error), "check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise UserError("bad-table", f"cannot read {path}", f"it is not UTF-8 text (byte {error.start})", "save it as UTF-8") from error


def as_text(name: str) -> str:
    """A file's name as plain Unicode: names may be any bytes, ids and labels may not."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def listed(folder: Path) -> list[Path]:
    """Entries of a folder in order of name, hidden ones left out.

    Raises:
        UserError: `missing-file`.
    """
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError as error:
        raise UserError("missing-file", f"cannot read folder {folder}", error.strerror or str(error), "check the path and its permissions") from error
