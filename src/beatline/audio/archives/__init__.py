"""audio in an archive -> its bytes: a member of a tar file, a row of Parquet or HDF5.

In: an archive, and the name of a member. Out: `listing` gives the members, `read` an audio file's bytes.
Nothing is ever unpacked to disk. A name that leaves the archive's own folder, a link or a device is listed
with its problem. Sizes are checked before anything is read. pyarrow and h5py (extra `data`) are imported
where a file needs them. Imports no torch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beatline.audio.archives import hdf5, parquet, tar
from beatline.audio.archives.common import ArchiveError, Entry, regular
from beatline.audio.signatures import ReadAt
from beatline.core.errors import UserError

__all__ = ["Entry", "kind", "listing", "opened", "read"]

KINDS = {
    ".tar": "tar",
    ".tgz": "tar",
    ".tar.gz": "tar",
    ".tar.bz2": "tar",
    ".tar.xz": "tar",
    ".tar.zst": "tar",
    ".parquet": "parquet",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
}
READERS: dict[str, Any] = {"tar": tar, "parquet": parquet, "hdf5": hdf5}
REMEDY = "get the archive again, or leave it out"


def kind(name: str) -> str:
    """`tar`, `parquet`, `hdf5`, or empty for a file that is no archive, by its name."""
    lower = name.lower()
    return next((kind for extension, kind in KINDS.items() if lower.endswith(extension)), "")


def listing(path: Path, extensions: tuple[str, ...]) -> Iterator[Entry]:
    """The audio in an archive, in its order; a damaged archive ends with an entry that says so. A table
    without audio gives nothing.

    Args:
        extensions: Of tar members that count as audio, lower case with the dot.

    Raises:
        UserError: `missing-package`.
    """
    try:
        yield from READERS[kind(path.name)].entries(path, extensions)
    except ArchiveError as error:
        yield Entry("", "", problem=(error.code, error.cause))


def read(path: Path, member: str) -> bytes:
    """The bytes of an audio file in an archive; int16 rows of HDF5 come as WAV.

    Holds what it returns, and for Parquet a group of rows. The group stays for the next call, because rows
    are fast in their own order only.

    Raises:
        UserError: `missing-file`, `not-a-file`, `bad-archive`, `too-large`, `missing-package`.
    """
    try:
        return READERS[kind(path.name)].content(path, member)
    except ArchiveError as error:
        raise UserError(error.code, f"cannot use {path} ({member})", error.cause, REMEDY) from error.__cause__


@contextmanager
def opened(path: Path, member: str = "") -> Iterator[tuple[ReadAt, int]]:
    """A reader of any part of a file or a member, and its size in bytes. Of tar members and files only the
    parts asked for are read.

    Raises:
        UserError: as `read`.
    """
    if member and kind(path.name) != "tar":
        content = read(path, member)
        yield lambda offset, count: content[offset : offset + count], len(content)
        return
    try:
        with regular(path) as descriptor:
            begin, size = tar.extent(descriptor, member) if member else (0, os.fstat(descriptor).st_size)
            yield (
                lambda offset, count: os.pread(descriptor, max(0, min(count, size - offset)), begin + offset),
                size,
            )
    except ArchiveError as error:
        raise UserError(error.code, f"cannot use {path}", error.cause, REMEDY) from error.__cause__
