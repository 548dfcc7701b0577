"""Rows and clips, and how two million of them fit into memory.

In: rows, each in its turn. Out: the same rows and the clips made of them, by index. What is held are columns,
about 120 bytes a row. A row or a clip is an object only while somebody looks at it.
"""

import math
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from operator import eq
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar, overload

Event = tuple[float, float, str]
"""Start and end in seconds from the clip's start, and a mid."""
Problem = tuple[str, str]
"""Code and reason, of an input that is no clip."""

NOWHERE = Path()
NAMED = "\0"  # in a reason: the recording's name

V = TypeVar("V", bound=Hashable)
T = TypeVar("T")


class Clip(NamedTuple):
    """A labelled excerpt of a recording."""

    id: str
    """Unique in the manifest."""
    recording: str
    """Clips of the same recording never stand on both sides of a split."""
    path: Path
    """Audio file."""
    labels: tuple[str, ...]
    """Mids; none under `data.unlabelled` alone."""
    start: float = 0.0
    """Seconds into the file."""
    end: float | None = None
    """Seconds into the file; None is its end."""
    member: str = ""
    """What of the file it is, as `archives` names it. An offset in a tar file, a row of Parquet or HDF5.
    Empty where the file is the audio itself.
    """
    events: tuple[Event, ...] = ()
    """When its labels sound, in order of time, where the data says so; empty otherwise."""


class Rejected(NamedTuple):
    """An input that did not become a clip."""

    input: str
    """The clip's id, or the line of its table."""
    code: str
    """A key of `errors.EXIT_CODES`."""
    reason: str
    """Why, as a clause."""
    labels: tuple[str, ...] = ()
    """Mids it would have had, as far as known."""
    split: str = ""
    """Split it would have been in, as far as known."""


@dataclass(slots=True)
class Row:
    """One input as read: labels as written, not yet checked against a label set."""

    id: str
    path: Path = NOWHERE
    recording: str = ""
    labels: Sequence[str] = ()
    splits: tuple[str, ...] = ()
    start: float = 0.0
    end: float | None = None
    problem: Problem | None = None
    """Where the row is already known to be no clip."""
    member: str = ""
    events: tuple[Event, ...] = ()


class View(Sequence[T], Generic[T]):
    """Rows, or a part of each, made when it is asked for."""

    def __init__(self, numbers: array, make: Callable[[int], T]):
        self._numbers = numbers
        self._make = make

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return (
            tuple(map(self._make, self._numbers[index]))
            if isinstance(index, slice)
            else self._make(self._numbers[index])
        )

    def __iter__(self) -> Iterator[T]:
        return map(self._make, self._numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]


class Texts:
    """Texts in a row, each at its length and 8 bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Adds it at the end."""
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogatepass")


class Alike(Generic[V]):
    """Values of which few differ, 4 bytes each."""

    def __init__(self) -> None:
        self._numbers: dict[V, int] = {}
        self.values: list[V] = []
        """The different values."""
        self._indices = array("i")

    def _number(self, value: V) -> int:
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
        return number

    def append(self, value: V) -> None:
        """Adds it at the end."""
        self._indices.append(self._number(value))

    def __setitem__(self, index: int, value: V) -> None:
        self._indices[index] = self._number(value)

    def __getitem__(self, index: int) -> V:
        return self.values[self._indices[index]]


class Words:
    """Tuples of texts of which few differ: 4 bytes a text, and 8."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.values: list[str] = []
        """The different values."""
        self._indices, self._ends = array("i"), array("q", [0])

    def append(self, words: Sequence[str]) -> None:
        """Adds it at the end."""
        for word in words:
            if word not in self._numbers:
                self._numbers[word] = len(self.values)
                self.values.append(word)
        self._indices.extend(map(self._numbers.__getitem__, words))
        self._ends.append(len(self._indices))

    def __getitem__(self, index: int) -> tuple[str, ...]:
        return tuple(map(self.values.__getitem__, self._indices[self._ends[index] : self._ends[index + 1]]))


class Files:
    """Files and what of them is meant: folders once, names each."""

    def __init__(self) -> None:
        self._folders = Alike[str]()
        self._names = Texts()
        self._members = Texts()
        self._folder = cache(Path)

    def __len__(self) -> int:
        return len(self._names)

    def append(self, path: str, member: str = "") -> None:
        """Adds it at the end."""
        cut = path.rfind("/") + 1
        self._folders.append(path[:cut])
        self._names.append(path[cut:])
        self._members.append(member)

    def member(self, index: int) -> str:
        """What of the file is meant."""
        return self._members[index]

    def text(self, index: int) -> str:
        """A file's path as text."""
        return self._folders[index] + self._names[index]

    def path(self, index: int) -> Path:
        """A file's path: made from its folder it costs two thirds of a path made from its text."""
        return self._folder(self._folders[index]) / self._names[index]

    def container(self, index: int) -> str:
        """The archive that a member is in, or the folder of a file."""
        return self.text(index) if self._members[index] else self._folders[index]


class Rows:
    """Rows, held as columns."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._ids, self._recordings, self._labels, self._splits = (
            Texts(),
            Texts(),
            Words(),
            Alike[tuple[str, ...]](),
        )
        self._starts, self._ends = array("d"), array("d")  # an end that is not known is NaN
        self._problems = Alike[Problem | None]()
        self._events: dict[int, tuple[Event, ...]] = {}
        self.files = Files()
        """Where their audio is."""
        self._file_of = array("i")  # index in files, -1 where it is not known
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return len(self._starts)

    def append(self, row: Row) -> None:
        """Adds a row."""
        if row.events:
            self._events[len(self)] = row.events
        self._ids.append(row.id)
        self._recordings.append(row.recording)
        self._labels.append(row.labels)
        self._splits.append(row.splits)
        self._starts.append(row.start)
        self._ends.append(math.nan if row.end is None else row.end)
        self._problems.append(row.problem)
        if row.path is NOWHERE:
            self._file_of.append(-1)
        else:
            self._file_of.append(len(self.files))
            self.files.append(str(row.path), row.member)

    def found(self, number: int, file: int) -> None:
        """Says where in `files` a row's audio is."""
        self._file_of[number] = file

    def refuse(self, number: int, problem: Problem) -> None:
        """Says why a row is no clip; `NAMED` in the reason stands for the recording's name."""
        self._problems[number] = problem

    def uncut(self, number: int) -> None:
        """Takes start and end from a row: its file is the excerpt already."""
        self._starts[number], self._ends[number] = 0.0, math.nan

    def id(self, number: int) -> str:
        """As `Row.id`."""
        return self._ids[number]

    def recording(self, number: int) -> str:
        """As `Row.recording`."""
        return self._recordings[number]

    def labels(self, number: int) -> tuple[str, ...]:
        """As `Row.labels`."""
        return self._labels[number]

    def splits(self, number: int) -> tuple[str, ...]:
        """As `Row.splits`."""
        return self._splits[number]

    def file(self, number: int) -> tuple[str, str]:
        """`Row.path` as text, and `Row.member`."""
        file = self._file_of[number]
        return (str(NOWHERE), "") if file < 0 else (self.files.text(file), self.files.member(file))

    def start(self, number: int) -> float:
        """As `Row.start`."""
        return self._starts[number]

    def problem(self, number: int) -> Problem | None:
        """As `Row.problem`."""
        problem = self._problems[number]
        return problem and (problem[0], problem[1].replace(NAMED, self._recordings[number]))

    def all_labels(self) -> list[str]:
        """Every label of any row."""
        return self._labels.values

    def any_splits(self) -> bool:
        """Whether any row names a split."""
        return any(self._splits.values)

    def row(self, number: int) -> Row:
        """A row as an object."""
        clip = self.clip(number, self.labels(number))
        return Row(
            clip.id,
            clip.path,
            clip.recording,
            clip.labels,
            self.splits(number),
            clip.start,
            clip.end,
            self.problem(number),
            clip.member,
            clip.events,
        )

    def clip(self, number: int, mids: tuple[str, ...]) -> Clip:
        """A row as a clip with these labels."""
        file = self._file_of[number]
        end = self._ends[number]
        events = self._events.get(number, ())
        path, member = (NOWHERE, "") if file < 0 else (self.files.path(file), self.files.member(file))
        return Clip(
            self._ids[number],
            self._recordings[number],
            path,
            mids,
            self._starts[number],
            None if math.isnan(end) else end,
            member,
            events,
        )
