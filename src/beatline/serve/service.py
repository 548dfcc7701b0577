"""What all requests for tags share: decoders, the model's thread, disk space, counts of waiting files.

In: a tagger and limits. Out: room for a request, or the reason why there is none. The counts decide which
request is turned away; `uploads.intake` serves the others. Imports no torch.
"""

import asyncio
import math
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from beatline.audio.pool import Decoders
from beatline.audio.samples import SAMPLE_RATE
from beatline.core.artefact import FolderLock
from beatline.core.errors import UserError
from beatline.core.limits import ServeLimits
from beatline.serve import answers
from beatline.serve.batcher import Batcher
from beatline.serve.metrics import Metrics
from beatline.serve.uploads.spool import Spool
from beatline.tag.tagger import AudioTagger

PREFIX = "beatline-serve-"
YOUNG = 60.0  # seconds: a folder of uploads that is not locked yet may be that old
FAST_SECONDS = 0.5  # so long an arriving body keeps room in the queue for its file


class Service:
    """What all requests share; routes ask for it with `routes.service_of`."""

    def __init__(self, tagger: AudioTagger, limits: ServeLimits):
        self.tagger = tagger
        self.limits = limits
        self.window = round(tagger.window * SAMPLE_RATE)
        self.hop = round(tagger.hop * SAMPLE_RATE)
        self.stopping = False
        """Whether no new work is taken."""
        self.cutting = False
        """Whether running work is ended."""
        self.connections: Callable[[], int] = lambda: 0
        """How many connections are open; set by the program that listens."""
        self.spool = Spool(limits.max_spool_bytes)
        self.metrics = Metrics(lambda: self.files, lambda: self.uploads, lambda: self.connections())
        self._running: set[asyncio.Task[None]] = set()
        self.files = self.kept = self.uploads = 0
        self._pass_seconds = 0.0
        self.label_table = answers.label_table(tagger.labels)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Starts the model's thread and makes room for uploads, until the block ends."""
        limits = self.limits
        with (
            _folder() as self.folder,
            Decoders(limits.decoders, limits.max_decode_wait, limits.max_decoder_bytes) as self.decoders,
        ):
            with Batcher(self.tagger.engine, self.window, limits.batch_wait, self._seen) as self.batcher:
                yield

    @property
    def state(self) -> str:
        """`ok`, `starting` or `stopping`."""
        if self.stopping:
            return "stopping"
        return "ok" if self.batcher.ready else "starting"

    @property
    def running(self) -> int:
        """Requests for tags that are not answered."""
        return len(self._running)

    @property
    def retry_after(self) -> int:
        """Seconds after which a client that is turned away may find room."""
        return max(1, min(60, math.ceil(self._pass_seconds * len(self.batcher))))

    def cut(self) -> None:
        """Ends running requests; each gets the part of its answer that is ready."""
        if self.cutting:
            return
        self.stopping = self.cutting = True
        for task in self._running:
            task.cancel()

    def admit(self) -> None:
        """Turns a request away, before its body is read, where there is no room.

        Raises:
            UserError: `server-stopping`, `server-busy`.
        """
        if self.stopping:
            raise stopping()
        # not more than half of the queue, or slow clients could shut the others out
        kept = min(self.kept, -(-self.limits.max_queue // 2))
        if self.files + kept >= self.limits.max_queue:
            raise _busy(f"{self.files + kept} files are waiting already")
        if self.uploads >= self.limits.max_uploads:
            raise _busy(f"{self.uploads} other requests are still arriving")

    @contextmanager
    def run(self) -> Iterator[None]:
        """The block is a request, from its admission to the end of its answer.

        Raises:
            UserError: As `admit`.
        """
        self.admit()
        task = asyncio.current_task()
        begun = time.monotonic()
        assert task is not None
        self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)
            self.metrics.request_seconds.observe(time.monotonic() - begun)

    @contextmanager
    def room(self) -> Iterator[Path]:
        """A folder for the files of a request, until the block ends."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """While the block runs, a body is on its way. At first the queue keeps room for its file. So a fast
        body is not turned away once it has arrived.
        """
        kept = True

        def give_up() -> None:
            nonlocal kept
            self.kept -= kept
            kept = False

        self.uploads += 1
        self.kept += 1
        timer = asyncio.get_running_loop().call_later(FAST_SECONDS, give_up)
        try:
            yield
        finally:
            timer.cancel()
            give_up()
            self.uploads -= 1

    @contextmanager
    def queued(self, count: int) -> Iterator[None]:
        """While the block runs, so many files are waiting for their answer.

        Raises:
            UserError: `server-busy`; never where no file is waiting, however many come.
        """
        if self.files and self.files + count > self.limits.max_queue:
            raise _busy(f"{self.files} files are waiting already")
        self.files += count
        try:
            yield
        finally:
            self.files -= count

    def _seen(self, count: int, seconds: float) -> None:
        self._pass_seconds += 0.1 * (seconds - self._pass_seconds)
        self.metrics.pass_windows.observe(count)
        self.metrics.pass_seconds.observe(seconds)


def stopping() -> UserError:
    """The error of requests that a stopping server does not serve."""
    return UserError(
        "server-stopping",
        "cannot serve the request",
        "the server is about to stop",
        "try again, with another server if possible",
    )


def _busy(cause: str) -> UserError:
    return UserError("server-busy", "cannot take the request", cause, "try again later")


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder of our own for uploads, removed at the end. Folders of servers that were killed are removed
    first.
    """
    for old in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with suppress(OSError, UserError):
            about = old.lstat()
            if about.st_uid == os.getuid() and time.time() - about.st_mtime > YOUNG:
                with FolderLock(old):
                    shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, FolderLock(Path(folder)):
        made = Path(folder) / "uploads"
        made.mkdir()
        yield made
