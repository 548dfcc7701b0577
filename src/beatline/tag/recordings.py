"""recordings -> windows -> what the engine says -> each recording's result, in order and in bounded memory.

In: sources of any length. Out: recordings whose windows are scored: `Tags` for a result, `Embeddings` for
its embeddings. Sources are begun ahead, windows of different recordings share passes. Imports no torch.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from beatline.audio import media, windows
from beatline.audio.pool import Job
from beatline.audio.samples import SAMPLE_RATE
from beatline.core import threads
from beatline.core.errors import UserError
from beatline.model.engines.base import Engine, Outputs
from beatline.model.geometry import (
    STEP_SAMPLES,
    STEP_SECONDS,
    TOKENS_OF_A_STEP,
    step_count,
    tiled_length,
)
from beatline.tag.events import Event, EventOptions, Events, in_order
from beatline.tag.result import Embedded, EmbeddingLevel, Result

if TYPE_CHECKING:
    from beatline.tag.tagger import AudioTagger

WINDOWS_AT_ONCE = 32  # collected before scoring, at least, so that windows of equal length meet
Read = Callable[[Any, float], Generator[np.ndarray, None, str]]
"""How a source becomes blocks of at most so many seconds, `(samples,)` int16 at 16 kHz, and a note."""


class Recording:
    """A recording whose windows are not all scored yet."""

    def __init__(self, source: str):
        self.source = source
        self.samples = 0
        self.note = ""
        self.cut = self.taken = 0  # windows
        self.whole = False
        self.ended = False
        """Whether it was given out for the last time; the reading thread may make `done` true any time."""
        self.error: UserError | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or (self.whole and self.taken == self.cut)

    def take(self, begin: int, length: int, outputs: Outputs, row: int) -> None:
        """What the engine says of the next window: a row of its outputs."""
        raise NotImplementedError


class Tags(Recording):
    """A recording on its way to a `Result`."""

    def __init__(self, source: str, tagger: "AudioTagger", options: EventOptions | None):
        super().__init__(source)
        self._tagger = tagger
        self._level = options.level if options else None
        thresholds = None if tagger.calibration is None else tagger.calibration.thresholds
        self._events = Events(tagger.labels, options, thresholds, tagger.raised) if options else None
        self._found: list[Event] = []
        self._starts: list[int] = []
        self._scores: list[np.ndarray] = []
        self._embedding: Any = 0.0  # the sum

    def take(self, begin: int, length: int, outputs: Outputs, row: int) -> None:
        scores = self._tagger.window_scores(outputs, row)
        self._starts.append(begin)
        self._scores.append(scores)
        self._embedding = self._embedding + outputs.embeddings[row].astype(np.float64)
        if self._events is not None:
            steps = outputs.step_logits
            self._found += self._events.add(
                begin,
                length,
                scores[None] if steps is None else self._tagger.scores(steps[row, : _steps(length)]),
            )

    def result(self) -> Result:
        """The result, once all windows are taken."""
        tagger = self._tagger
        seconds = self.samples / SAMPLE_RATE
        scores = np.stack(self._scores)
        return Result(
            source=self.source,
            labels=tagger.labels,
            scores=tagger.raised(windows.merge(scores, tagger.merge)),
            embedding=(self._embedding / self.taken).astype(np.float32),
            starts=np.array(self._starts) / SAMPLE_RATE,
            window_scores=tagger.raised(scores),
            seconds=seconds,
            note=self.note,
            window=tagger.window,
            events=None if self._events is None else in_order(self._found + self._events.finish(seconds)),
        )


class Embeddings(Recording):
    """A recording on its way to its embeddings."""

    def __init__(self, source: str, level: EmbeddingLevel):
        super().__init__(source)
        self._level = level
        self._steps = 0
        self._sum: Any = 0.0
        self._rows: list[np.ndarray] = []
        self._times: list[np.ndarray] = []

    def take(self, begin: int, length: int, outputs: Outputs, row: int) -> None:
        if self._level == "clip":
            self._sum = self._sum + outputs.embeddings[row].astype(np.float64)
        elif self._level == "window":
            self._rows.append(
                outputs.embeddings[row : row + 1].copy()
            )  # a copy, or the batch stays in memory
            self._times.append(np.array([[begin, begin + length]]) / SAMPLE_RATE)
        else:
            assert outputs.tokens is not None
            first = begin // STEP_SAMPLES
            end = begin // STEP_SAMPLES + _steps(length)
            self._rows.append(
                outputs.tokens[
                    row, TOKENS_OF_A_STEP * (self._steps - first) : TOKENS_OF_A_STEP * (end - first)
                ].copy()
            )
            onsets = np.repeat(np.arange(self._steps, end) * STEP_SECONDS, TOKENS_OF_A_STEP)
            self._times.append(np.stack([onsets, onsets + STEP_SECONDS], axis=1))
            self._steps = end

    def part(self) -> Embedded:
        """What there is since the last call."""
        seconds = self.samples / SAMPLE_RATE if self.ended else None
        if self._level == "clip":
            return Embedded(
                self.source,
                (self._sum / self.taken).astype(np.float32)[None],
                np.array([[0.0, seconds]]),
                seconds,
                self.note,
            )
        rows = np.concatenate(self._rows)
        times = np.concatenate(self._times)
        self._rows = [rows[:0].copy()]  # copies, or what was given out stays in memory
        self._times = [times[:0].copy()]
        return Embedded(self.source, rows, times, seconds, self.note if self.ended else "")


Kind = TypeVar("Kind", bound=Recording)


def windows_at_once(engine: Engine) -> int:
    """How many windows are collected before they are scored."""
    return max(WINDOWS_AT_ONCE, engine.clips_at_once)


def scored(
    engine: Engine,
    sources: Iterable[Any],
    opened: Callable[[str], Kind],
    window: int,
    hop: int,
    grid: int = 1,
    detail: bool = False,
    read: Read = media.blocks,
    as_it_comes: bool = False,
) -> Iterator[Kind]:
    """The recordings in order, each once its windows are taken or it has an error.

    Args:
        window, hop, grid: In samples, as `windows.cut`.
        as_it_comes: Give the first recording also before its end, after each pass.
    """
    waiting: deque[Kind] = deque()
    batch: list[tuple[Recording, int, np.ndarray]] = []
    together = windows_at_once(engine)
    for recording, begin, samples in threads.buffered(
        _windows(sources, opened, window, hop, grid, read, engine.readers), together
    ):
        if samples is None and begin == 0:
            waiting.append(recording)
        if samples is not None:
            batch.append((recording, begin, samples))
        if len(batch) == together:
            _score(engine, batch, detail)
            if (
                as_it_comes and waiting and not waiting[0].done
            ):  # no window has been cut of the recordings behind it
                yield waiting[0]
        while waiting and waiting[0].done:
            yield _ended(waiting.popleft())
    _score(engine, batch, detail)
    yield from map(_ended, waiting)


def _ended(recording: Kind) -> Kind:
    recording.ended = True
    return recording


def _windows(
    sources: Iterable[Any],
    opened: Callable[[str], Kind],
    window: int,
    hop: int,
    grid: int,
    read: Read,
    readers: int,
) -> Iterator[tuple[Kind, int, np.ndarray | None]]:
    """`(recording, first sample, samples)` of each window. An item without samples is the begin (0) or the
    end (-1) of a recording.
    """

    def begin(source: Any) -> tuple[Any, _Begun]:
        return source, _Begun(read(source, window / SAMPLE_RATE))

    with closing(threads.in_order(sources, begin, readers)) as begun:
        for source, blocks in begun:
            recording = opened(str(source) if isinstance(source, Path | Job) else "audio")
            yield recording, 0, None
            try:
                with closing(blocks):
                    for begin_at, samples in windows.cut(blocks, window, hop, grid):
                        recording.cut += 1
                        yield recording, begin_at, samples
                recording.samples = blocks.samples
                recording.note = blocks.note
                recording.whole = True
            except UserError as error:
                recording.error = error
            yield recording, -1, None


class _Begun:
    """Blocks of which the first is read ahead, or the reason why there is none. Their samples are counted
    and their note is kept.
    """

    def __init__(self, blocks: Generator[np.ndarray, None, str]):
        self.blocks = blocks
        self.samples = 0
        self.note = ""
        self._first: np.ndarray | UserError | None = None
        try:
            self._first = self._next()
        except UserError as error:
            self._first = error

    def _next(self) -> np.ndarray | None:
        try:
            return next(self.blocks)
        except StopIteration as end:
            self.note = end.value or ""
            return None

    def __iter__(self) -> Iterator[np.ndarray]:
        block = self._first
        self._first = None
        while block is not None:
            if isinstance(block, UserError):
                raise block
            self.samples += len(block)
            yield block
            block = self._next()

    def close(self) -> None:
        self.blocks.close()


def _steps(length: int) -> int:
    """Time steps of a window of so many samples."""
    return int(step_count(tiled_length(np.array(length))))


def _score(engine: Engine, batch: list[tuple[Recording, int, np.ndarray]], detail: bool) -> None:
    """Scores windows and gives each window's outputs to its recording, in order."""
    if not batch:
        return
    outputs = engine.outputs([samples for _, _, samples in batch], detail)
    for row, (recording, begin, samples) in enumerate(batch):
        recording.take(begin, len(samples), outputs, row)
        recording.taken += 1
    batch.clear()
