"""an upload -> its samples on disk, decoded in a bounded child process.

In: a file that a stranger sent. Out: 16 kHz mono int16 in a file beside it. A decoder is busy only as long as
decoding takes, however long the model then needs. Windows are read singly. Imports no torch.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beatline.audio import windows
from beatline.audio.pool import Decoders, Job
from beatline.audio.samples import REMEDY, SAMPLE_RATE
from beatline.core.errors import UserError
from beatline.core.limits import ServeLimits

BLOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Decoded:
    """A recording's samples on disk."""

    path: Path
    samples: int
    note: str

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return 2 * self.samples

    def count(self, window: int, hop: int) -> int:
        """How many windows `windows.cut` makes of the recording."""
        return 1 if self.samples <= window else 1 - (window - self.samples) // hop

    def windows(self, window: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
        """`windows.cut` of the recording."""
        return windows.cut(self._blocks(window), window, hop)

    def _blocks(self, size: int) -> Iterator[np.ndarray]:
        with self.path.open("rb") as file:
            while len(block := np.fromfile(file, np.int16, size)):
                yield block


async def decode(decoders: Decoders, upload: Path, name: str, limits: ServeLimits) -> Decoded:
    """The recording, decoded; if the task that waits is cancelled, the child is killed.

    Args:
        upload: The file; its samples go to a file beside it.
        name: What errors call it.

    Raises:
        UserError: As `Decoders.submit`; `too-long`, `too-short`.
    """
    target = upload.with_suffix(".pcm")
    size = 0
    begun = 0.0

    def take(samples: np.ndarray) -> None:
        nonlocal size, begun
        begun = begun or time.monotonic()
        size += len(samples)
        if size > limits.max_seconds * SAMPLE_RATE:
            raise UserError(
                "too-long",
                f"cannot use {name}",
                f"it is longer than {limits.max_seconds:g} s",
                "send a shorter stretch of it",
            )
        if time.monotonic() - begun > limits.max_decode_seconds:
            raise UserError(
                "decode-timeout",
                f"cannot use {name}",
                f"decoding it takes longer than {limits.max_decode_seconds:g} s",
                REMEDY,
            )
        file.write(samples.data)

    try:
        with target.open("wb") as file:
            stream = decoders.stream(Job(upload, name=name), BLOCK_SECONDS, take)
            try:
                note = await asyncio.wrap_future(stream)
            finally:
                stream.stop()
        if not size:
            raise UserError("too-short", f"cannot use {name}", "there is no sound in it", REMEDY)
    except BaseException:
        target.unlink(missing_ok=True)  # or it would lie there uncounted until the request ends
        raise
    return Decoded(target, size, note)
