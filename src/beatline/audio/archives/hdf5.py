"""HDF5 files as PaSST and PANNs pack AudioSet: a data set of names beside encoded files or int16 samples.

In: a file, a row. Out: the file's entries, the row's bytes. Only what lies in the file itself counts: HDF5
can point into other files, and such data sets do not exist here.
"""

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beatline.audio.archives.common import ID_KEYS, ArchiveError, Entry, check_size, package, regular
from beatline.core.limits import LIMITS

PANNS_RATE = 32_000  # of int16 rows without a stated rate, Hz. Source: the packing script of PANNs
NAMES = 4096  # read at a time


def entries(path: Path, extensions: tuple[str, ...]) -> Iterator[Entry]:
    """The rows of audio, by their names."""
    with _opened(path) as file:
        audio, names = _data_sets(file, path)
        if audio is None or names is None:
            return
        if names.nbytes > LIMITS.max_names_bytes:
            raise ArchiveError(
                "too-large", f"{names.nbytes} bytes of names are more than {LIMITS.max_names_bytes}"
            )
        _check_chunk(names)
        for first in range(0, len(names), NAMES):
            for row, name in enumerate(names[first : first + NAMES], first):
                yield Entry(
                    str(row), name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
                )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with regular(path) as descriptor:
        magic = os.pread(descriptor, 8, 0)
    if magic != b"\x89HDF\r\n\x1a\n":
        raise ArchiveError("bad-archive", "it is no HDF5 file")
    h5py = package("h5py", path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ArchiveError("bad-archive", f"it is damaged ({' '.join(str(error).split())[:200]})") from error


def _data_sets(file: Any, path: Path) -> tuple[Any, Any]:
    """The data sets of audio and of names; only what lies in this very file counts."""
    h5py = package("h5py", path)

    def own(name: str) -> Any:
        if name not in file or not isinstance(file.get(name, getlink=True), h5py.HardLink):
            return None
        found = file[name]
        return (
            found if isinstance(found, h5py.Dataset) and not found.external and not found.is_virtual else None
        )

    def is_audio(found: Any) -> bool:
        element = h5py.check_vlen_dtype(found.dtype)
        return (
            str(element) in ("uint8", "int16")
            if element is not None
            else found.ndim == 2 and str(found.dtype) == "int16"
        )

    sets = {name: found for name in file if (found := own(name)) is not None and found.ndim}
    audio = next(
        (sets[name] for name in ("mp3", "waveform", *sets) if name in sets and is_audio(sets[name])), None
    )
    names = next(
        (sets[name] for name in ("audio_name", *ID_KEYS) if name in sets and sets[name].ndim == 1), None
    )
    return (
        (audio, names)
        if audio is not None and names is not None and len(audio) == len(names)
        else (None, None)
    )


def _check_chunk(found: Any) -> None:
    """Refuses a data set whose chunks, which are unpacked as a whole for any row, are too large."""
    if found.chunks:
        check_size(math.prod(found.chunks) * found.dtype.itemsize)


def content(path: Path, member: str) -> bytes:
    """The audio in a row; int16 samples as WAV."""
    with _opened(path) as file:
        audio, _ = _data_sets(file, path)
        if audio is None or int(member) >= len(audio):
            raise ArchiveError("bad-archive", "it has changed since it was listed")
        _check_chunk(audio)
        if audio.ndim == 2:
            check_size(2 * audio.shape[1])
        row = audio[int(member)]
        check_size(row.nbytes)
        if str(row.dtype) == "uint8":
            return row.tobytes()
        rate = int(audio.attrs.get("sample_rate", file.attrs.get("sample_rate", PANNS_RATE)))
        return _wav(row.astype("<i2").tobytes(), rate)


def _wav(samples: bytes, rate: int) -> bytes:
    """A mono 16-bit WAV file of these samples."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", 36 + len(samples), b"WAVE")
        + form
        + struct.pack("<4sI", b"data", len(samples))
        + samples
    )
