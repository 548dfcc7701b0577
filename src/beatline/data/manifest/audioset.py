"""AudioSet's official tables, and VGGSound's, which is built alike -> a manifest.

In: segment CSVs or the TSVs of the strongly labelled set, and a folder with audio in any layout (`sources`).
Out: a `Manifest` that accounts for every row of the tables. AS-20K is the balanced CSV, AS-2M the balanced
and the unbalanced CSV. Any other list is a CSV of the same form.
"""

import csv
import math
import os
import re
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path

from beatline.config import DataConfig
from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet, audioset
from beatline.data.manifest.rows import NAMED, Event, Row, Rows
from beatline.data.manifest.sources import KINDS, Tree, Whereabouts, cut, walk
from beatline.data.manifest.splits import assemble
from beatline.data.manifest.table import Manifest, judge_of, opened_table, read_labels, read_text

# Names under which a table is looked for; the second names are Kaggle's.
TABLES = {
    "balanced": ("balanced_train_segments.csv", "train.csv"),
    "unbalanced": ("unbalanced_train_segments.csv",),
    "eval": ("eval_segments.csv", "valid.csv"),
    "strong": ("audioset_train_strong.tsv",),
    "strong-eval": ("audioset_eval_strong.tsv",),
}
STRONG_HEADER = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel"
STRONG_NAMES = "mid_to_display_name.tsv"
STRONG_SECONDS = 10.0
PARQUET = KINDS.index("parquet")
RECORDING = re.compile(r"[\w-]{11}", re.ASCII)
USUAL = re.compile(
    r'([\w-]{11}), (\d+\.\d+), (\d+\.\d+), "([^"]*)"', re.ASCII
)  # the official CSVs' lines, read in a third of the time


def read_audioset(root: Path, data: DataConfig) -> Manifest:
    """The manifest of AudioSet: every row of `data.audioset_train` and `data.audioset_eval`, with its audio
    from below `root`.

    Tables are looked for in `data.audioset_csv`, else anywhere below `root`. Clip ids are `as20k-train-<row>`
    for the balanced CSV, `as20k-eval-<row>` for eval, `<table>-<row>` for others. Rows count from 0, with
    gaps where audio is missing; strong clips have their own ids.

    Raises:
        UserError: as `manifest.read`; `bad-table` where a CSV has not as many rows as its own header line
            says.

    Source: ESPnet's recipe egs2/as20k/cls1 (ids, the first tenth of eval as validation). Differs: any layout,
    any format.
    """
    tree = walk(root)
    rows = Rows()
    paths = [("train", _table(name, tree, root, data)) for name in data.audioset_train] + [
        ("test", _table(data.audioset_eval, tree, root, data))
    ]
    for split, path in paths:
        tenth = (
            sum(1 for _ in _read(path)) // 10 if split == "test" and data.validation == "inside-eval" else 0
        )
        for number, row in enumerate(_read(path)):
            row.splits = ("test", "val") if number < tenth else (split,)
            rows.append(row)
    strong = any(is_strong(path) for _, path in paths)
    if data.labels:
        known = read_labels(data.labels)
    elif strong:
        known = _strong_labels(rows, paths[0][1].parent)
    else:
        known = audioset()
    return locate(rows, known, root, tree, data)


def _read(path: Path) -> Iterable[Row]:
    return _strong(path) if is_strong(path) else segments(path, _prefix(path))


def _table(name: str, tree: Tree, root: Path, data: DataConfig) -> Path:
    names = TABLES.get(name, (name, f"{name}.csv", f"{name}.tsv"))
    if data.audioset_csv is None:
        found = [tree.tables[file] for file in names if file in tree.tables]
    else:
        found = [data.audioset_csv / file for file in names if (data.audioset_csv / file).is_file()]
    if found or (name not in TABLES and os.path.exists(name)):
        return found[0] if found else Path(name)
    raise UserError(
        "missing-file",
        f"cannot find {names[0]}",
        f"it is not in {data.audioset_csv or root}",
        "get AudioSet's tables with `beatline fetch audioset`, or name their folder: data.audioset_csv",
    )


def _prefix(path: Path) -> str:
    """What the ids of a table's clips begin with."""
    official = {
        name: prefix
        for key, prefix in (("balanced", "as20k-train"), ("eval", "as20k-eval"))
        for name in TABLES[key]
    }
    return official.get(path.name, path.stem.removesuffix("_segments"))


def segments(path: Path, prefix: str) -> Iterator[Row]:
    """Rows of a segment CSV: `ytid, start, end, "mid,mid"` after `#` lines, the second of which states their
    number, or a line of column names.
    """
    with opened_table(path) as file:
        stated = next(
            (int(found[1]) for line in islice(file, 3) if (found := re.search(r"num_ytids=(\d+)", line))),
            None,
        )
    if stated is not None and stated != (count := sum(1 for _ in _body(path))):
        raise UserError(
            "bad-table",
            f"cannot use {path}",
            f"its header line states {stated} clips, it has {count}",
            "download it again; delete its # lines if you want a part of it",
        )
    number = -1
    for line in _body(path):
        if number < 0 and line.lower().startswith(("ytid,", '"ytid"', "video_id,")):
            continue
        number += 1
        usual = USUAL.fullmatch(line)
        cells = (
            usual.groups() if usual else next(csv.reader([line], skipinitialspace=True), [""])
        )  # by line: an open quote must not shift the numbers of later rows
        row = Row(f"{prefix}-{number}", recording=cells[0].strip())
        try:
            row.start, row.end = float(cells[1]), float(cells[2])
            good = len(cells) == 4 and is_recording(row.recording) and 0 <= row.start < row.end < math.inf
        except (ValueError, IndexError):
            good = False
        if good:
            row.labels = _mids(cells[3])
        else:
            row.problem = ("bad-row", 'not of the form: ytid, start, end, "mid,mid"')
        yield row


def _body(path: Path) -> Iterator[str]:
    """The lines of a table that are rows."""
    with opened_table(path) as file:
        yield from (line.rstrip("\n") for line in file if line.strip() and not line.startswith("#"))


@lru_cache(maxsize=1 << 16)
def _mids(cell: str) -> tuple[str, ...]:
    return tuple(sys.intern(mid.strip()) for mid in cell.split(",") if mid.strip())


def is_recording(name: str) -> bool:
    """Whether this is a YouTube id; many begin with `-`."""
    return RECORDING.fullmatch(name) is not None


def locate(
    rows: Rows, known: LabelSet, root: Path, tree: Tree, data: DataConfig, notices: tuple[str, ...] = ()
) -> Manifest:
    """The manifest of rows that name recordings and their seconds, with their audio from a tree."""
    whereabouts = Whereabouts(
        rows.recording(number) for number in range(len(rows)) if rows.problem(number) is None
    )
    judge = judge_of(known)
    whereabouts.add_tree(tree, root)
    rows.files = whereabouts.files
    seen: set[tuple[tuple[str, ...], str, float]] = set()
    kinds: Counter[int] = Counter()
    uncut: dict[tuple[int, str], array] = defaultdict(
        lambda: array("q")
    )  # rows whose file may be the whole recording, by what it is in
    parquet: dict[str, array] = defaultdict(lambda: array("q"))  # row of the file << 32 | row
    for number in range(len(rows)):
        recording = rows.recording(number)
        start = rows.start(number)
        problem = rows.problem(number) or judge(rows.labels(number))[1]
        if problem is None and recording in whereabouts.repeated:
            excerpt = rows.splits(number)[:1], recording, start
            problem = (
                ("duplicate-id", "an earlier row is the same excerpt of the same recording")
                if excerpt in seen
                else None
            )
            seen.add(excerpt)
        found = whereabouts.of(recording, start) if problem is None else None
        if found is None:
            rows.refuse(number, problem or ("missing-file", f"no audio of {NAMED} below {root}"))
            continue
        file, stated = found
        kind = whereabouts.kind(file)
        container = whereabouts.files.container(file)
        kinds[kind] += 1
        rows.found(number, file)
        if kind == PARQUET:
            parquet[container].append(int(whereabouts.files.member(file)) << 32 | number)
        if stated:
            rows.uncut(number)
        else:
            uncut[kind, container].append(number)
    if len(whereabouts) and not kinds:
        unread = (
            f" ({whereabouts.problems[0].id}: {whereabouts.problems[0].problem[1]})"
            if whereabouts.problems and whereabouts.problems[0].problem
            else ""
        )
        remedy = (
            "put it there as it is, files or tar, Parquet or HDF5, in folders of any name; `beatline "
            "fetch clips` gets AudioSet's"
        )
        raise UserError(
            "no-clips",
            f"cannot use {root}",
            f"of {len(whereabouts)} recordings that the tables want, the audio of none is below it{unread}",
            remedy,
        )
    repeated = bool(whereabouts.repeated)
    problems = whereabouts.problems
    del whereabouts  # at two million rows its names are a third of all
    in_order = {
        file: array("q", [key & 0xFFFFFFFF for key in sorted(keys)]) for file, keys in sorted(parquet.items())
    }
    for archive, numbers in in_order.items():
        inside = set(uncut.pop((PARQUET, archive), ()))
        uncut[PARQUET, archive] = array("q", filter(inside.__contains__, numbers))
    whole = cut(rows, uncut)
    if repeated:
        _refuse_shared(rows, sorted(number for numbers in uncut.values() for number in numbers))
    notices += (_recognised(kinds, len(rows), whole),)
    is_last = bytearray(
        len(rows)
    )  # Parquet gives a row only with its whole group, so its rows come last, in the order of the file's
    for number in chain.from_iterable(in_order.values()):
        is_last[number] = True
    order = array(
        "q",
        chain(
            (number for number in range(len(rows)) if not is_last[number]),
            *in_order.values(),
            range(len(rows), len(rows) + len(problems)),
        ),
    )
    for row in problems:
        rows.append(row)
    return assemble(rows, known, root, data, notices, judge, order)


def _refuse_shared(rows: Rows, numbers: Iterable[int]) -> None:
    """Refuses all but the first of several rows with the same file, as an excerpt cannot be two clips.

    A file counts here where it is neither cut nor named after any of the rows.
    """
    taken: set[tuple[str, Path, str]] = set()
    for number in numbers:
        row = rows.row(number)
        key = row.splits[0], row.path, row.member
        if row.end is None and key in taken:
            rows.refuse(
                number,
                (
                    "duplicate-id",
                    "an earlier row has the same recording, and the name of the audio does not say which of "
                    "the two it is",
                ),
            )
        taken.add(key)


def _recognised(kinds: Counter[int], rows: int, whole: int) -> str:
    words = ("files", "members of tar files", "rows of Parquet", "rows of HDF5", "files listed in a TSV")
    found = ", ".join(f"{kinds[kind]} {word}" for kind, word in enumerate(words) if kinds[kind])
    return f"audio of {kinds.total()} of {rows} rows: {found or 'none'}" + (
        f"; {whole} whole recordings are cut" if whole else ""
    )


# --- the strongly labelled set


def is_strong(path: Path) -> bool:
    """Whether a table is of the strongly labelled set, by its first line."""
    if path.suffix.lower() != ".tsv":
        return False
    with opened_table(path) as file:
        return file.readline().strip() == STRONG_HEADER


def _strong(path: Path) -> list[Row]:
    """A row per clip with its events, times counted from the clip's start, and a row per bad line.

    Source: AudioSet's temporally strong labels (Hershey et al. 2021): `<ytid>_<start in ms>`, clips of 10 s.
    """
    events: dict[str, list[Event]] = {}
    bad = []
    for number, line in enumerate(read_text(path).splitlines()[1:], 2):
        cells = [cell.strip() for cell in line.split("\t")]
        try:
            start, end = float(cells[1]), float(cells[2])
            good = (
                len(cells) == 4
                and bool(re.fullmatch(r"[\w-]{11}_\d{1,9}", cells[0], re.ASCII) and cells[3])
                and 0 <= start < end < math.inf
            )
        except (ValueError, IndexError):
            good = False
        if good:
            events.setdefault(cells[0], []).append((start, end, sys.intern(cells[3])))
        elif line.strip():
            bad.append(
                Row(
                    f"{path.name} line {number}",
                    problem=("bad-row", "not of the form: ytid_ms, start, end, mid, separated by tabs"),
                )
            )
    return [_strong_row(name, sorted(heard)) for name, heard in events.items()] + bad


def _strong_row(name: str, events: list[Event]) -> Row:
    start = int(name[12:]) / 1000
    return Row(
        name,
        recording=name[:11],
        labels=sorted({mid for _, _, mid in events}),
        start=start,
        end=start + STRONG_SECONDS,
        events=tuple(events),
    )


def _strong_labels(rows: Rows, folder: Path) -> LabelSet:
    """Every mid of the rows, sorted. Names are of the official list beside the table, or of AudioSet."""
    names = {label.mid: label.name for label in audioset().labels}
    if (folder / STRONG_NAMES).is_file():
        names |= dict(
            pair
            for line in read_text(folder / STRONG_NAMES).splitlines()
            if len(pair := line.strip().split("\t")) == 2
        )
    mids = sorted(rows.all_labels())
    return LabelSet(tuple(Label(mid, names.get(mid, mid)) for mid in mids)) if mids else audioset()
