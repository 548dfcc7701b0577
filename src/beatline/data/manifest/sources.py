"""recordings wanted -> where their audio is, in whatever layout a copy of a YouTube data set came.

In: a folder and the ids of its data set. Out: for each id the file, or the member of an archive, that holds
it. A layout is recognised by its names matching the ids, not by what its folders are called. `cut` tells
whole recordings from excerpts by the lengths in the files' headers.

Names: `<id>` or `Y<id>`; either with `_<start>` or `_<start>_<end>`, or with `-` instead of `_`. Times are in
seconds, a start by itself also in milliseconds. The extension is any of `signatures.EXTENSIONS`. Files may
lie below the folder at any depth. They may lie in tar files (also named by a JSON file beside), Parquet or
HDF5. TSV lists may name files elsewhere.

Where an id is there twice, the kind decides first. A file comes before a tar member, then rows of Parquet,
rows of HDF5, files in a TSV. Extensions in the order of `EXTENSIONS` come next, then paths.
"""

import math
import os
import re
from array import array
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from beatline.audio import archives, durations
from beatline.audio.signatures import EXTENSIONS
from beatline.core.errors import UserError
from beatline.data.manifest.rows import Files, Row, Rows
from beatline.data.manifest.table import as_text, file_in, read_text

PREFERENCE = {extension[1:]: number for number, extension in enumerate(EXTENSIONS)}
NAME = re.compile(r"([\w-]{11})(?:[_-](\d+(?:\.\d+)?)(?:[_-]\d+(?:\.\d+)?)?)?", re.ASCII)
KINDS = ("file", "tar", "parquet", "hdf5", "list")
LISTED = KINDS.index("list")
LONGER = 1.0  # seconds that an excerpt's file may be longer than the clip it holds
EVERY_FILE = 25_000  # largest folder or tar file of which every file is measured first
SPREAD = 1_000  # files measured first of a larger folder or tar file
FIRST_ROWS = 8  # rows measured first of a Parquet file


@dataclass
class Tree:
    """What is below a folder, by name."""

    listings: list[tuple[str, str]] = field(default_factory=list)
    """Each folder with its files that look like audio, their names as a text with `/` between: `folders`
    has each name by itself.
    """
    archives: list[str] = field(default_factory=list)
    tables: dict[str, Path] = field(default_factory=dict)
    """CSV and TSV files by name; of two with the same name the file nearest to the top."""
    lists: list[Path] = field(default_factory=list)
    """All TSV files."""
    unread: list[tuple[str, str]] = field(default_factory=list)
    """Folders that cannot be read, with the reason."""

    def folders(self) -> Iterator[tuple[str, list[str]]]:
        """Each folder with its files that look like audio."""
        for folder, names in self.listings:
            yield folder, names.split("/") if names else []


def walk(root: Path) -> Tree:
    """Everything below a folder, in order of name. Hidden and unfinished (`.partial`) folders are left out.
    Links are followed, each folder once.

    Raises:
        UserError: `missing-file` where the folder cannot be read.
    """
    tree = Tree()
    seen = set()
    level = [str(root)]
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
                reason = error.strerror or str(error)
                if folder == str(root):
                    raise UserError(
                        "missing-file",
                        f"cannot read folder {root}",
                        reason,
                        "check the path and its permissions",
                    ) from error
                tree.unread.append((folder, reason))
        level = below
    return tree


def _sort_entries(folder: str, entries: Iterable[os.DirEntry], tree: Tree) -> list[str]:
    """Puts a folder's files into the tree, and returns its folders."""
    folders = []
    audio = []
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
    tree.listings.append((folder, "/".join(audio)))
    return folders


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # links in a circle
        return False


class Whereabouts:
    """Where the audio of the wanted recordings is. Each has a chain of files, held as columns, for there may
    be two million.
    """

    def __init__(self, wanted: Iterable[str]):
        self._last: dict[str, int] = {}  # the newest file of each, -1 where there is none yet
        self.repeated: set[str] = set()
        """Recordings that are wanted more than once."""
        for recording in wanted:
            if recording in self._last:
                self.repeated.add(recording)
            self._last[recording] = -1
        self._kinds, self._extensions = bytearray(), bytearray()  # indices of KINDS and of EXTENSIONS
        self.files = Files()
        """Every file or member that was found."""
        self._starts, self._before = (
            array("d"),
            array("i"),
        )  # NaN where the name states no start; the file that was found before
        self.problems: list[Row] = []
        """What could not be looked at, as rows for the ledger."""

    def __len__(self) -> int:
        """How many different recordings are wanted."""
        return len(self._last)

    def add_tree(self, tree: Tree, root: Path) -> None:
        """Adds the files, archives and listed files of a tree; its folders that cannot be read are problems.

        Raises:
            UserError: `missing-package` for an archive that needs a package.
        """
        self.problems += [
            Row(
                as_text(os.path.relpath(folder, root)),
                problem=("missing-file", f"cannot read the folder: {reason}"),
            )
            for folder, reason in tree.unread
        ]
        for folder, names in tree.folders():
            self._add(((name, f"{folder}/{name}", "") for name in names), "file")
        for path in tree.archives:
            self._add_archive(Path(path), root)
        for table in tree.lists:
            if found := listed_files(table):
                files, problems = found
                self.problems += problems
                self._add(((os.path.basename(file), file, "") for file in files), "list")

    def of(self, recording: str, start: float) -> tuple[int, bool] | None:
        """Where in `files` a clip's audio is, and whether its name states that it is this very excerpt."""
        number = self._last[recording]
        if (
            number >= 0
            and self._before[number] < 0
            and math.isnan(self._starts[number])
            and self._kinds[number] != LISTED
        ):  # nearly always
            return number, False
        found = []
        while number >= 0:
            stated = self._starts[number]
            path = self.files.text(number)
            if (math.isnan(stated) or stated in (start, float(int(start)), float(round(start * 1000)))) and (
                self._kinds[number] != LISTED or os.path.exists(path)
            ):
                order = self._kinds[number], self._extensions[number], path, self.files.member(number)
                found.append((order, not math.isnan(stated), number))
            number = self._before[number]
        return (best[2], best[1]) if (best := min(found, default=None)) else None

    def kind(self, number: int) -> int:
        """Index of `KINDS` of a file in `files`."""
        return self._kinds[number]

    def _add_archive(self, path: Path, root: Path) -> None:
        where = as_text(str(path.relative_to(root)))
        entries = []
        for entry in archives.listing(path, EXTENSIONS):
            if entry.problem:
                self.problems.append(
                    Row(f"{where}: {as_text(entry.name)}" if entry.name else where, problem=entry.problem)
                )
            else:
                entries.append(entry)
        kind = archives.kind(path.name)
        self._add(((os.path.basename(entry.name), str(path), entry.member) for entry in entries), kind)
        self._add(
            ((os.path.basename(entry.also), str(path), entry.member) for entry in entries if entry.also), kind
        )

    def _add(self, names: Iterable[tuple[str, str, str]], kind: str) -> None:
        number = KINDS.index(kind)
        for name, path, member in names:
            stem, extension = split_name(name)
            found = match_id(stem, self._last)
            if found is None:
                continue
            recording, start = found.groups()
            self._kinds.append(number)
            self._extensions.append(extension)
            self.files.append(path, member)
            self._starts.append(math.nan if start is None else float(start))
            self._before.append(self._last[recording])
            self._last[recording] = len(self._before) - 1


def split_name(name: str) -> tuple[str, int]:
    """A name without its extension, and the extension's index in the order of preference."""
    stem, _, extension = name.rpartition(".")
    number = PREFERENCE.get(extension.lower())
    return (name, len(EXTENSIONS)) if number is None else (stem, number)


def match_id(stem: str, wanted: Container[str]) -> re.Match | None:
    """A name read as id and start, as it stands or without a leading Y. Ids have 11 characters, so no name
    can be read both ways.
    """
    for skip in (0, 1) if stem.startswith("Y") else (0,):
        found = NAME.fullmatch(stem, skip)
        if found and found[1] in wanted:
            return found
    return None


def listed_files(table: Path) -> tuple[list[str], list[Row]] | None:
    """The files that a TSV manifest lists, a folder on its first line and `path<TAB>samples` after it, and
    bad rows; None for any other table.

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
    files = []
    problems = []
    for number, line in enumerate(lines[1:], 2):
        path, problem = file_in(folder, line.partition("\t")[0])
        if problem:
            problems.append(Row(f"{as_text(table.name)} line {number}", problem=problem))
        else:
            files.append(str(path))
    return files, problems


# --- whole recordings


def cut(rows: Rows, containers: dict[tuple[int, str], array]) -> int:
    """How many rows keep their start and end, because their file is the whole recording.

    Rows whose file is the excerpt already lose start and end.

    A file is the whole recording where its header states enough seconds. These are more than `LONGER` beyond
    the clip's length, and more than the clip's start. Up to `EVERY_FILE` files of each folder or tar file are
    measured. Of a larger folder it is `SPREAD` files, of a Parquet file `FIRST_ROWS` rows. Where a file is a
    whole recording, all others are measured too. Rows of HDF5 are excerpts.

    Args:
        containers: The rows that have audio in a folder or an archive, by its kind and name. Rows are in the
            order in which the archive is fast to read.
    """
    return sum(_cut_alike(rows, KINDS[kind], numbers) for (kind, _), numbers in containers.items())


def _cut_alike(rows: Rows, kind: str, numbers: array) -> int:
    """As `cut`, for the rows of a folder or archive."""
    if kind == "hdf5":
        most = 0
    elif kind == "parquet":
        most = FIRST_ROWS
    elif len(numbers) <= EVERY_FILE:
        most = len(numbers)
    else:
        most = SPREAD
    step = 1 if kind == "parquet" else max(1, len(numbers) // max(1, most))
    sample = numbers[: most * step : step]
    whole = {number for number in sample if _is_whole(rows.row(number))}
    if whole and len(sample) < len(numbers):
        whole = {number for number in numbers if _is_whole(rows.row(number))}
    for number in numbers:
        if number not in whole:
            rows.uncut(number)
    return len(whole)


def _is_whole(row: Row) -> bool:
    try:
        with archives.opened(row.path, row.member) as (read_at, size):
            length = durations.seconds(read_at, size)
    except (UserError, OSError):  # decoding it will say why
        return False
    return (
        length is not None
        and row.end is not None
        and length > row.end - row.start + LONGER
        and length > row.start
    )
