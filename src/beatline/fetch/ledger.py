"""What came of every row of AudioSet's tables: present, or missing and why.

In: the rows, the files below a folder, the answers of services. Out: `fetch-ledger.jsonl`, a line a row in
the tables' order, and a summary of it. Presence is always read from the files themselves, by the reader that
`prepare` uses. Answers are kept in `fetch-answers.jsonl` while a run lasts, and in the ledger after the run.
So no service is asked twice for what it said is gone.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from beatline.core.artefact import disk_errors
from beatline.core.errors import UserError
from beatline.data.manifest.audioset import segments
from beatline.data.manifest.sources import Whereabouts, walk
from beatline.fetch import http

LEDGER = "fetch-ledger.jsonl"
ANSWERS = "fetch-answers.jsonl"
HUB = "hub"  # folder of the files from the hub
YOUTUBE = "youtube"  # folder of the files from YouTube


class Wanted(NamedTuple):
    """A row of a table."""

    table: str
    row: int
    recording: str
    start: float
    end: float
    problem: str
    """Why it can be no clip, empty where it can."""


class Answer(NamedTuple):
    """What a service said about a clip that it does not have."""

    because: str
    """A kind: `removed`, `private`, ..., `failed`."""
    reason: str
    """In the service's words."""


Key = tuple[str, float]
"""Recording and start: a clip whatever table lists it."""


def rows(folder: Path, tables: Sequence[str]) -> list[Wanted]:
    """Every row of the tables.

    Raises:
        UserError: `missing-file`, `bad-table`.
    """
    wanted = []
    for name in tables:
        path = folder / FILES.get(name, name)
        if not path.is_file():
            raise UserError(
                "missing-file",
                f"cannot find {path}",
                "AudioSet's tables are not there yet",
                f"run `beatline fetch audioset {folder}` first, or put the file there",
            )
        for number, row in enumerate(segments(path, name)):
            wanted.append(
                Wanted(
                    name,
                    number,
                    row.recording,
                    row.start,
                    row.end or 0.0,
                    row.problem[1] if row.problem else "",
                )
            )
    return wanted


FILES = {
    "balanced": "balanced_train_segments.csv",
    "eval": "eval_segments.csv",
    "unbalanced": "unbalanced_train_segments.csv",
}


def present(folder: Path, wanted: Sequence[Wanted]) -> dict[Key, tuple[str, str]]:
    """Path relative to the folder, and member of an archive, of every wanted clip that is there.

    Raises:
        UserError: `missing-file`, `missing-package`.
    """
    audio = Whereabouts({row.recording for row in wanted if not row.problem})
    audio.add_tree(walk(folder), folder)
    found = {}
    for row in wanted:
        if not row.problem and (source := audio.of(row.recording, row.start)):
            path = audio.files.path(source[0])
            found[row.recording, row.start] = (
                path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path),
                audio.files.member(source[0]),
            )
    return found


def answers(folder: Path) -> dict[Key, Answer]:
    """What services said in earlier runs, ended or killed."""
    found = {}
    for record in (*_records(folder / LEDGER), *_records(folder / ANSWERS)):
        try:
            found[str(record["id"]), float(record["start"])] = Answer(
                str(record["because"]), str(record["reason"])
            )
        except (KeyError, TypeError, ValueError):  # a row that is present, or a line that was cut
            continue
    return found


def _records(path: Path) -> Iterator[dict]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def open_answers(folder: Path) -> TextIO:
    """The file of this run's answers, to append to; a last line that was cut is ended."""
    path = folder / ANSWERS
    with disk_errors(path):
        file = path.open("a", encoding="utf-8", buffering=1)
        file.write("\n")
    return file


def answer_line(recording: str, start: float, answer: Answer) -> str:
    """A line for `open_answers`."""
    return (
        json.dumps({"id": recording, "start": start, "because": answer.because, "reason": answer.reason})
        + "\n"
    )


def write(
    folder: Path, wanted: Sequence[Wanted], found: dict[Key, tuple[str, str]], said: dict[Key, Answer]
) -> Counter:
    """Writes the ledger, and counts it by table and source or reason.

    Raises:
        UserError: `disk-full`, `not-writable`.
    """
    counts: Counter = Counter()
    partial = folder / f"{LEDGER}.partial"
    with disk_errors(partial):
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(_lines(wanted, found, said, counts))
        http.finish(partial, folder / LEDGER)
    (folder / ANSWERS).unlink(missing_ok=True)
    assert counts.total() == len(wanted)
    return counts


def _lines(
    wanted: Iterable[Wanted], found: dict[Key, tuple[str, str]], said: dict[Key, Answer], counts: Counter
) -> Iterator[str]:
    for row in wanted:
        key = row.recording, row.start
        record = {"table": row.table, "row": row.row, "id": row.recording, "start": row.start, "end": row.end}
        if key in found and not row.problem:
            path, member = found[key]
            record |= {"state": "present", "source": source_of(path), "path": path} | (
                {"member": member} if member else {}
            )
            counts[row.table, "present", source_of(path)] += 1
        else:
            because, reason = (
                ("bad-row", row.problem)
                if row.problem
                else said.get(key, Answer("not-found", "no source that was asked has it"))
            )
            record |= {"state": "missing", "because": because, "reason": reason}
            counts[row.table, "missing", because] += 1
        yield json.dumps(record, ensure_ascii=False) + "\n"


def source_of(path: str) -> str:
    """Which source a file below the folder came from."""
    parts = path.split("/")
    if parts[0] == HUB and len(parts) > 2:
        return f"{HUB} {parts[1].replace('--', '/', 1)}"
    return YOUTUBE if parts[0] == YOUTUBE else "local"


def summary(counts: Counter) -> str:
    """The counts as lines for the console."""
    lines = []
    for table in dict.fromkeys(key[0] for key in counts):
        for state in ("present", "missing"):
            parts = sorted(
                (
                    (count, what)
                    for (name, how, what), count in counts.items()
                    if (name, how) == (table, state)
                ),
                reverse=True,
            )
            lines.append(
                f"{table:<10} {state} {sum(count for count, _ in parts):>9,}"
                + (": " if parts else "")
                + ", ".join(f"{what} {count:,}" for count, what in parts)
            )
    return "\n".join(lines)
