"""what a user means by audio -> what `media` reads; what arguments name -> files.

In: paths, bytes, streams, arrays; folders and globs. Out: a `media.Audio` for each recording. Nothing is
opened here. Imports no torch.
"""

import glob
import io
import math
import os
from collections.abc import Iterable, Iterator
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from beatline.audio.media import Audio
from beatline.audio.signatures import EXTENSIONS
from beatline.core.errors import UserError


def as_source(audio: Any, rate: int | None = None) -> Audio:
    """What `media` reads, made from anything that a user may mean by audio.

    Raises:
        UserError: `not-audio`, `bad-sample-rate`.
    """
    if isinstance(audio, str | os.PathLike):
        return Path(audio)
    if isinstance(audio, bytes | bytearray | memoryview):
        return bytes(audio)
    if isinstance(audio, io.TextIOBase):
        raise UserError(
            "not-audio",
            "cannot use a text stream",
            "sound is bytes",
            'open it in binary mode: open(path, "rb")',
        )
    if hasattr(audio, "read"):
        return audio
    if has_rate(audio):
        audio, rate = audio
    if not hasattr(audio, "__array__"):
        raise UserError(
            "not-audio",
            f"cannot use a value of type {type(audio).__name__}",
            "it is no path, bytes, binary stream or array",
            "give a path, bytes, a binary stream or an array",
        )
    if rate is None:
        raise UserError(
            "not-audio", "cannot use an array", "its sample rate is not given", "call tagger(array, rate)"
        )
    if not isinstance(rate, Real) or not math.isfinite(rate):
        raise UserError(
            "bad-sample-rate", "cannot use an array", f"its sample rate is {rate!r}", "give a number, Hz"
        )
    try:
        return np.asarray(audio), int(rate)
    except Exception as error:  # what a tensor on a GPU, or with a gradient, says
        raise UserError(
            "not-audio",
            f"cannot use a {type(audio).__name__}",
            f"NumPy cannot read it ({error})",
            "give a NumPy array; of a tensor tensor.detach().cpu().numpy()",
        ) from error


def has_rate(audio: Any) -> bool:
    """Whether it is an array with its rate beside it."""
    return (
        isinstance(audio, tuple)
        and len(audio) == 2
        and hasattr(audio[0], "__array__")
        and not hasattr(audio[0], "read")
        and isinstance(audio[1], Real)
    )


def find_audio(patterns: Iterable[str]) -> Iterator[Path]:
    """The files that arguments name, each once for an argument. A file stays as it is. A folder gives the
    audio files below it in order of name. A glob gives what it matches of either.
    """
    for pattern in patterns:
        yield from dict.fromkeys(
            file for match in matches(pattern) for file in (_below(match) if match.is_dir() else [match])
        )


def matches(pattern: str) -> list[Path]:
    """What an argument names: a path as it is, or what a glob matches, in order."""
    path = Path(pattern)
    return (
        [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
        if not path.exists() and glob.has_magic(pattern)
        else [path]
    )


def _below(root: Path) -> Iterator[Path]:
    """The audio files below a folder, with the folders that cannot be read, for whoever opens them to say so.
    Links are followed, each folder once.
    """
    seen = set()
    unread = list[OSError]()
    for folder, folders, names in os.walk(root, onerror=unread.append, followlinks=True):
        facts = os.stat(folder)
        if (facts.st_dev, facts.st_ino) in seen:
            folders.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names) if name.lower().endswith(EXTENSIONS))
    yield from (Path(error.filename) for error in unread)
