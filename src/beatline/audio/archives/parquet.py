"""Parquet files as Hugging Face stores audio: a column of `{bytes, path}` beside a column with the id.

A row can be had only with its whole group. So rows are read forwards, and the position is kept for the next
call.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from beatline.audio.archives.common import ID_KEYS, ArchiveError, Entry, check_size, package, regular
from beatline.core.limits import LIMITS


def entries(path: Path, extensions: tuple[str, ...]) -> Iterator[Entry]:
    """The rows of audio, by their ids; a row without an id by its number, from 0."""
    with _damage(_opened(path)) as file, file:
        audio, name = _columns(file)
        if not audio:
            return
        if not name:
            yield from (Entry(str(row), str(row)) for row in range(file.metadata.num_rows))
            return
        row = 0
        for batch in file.iter_batches(batch_size=4096, columns=[name], use_threads=False):
            values = batch.column(0)
            if "." in name:
                values = values.field(0)
            for value in values.to_pylist():
                yield Entry(str(row), str(value or row))
                row += 1


def _opened(path: Path) -> Any:
    """The Parquet file, opened; what pyarrow refuses is a damaged archive."""
    with regular(path) as descriptor:
        magic = os.pread(descriptor, 4, 0)
    if magic != b"PAR1":
        raise ArchiveError("bad-archive", "it is no Parquet file")
    with _damage(package("pyarrow.parquet", path).ParquetFile) as open_file:
        return open_file(path, buffer_size=1 << 16, pre_buffer=False)


@contextmanager
def _damage(value: Any) -> Iterator[Any]:
    """The value; whatever pyarrow raises inside is damage, because pyarrow has no single class for damage."""
    try:
        yield value
    except (ArchiveError, GeneratorExit):
        raise
    except Exception as error:
        raise ArchiveError("bad-archive", f"it is damaged ({' '.join(str(error).split())[:200]})") from error


def _columns(file: Any) -> tuple[str, str]:
    """The leaf columns of audio and of its name; empty where there is none."""
    leaves = {column.path: column for column in (file.schema.column(i) for i in range(len(file.schema)))}
    binary = [
        path
        for path, leaf in leaves.items()
        if leaf.physical_type == "BYTE_ARRAY"
        and leaf.logical_type.type == "NONE"
        and leaf.max_repetition_level == 0
    ]
    audio = next((path for path in binary if path.endswith(".bytes")), binary[0] if binary else "")
    names = [*ID_KEYS, *(f"json.{key}" for key in ID_KEYS), audio.removesuffix("bytes") + "path"]
    return audio, next(
        (name for name in names if name in leaves and leaves[name].physical_type == "BYTE_ARRAY"), ""
    )


class _Rows:
    """A Parquet file's audio read forwards; going back begins the group of rows again."""

    def __init__(self, path: Path, state: tuple[int, ...]):
        self.path = path
        self.state = state
        self._file = _opened(path)
        self._audio = _columns(self._file)[0]
        self._group = -1
        self._next = 0
        self._batches: Iterator[Any] = iter(())

    def row(self, number: int) -> bytes:
        group, first = self._group_of(number)
        if group != self._group or first + self._next > number:
            self._open(group)
        while first + self._next <= number:
            batch = next(self._batches)
            self._next += 1
        column = batch.column(0)
        value = column.field(0)[0] if "." in self._audio else column[0]
        if not value.is_valid:
            raise ArchiveError("bad-archive", "its row has no audio")
        check_size(value.as_buffer().size)
        return value.as_py()

    def _group_of(self, number: int) -> tuple[int, int]:
        first = 0
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if number < first + rows:
                return group, first
            first += rows
        raise ArchiveError("bad-archive", "it has changed since it was listed")

    def _open(self, group: int) -> None:
        about = self._file.metadata.row_group(group)
        size = sum(
            about.column(i).total_uncompressed_size
            for i in range(about.num_columns)
            if about.column(i).path_in_schema == self._audio
        )
        if size > LIMITS.max_row_group_bytes:
            raise ArchiveError(
                "too-large",
                f"a group of its rows has {size} bytes of audio, more than {LIMITS.max_row_group_bytes}",
            )
        self._group = group
        self._next = 0
        self._batches = self._file.iter_batches(
            batch_size=1, row_groups=[group], columns=[self._audio], use_threads=False
        )


_rows: _Rows | None = None  # the file read last: clips come in the order of its rows
_rows_lock = Lock()


def content(path: Path, member: str) -> bytes:
    """The audio in a row; of the file read last the position is kept."""
    global _rows
    with _rows_lock:
        with regular(path) as descriptor:
            facts = os.fstat(descriptor)
        state = (
            os.getpid(),
            facts.st_ino,
            facts.st_size,
            facts.st_mtime_ns,
        )  # a fork must not share the position in the file
        if _rows is None or (_rows.path, _rows.state) != (path, state):
            _rows = None
            _rows = _Rows(path, state)
        reader, _rows = _rows, None  # after a failure it does not stay
        with _damage(reader):
            found = reader.row(int(member))
        _rows = reader
        return found
