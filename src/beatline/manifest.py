"""CSV -> manifest: the table of clips, whatever form the data came in.

In: a `DataConfig`. Out: a `Manifest`: clips with their labels, the splits as lists of clips, and every input that cannot become a clip with its
reason. Reads tables and folder listings only; opening audio is `audio`'s, deciding what its length allows is `store`'s. Splits made here
are pure functions of the seed and the clips. Imports no torch.
"""

import csv
import hashlib
import io
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from beatline.config import DataConfig
from beatline.errors import UserError
from beatline.labels import LabelSet, audioset, espnet_token
from beatline.limits import LIMITS

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test", "eval": "test", "evaluation": "test"}
AUDIOSET_EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")  # in order of preference
AUDIOSET_SPLITS = (("train", "balanced_train_segments.csv", "balance_wav"), ("eval", "eval_segments.csv", "eval_wav"))


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
    """What of the file it is: a tar member's name, a Parquet or HDF5 row; empty where the file is the audio itself."""


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


def read(data: DataConfig) -> Manifest:
    """The manifest of the configured data.

    Raises:
        UserError: `bad-config` without a source; `missing-file`, `not-a-file`, `bad-table`, `unknown-label` (a label table that does not fit any row),
            `split-overlap`, `no-clips`.
    """
    if data.audioset is not None:
        return read_audioset(data.audioset, data)
    if data.kaldi is not None:
        return read_kaldi(data.kaldi, data)
    if data.folder is not None:
        return read_folder(data.folder, data)
    if data.csv is not None:
        embedded = Path(str(files("beatline") / "data/mini-audioset/manifest.csv"))
        return read_csv(embedded if str(data.csv) == "mini" else data.csv, data)
    raise UserError("bad-config", "setting data", "no data is named", "give one of data.audioset, data.kaldi, data.csv, data.folder")


# --- readers: each turns one form of data into rows


@dataclass(slots=True)
class _Row:
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


def read_audioset(root: Path, data: DataConfig) -> Manifest:
    """The manifest of AudioSet-20K in ESPnet's layout: `balance_wav/<ytid>.wav` and `eval_wav/<ytid>.wav`, segment CSVs in `data.audioset_csv` or `root`.

    Clip ids are `as20k-train-<row>` and `as20k-eval-<row>`, counted from 0 over the CSV's rows, with gaps where audio is missing.

    Raises:
        UserError: as `read`; `bad-table` where a CSV has not as many rows as its own header line says.

    Source: ESPnet's recipe egs2/as20k/cls1 (layout, ids, the first tenth of eval as validation). Differs: also FLAC, Ogg and MP3.
    """
    tables, rows = data.audioset_csv or root, []
    for name, table, folder in AUDIOSET_SPLITS:
        segments = list(_segments(tables / table))
        found = _audio_by_stem(root / folder)
        tenth = len(segments) // 10 if name == "eval" and data.validation == "inside-eval" else 0
        for number, row in enumerate(segments):
            row.id = f"as20k-{name}-{number}"
            row.splits = ("train",) if name == "train" else ("test", "val") if number < tenth else ("test",)
            if row.problem is None and row.recording not in found:
                row.problem = ("missing-file", f"no {folder}/{row.recording}{AUDIOSET_EXTENSIONS[0]}")
            elif row.problem is None:
                row.path = found[row.recording]
            rows.append(row)
    labels = read_labels(data.labels) if data.labels else audioset()
    return _assemble(rows, labels, root, data)


def _segments(path: Path) -> Iterator[_Row]:
    """Rows of an official segment CSV: `ytid, start, end, "mid,mid"` after `#` lines, the second of which states their number."""
    lines = read_text(path).splitlines()
    stated = next((int(found[1]) for line in lines[:3] if (found := re.search(r"num_ytids=(\d+)", line))), None)
    body = [line for line in lines if line.strip() and not line.startswith("#")]
    if stated is not None and stated != len(body):
        raise UserError("bad-table", f"cannot use {path}", f"its header line states {stated} clips, it has {len(body)}", "download it again; delete its # lines if you want a part of it")
    for line in body:
        cells = next(csv.reader([line], skipinitialspace=True))  # line by line: an open quote must not shift the numbers of the rows after it
        row = _Row(id="", recording=cells[0].strip())
        try:
            start, end = float(cells[1]), float(cells[2])
            good = len(cells) == 4 and re.fullmatch(r"[\w-]{11}", row.recording, re.ASCII) and 0 <= start < end < math.inf
        except (ValueError, IndexError):
            good = False
        if good:
            row.labels = [mid.strip() for mid in cells[3].split(",") if mid.strip()]
        else:
            row.problem = ("bad-row", "not of the form: ytid, start, end, \"mid,mid\"")
        yield row


def _audio_by_stem(folder: Path) -> dict[str, Path]:
    """Audio files of a folder by name without extension; empty where there is no such folder."""
    found: dict[str, Path] = {}
    try:
        names = set(os.listdir(folder))
    except OSError:
        return found
    for extension in reversed(AUDIOSET_EXTENSIONS):
        found |= {name.removesuffix(extension): folder / name for name in names if name.endswith(extension)}
    return found


def read_csv(path: Path, data: DataConfig) -> Manifest:
    """The manifest of a table with columns `file,labels` and optionally `split,id,recording,start,end`.

    Files are relative to the table's folder; labels are mids or names joined by `;`. Label set: `data.labels`, or `classes.csv` beside the table, or
    AudioSet's where it knows every label, or the labels found, sorted.

    Raises:
        UserError: as `read`.
    """
    table = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = [(name or "").strip().lower() for name in table.fieldnames or ()]
        if not {"file", "labels"} <= set(columns):
            raise UserError("bad-table", f"cannot use {path}", f"no columns file and labels among {', '.join(columns) or 'none'}", "name the columns in the first line, separated by commas")
        table.fieldnames = columns
        rows = [_csv_row(cells, path, f"{path.name} line {table.line_num}") for cells in table]
    except csv.Error as error:
        raise UserError("bad-table", f"cannot use {path} line {table.line_num}", str(error), "write it as plain CSV: commas, double quotes") from error
    beside = path.parent / "classes.csv"
    known = read_labels(data.labels or beside) if data.labels or beside.exists() else None
    return _assemble(rows, known, path.parent, data)


def _csv_row(cells: dict, path: Path, place: str) -> _Row:
    if None in cells or None in cells.values():
        return _Row(id=place, problem=("bad-row", "it has more or fewer cells than the first line"))
    cells = {name: value.strip() for name, value in cells.items()}
    file, split = cells["file"], cells.get("split", "")
    labels = [label.strip() for label in cells["labels"].split(";") if label.strip()]
    try:
        start, end = float(cells.get("start") or 0), float(cells["end"]) if cells.get("end") else None
        good = 0 <= start < (math.inf if end is None else end) and (end is None or end < math.inf)
    except ValueError:
        start, end, good = 0.0, None, False
    stretch = f"@{cells.get('start') or 0}-{cells.get('end', '')}" if start or end is not None else ""
    row = _Row(cells.get("id") or file + stretch or place, path.parent / file, cells.get("recording") or os.path.normpath(file), labels, start=start, end=end)
    if not file or "\0" in file:
        row.problem = ("bad-row", "it names no file")
    elif not good:
        row.problem = ("bad-row", "start and end must be seconds, start before end")
    elif split and split.lower() not in SPLIT_NAMES:
        row.problem = ("bad-row", f"unknown split {split!r}")
    elif split:
        row.splits = (SPLIT_NAMES[split.lower()],)
    return row


def read_kaldi(folder: Path, data: DataConfig) -> Manifest:
    """The manifest of Kaldi folders `train`, `val` (or `valid`, `dev`) and `test` (or `eval`), each with `wav.scp` and `text`.

    Relative paths are looked for in `folder`, then, as in Kaldi, in the current directory. A `wav.scp` entry that is a command is rejected.

    Raises:
        UserError: as `read`.
    """
    rows = []
    for split, part in _split_folders(folder):
        if not (part / "wav.scp").exists():
            continue
        audio, texts = _kaldi_table(part / "wav.scp"), _kaldi_table(part / "text")
        labels = {name: text.split() for name, text in texts}
        for name, value in audio:
            path = folder / value if (folder / value).exists() else Path(value)
            row = _Row(name, path, os.path.normpath(value), labels.get(name, ()), (split,))
            if value.endswith("|"):
                row.problem = ("bad-row", "its wav.scp entry is a command, and beatline runs none")
            elif not value or "\0" in value:
                row.problem = ("bad-row", "its wav.scp entry names no file")
            rows.append(row)
        without = labels.keys() - {name for name, _ in audio}
        rows += [_Row(name, labels=labels[name], splits=(split,), problem=("missing-file", "it is in text but not in wav.scp")) for name, _ in texts if name in without]
    if not rows:
        raise UserError("missing-file", f"cannot use {folder}", "no wav.scp in its train, val or test folder", "give the folder that holds them")
    return _assemble(rows, read_labels(data.labels) if data.labels else None, folder, data)


def _kaldi_table(path: Path) -> list[tuple[str, str]]:
    """Key and rest of each line."""
    pairs = (line.strip().split(maxsplit=1) for line in read_text(path).splitlines() if line.strip())
    return [(pair[0], pair[1] if len(pair) > 1 else "") for pair in pairs]


def _split_folders(folder: Path) -> list[tuple[str, Path]]:
    """Folders below that are named like a split, in the order train, val, test."""
    found = [(SPLIT_NAMES[part.name.lower()], part) for part in _listed(folder) if part.is_dir() and part.name.lower() in SPLIT_NAMES]
    return sorted(found, key=lambda pair: SPLITS.index(pair[0]))


def read_folder(folder: Path, data: DataConfig) -> Manifest:
    """The manifest of a folder per class, `<class>/<file>` or `<split>/<class>/<file>`; every file in a class folder that is not hidden is an input.

    Raises:
        UserError: as `read`.
    """
    parts = [part for part in _listed(folder) if part.is_dir()]
    has_splits = bool(parts) and all(part.name.lower() in SPLIT_NAMES for part in parts)
    rows = []
    for split, part in _split_folders(folder) if has_splits else [("", folder)]:
        for class_folder in (entry for entry in _listed(part) if entry.is_dir()):
            for file in _listed(class_folder):
                name = _as_text(file.relative_to(folder).as_posix())
                rows.append(_Row(name, file, name, [_as_text(class_folder.name)], (split,) if split else ()))
    if not rows:
        raise UserError("no-clips", f"cannot use {folder}", "no files in folders named after classes", "arrange the data as <class>/<file> or <split>/<class>/<file>")
    known = read_labels(data.labels) if data.labels else LabelSet.from_names(sorted({label for row in rows for label in row.labels}))
    return _assemble(rows, known, folder, data)


def _as_text(name: str) -> str:
    """A file's name as plain Unicode: names may be any bytes, ids and labels may not."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _listed(folder: Path) -> list[Path]:
    """Entries of a folder in order of name, hidden ones left out."""
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError as error:
        raise UserError("missing-file", f"cannot read folder {folder}", error.strerror or str(error), "check the path and its permissions") from error


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


# --- rows -> manifest


@dataclass
class _Sorted:
    """Rows sorted into clips and rejected inputs."""

    clips: list[Clip] = field(default_factory=list)
    homes: list[tuple[str, ...]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def _assemble(rows: list[_Row], known: LabelSet | None, root: Path, data: DataConfig) -> Manifest:
    """The manifest of these rows; without a known label set, AudioSet's if it has every label, else the labels found."""
    if known is None:
        written = {label for row in rows for label in row.labels}
        known = audioset() if written and written <= _spellings(audioset()).keys() else LabelSet.from_names(sorted(written) or ["none"])
    table = _sort(rows, known)
    splits, val = _splits(table, data)
    for name, some in (("train", splits["train"]), ("test", splits["test"])):
        if not some:
            raise UserError("no-clips", f"cannot use {root}", f"no clips for {name}{_first(table.rejected)}", "check the data's layout, and beatline prepare --help")
    _check_overlap(table.clips, splits, allow=("val", "test") if data.validation == "inside-eval" else None)
    return Manifest(
        clips=tuple(table.clips),
        splits=splits,
        rejected=tuple(table.rejected),
        labels=known,
        val=val,
        inputs=len(rows),
        root=root,
        min_seconds=data.min_seconds,
        max_seconds=data.max_seconds,
    )


def _first(rejected: Sequence[Rejected]) -> str:
    return f" ({len(rejected)} inputs rejected; the first, {rejected[0].input}: {rejected[0].reason})" if rejected else ""


def _spellings(labels: LabelSet) -> dict[str, str]:
    """Mid of each way to write a label: mid, display name, ESPnet's token."""
    return {espnet_token(x.name): x.mid for x in labels.labels} | {x.name: x.mid for x in labels.labels} | {x.mid: x.mid for x in labels.labels}


def _sort(rows: Iterable[_Row], labels: LabelSet) -> _Sorted:
    spellings, table = _spellings(labels), _Sorted()
    first: dict[str, _Row] = {}
    any_split = any(row.splits for row in rows)
    for row in rows:
        mids = tuple(dict.fromkeys(spellings[label] for label in row.labels if label in spellings))
        unknown = next((label for label in row.labels if label not in spellings), None)
        problem = row.problem
        if problem is None and any_split and not row.splits:
            problem = ("bad-row", "it names no split, and other rows do")
        if problem is None and unknown is not None:
            problem = ("unknown-label", f"label {unknown!r} is not in the label table")
        if problem is None and not mids:
            problem = ("no-label", "it has no label")
        if problem is None and row.id in first:
            problem = ("duplicate-id", "an earlier input has the same id")
            if row.path == first[row.id].path and row.splits != first[row.id].splits:
                raise _overlap(f"clip {row.id}", first[row.id].splits[0], row.splits[0], "it is listed in both")
        if problem is not None:
            table.rejected.append(Rejected(row.id, *problem, mids, row.splits[0] if row.splits else ""))
            continue
        first[row.id] = row
        table.clips.append(Clip(row.id, row.recording, row.path, mids, row.start, row.end))
        table.homes.append(row.splits)
    return table


def _splits(table: _Sorted, data: DataConfig) -> tuple[dict[str, tuple[int, ...]], str]:
    """Places of the clips of each split, and how validation was made."""
    given = {name: tuple(i for i, homes in enumerate(table.homes) if name in homes) for name in SPLITS}
    made = not any(given.values())
    if made:
        everything = tuple(range(len(table.clips)))
        given["train"], given["test"] = carve(table.clips, everything, data.test_fraction, data.split_seed)
    if data.validation == "clean" and given["val"]:
        raise UserError("bad-config", "setting data.validation", "clean takes validation clips from train, but the data has its own", "set data.validation to given")
    if data.validation == "clean" or (made and data.validation == "given"):
        given["train"], given["val"] = carve(table.clips, given["train"], data.validation_fraction, data.split_seed)
        if given["train"] and not given["val"] and data.validation == "clean" and data.validation_fraction > 0:
            raise UserError("no-clips", "setting data.validation", "no clip can leave train without taking the last one of a label", "set data.validation to given, or give more clips")
        return given, f"taken from train (share {data.validation_fraction:g}, stratified by label, whole recordings, seed {data.split_seed}); disjoint from test"
    if data.validation == "inside-eval" and given["val"]:
        return given, "clips that are also test clips, as in ESPnet's recipe (the first tenth of AudioSet's eval list): selection on them leaks slightly"
    if data.validation == "inside-eval":
        raise UserError("bad-config", "setting data.validation", "inside-eval needs AudioSet or data with its own val split", "set data.validation to clean")
    return given, "as the data gives it; disjoint from test" if given["val"] else "none"


def carve(clips: Sequence[Clip], places: Sequence[int], share: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`places` as (kept, taken): about `share` of the recordings of every label taken, and at least one of every label kept.

    Recordings move whole. Labels are served from the rarest to the most frequent, each from its recordings in the order of a hash of seed and name, so
    the result depends on nothing else; then any recordings fill up the share. Iterative stratification after Sechidis et al. (2011).
    """
    labels_of: dict[str, set[str]] = defaultdict(set)
    for i in places:
        labels_of[clips[i].recording].update(clips[i].labels)
    order = sorted(labels_of, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogateescape")).digest())
    recordings_of: dict[str, list[str]] = defaultdict(list)
    for recording in order:
        for label in labels_of[recording]:
            recordings_of[label].append(recording)
    kept = {label: len(some) for label, some in recordings_of.items()}
    taken: set[str] = set()

    def take(candidates: Iterable[str], enough: int) -> None:
        for recording in candidates:
            if enough <= 0:
                return
            if recording not in taken and all(kept[label] > 1 for label in labels_of[recording]):
                taken.add(recording)
                for label in labels_of[recording]:
                    kept[label] -= 1
                enough -= 1

    for label in sorted(recordings_of, key=lambda label: (len(recordings_of[label]), label)):
        total = len(recordings_of[label])
        take(recordings_of[label], round(share * total) - (total - kept[label]))
    take(order, (max(1, round(share * len(order))) if share > 0 else 0) - len(taken))
    return tuple(i for i in places if clips[i].recording not in taken), tuple(i for i in places if clips[i].recording in taken)


def _check_overlap(clips: Sequence[Clip], splits: dict[str, tuple[int, ...]], allow: tuple[str, str] | None) -> None:
    """Raises `split-overlap` where two splits share a recording or a file, other than the pair that may."""
    folder = cache(os.path.realpath)

    def keys(i: int) -> tuple[str, str]:
        path = clips[i].path
        file = os.path.realpath(path) if path.is_symlink() else os.path.join(folder(path.parent), path.name)
        return f"recording {clips[i].recording}", f"file {file}"

    owner: dict[str, dict[str, int]] = {name: {key: i for i in some for key in keys(i)} for name, some in splits.items()}
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        shared = [key for key in owner[one] if key in owner[other]]
        if shared and (one, other) != allow:
            a, b = clips[owner[one][shared[0]]].id, clips[owner[other][shared[0]]].id
            raise _overlap(shared[0], one, other, f"clips {a} and {b}; {len(shared)} such recordings or files")


def _overlap(what: str, one: str, other: str, cause: str) -> UserError:
    return UserError("split-overlap", f"{what} is in {one} and in {other}", cause, "keep all clips of a recording in one split")
