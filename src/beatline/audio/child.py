"""The child process that decodes for `pool`: jobs in, samples out, within bounds that the kernel keeps.

In: lines of JSON on the standard input. Out, on the standard output: for each message its length, JSON, and
as many int16 samples as that says. The process writes no file, opens few, takes so much memory for a job, and
ends with its parent. `python -m beatline.audio.child BYTES`; imports no torch.
"""

import ctypes
import fcntl
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from beatline.audio import media
from beatline.audio.decoders import ffmpeg
from beatline.audio.samples import REMEDY
from beatline.core.errors import UserError
from beatline.core.limits import LIMITS

PIPE_BYTES = 1 << 20  # a ten-second clip fits, and the child need not wait until it is taken
OPEN_FILES = 64


def serve(max_bytes: int) -> None:
    """Answers jobs from the standard input until it ends."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints is no answer
    _restrict(replies.fileno())
    _send(replies, {})
    with suppress(BrokenPipeError):
        for line in requests:
            for message, samples in answers(json.loads(line), max_bytes):
                _send(replies, message, samples)


def _restrict(replies: int) -> None:
    """Lets the process write no file, open few, dump nothing, and end with its parent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        with suppress(OSError):
            fcntl.fcntl(replies, 1031, PIPE_BYTES)  # F_SETPIPE_SZ


def _send(replies: BinaryIO, message: dict[str, Any], samples: np.ndarray | None = None) -> None:
    text = json.dumps(message | {"samples": 0 if samples is None else len(samples)}).encode()
    replies.write(struct.pack("<I", len(text)) + text)
    left = memoryview(b"") if samples is None else samples.data.cast("B")
    while len(left):
        left = left[replies.write(left) :]


def answers(request: dict[str, Any], max_bytes: int) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
    """Messages with their samples: the whole and its facts; or every block, then the note; or a refusal."""
    try:
        source = _source(Path(request["path"]), request["member"], max_bytes)
        start, end = request["start"], request["end"]
        with _memory(
            max_bytes + min(_size(source), 3 * max_bytes)
        ):  # an index of its content grows with an honest file
            if request["block_seconds"]:
                note = yield from _without_words(media.blocks(source, request["block_seconds"], start, end))
                yield {"note": note}, None
            else:
                decoded = media.decode(source, start, end, request["max_seconds"])
                yield (
                    {
                        "rate_in": decoded.rate_in,
                        "channels_in": decoded.channels_in,
                        "seconds_in": decoded.seconds_in,
                        "note": decoded.note,
                    },
                    decoded.samples,
                )
    except UserError as error:
        yield {"code": error.code, "cause": error.cause, "remedy": error.remedy}, None
    except MemoryError:
        refused = ffmpeg.too_much_memory()
        yield {"code": refused.code, "cause": refused.cause, "remedy": refused.remedy}, None
    except Exception as error:  # a bug, ours or a library's, is this job's misfortune only
        yield {"code": "decoder-crashed", "cause": f"{type(error).__name__}: {error}", "remedy": REMEDY}, None


def _source(path: Path, member: str, max_bytes: int) -> Path | bytes:
    if not member:
        return path
    from beatline.audio import archives

    with _memory(
        max_bytes + LIMITS.max_row_group_bytes
    ):  # the most that an honest archive makes its reader hold
        return archives.read(path, member)


def _size(source: Path | bytes) -> int:
    if isinstance(source, bytes):
        return len(source)
    try:
        return source.stat().st_size
    except (OSError, ValueError):  # decoding will say why
        return 0


def _without_words(
    pieces: Generator[np.ndarray, None, str],
) -> Generator[tuple[dict[str, Any], np.ndarray], None, str]:
    while True:
        try:
            yield {}, next(pieces)
        except StopIteration as end:
            return end.value


@contextmanager
def _memory(max_bytes: int) -> Iterator[None]:
    """Lets the process take so much memory more than it holds (Linux only)."""
    if sys.platform != "linux":
        yield
        return
    held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    before = resource.getrlimit(
        resource.RLIMIT_DATA
    )  # not the address space, which libraries reserve in plenty and do not use
    resource.setrlimit(resource.RLIMIT_DATA, (held + max_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
