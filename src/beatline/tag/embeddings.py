"""embeddings as they come -> a folder, whole or not at all.

In: parts of recordings, as `AudioTagger.embeddings` yields them. Out: `embeddings.npy` and `times.npy` with
the table `clips.csv`, or `embeddings.parquet`; and the ledger `ledger.jsonl`. Every part is on disk before
the next is asked for. Imports no torch, and pyarrow only for Parquet.
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from beatline.core import artefact, packages
from beatline.core.errors import UserError
from beatline.data.manifest.table import as_text
from beatline.model.geometry import TOKENS_OF_A_STEP
from beatline.tag.result import Embedded, EmbeddingLevel, Refused

Form = Literal["npy", "parquet"]

ROWS = "embeddings.npy"
TIMES = "times.npy"
CLIPS = "clips.csv"
LEDGER = "ledger.jsonl"
PARQUET = "embeddings.parquet"
AT_ONCE = 4096  # rows of a group of Parquet


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a folder of embeddings holds."""

    recordings: int
    rows: int
    width: int
    seconds: float
    """Of sound."""
    refused: UserError | None
    """The last refusal, if any."""


def check(folder: Path, form: Form) -> None:
    """Says what cannot be before anything is embedded.

    Raises:
        UserError: `not-writable` for a folder that is there; `missing-package`.
    """
    artefact.refuse_existing(folder)
    if form == "parquet":
        packages.need("format parquet", "pyarrow")


def write(
    parts: Iterable[Embedded | Refused],
    folder: Path,
    form: Form,
    level: EmbeddingLevel,
    about: dict[str, Any],
) -> Written:
    """Publishes the folder. A refused recording has a line on standard error and a line in the ledger, and
    leaves no row.

    Args:
        about: JSON facts for the contents of the folder.

    Raises:
        UserError: `no-clips` where nothing could be embedded, and then nothing is published; `disk-full`,
            `not-writable`.
    """
    facts = {"kind": "embeddings", "level": level} | about
    recordings = 0
    seconds = 0.0
    refused: UserError | None = None
    with artefact.publish(folder, facts) as partial:
        with ExitStack() as stack:
            rows, times = (stack.enter_context(_Array(partial / name)) for name in (ROWS, TIMES))
            table = stack.enter_context((partial / CLIPS).open("w", encoding="utf-8", newline=""))
            ledger = stack.enter_context((partial / LEDGER).open("w", encoding="utf-8"))
            lines = csv.writer(
                table, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
            )  # else a carriage return in a name would be read as a line's end
            lines.writerow(["file", "begin", "end", "seconds", "note"])
            begin = 0
            for part in parts:
                if isinstance(part, Refused):
                    refused = part.error
                    print(f"beatline: {refused}", file=sys.stderr)
                    ledger.write(
                        json.dumps(
                            {
                                "input": as_text(part.source),
                                "status": "rejected",
                                "code": refused.code,
                                "reason": as_text(refused.cause),
                            }
                        )
                        + "\n"
                    )
                    rows.cut(begin)
                    times.cut(begin)
                    continue
                rows.add(part.rows)
                times.add(part.times)
                if part.seconds is not None:
                    lines.writerow(
                        [as_text(part.source), begin, rows.count, round(part.seconds, 3), as_text(part.note)]
                    )
                    ledger.write(
                        json.dumps(
                            {
                                "input": as_text(part.source),
                                "status": "ok",
                                **({"note": as_text(part.note)} if part.note else {}),
                            }
                        )
                        + "\n"
                    )
                    begin = rows.count
                    recordings += 1
                    seconds += part.seconds
        if not recordings:
            raise UserError(
                "no-clips",
                f"cannot write {folder}",
                "none of the recordings could be read",
                "check the files",
            )
        if form == "parquet":
            _to_parquet(partial, level, rows.count, rows.width)
        facts |= {
            "recordings": recordings,
            "rows": rows.count,
            "width": rows.width,
        }  # sealed with the folder, which comes next
    return Written(recordings=recordings, rows=rows.count, width=rows.width, seconds=seconds, refused=refused)


class _Array:
    """A `.npy` file that grows by rows."""

    def __init__(self, path: Path):
        self.count = self.width = 0
        self._file = path.open("wb")
        self._type = np.dtype(np.float32)
        self._begin = 0

    def __enter__(self) -> "_Array":
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._head()

    def _head(self) -> None:
        """Writes the header, which has room for every number of rows."""
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": self._type.str, "fortran_order": False, "shape": (self.count, self.width)}
        )
        self._begin = self._begin or self._file.tell()
        assert self._begin == self._file.tell()

    def add(self, rows: np.ndarray) -> None:
        if not self._begin:
            self.width = rows.shape[1]
            self._type = rows.dtype
            self._head()
        self._file.write(np.ascontiguousarray(rows).data)
        self.count += len(rows)

    def cut(self, count: int) -> None:
        """Takes back all rows but the first `count`."""
        if count < self.count:
            self._file.truncate(self._begin + count * self.width * self._type.itemsize)
            self._file.seek(0, 2)
            self.count = count


def _to_parquet(folder: Path, level: EmbeddingLevel, count: int, width: int) -> None:
    """Turns the arrays and the table of recordings into a Parquet table: a row for each embedding."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    columns = [("file", pa.string()), ("onset", pa.float64()), ("offset", pa.float64())] + [
        ("band", pa.int8())
    ] * (level == "token")
    schema = pa.schema([*columns, ("embedding", pa.list_(pa.float32(), width))])
    with ParquetWriter(folder / PARQUET, schema, compression="zstd") as writer:
        for name, rows, times in _pieces(folder, width):
            values = {
                "file": pa.array([name] * len(rows)),
                "onset": pa.array(times[:, 0]),
                "offset": pa.array(times[:, 1]),
            }
            if level == "token":  # a part of a recording has whole time steps
                values["band"] = pa.array(np.arange(len(rows), dtype=np.int8) % TOKENS_OF_A_STEP)
            values["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width)
            writer.write_table(pa.table(values, schema=schema))
    for name in (ROWS, TIMES, CLIPS):
        (folder / name).unlink()


def _pieces(folder: Path, width: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, embeddings and times of each recording's rows, at most `AT_ONCE` rows at a time."""
    with (
        (folder / ROWS).open("rb") as rows,
        (folder / TIMES).open("rb") as times,
        (folder / CLIPS).open(encoding="utf-8", newline="") as table,
    ):
        for file in (rows, times):
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
        for line in csv.DictReader(table):
            left = int(line["end"]) - int(line["begin"])
            while left:
                count = min(left, AT_ONCE)
                yield (
                    line["file"],
                    np.fromfile(rows, np.float32, count * width).reshape(-1, width),
                    np.fromfile(times, np.float64, count * 2).reshape(-1, 2),
                )
                left -= count
