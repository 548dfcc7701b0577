"""recordings wanted -> where their audio is, in whatever layout a copy of a YouTube data set came.

In: a folder and the ids of its data set. Out: for each id the file, or the member of an archive, that holds it. A layout is recognised by its names
matching the ids, not by what its folders are called. `cut` tells whole recordings from excerpts by the lengths in the files' headers.

Names: `<id>`, `Y<id>`, either with `_<start>`, `_<start>_<end>` or `-` instead of `_`, in seconds or start in milliseconds, and any extension of
`headers.EXTENSIONS`, below the folder at any depth, in tar files (also named by a JSON file beside), Parquet, HDF5, and in TSV lists of files elsewhere.

Which one, where an id is there twice: a file before a tar member before a row of Parquet before one of HDF5 before a file that a TSV lists; then by
extension in the order of `EXTENSIONS`; then by path.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from beatline import archives, headers
from beatline.errors import UserError
from beatline.headers import EXTENSIONS
from beatline.manifest.table import Row, as_text, place_in, read_text

PREFERENCE = {extension[1:]: place for place, extension in enumerate(EXTENSIONS)}
NAME = re.compile(r"([\w-]{11})(?:[_-](\d+(?:\.\d+)?)(?:[_-]\d+(?:\.\d+)?)?)?", re.ASCII)
KINDS = ("file", "tar", "parquet", "hdf5", "list")
LISTED = KINDS.index("list")
LONGER = 1.0  # seconds that an excerpt's file may be longer than the clip it holds
EVERY_FILE = 25_000  # largest folder or tar file of which every file is measured first
SPREAD = 1_000  # files measured first of a larger one
FIRST_ROWS = 8  # rows measured first of a Parquet file


class Place(NamedTuple):
    """Where a recording or an excerpt of it is; the smallest of several is taken."""

    kind: int
    """Index of `KINDS`."""
    extension: int
    """Index of `EXTENSIONS`."""
    path: str
    member: str = ""


@dataclass
class Tree:
    """What is below a folder, by name."""

    folders: list[tuple[str, list[str]]] = field(default_factory=list)
    """Each folder with its files that look like audio."""
    archives: list[str] = field(default_factory=list)
    tables: dict[str, Path] = field(default_factory=dict)
    """CSV and TSV files by name; of two with one name the one nearest to the top."""
    lists: list[Path] = field(default_factory=list)
    """All TSV files."""


def walk(root: Path) -> Tree:
    """Everything below a folder, in order of name; hidden and unfinished (`.partial`) folders are left out, links are followed, each folder once.

    Raises:
        UserError: `missing-file` where the folder cannot be read.
    """
    tree, seen, level = Tree(), set(), [str(root)]
    while level:
        below: list[str] = []
        for folder in level:
            try:
                facts = os.stat(folder)
                if (facts.st_dev, facts.st_ino) in seen:
                    continue
                seen.add((facts.st_dev, facts.st_ino))
                with os.scandir(folder) as entries:
                    below += _sort_entries(folder, entries, tree)
            except OSError as error:
                if folder == str(root):
                    raise UserError("missing-file", f"cannot read folder {root}", error.strerror or str(error), "check the path and its permissions") from error
        level = below
    return tree


def _sort_entries(folder: str, entries: Iterable[os.DirEntry], tree: Tree) -> list[str]:
    """Puts a folder's files into the tree, and returns its folders."""
    folders, audio = [], []
    for entry in sorted(entries, key=lambda entry: entry.name):
        name = entry.name
        lower = name.lower()
        if name.startswith("."):
            continue
        if _is(entry.is_dir):
            if not lower.endswith(".partial"):
                folders.append(entry.path)
        elif lower.endswith(EXTENSIONS):
            audio.append(name)
        elif archives.kind(lower):
            tree.archives.append(entry.path)
        elif lower.endswith((".csv", ".tsv")) and _is(entry.is_file):
            tree.tables.setdefault(name, Path(entry.path))
            if lower.endswith(".tsv"):
                tree.lists.append(Path(entry.path))
    tree.folders.append((folder, audio))
    return folders


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # links in a circle
        return False


class Places:
    """Where the audio of the wanted recordings is."""

    def __init__(self, wanted: Container[str]):
        self._wanted = wanted
        self._bare: dict[str, Place] = {}
        self._stated: dict[tuple[str, float], Place] = {}
        self.problems: list[Row] = []
        """What could not be looked at, as rows for the ledger."""

    def add_tree(self, tree: Tree, root: Path) -> None:
        """Adds the files, archives and listed files of a tree.

        Raises:
            UserError: `missing-package` for an archive that needs one.
        """
        for folder, names in tree.folders:
            self._add(((name, f"{folder}/{name}", "") for name in names), "file")
        for path in tree.archives:
            self._add_archive(Path(path), root)
        for table in tree.lists:
            if found := listed_files(table):
                files, problems = found
                self.problems += problems
                self._add(((os.path.basename(file), file, "") for file in files), "list")

    def of(self, recording: str, start: float) -> tuple[Place, bool] | None:
        """The place of a clip's audio, and whether its name states that it is this very excerpt."""
        bare = self._bare.get(recording)
        if not self._stated and (bare is None or bare.kind != LISTED):  # nearly always
            return bare and (bare, False)
        found = [(bare, False)]
        if self._stated:
            found += [(self._stated.get((recording, number)), True) for number in {start, float(int(start)), float(round(start * 1000))}]
        return min(((place, stated) for place, stated in found if place is not None and (place.kind != LISTED or os.path.exists(place.path))), default=None)

    def _add_archive(self, path: Path, root: Path) -> None:
        where = as_text(str(path.relative_to(root)))
        entries = []
        for entry in archives.listing(path, EXTENSIONS):
            if entry.problem:
                self.problems.append(Row(f"{where}: {as_text(entry.name)}" if entry.name else where, problem=entry.problem))
            else:
                entries.append(entry)
        kind = archives.kind(path.name)
        self._add(((os.path.basename(entry.name), str(path), entry.member) for entry in entries), kind)
        self._add(((os.path.basename(entry.also), str(path), entry.member) for entry in entries if entry.also), kind)

    def _add(self, names: Iterable[tuple[str, str, str]], kind: str) -> None:
        number = KINDS.index(kind)
        for name, path, member in names:
            stem, extension = _parts(name)
            found = _reading(stem, self._wanted)
            if found is None:
                continue
            place = Place(number, extension, path, member)
            recording, start = found.groups()
            if start is not None:
                self._stated[recording, float(start)] = min(self._stated.get((recording, float(start)), place), place)
            elif recording in self._bare:
                self._bare[recording] = min(self._bare[recording], place)
            else:
                self._bare[recording] = place


def _parts(name: str) -> tuple[str, int]:
    """A name without its extension, and the extension's place in the order of preference."""
    stem, _, extension = name.rpartition(".")
    place = PREFERENCE.get(extension.lower())
    return (name, len(EXTENSIONS)) if place is None else (stem, place)


def _reading(stem: str, wanted: Container[str]) -> re.Match | None:
    """A name read as id and start, as it stands or without a leading Y; ids have 11 characters, so no name can be read both ways."""
    for skip in (0, 1) if stem.startswith("Y") else (0,):
        found = NAME.fullmatch(stem, skip)
        if found and found[1] in wanted:
            return found
    return None


def listed_files(table: Path) -> tuple[list[str], list[Row]] | None:
    """The files that a TSV manifest lists, a folder on its first line and `path<TAB>samples` after it, and bad rows; None for any other table.

    The folder may be of another machine: then the paths are taken from the table's own folder.
    """
    try:
        with table.open("rb") as file:
            first, second = file.readline(4096), file.readline(4096)
        if b"\t" in first.strip() or not re.fullmatch(rb"[^\t\n]+\t\d+\s*", second):
            return None
        lines = read_text(table).splitlines()
    except (OSError, UserError):
        return None
    folder = table.parent / lines[0].strip()
    folder = folder if folder.is_dir() else table.parent
    files, problems = [], []
    for number, line in enumerate(lines[1:], 2):
        path, problem = place_in(folder, line.partition("\t")[0])
        if problem:
            problems.append(Row(f"{as_text(table.name)} line {number}", problem=problem))
        else:
            files.append(str(path))
    return files, problems


# --- whole recordings


def cut(rows: Iterable[tuple[Row, Place]]) -> int:
    """Takes start and end from the rows whose file is the excerpt already, leaves them to those whose file is the whole recording; how many are left.

    A file is the whole recording where its header states more than `LONGER` seconds beyond the clip's length, and more than the clip's start. Of each folder
    or tar file up to `EVERY_FILE` files, of larger ones `SPREAD` files, of a Parquet file `FIRST_ROWS` rows are measured, and where one is a whole
    recording, all are. Rows of HDF5 are excerpts.
    """
    containers: dict[str, list[tuple[Row, Place]]] = defaultdict(list)
    for row, place in rows:
        containers[place.path if place.member else place.path.rpartition("/")[0]].append((row, place))
    return sum(_cut_alike(some) for some in containers.values())


def _cut_alike(rows: list[tuple[Row, Place]]) -> int:
    """As `cut`, for the rows of one folder or archive."""
    kind = KINDS[rows[0][1].kind]
    most = 0 if kind == "hdf5" else FIRST_ROWS if kind == "parquet" else len(rows) if len(rows) <= EVERY_FILE else SPREAD
    if kind == "parquet":
        rows.sort(key=lambda pair: int(pair[1].member))
    step = 1 if kind == "parquet" else max(1, len(rows) // max(1, most))
    sample = rows[: most * step : step]
    whole = {id(row) for row, _ in sample if _is_whole(row)}
    if whole and len(sample) < len(rows):
        whole = {id(row) for row, _ in rows if _is_whole(row)}
    for row, _ in rows:
        if id(row) not in whole:
            row.start, row.end = 0.0, None
    return len(whole)


def _is_whole(row: Row) -> bool:
    try:
        with archives.opened(row.path, row.member) as (read_at, size):
            length = headers.seconds(read_at, size)
    except (UserError, OSError):  # decoding it will say why
        return False
    return length is not None and row.end is not None and length > row.end - row.start + LONGER and length > row.start


def in_rows_order(rows: list[tuple[Row, Place | None]]) -> Iterator[Row]:
    """The rows, those in Parquet last and in the order of the file's: Parquet gives a row only with its whole group."""
    parquet = KINDS.index("parquet")
    yield from (row for row, place in rows if place is None or place.kind != parquet)
    inside = [(place.path, int(place.member), row) for row, place in rows if place is not None and place.kind == parquet]
    yield from (row for _, _, row in sorted(inside, key=lambda item: item[:2]))
