"""Decoding in bounded child processes: a file that crashes, hangs or swells its decoder costs one job.

In: jobs. Out: `Decoded` or the `UserError` that belongs to it, in the jobs' order. A child imports no torch
and is told one job at a time over a pipe. Its memory and time are bounded, and it writes no file. A child
dies with its parent, and a child that is gone is replaced. Messages are JSON and raw samples: nothing is
pickled, and the caller's main module is not run again. The child's side is `child`.
"""

import json
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beatline.audio.samples import REMEDY, Decoded
from beatline.core.errors import UserError
from beatline.core.limits import LIMITS

START_UP = 60.0  # seconds a child may take to say that it is ready, on a busy machine
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc keeps memory from job to job: asking for it anew each time costs a tenth of the
    # speed
    "MALLOC_TRIM_THRESHOLD_": str(16 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
}
AHEAD = 4  # jobs a worker, so that a slow file does not leave the others without work
BLOCKS_AHEAD = 2  # of a recording that is read in blocks


@dataclass(frozen=True, slots=True)
class Job:
    """A decoding; as the arguments of `media.decode`."""

    path: Path
    """Audio file, or the archive that `member` is in."""
    member: str = ""
    """What of the file it is, for `archives.read`; empty where the file is the audio itself."""
    start: float = 0.0
    """Seconds."""
    end: float | None = None
    """Seconds; None is the end of the recording."""
    max_seconds: float = LIMITS.max_clip_seconds
    """Longest stretch accepted."""
    name: str = ""
    """What errors call the file; empty for its path."""

    def __str__(self) -> str:
        return self.name or (f"{self.path} ({self.member})" if self.member else str(self.path))


class Reading(Future[str]):
    """A recording on its way out of a child, see `Decoders.stream`; the result is its note."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._stopped = False

    def stop(self) -> None:
        """Ends it, begun or not; a child that is at it is killed."""
        self.cancel()
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()

    @contextmanager
    def by(self, child: "_Child") -> Iterator[None]:
        """While the block runs, it is this child that `stop` kills."""
        with self._lock:
            if self._stopped:
                raise CancelledError
            self._child = child
        try:
            yield
        finally:
            with self._lock:
                self._child = None


class Decoders:
    """A pool of child processes that decode; a context manager. Children are started when there is work for
    them.

    Args:
        workers: Child processes, at least 1.
        max_wait: Seconds that a job may take; then its child is killed.
        max_bytes: Memory that a job may take, bytes.
    """

    def __init__(
        self,
        workers: int = 1,
        max_wait: float = LIMITS.max_decode_wait,
        max_bytes: int = LIMITS.max_decoder_bytes,
    ):
        self._limits = (max_wait, max_bytes)
        self._workers = workers
        self._jobs: queue.SimpleQueue[tuple[Callable[[_Child], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._children: set[_Child] = set()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"decoder {i}", daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> "Future[Decoded]":
        """The job's result, or its `UserError` as exception: those of `media.decode` and `archives.read`,
        `decode-timeout`, `decoder-crashed`.
        """
        future: Future[Decoded] = Future()
        self._put(lambda child: child.decode(job), future)
        return future

    def stream(self, job: Job, seconds: float, take: Callable[[np.ndarray], object]) -> Reading:
        """Gives the recording to `take` in blocks of `seconds`, as `media.blocks`, in a thread of the pool.
        Fails as `submit`, or with what `take` raises.
        """
        future = Reading()

        def work(child: _Child) -> str:
            with future.by(child):
                return child.stream(job, seconds, take)

        self._put(work, future)
        return future

    def blocks(self, job: Job, seconds: float) -> Generator[np.ndarray, None, str]:
        """`media.blocks` of a job, decoded a few blocks ahead; fails as `submit`."""
        pieces: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        room = threading.Semaphore(BLOCKS_AHEAD)
        left = threading.Event()

        def take(samples: np.ndarray) -> None:
            room.acquire()
            if left.is_set():  # the pipe may still hold whole blocks of a child that is gone
                raise CancelledError
            pieces.put(samples)

        stream = self.stream(job, seconds, take)
        stream.add_done_callback(lambda _: pieces.put(None))
        try:
            while (samples := pieces.get()) is not None:
                room.release()
                if len(samples):
                    yield samples
            return stream.result()
        finally:
            left.set()
            stream.stop()
            room.release(BLOCKS_AHEAD)  # or the pool's thread would wait for a reader who has gone

    def _put(self, work: "Callable[[_Child], Any]", future: Future[Any]) -> None:
        if self._closed:
            raise RuntimeError("the decoders are closed")
        self._jobs.put((work, future))

    def map(self, jobs: Iterable[Job]) -> Iterator[Decoded | UserError]:
        """The result of each job, in order. Jobs and results are held only so far ahead as keeps the children
        busy.
        """
        pending: deque[Future[Decoded]] = deque()
        try:
            for job in jobs:
                pending.append(self.submit(job))
                if len(pending) > AHEAD * self._workers:
                    yield _outcome(pending.popleft())
            while pending:
                yield _outcome(pending.popleft())
        finally:
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """Ends the children at once; jobs that are not done are cancelled."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for child in list(self._children):
            child.kill()
        for thread in self._threads:
            thread.join()
        with suppress(queue.Empty):
            while item := self._jobs.get_nowait():
                item[1].cancel()

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        """A thread for each child: Linux ends a child with the thread that started it."""
        child: _Child | None = None
        while item := self._jobs.get():
            work, future = item
            if self._closed:
                future.cancel()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if child is None:
                    child = _Child(*self._limits)
                    self._children.add(child)
                    if self._closed:
                        child.kill()
                    child.start()
                future.set_result(work(child))
            except UserError as error:
                future.set_exception(CancelledError() if self._closed else error)
            except BaseException as error:  # a bug of ours, after which the two may misunderstand each other
                if child is not None:
                    child.gone = True
                future.set_exception(CancelledError() if self._closed else error)
            if child is not None and child.gone:
                self._children.discard(child)
                child.end()
                child = None
        if child is not None:
            child.end()


def blocks(
    job: Job,
    seconds: float,
    max_wait: float = LIMITS.max_decode_wait,
    max_bytes: int = LIMITS.max_decoder_bytes,
) -> Generator[np.ndarray, None, str]:
    """`media.blocks` of a job, decoded in a child process of its own; `max_wait` holds for each block, and
    `max_seconds` for none.

    Raises:
        UserError: as `Decoders.submit`.
    """
    child = _Child(max_wait, max_bytes)
    try:
        child.start()
        note = ""
        for message, samples in child.ask(job, seconds):
            if len(samples):
                yield samples
            note = message.get("note", "")
        return note
    finally:
        child.end()


def _outcome(future: "Future[Decoded]") -> Decoded | UserError:
    try:
        return future.result()
    except UserError as error:
        return error


# --- the parent's side of a child


class _Child:
    """A process that decodes one job at a time."""

    def __init__(self, max_wait: float, max_bytes: int):
        self._max_wait = max_wait
        self._deadline = 0.0
        self.gone = False
        """No longer of use: it ended, was killed, or did not start."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        root = str(Path(__file__).parents[1])  # so that the child finds the same beatline
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-B", "-m", "beatline.audio.child", str(max_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            process_group=0,  # Ctrl-C is the parent's to handle
            env=os.environ
            | ENVIRONMENT
            | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout

    def start(self) -> None:
        """Waits until the child is ready."""
        self._deadline = time.monotonic() + START_UP
        try:
            self._message()
        except (EOFError, TimeoutError) as error:
            self.gone = True
            self._errors.seek(0)
            raise RuntimeError(
                f"a decoder process did not start: {os.fsdecode(self._errors.read()).strip() or error}"
            ) from error

    def decode(self, job: Job) -> Decoded:
        """As `Decoders.submit`."""
        message, samples = next(self.ask(job, 0.0))
        return Decoded(
            samples, message["rate_in"], message["channels_in"], message["seconds_in"], message["note"]
        )

    def stream(self, job: Job, block_seconds: float, take: Callable[[np.ndarray], object]) -> str:
        """As `Decoders.stream`."""
        note = ""
        for message, samples in self.ask(job, block_seconds):
            try:
                take(samples)
            except BaseException:  # the child has more to say, which nobody will hear
                self.gone = True
                raise
            note = message.get("note", "")
        return note

    def ask(self, job: Job, block_seconds: float) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """What the child says of the job: a message with all samples, or a message for each block. After the
        blocks a last message has the note.
        """
        request = asdict(job) | {"path": str(job.path.absolute()), "block_seconds": block_seconds}
        what = f"cannot use {job}"
        try:
            with suppress(BrokenPipeError):  # reading says how it ended
                self._requests.write(json.dumps(request).encode() + b"\n")
            while True:
                self._deadline = time.monotonic() + self._max_wait
                message, samples = self._message()
                if "code" in message:
                    raise UserError(message["code"], what, message["cause"], message["remedy"])
                yield message, samples
                if "note" in message:
                    return
        except TimeoutError:
            self.gone = True
            raise UserError(
                "decode-timeout", what, f"decoding it takes longer than {self._max_wait:g} s", REMEDY
            ) from None
        except EOFError:
            self.gone = True
            raise UserError("decoder-crashed", what, f"its decoder ended {self._ending()}", REMEDY) from None

    def _ending(self) -> str:
        self._process.kill()
        code = self._process.wait()
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"

    def _message(self) -> tuple[dict[str, Any], np.ndarray]:
        head = bytearray(4)
        self._fill(memoryview(head))
        text = bytearray(struct.unpack("<I", head)[0])
        self._fill(memoryview(text))
        message = json.loads(text)
        samples = np.empty(message.get("samples", 0), np.int16)
        self._fill(samples.data.cast("B"))
        return message, samples

    def _fill(self, buffer: memoryview) -> None:
        poll = select.poll()
        poll.register(self._replies, select.POLLIN)
        while len(buffer):
            left = self._deadline - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left):
                raise TimeoutError("no answer")
            count = self._replies.readinto(buffer)  # type: ignore[attr-defined]
            if not count:
                raise EOFError("no answer")
            buffer = buffer[count:]

    def kill(self) -> None:
        """Ends the process; any thread may."""
        self.gone = True
        self._process.kill()

    def end(self) -> None:
        """Ends the process and closes what belongs to it."""
        self._process.kill()
        self._process.wait()
        for file in (self._requests, self._replies, self._errors):
            file.close()
