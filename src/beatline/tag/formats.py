"""results -> text and tables, for people and for the programs of the field.

In: `Result`s as they come. Out: pieces of text, or a Parquet file, each result written before the next is
asked for. Tables have the columns of `tag.result.ResultRow`; formats for annotation programs hold events.
Imports no torch, and pyarrow only for Parquet.
"""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from beatline.audio.samples import SAMPLE_RATE
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.text import printable
from beatline.tag.result import Level, Refused, Result, ResultRow

Results = Iterable[Result]
ROWS_AT_ONCE = 100_000  # of a group in Parquet


@dataclass(frozen=True)
class Choice:
    """Which part of a result is written; see `Result.rows`."""

    level: Level = "clip"
    count: int | None = None
    """Most labels of a clip or a window, None for all."""
    threshold: float | np.ndarray = 0.0
    """Lowest score of a clip or a window."""

    def rows(self, result: Result) -> Iterator[ResultRow]:
        """The result's lines."""
        return result.rows(self.level, self.count, self.threshold)


def table(results: Results, choice: Choice) -> Iterator[str]:
    """For people: a heading for each recording, a line for each label."""
    for result in results:
        lines = [
            f"{_line(result.source)}  {result.seconds:.1f} s" + (f"  ({result.note})" if result.note else "")
        ]
        for row in choice.rows(result):
            when = "" if choice.level == "clip" else f"{row.onset:9.2f} {row.offset:9.2f}"
            lines.append(f"{when}  {row.score:6.3f}  {_line(row.name)}")
        yield "\n".join(lines) + "\n"


def jsonl(results: Results, choice: Choice) -> Iterator[str]:
    """A line of JSON for each recording, as `Result.to_dict`."""
    for result in results:
        values = result.to_dict(choice.count, choice.threshold, windows=choice.level == "windows")
        yield json.dumps(values | {"file": _text(result.source)}, ensure_ascii=False) + "\n"


def json_list(results: Results, choice: Choice) -> Iterator[str]:
    """All recordings as a list in JSON."""
    before = "["
    for line in jsonl(results, choice):
        yield before + "\n" + line.removesuffix("\n")
        before = ","
    yield "\n]\n" if before == "," else "[]\n"


def csv_rows(results: Results, choice: Choice) -> Iterator[str]:
    """A heading, then each `ResultRow`."""
    yield _csv(*ResultRow._fields)
    for result in results:
        yield from (
            _csv(row.file, f"{row.onset:.3f}", f"{row.offset:.3f}", row.mid, row.name, f"{row.score:.6f}")
            for row in choice.rows(result)
        )


def audacity(results: Results, choice: Choice) -> Iterator[str]:
    """A label track: begin, end and text, between tabs. It names no file.

    Source: Audacity's manual, "Importing and Exporting Labels", the standard format.
    """
    for result in results:
        yield from (_tabbed(f"{row.onset:.6f}", f"{row.offset:.6f}", row.name) for row in choice.rows(result))


def rttm(results: Results, choice: Choice) -> Iterator[str]:
    """Ten fields between spaces, of a SPEAKER object whose name is the label. A recording is called by its
    file's name without extension.

    White space within a field becomes `_`. The ninth field is the score.
    Source: Appendix A of NIST's RT-09 evaluation plan.
    """
    for result in results:
        for row in choice.rows(result):
            yield (
                f"SPEAKER {_word(Path(result.source).stem)} 1 {row.onset:.3f} "
                f"{row.offset - row.onset:.3f} <NA> <NA> {_word(row.name)} {row.score:.6f} <NA>\n"
            )


def raven(results: Results, choice: Choice) -> Iterator[str]:
    """A selection table: tabs, a heading, seconds and Hz. Begin and end count through all recordings in
    order, as Raven does for files opened as one sound.

    Source: Raven Pro 1.4 User's Manual, on selection tables and the measurements Begin Path and File Offset.
    These say which file, and where in it.
    """
    yield _tabbed(
        "Selection",
        "View",
        "Channel",
        "Begin Time (s)",
        "End Time (s)",
        "Low Freq (Hz)",
        "High Freq (Hz)",
        "Begin Path",
        "File Offset (s)",
        "Label",
        "MID",
        "Score",
    )
    number = 0
    before = 0.0
    for result in results:
        for row in choice.rows(result):
            number += 1
            times = f"{before + row.onset:.6f}", f"{before + row.offset:.6f}"
            yield _tabbed(
                str(number),
                "Spectrogram 1",
                "1",
                *times,
                "0.0",
                f"{SAMPLE_RATE / 2}",
                result.source,
                f"{row.onset:.6f}",
                row.name,
                row.mid,
                f"{row.score:.6f}",
            )
        before += result.seconds


def dcase(results: Results, choice: Choice) -> Iterator[str]:
    """Four columns between tabs, with a heading; a recording is called by its file's name without folders.

    Source: the system output of DCASE 2018 to 2024, task 4, as sed_eval reads it.
    """
    yield _tabbed("filename", "onset", "offset", "event_label")
    for result in results:
        yield from (
            _tabbed(Path(result.source).name, f"{row.onset:.3f}", f"{row.offset:.3f}", row.name)
            for row in choice.rows(result)
        )


def parquet(results: Results, choice: Choice, file: BinaryIO) -> None:
    """Each `ResultRow`, in groups of 100 000.

    Raises:
        UserError: `missing-package`.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise UserError(
            "missing-package", "format parquet", "pyarrow is not installed", "pip install 'beatline[data]'"
        ) from error
    types = (
        pyarrow.string(),
        pyarrow.float64(),
        pyarrow.float64(),
        pyarrow.string(),
        pyarrow.string(),
        pyarrow.float32(),
    )
    schema = pyarrow.schema(list(zip(ResultRow._fields, types, strict=True)))
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:

        def put(rows: list[ResultRow]) -> None:
            columns = zip(*rows, strict=True)
            writer.write_table(
                pyarrow.table(
                    [pyarrow.array(column, form) for column, form in zip(columns, types, strict=True)],
                    schema=schema,
                )
            )

        waiting: list[ResultRow] = []
        for result in results:
            for row in choice.rows(result):
                waiting.append(row._replace(file=_text(row.file)))
                if len(waiting) == ROWS_AT_ONCE:
                    put(waiting)
                    waiting = []
        if waiting:
            put(waiting)


TEXTS: dict[str, Callable[[Results, Choice], Iterator[str]]] = {
    "table": table,
    "json": json_list,
    "jsonl": jsonl,
    "csv": csv_rows,
    "audacity": audacity,
    "rttm": rttm,
    "raven": raven,
    "dcase": dcase,
}
"""What writes a format, by its name: results and a choice in, text out."""
OF_EVENTS = ("audacity", "rttm", "raven", "dcase")
"""Formats that hold events only."""


def names() -> tuple[str, ...]:
    """Every format."""
    return (*TEXTS, "parquet")


def check(name: str, sources: list[str], out: Path | None) -> None:
    """Says what a format cannot do before any recording is tagged.

    Raises:
        UserError: `bad-usage`, `not-writable`.
    """
    if name == "parquet" and out is None:
        raise UserError("bad-usage", "format parquet", "it is not for a terminal or a pipe", "add --out FILE")
    if out is not None and out.exists() and not out.is_file():
        raise UserError("not-writable", f"cannot write {out}", "it is there and is no file", "name another")
    if name == "audacity" and len(sources) > 1:
        raise UserError(
            "bad-usage",
            "format audacity",
            f"a label track belongs to one recording, not {len(sources)}",
            "tag each alone, or take --format raven",
        )
    called = {
        "rttm": [_word(Path(source).stem) for source in sources],
        "dcase": [Path(source).name for source in sources],
    }.get(name)
    if called:
        twice, times = Counter(called).most_common(1)[0]
        if times > 1:
            raise UserError(
                "bad-usage",
                f"format {name}",
                f"{times} recordings would be called {twice!r} in it",
                "tag each alone, or take --format csv",
            )


def write(
    results: Iterable[Result | Refused], name: str, choice: Choice, out: Path | None = None
) -> UserError | None:
    """The last refusal, if any. Writes each result as it comes, and a line on standard error for each refused
    file.

    Args:
        name: A key of `TEXTS`, or `parquet`.
        out: The file, which is there once it is whole; None is standard output, but not for Parquet.

    Raises:
        UserError: `missing-package`, `disk-full`, `not-writable`.
    """
    refused: list[UserError] = []

    def good() -> Iterator[Result]:
        for result in results:
            if isinstance(result, Refused):
                refused[:] = [result.error]
                print(f"beatline: {result.error}", file=sys.stderr)
            else:
                yield result

    if name == "parquet":
        assert out is not None  # see `check`
        with artefact.replacing(out) as file:
            parquet(good(), choice, file)
    else:
        with _printed(out) as put:
            for text in TEXTS[name](good(), choice):
                put(text)
    return refused[-1] if refused else None


@contextmanager
def _printed(out: Path | None) -> Iterator[Callable[[str], Any]]:
    """A function that writes text to the file or to standard output."""
    if out is None:
        yield lambda text: print(text, end="", flush=True)
        return
    with artefact.replacing(out) as file:
        yield lambda text: file.write(text.encode())


def _text(name: str) -> str:
    """A file's name as text; bytes that are no text are shown as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _line(text: str) -> str:
    """The text without line breaks, tabs and other controls, which are shown as escapes."""
    return printable(_text(text))


def _word(text: str) -> str:
    return "_".join(_line(text).split(" ")) or "_"


def _tabbed(*cells: str) -> str:
    return "\t".join(map(_line, cells)) + "\n"


def _csv(*cells: str) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([_line(cell) for cell in cells])
    return out.getvalue()
