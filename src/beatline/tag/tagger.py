"""audio files -> scores: any recordings, of any length, through any engine.

In: paths, bytes or streams. Out: one `Tagged` for each, in order, or the reason why not. Files are decoded
ahead of the model; windows of different recordings share batches; memory holds a few dozen windows and a row
of scores for each, however long a recording is. Imports no torch.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np

from beatline.audio import inputs, media, windows
from beatline.audio.media import Audio
from beatline.audio.pool import Job
from beatline.audio.samples import SAMPLE_RATE
from beatline.audio.windows import Merge
from beatline.core import threads as ahead
from beatline.core.errors import UserError
from beatline.core.families import families, raise_parents
from beatline.model.engines import load as engines
from beatline.model.engines.base import Engine, Outputs, Precision
from beatline.model.geometry import (
    STEP_SAMPLES,
    STEP_SECONDS,
    TOKENS_OF_A_STEP,
    step_count,
    tiled_length,
)
from beatline.tag.events import Event, EventOptions, Events, in_order
from beatline.tag.result import Embedded, EmbeddingLevel, Refused, Tagged

if TYPE_CHECKING:
    from beatline.tag.calibration import Calibration

WINDOW_SECONDS = 10.0
HOP_SECONDS = 5.0
WINDOWS_AT_ONCE = 32  # collected before scoring, at least, so that those of one length meet
Read = Callable[[Any, float], Generator[np.ndarray, None, str]]


class AudioTagger:
    """Audio in, labels out: any path, bytes, stream or array; any thread may call it. `beatline.load` makes
    one.

    Args:
        engine: What runs the model.
        window: Longest stretch scored at once, seconds; a recording no longer than it is scored whole.
        hop: Seconds from one window's begin to the next, a sample to `window`.
        merge: How a recording's scores come from those of its windows, see `windows.merge`.
        parents: Raise a label's scores to those of its kinds in AudioSet's ontology.

    Raises:
        UserError: `bad-usage` for a hop that does not fit the window, or where the labels have no parents.
    """

    calibration: "Calibration | None" = None
    """Its temperature goes into every score; its thresholds decide about events where
    `EventOptions.threshold` is left open.
    """

    def __init__(
        self,
        engine: Engine,
        window: float = WINDOW_SECONDS,
        hop: float = HOP_SECONDS,
        merge: Merge = "mean",
        parents: bool = False,
    ):
        if not 1 <= hop * SAMPLE_RATE <= window * SAMPLE_RATE < math.inf:
            raise UserError(
                "bad-usage",
                f"a hop of {hop:g} s",
                f"it is not between a sample and the window of {window:g} s",
                "give another",
            )
        self.engine, self.labels, self.window, self.hop, self.merge = (
            engine,
            engine.labels,
            window,
            hop,
            merge,
        )
        self._families = families(engine.labels) if parents else ()
        if parents and (engine.task != "multi-label" or not self._families):
            cause = "no label of this model is a kind of another in AudioSet's ontology"
            raise UserError(
                "bad-usage",
                "parents' scores",
                cause
                if engine.task == "multi-label"
                else "this model gives each clip one label, so scores exclude each other",
                "leave parents out",
            )

    def __call__(self, audio: Any, rate: int | None = None, events: EventOptions | None = None) -> Any:
        """A `Tagged`, or a list of them for a list.

        Args:
            audio: A path, bytes of a file, a binary stream, or an array `(samples,)` or `(samples, channels)`
                with its `rate`, which may also stand beside it, as in what soundfile.read gives; or a list of
                them.
            rate: Samples a second of arrays, Hz.
            events: As `tag`.

        Raises:
            UserError: What is wrong with the audio; of a list, with the first that has something.
        """
        return _asked(audio, rate, lambda sources: self.tag(sources, events))

    def tag(
        self, sources: Iterable[Any], events: EventOptions | None = None, read: Read = media.blocks
    ) -> Iterator[Tagged | Refused]:
        """One result for each recording, in order, as they come; one that cannot be used costs the others
        nothing.

        Args:
            sources: `media.Audio`, or whatever `read` takes.
            events: How to find when each label sounds; None leaves that out.
            read: How a source becomes blocks of so many seconds, and a note; `children.Decoders.blocks` for
                what strangers send.
        """
        detail = events is not None and events.level == "steps"
        for recording in _scored(
            self.engine,
            sources,
            lambda source: _Tags(source, self, events),
            round(self.window * SAMPLE_RATE),
            round(self.hop * SAMPLE_RATE),
            detail=detail,
            read=read,
        ):
            yield (
                recording.result() if recording.error is None else Refused(recording.source, recording.error)
            )

    def recording(self, source: str, events: EventOptions | None = None) -> "_Tags":
        """A recording whose windows are scored elsewhere: give it what the engine says of each with `take`,
        count them in `taken`, set `samples`, and ask for its `result`.
        """
        return _Tags(source, self, events)

    def embed(self, audio: Any, rate: int | None = None, level: EmbeddingLevel = "clip") -> Any:
        """Embeddings, float32, of a recording; or a list of them for a list.

        `clip` is `(width,)`, the mean over windows of the mean of their tokens. `window` is `(windows,
        width)`, the mean of each one's tokens. `token` is `(tokens, width)`: time-major, 8 tokens for each
        time step, of rising frequency; step k begins at k * 0.16 s. As many steps as `geometry.step_count`
        says of the whole recording, from windows whose steps do not overlap.

        Args:
            audio: As `__call__`.
            rate: As `__call__`.
            level: Of what.

        Raises:
            UserError: As `__call__`; `bad-usage` for another level.
        """

        def whole(sources: Iterable[Audio]) -> Iterator[np.ndarray | Refused]:
            parts: list[np.ndarray] = []
            for part in self.embeddings(sources, level):
                if isinstance(part, Refused):
                    yield part
                    continue
                parts.append(part.rows)
                if part.seconds is not None:
                    yield np.concatenate(parts) if level != "clip" else part.rows[0]
                    parts = []

        return _asked(audio, rate, whole)

    def embeddings(
        self, sources: Iterable[Any], level: EmbeddingLevel = "clip", read: Read = media.blocks
    ) -> Iterator[Embedded | Refused]:
        """Each recording's embeddings, in order, as they come: a long one in parts, so that memory does not
        follow its length.

        One that cannot be used ends in a `Refused`, perhaps after some parts; it costs the others nothing.

        Args:
            sources: As `tag`.
            level: As `embed`.
            read: As `tag`.

        Raises:
            UserError: `bad-usage` for another level.
        """
        if level not in get_args(EmbeddingLevel):
            raise UserError(
                "bad-usage",
                f"embeddings of level {level!r}",
                "there is no such level",
                "give clip, window or token",
            )
        window, hop, grid = round(self.window * SAMPLE_RATE), round(self.hop * SAMPLE_RATE), 1
        if level == "token":
            window, grid = max(window, SAMPLE_RATE), STEP_SAMPLES
            hop = step_count(window) * STEP_SAMPLES  # the next window begins where this one's steps end
        for recording in _scored(
            self.engine,
            sources,
            lambda source: _Embeddings(source, level),
            window,
            hop,
            grid,
            level == "token",
            read,
            as_it_comes=level != "clip",
        ):
            yield (
                Refused(recording.source, recording.error)
                if recording.ended and recording.error
                else recording.part()
            )

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Scores in [0, 1] of logits `(..., labels)`, with the calibration's temperature."""
        return self.engine.score(
            logits if self.calibration is None else logits / np.float32(self.calibration.temperature)
        )

    def window_scores(self, outputs: Outputs, row: int) -> np.ndarray:
        """Scores of the window in a row of what the engine says, `(labels,)`, with the calibration's
        temperature.
        """
        return outputs.scores[row] if self.calibration is None else self.scores(outputs.logits[row])

    def raised(self, scores: np.ndarray) -> np.ndarray:
        """Scores `(..., labels)`, those of parents raised where that was asked for."""
        return raise_parents(scores, self._families) if self._families else scores


def _asked(audio: Any, rate: int | None, run: Callable[[Iterable[Audio]], Iterator[Any]]) -> Any:
    """What `run` gives for one recording, or a list for a list; what it refuses is raised."""
    several = isinstance(audio, list | tuple) and not inputs.has_rate(audio)
    results = []
    for result in run(inputs.as_source(one, rate) for one in (audio if several else [audio])):
        if isinstance(result, Refused):
            raise result.error
        results.append(result)
    return results if several else results[0]


def load(
    source: Path | str,
    engine: str = "auto",
    precision: Precision = "float32",
    device: str = "auto",
    threads: int = 0,
    window: float = WINDOW_SECONDS,
    hop: float | None = None,
    merge: Merge = "mean",
    parents: bool = False,
    head: bool = True,
) -> AudioTagger:
    """A run folder, a checkpoint or an export as a tagger; see `engines.load` and `AudioTagger`. An export is
    loaded without importing torch.

    Args:
        source: A path.
        hop: Seconds; None is half a window.
        head: Whether it must have one. A pre-trained encoder has none; its tagger embeds, and has one label
            that means nothing.

    Raises:
        UserError: `bad-usage` for an engine, precision or merge that there is not; as `AudioTagger`,
            and `engines.load`.
    """
    for name, value, known in (
        ("engine", engine, engines.engine_names()),
        ("precision", precision, engines.PRECISIONS),
        ("merge", merge, get_args(Merge)),
    ):
        if value not in known:
            raise UserError(
                "bad-usage", f"{name} {value!r}", "there is no such one", f"give one of {', '.join(known)}"
            )
    path = Path(source)
    path = path / "model" if (path / "model").is_dir() else path  # a run folder stands for the model in it
    ready = engines.load(path, engine, precision, device, threads, head)
    return AudioTagger(ready, window, window / 2 if hop is None else hop, merge, parents)


class _Recording:
    """A recording some of whose windows are not scored yet."""

    def __init__(self, source: str):
        self.source, self.samples, self.note = source, 0, ""
        self.cut = self.taken = 0  # windows
        self.whole = False
        self.ended = False
        """Given out for the last time; `done` may come true in the reading thread at any moment."""
        self.error: UserError | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or (self.whole and self.taken == self.cut)

    def take(self, begin: int, length: int, outputs: Outputs, row: int) -> None:
        """What the engine says of the next window: a row of its outputs."""
        raise NotImplementedError


class _Tags(_Recording):
    """A recording on its way to a `Tagged`."""

    def __init__(self, source: str, tagger: AudioTagger, options: EventOptions | None):
        super().__init__(source)
        self._tagger, self._level = tagger, options.level if options else None
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

    def result(self) -> Tagged:
        """Once all windows are taken."""
        tagger, seconds, scores = self._tagger, self.samples / SAMPLE_RATE, np.stack(self._scores)
        return Tagged(
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


class _Embeddings(_Recording):
    """A recording on its way to its embeddings."""

    def __init__(self, source: str, level: EmbeddingLevel):
        super().__init__(source)
        self._level, self._steps = level, 0
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
            first, end = begin // STEP_SAMPLES, begin // STEP_SAMPLES + _steps(length)
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
        rows, times = np.concatenate(self._rows), np.concatenate(self._times)
        self._rows, self._times = (
            [rows[:0].copy()],
            [times[:0].copy()],
        )  # copies, or what was given out stays in memory
        return Embedded(self.source, rows, times, seconds, self.note if self.ended else "")


Kind = TypeVar("Kind", bound=_Recording)


def windows_at_once(engine: Engine) -> int:
    """How many windows are collected before they are scored."""
    return max(WINDOWS_AT_ONCE, engine.clips_at_once)


def _scored(
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
    """The recordings in order, each when its windows are taken or when it has an error, or else also before;
    `window`, `hop` and `grid` in samples.
    """
    waiting: deque[Kind] = deque()
    batch: list[tuple[_Recording, int, np.ndarray]] = []
    together = windows_at_once(engine)
    for recording, begin, samples in ahead.buffered(
        _windows(sources, opened, window, hop, grid, read, engine.readers), together
    ):
        if samples is None and begin == 0:
            waiting.append(recording)
        if samples is not None:
            batch.append((recording, begin, samples))
        if len(batch) == together:
            _score(engine, batch, detail)
            if as_it_comes and waiting and not waiting[0].done:  # of those behind it no window has been cut
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
    """`(recording, first sample, samples)` of each window; an item without samples is the begin (0) or the
    end (-1) of a recording.
    """

    def begin(source: Any) -> tuple[Any, _Begun]:
        return source, _Begun(read(source, window / SAMPLE_RATE))

    with closing(ahead.in_order(sources, begin, readers)) as begun:
        for source, blocks in begun:
            recording = opened(str(source) if isinstance(source, Path | Job) else "audio")
            yield recording, 0, None
            try:
                with closing(blocks):
                    for begin_at, samples in windows.cut(blocks, window, hop, grid):
                        recording.cut += 1
                        yield recording, begin_at, samples
                recording.samples, recording.note, recording.whole = blocks.samples, blocks.note, True
            except UserError as error:
                recording.error = error
            yield recording, -1, None


class _Begun:
    """Blocks the first of which is there, or the reason why none is; they are counted, and their note is
    kept.
    """

    def __init__(self, blocks: Generator[np.ndarray, None, str]):
        self.blocks, self.samples, self.note = blocks, 0, ""
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
        block, self._first = self._first, None
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


def _score(engine: Engine, batch: list[tuple[_Recording, int, np.ndarray]], detail: bool) -> None:
    """Scores windows and gives what is said of them to their recordings in order."""
    if not batch:
        return
    outputs = engine.outputs([samples for _, _, samples in batch], detail)
    for row, (recording, begin, samples) in enumerate(batch):
        recording.take(begin, len(samples), outputs, row)
        recording.taken += 1
    batch.clear()
