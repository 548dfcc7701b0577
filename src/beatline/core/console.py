"""What a run says: a line for each stage, a progress bar, and `log.jsonl`.

In: what a stage has to say. Out: the console, and a log. The log holds no times, only functions of the run. A
resumed run's log equals the uninterrupted run's bit for bit. Its length and hash travel in the checkpoint,
and a resume cuts it back to them.
"""

import hashlib
import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, TextIO

from beatline.core import artefact
from beatline.core.artefact import disk_errors
from beatline.core.errors import UserError


def is_first() -> bool:
    """Whether this process writes and speaks: the only process of a run, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def show(text: str) -> None:
    """Prints a result, such as a table, on standard output."""
    print(text)


def say(stage: str, message: str) -> None:
    """Prints a line, from the first process of several."""
    if is_first():
        print(f"{stage:<8} {message}", flush=True)


def is_whole(stage: str, folder: Path, key: str, value: str) -> bool:
    """Whether a stage's result is there, whole and made from the same things (`about[key] == value`).

    A damaged result is named.
    """
    artefact.recover(folder)
    about = artefact.read_contents(folder)
    if about is None or about.get(key) != value:
        return False
    try:
        artefact.verify(folder)
    except UserError as error:
        say(stage, f"{error}; making it again")
        return False
    return True


@contextmanager
def progress(stage: str, total: int) -> Iterator[Any]:
    """A progress bar on a terminal, nothing elsewhere; yields `advance(count=1, text="")`."""
    if not sys.stderr.isatty():
        yield lambda count=1, text="": None
        return
    from tqdm import tqdm

    class Bar(tqdm):
        monitor_interval = 0  # no thread beside those of the work

    Bar.set_lock(threading.RLock())
    size = get_terminal_size()  # of a terminal that has none, tqdm would show nothing
    look = {"ncols": size.columns, "nrows": size.lines, "leave": False}
    form = "{desc}{bar:40} {n_fmt}/{total_fmt}  {remaining} {postfix}"
    with Bar(total=total, desc=f"{stage:<8} ", bar_format=form, **look) as bar:

        def advance(count: int = 1, text: str | None = None) -> None:
            if text is not None:
                bar.set_postfix_str(text, refresh=False)
            bar.update(count)

        with redirect_stdout(_Above(bar, sys.stdout)) if sys.stdout.isatty() else nullcontext():
            yield advance
        bar.refresh()  # the end is drawn, however soon after the update before it


class _Above(io.TextIOBase):
    """Prints on a terminal above the bar that is drawn there."""

    def __init__(self, bar: Any, terminal: TextIO):
        self._bar, self._terminal = bar, terminal

    def write(self, text: str) -> int:
        self._bar.clear()
        self._terminal.write(text)
        self._terminal.flush()
        if text.endswith("\n"):
            self._bar.refresh()
        return len(text)

    def flush(self) -> None:
        self._terminal.flush()

    def isatty(self) -> bool:
        return True


class RunLog:
    """An append-only file of JSON lines whose prefix can be verified and restored.

    Args:
        path: The file.
        mark: `{"bytes", "sha256"}` of the prefix to keep, from `RunLog.mark`; None starts afresh.

    Raises:
        UserError: `corrupt-artefact` where the prefix is not what the mark says; `disk-full`, `not-writable`.
    """

    def __init__(self, path: Path, mark: dict[str, Any] | None):
        self.path = path
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab+")  # noqa: SIM115  (held until close)
            keep = mark["bytes"] if mark else 0
            self._file.seek(0)
            prefix = self._file.read(keep)
            self._hash = hashlib.sha256(prefix)
            if mark and (len(prefix) < keep or self._hash.hexdigest() != mark["sha256"]):
                raise UserError(
                    "corrupt-artefact",
                    f"cannot resume with {path}",
                    "it is not what it was at the last checkpoint",
                    "restore the file, or start a new run folder",
                )
            self._file.truncate(keep)
            self._bytes = keep

    def write(self, event: str, **figures: Any) -> None:
        """Appends a record; floats are written so that they read back as the same bits."""
        line = (json.dumps({"event": event, **figures}) + "\n").encode()
        with disk_errors(self.path):
            self._file.write(line)
            self._file.flush()
        self._hash.update(line)
        self._bytes += len(line)

    def mark(self) -> dict[str, Any]:
        """The log's length and hash, once it is on the disk; a checkpoint keeps them."""
        with disk_errors(self.path):
            os.fsync(self._file.fileno())
        return {"bytes": self._bytes, "sha256": self._hash.hexdigest()}

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log; a last line that was cut is left out."""
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
