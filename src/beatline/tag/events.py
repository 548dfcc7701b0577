"""scores of time steps -> events: what sounds from when to when.

In: a recording's windows in order, each with its scores. Out: `Event`s, as soon as they are over. Windows
that overlap are averaged on a grid of steps of 0.16 s, and a median filter follows. An event begins at a
threshold and goes on above a lower threshold. Short gaps are joined, short events left out. Memory holds a
window and what sounds now, however long the recording is. Imports no torch.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import numpy as np

from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet
from beatline.model.geometry import STEP_SAMPLES, STEP_SECONDS

Level = Literal["steps", "windows"]
THRESHOLD = 0.5
MOST_MEDIAN = 60.0  # seconds: the filter holds its length of scores
AT_ONCE = 1 << 20  # numbers that the filter sorts at once


@dataclass(frozen=True, kw_only=True)
class EventOptions:
    """How scores become events.

    Raises:
        UserError: `bad-usage` for a value out of its range.
    """

    level: Level = "steps"
    """Whose scores: those of each `steps` of 0.16 s, or those of the `windows` that a time lies in."""
    threshold: float | None = None
    """What a label's score reaches somewhere in each of its events, in [0, 1]; None is the calibration's for
    each label, or else 0.5.
    """
    low: float = 0.5
    """An event goes on for as long as the score is at least this share of the threshold. Above 0 up to 1; 1
    is no hysteresis.
    """
    median: float = 0.48
    """Length of the median filter over the scores, seconds, up to 60. The filter takes an odd number of
    steps; a single step is no filter.
    """
    gap: float = 0.32
    """Longest pause between two events of a label that are joined, seconds."""
    shortest: float = 0.0
    """Events shorter than this are left out, seconds."""

    def __post_init__(self) -> None:
        bounds = {
            "threshold": (0.0, 1.0),
            "low": (math.ulp(0.0), 1.0),
            "median": (0.0, MOST_MEDIAN),
            "gap": (0.0, math.inf),
            "shortest": (0.0, math.inf),
        }
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if value is None and name == "threshold":
                continue
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not (is_number and least <= value <= most):
                span = "of at least 0"
                if least:
                    span = f"above 0 up to {most:g}"
                elif most < math.inf:
                    span = f"from 0 to {most:g}"
                raise UserError(
                    "bad-usage", f"{name} of events", f"{value!r} is no number {span}", "give another"
                )
        if self.level not in get_args(Level):
            cause = f"{self.level!r} is no level"
            raise UserError("bad-usage", "level of events", cause, f"give {' or '.join(get_args(Level))}")


@dataclass(frozen=True, slots=True)
class Event:
    """A sound with its begin and end."""

    label: Label
    onset: float
    """Seconds."""
    offset: float
    """Seconds, after `onset`."""
    score: float
    """The highest of its steps, after the median filter."""


@dataclass(slots=True)
class _Run:
    """Steps in a row, from `begin` to before `end`, whose score is at least the low threshold."""

    column: int
    begin: int
    end: int
    peak: float


class Events:
    """The events of a recording: `add` its windows in order, then `finish`. Not for several threads.

    Times count from the recording's begin. Steps lie on a grid of 0.16 s. The steps of a window that does not
    begin on the grid are moved by up to half a step.

    Args:
        labels: In the order of the scores.
        options: How scores become events.
        thresholds: For each label, `(labels,)`, where the options leave it open.
        after: What is done to averaged scores `(steps, labels)` before anything else.
    """

    def __init__(
        self,
        labels: LabelSet,
        options: EventOptions,
        thresholds: np.ndarray | None = None,
        after: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self._labels = labels
        self._options = options
        self._after = after
        if options.threshold is None and thresholds is not None:
            self._high = np.asarray(thresholds, np.float32)
        else:
            self._high = np.full(
                len(labels), THRESHOLD if options.threshold is None else options.threshold, np.float32
            )
        self._low = self._high * np.float32(options.low)
        self._average = _Average(len(labels))
        self._smooth = _Median(_steps(options.median) // 2)
        self._step = 0  # what is filtered by now
        self._open: dict[int, _Run] = {}  # by label: the last run, which the next steps may continue
        self._held: dict[
            int, _Run
        ] = {}  # by label: the run before it that reached the threshold, which the next may join

    def add(self, begin: int, length: int, scores: np.ndarray) -> list[Event]:
        """The events that are over by now.

        Args:
            begin: First sample of the window.
            length: Its samples, at 16 kHz.
            scores: `(steps, labels)` of its time steps in order, or `(1, labels)` of the whole window.
        """
        return self._take(self._smooth(self._changed(self._average.add(begin, length, scores))))

    def finish(self, seconds: float) -> list[Event]:
        """The other events.

        Args:
            seconds: Length of the recording; what sounds in the last step goes on to there.
        """
        events = self._take(self._smooth(self._changed(self._average.rest()), last=True))
        for run in self._open.values():
            events += self._close(run)
        return events + [event for run in self._held.values() for event in self._event(run, seconds)]

    def _changed(self, rows: np.ndarray) -> np.ndarray:
        return rows if self._after is None else self._after(rows)

    def _take(self, rows: np.ndarray) -> list[Event]:
        events: list[Event] = []
        for run in _runs(rows, self._low, self._step):
            before = self._open.get(run.column)
            if before is not None and before.end == run.begin:  # the steps are cut there, not the sound
                before.end = run.end
                before.peak = max(before.peak, run.peak)
                continue
            events += self._close(before) if before is not None else []
            self._open[run.column] = run
        self._step += len(rows)
        for run in [run for run in self._open.values() if run.end < self._step]:
            events += self._close(self._open.pop(run.column))
        next_begin = {column: run.begin for column, run in self._open.items()}
        for run in [
            run for run in self._held.values() if self._apart(run.end, next_begin.get(run.column, self._step))
        ]:
            events += self._event(self._held.pop(run.column))
        return events

    def _apart(self, end: int, begin: int) -> bool:
        return (begin - end) * STEP_SECONDS > self._options.gap + 1e-6

    def _close(self, run: _Run) -> Iterator[Event]:
        """A run is over: what is certain of the event before it."""
        if run.peak < self._high[run.column]:
            return
        before = self._held.get(run.column)
        if before is not None and not self._apart(before.end, run.begin):
            before.end = run.end
            before.peak = max(before.peak, run.peak)
            return
        self._held[run.column] = run
        if before is not None:
            yield from self._event(before)

    def _event(self, run: _Run, seconds: float | None = None) -> Iterator[Event]:
        offset = seconds if seconds is not None and run.end == self._step else run.end * STEP_SECONDS
        onset = run.begin * STEP_SECONDS
        if offset - onset >= self._options.shortest - 1e-6:
            yield Event(self._labels.labels[run.column], round(onset, 6), round(offset, 6), run.peak)


def in_order(events: list[Event]) -> tuple[Event, ...]:
    """Events by onset, then offset, then name."""
    return tuple(
        sorted(events, key=lambda event: (event.onset, event.offset, event.label.name, event.label.mid))
    )


def _steps(seconds: float) -> int:
    return round(seconds / STEP_SECONDS)


def _runs(rows: np.ndarray, low: np.ndarray, first: int) -> Iterator[_Run]:
    """Stretches of scores `(steps, labels)` that are at least `low`, label by label; the first row is step
    `first`.
    """
    sounding = rows >= low
    columns = np.flatnonzero(sounding.any(axis=0)) if len(rows) else np.empty(0, np.int64)
    edges = np.diff(sounding[:, columns].T.astype(np.int8), axis=1, prepend=0, append=0)
    label, begins = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    for column, begin, end in zip(columns[label].tolist(), begins.tolist(), ends.tolist(), strict=True):
        yield _Run(column, first + begin, first + end, float(rows[begin:end, column].max()))


class _Average:
    """The mean of the scores that windows give to each step of a recording."""

    def __init__(self, labels: int):
        self._first = 0  # the step that the first row is of
        self._sum = np.zeros((0, labels), np.float32)
        self._count = np.zeros((0, 1), np.float32)

    def add(self, begin: int, length: int, scores: np.ndarray) -> np.ndarray:
        """Takes a window's scores, as `Events.add`; the rows of steps that no later window touches."""
        middles = np.arange(
            begin + -(begin - STEP_SAMPLES // 2) % STEP_SAMPLES, begin + length, STEP_SAMPLES
        )  # of the steps whose middle lies in the window
        if begin == 0 and not len(middles):
            middles = np.zeros(1, np.int64)  # a recording shorter than half a step
        first = (begin + STEP_SAMPLES // 2 - 1) // STEP_SAMPLES
        done = self._release(first)
        missing = first + len(middles) - self._first - len(self._sum)
        if missing > 0:
            self._sum = np.pad(self._sum, ((0, missing), (0, 0)))
            self._count = np.pad(self._count, ((0, missing), (0, 0)))
        rows = slice(first - self._first, first - self._first + len(middles))
        self._sum[rows] += scores[np.minimum((middles - begin) // STEP_SAMPLES, len(scores) - 1)]
        self._count[rows] += 1
        return done

    def rest(self) -> np.ndarray:
        """All other rows."""
        return self._release(self._first + len(self._sum))

    def _release(self, end: int) -> np.ndarray:
        count = max(0, end - self._first)
        done = self._sum[:count] / self._count[:count]
        self._sum = self._sum[count:]
        self._count = self._count[count:]
        self._first += len(done)
        return done


class _Median:
    """A median filter over time for rows that come bit by bit. The first and the last row are repeated beyond
    the ends.

    Args:
        half: Rows on either side of the row whose median is taken.
    """

    def __init__(self, half: int):
        self._half = half
        self._held: np.ndarray | None = None

    def __call__(self, rows: np.ndarray, last: bool = False) -> np.ndarray:
        """The filtered rows that are certain by now; with the `last`, all of them."""
        if self._half == 0 or (self._held is None and not len(rows)):
            return rows
        before = np.repeat(rows[:1], self._half, axis=0) if self._held is None else self._held
        rows = np.concatenate([before, rows])
        if last:
            rows = np.concatenate([rows, np.repeat(rows[-1:], self._half, axis=0)])
        count = max(0, len(rows) - 2 * self._half)
        self._held = rows[count:]
        if not count:
            return rows[:0]
        spans = np.lib.stride_tricks.sliding_window_view(rows, 2 * self._half + 1, axis=0)
        at_once = max(1, AT_ONCE // spans[0].size)
        return np.concatenate([np.median(spans[i : i + at_once], axis=-1) for i in range(0, count, at_once)])
