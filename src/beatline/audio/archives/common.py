"""What the readers of archives share: an entry, an error without the archive's name, a regular file.

In: a path. Out: a descriptor of a regular file and nothing else, or `ArchiveError`. See `archives`.
"""

import importlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beatline.core.errors import UserError
from beatline.core.limits import LIMITS

ID_KEYS = (
    "video_id",
    "ytid",
    "youtube_id",
    "segment_id",
    "id",
    "__key__",
    "key",
    "filename",
    "file_name",
    "file",
    "audio_id",
)
"""Columns and JSON keys that may hold a recording's id, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in an archive that looks like audio, or that could not be looked at."""

    member: str
    """What `read` takes."""
    name: str
    """What the archive calls it: a tar member's name, the id in a row."""
    also: str = ""
    """A second name: the id in the JSON file that belongs to a WebDataset sample."""
    problem: tuple[str, str] | None = None
    """Code and reason, where it cannot be read."""


class ArchiveError(Exception):
    """A `UserError` that does not know the archive's name yet."""

    def __init__(self, code: str, cause: str):
        super().__init__(cause)
        self.code, self.cause = code, cause


@contextmanager
def regular(path: Path) -> Iterator[int]:
    """A descriptor of the file; never of a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise ArchiveError("missing-file", getattr(error, "strerror", None) or str(error)) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ArchiveError("not-a-file", "it is not a file")
        yield descriptor
    finally:
        os.close(descriptor)


def package(name: str, path: Path) -> Any:
    """The module that reading the file needs.

    Raises:
        UserError: `missing-package`.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            "missing-package",
            f"cannot read {path}",
            f"it needs the package {name.split('.')[0]}",
            "pip install 'beatline[data]'",
        ) from error


def check_size(size: int) -> None:
    """Refuses a member of this many bytes where that is too much."""
    if size > LIMITS.max_member_bytes:
        raise ArchiveError("too-large", f"{size} bytes are more than {LIMITS.max_member_bytes}")
