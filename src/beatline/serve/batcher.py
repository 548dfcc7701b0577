"""windows of all requests -> scores: a thread runs the model and shares its passes fairly.

In: recordings as windows. Out: each window's scores, handed to the event loop that waits for them. Their bits
are those that the recording alone gets offline. Recordings take turns: an hour of sound delays a second of
sound by a single pass. Imports no torch.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from beatline.model.engines.base import Engine, Outputs
from beatline.model.geometry import MIN_SAMPLES, SAMPLE_RATE

LOG = logging.getLogger("beatline.serve")
NICENESS = 5  # of the model's thread: short answers, such as health and refusals, do not wait for a core


@dataclass(frozen=True)
class Scored:
    """A window's part of a pass."""

    begin: int
    """First sample."""
    length: int
    """Samples."""
    outputs: Outputs
    """What the engine says of the whole pass, without tokens."""
    row: int
    """The window's row in `outputs`."""


class Lane:
    """A recording's windows on their way through the model. Iterating over a lane, in the event loop that
    made the lane, gives each window as `Scored`, in order.

    Args:
        parts: First sample and samples of each window, int16; taken singly in the model's thread.
        count: Number of windows, at least 1.
        length: Samples of each window, as `geometry.tile_short` makes it.
        detail: Whether the logits of each time step are wanted.
    """

    def __init__(
        self, parts: Iterator[tuple[int, np.ndarray]], count: int, length: int, detail: bool = False
    ):
        self.parts = parts
        self.ahead = count
        self.length = length
        self.detail = detail
        self.left = False
        """Whether nobody waits any more."""
        self.last = np.empty(0, np.int16)
        """Samples of the last window that the model heard."""
        self.heard: tuple[Outputs, int] | None = None
        """What the model said of that window, and in which row."""
        self._loop = asyncio.get_running_loop()
        self._scored = asyncio.Queue[Scored | BaseException | None]()

    def put(self, item: Scored | BaseException | None) -> None:
        """Hands on a scored window, the reason why there are no more, or None at the end; any thread may."""
        if not self.left:
            self._loop.call_soon_threadsafe(self._scored.put_nowait, item)

    async def __aiter__(self) -> AsyncIterator[Scored]:
        while (item := await self._scored.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item


class Batcher:
    """The thread that runs the model; a context manager.

    Args:
        engine: The model.
        window: Samples of a window at its longest.
        wait: Seconds a window that finds the model idle waits for others to share its pass.
        seen: Told the number of windows and the seconds of each pass.
    """

    def __init__(
        self,
        engine: Engine,
        window: int,
        wait: float,
        seen: Callable[[int, float], None] = lambda count, seconds: None,
    ):
        self._engine = engine
        self._window = window
        self._wait = wait
        self._seen = seen
        self._size = engine.clips_at_once  # offline too no pass has more
        self._lanes: deque[Lane] = deque()
        self._change = threading.Condition()
        self._closed = self.ready = self.together = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def __enter__(self) -> "Batcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def __len__(self) -> int:
        """Recordings that are in the queue."""
        return len(self._lanes)

    def add(self, *lanes: Lane) -> None:
        """Queues recordings, all before the next pass."""
        with self._change:
            self._lanes.extend(lanes)
            self._change.notify()

    def drop(self, lane: Lane) -> None:
        """Forgets a recording; only what is in the model at this moment is still scored."""
        with self._change:
            lane.left = True
            if lane in self._lanes:
                self._lanes.remove(lane)

    def _work(self) -> None:
        if sys.platform == "linux":  # elsewhere a thread has no niceness of its own
            # threads that the model starts inherit it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            self.together = rows_are_independent(self._engine, (MIN_SAMPLES, SAMPLE_RATE, self._window))
        except Exception:
            LOG.exception("the model does not run")
            return
        self.ready = True
        while lanes := self._turn():
            self._pass(lanes)

    def _turn(self) -> list[Lane]:
        """The lanes whose windows are next, a lane for each window; none at the end."""
        with self._change:
            idle = not self._lanes
            self._change.wait_for(lambda: self._lanes or self._closed)
            if idle and self.together:
                self._change.wait_for(lambda: len(self._lanes) >= self._size or self._closed, self._wait)
            if self._closed or not self._lanes:
                return [] if self._closed else self._turn()
            first = self._lanes[0]
            waiting = (
                deque(lane for lane in self._lanes if lane.length == first.length)
                if self.together
                else deque([first])
            )
            chosen: list[Lane] = []
            while waiting and len(chosen) < self._size:
                lane = waiting.popleft()
                chosen.append(lane)
                lane.ahead -= 1
                if lane.ahead:
                    waiting.append(lane)
            for lane in dict.fromkeys(chosen):
                self._lanes.remove(lane)
                if lane.ahead:
                    self._lanes.append(lane)
            return chosen

    def _pass(self, lanes: Iterable[Lane]) -> None:
        """Scores a window of each lane and hands it on.

        A window that repeats the window before it gets the scores of that window, where they are the same
        bits. So a small file that unpacks to an hour of silence costs a single window.
        """
        begun = time.monotonic()
        taken: list[tuple[Lane, int, np.ndarray]] = []
        for lane in lanes:
            try:
                if not lane.left:
                    taken.append((lane, *next(lane.parts)))
            # the lane's samples cannot be read, perhaps because its client has left: other lanes go on
            except Exception as error:
                self.drop_with(lane, error)
        try:
            fresh: list[np.ndarray] = []
            rows: list[int | None] = []  # of each window that the model hears
            for lane, _, samples in taken:
                repeated = self.together and np.array_equal(samples, lane.last)
                rows.append(None if repeated else len(fresh))
                if not repeated:
                    lane.last = samples
                    fresh.append(samples)
            if fresh:
                detail = any(lane.detail for lane, _, _ in taken)
                outputs = replace(self._engine.outputs(fresh, detail), tokens=None)
        except Exception as error:
            for lane in {lane for lane, _, _ in taken}:
                self.drop_with(lane, error)
            return
        for (lane, begin, samples), row in zip(taken, rows, strict=True):
            if row is not None:
                lane.heard = outputs, row
            assert lane.heard is not None
            lane.put(Scored(begin, len(samples), *lane.heard))
        for lane in {lane for lane, _, _ in taken}:
            if not lane.ahead:
                lane.put(None)
        if fresh:
            self._seen(len(fresh), time.monotonic() - begun)

    def drop_with(self, lane: Lane, error: Exception) -> None:
        """Forgets a recording that cannot be scored."""
        lane.put(error)
        self.drop(lane)


def rows_are_independent(engine: Engine, lengths: Iterable[int]) -> bool:
    """Whether a clip gets the same bits alone and in a pass with clips of its length.

    PyTorch and OpenVINO keep a clip's bits on a CPU. With onnxruntime, which does not, a pass holds windows
    of a single recording, as offline.

    Args:
        lengths: Lengths to try, samples.
    """
    random = np.random.default_rng(0)
    for length in lengths:
        for count in sorted({2, engine.clips_at_once} - {1}):
            clips = 0.1 * random.standard_normal((count, length), np.float32)
            together = engine.outputs(clips, detail=True)
            for row in (0, count - 1):
                alone = engine.outputs(clips[row : row + 1], detail=True)
                for name in ("scores", "embeddings", "step_logits"):
                    if not np.array_equal(getattr(alone, name)[0], getattr(together, name)[row]):
                        return False
    return True
