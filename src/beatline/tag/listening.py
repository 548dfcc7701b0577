"""sound as it comes -> scores: `tag` for recordings that have no end yet.

In: blocks of samples of any size, at any rate. Out: a `Moment` for each window, as soon as it is full. The
windows are those that `windows.cut` makes of the same recording. The first moment comes when a whole window
has been heard; only the last window may be shorter. `Stream` scores every window; `live` is for sound that
does not wait, and skips what the model is too slow for. Memory holds a few windows, however long the stream
is. Imports no torch.
"""

import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from beatline.audio import samples as audio
from beatline.audio.samples import SAMPLE_RATE
from beatline.core.errors import UserError, expect
from beatline.core.labels import Label, LabelSet
from beatline.tag.tagger import AudioTagger

LEAVING = 1.0  # seconds
# share of a hop that a full window may wait for the model; below 1, so that lag shrinks
PATIENCE = 0.9

Window = tuple[int, np.ndarray]
"""The window's first sample in the stream, and its samples, int16 at 16 kHz."""


@dataclass(frozen=True)
class Moment:
    """What a tagger says of a window of a stream."""

    start: float
    """Where the window begins, seconds from the stream's begin."""
    time: float
    """Where the window ends, seconds from the stream's begin: what was heard last."""
    scores: np.ndarray = field(repr=False)
    """`(labels,)` float32 in [0, 1]."""
    labels: LabelSet = field(repr=False)
    skipped: int = 0
    """Windows just before this window that were not scored because the model was too slow."""

    def above(self, threshold: float | np.ndarray) -> list[tuple[Label, float]]:
        """The labels with at least this score, for all or for each, `(labels,)`. The best comes first;
        equal scores keep label order.
        """
        order = np.argsort(-self.scores, kind="stable")
        return [
            (self.labels.labels[i], float(self.scores[i])) for i in order[(self.scores >= threshold)[order]]
        ]

    def select(self, indices: Sequence[int]) -> "Moment":
        """The moment with these labels only, in this order."""
        return replace(self, labels=self.labels.select(indices), scores=self.scores[list(indices)])

    def to_dict(self, threshold: float | np.ndarray = 0.0) -> dict[str, Any]:
        """Plain values for JSON, with the labels that have at least this score."""
        tags = [
            {"mid": label.mid, "name": label.name, "score": round(score, 6)}
            for label, score in self.above(threshold)
        ]
        return {
            "start": round(self.start, 3),
            "time": round(self.time, 3),
            "tags": tags,
            "skipped": self.skipped,
        }


class Stream:
    """Sound in, moments out: `push` blocks as they come, then `finish`. Not for several threads.

    The moments do not depend on how the sound was cut into blocks, to the last bit. A moment follows the
    sample that fills its window after a pass of the model.

    Args:
        tagger: What scores the windows.
        rate: Samples a second of what is pushed, Hz.
        channels: Channels of what is pushed; their mean is heard.
        window: Seconds of a window; the tagger's own when left out.
        hop: Seconds between the begins of neighbouring windows, above 0 up to `window`; the tagger's own when
            left out.

    Raises:
        UserError: `bad-usage` for a hop that does not fit the window; `bad-sample-rate`, `too-many-channels`.
    """

    def __init__(
        self,
        tagger: AudioTagger,
        rate: int,
        channels: int = 1,
        window: float | None = None,
        hop: float | None = None,
    ):
        expect(tagger, AudioTagger, "tagger", "give what beatline.load returns")
        expect(rate, Real, "rate", "give samples a second")
        expect(channels, Integral, "channels", "give how many there are")
        window = tagger.window if window is None else window
        expect(window, Real, "window", "give a number of seconds")
        hop = min(tagger.hop, window) if hop is None else hop
        expect(hop, Real, "hop", "give a number of seconds")
        finite = math.isfinite(window) and math.isfinite(hop)
        if not (finite and 1 <= round(hop * SAMPLE_RATE) <= round(window * SAMPLE_RATE)):
            raise UserError(
                "bad-usage",
                f"a hop of {hop:g} s",
                f"it is not above 0 and at most the window of {window:g} s",
                "give another",
            )
        if channels < 1:
            raise UserError("bad-usage", f"{channels} channels", "a stream has at least 1", "give another")
        with audio.refusals_about("the stream"):
            audio.check_form(rate, channels)
        self.tagger = tagger
        self.rate = rate
        self.channels = channels
        self._window = round(window * SAMPLE_RATE)
        self._hop = round(hop * SAMPLE_RATE)
        self._resampler = audio.Resampler(rate)
        self._held = bytearray()  # all samples from the last full window's begin on
        self._first = 0  # that begin
        self._begin = 0  # of the next window
        self._finished = False

    @property
    def hop(self) -> float:
        """Seconds."""
        return self._hop / SAMPLE_RATE

    def push(self, samples: np.ndarray) -> list[Moment]:
        """The moments that these samples complete; returns when they are scored.

        Args:
            samples: The next samples, `(samples,)` or `(samples, channels)`; floats in [-1, 1], or int16.

        Raises:
            UserError: `not-audio` for another shape or type, `not-finite`.
        """
        return [self.score(window) for window in self.cut(samples)]

    def finish(self) -> list[Moment]:
        """The last moment, whose window ends with the stream, or nothing. Nothing can be pushed after the
        call.
        """
        return [self.score(window) for window in self.end()]

    def cut(self, samples: np.ndarray) -> Iterator[Window]:
        """The windows that these samples complete, not scored; as `push`."""
        if self._finished:
            raise ValueError("the stream is finished")
        if not samples.size:
            return
        with audio.refusals_about("the stream"):
            source = audio.Samples(samples, self.rate)
            if source.channels != self.channels:
                raise audio.Unusable(
                    "not-audio",
                    f"a block has {source.channels} channels, not {self.channels}",
                    "push blocks of the same form",
                )
            for mono, _ in source.blocks(np.inf):
                yield from self._full(self._resampler.push(mono))

    def end(self) -> Iterator[Window]:
        """The window that ends with the stream, not scored; as `finish`."""
        if self._finished:
            return
        self._finished = True
        yield from self._full(self._resampler.finish())
        total = self._first + len(self._held) // 2
        if total > (self._begin - self._hop + self._window if self._begin else 0):
            begin = max(0, total - self._window)
            yield begin, np.frombuffer(self._held[2 * (begin - self._first) :], np.int16)

    def _full(self, samples: np.ndarray) -> Iterator[Window]:
        self._held += samples.tobytes()
        while self._first + len(self._held) // 2 >= self._begin + self._window:
            del self._held[: 2 * (self._begin - self._first)]
            self._first = self._begin
            self._begin += self._hop
            yield self._first, np.frombuffer(self._held[: 2 * self._window], np.int16)

    def score(self, window: Window) -> Moment:
        """What the tagger says of a window; alone, because what else is in a batch can change the last
        bit.
        """
        begin, samples = window
        scores = self.tagger.raised(self.tagger.window_scores(self.tagger.engine.outputs([samples]), 0))
        return Moment(begin / SAMPLE_RATE, (begin + len(samples)) / SAMPLE_RATE, scores, self.tagger.labels)


def every(stream: Stream, blocks: Iterable[np.ndarray]) -> Iterator[Moment]:
    """Every moment of blocks that can wait, such as those of a file."""
    for block in blocks:
        yield from stream.push(block)
    yield from stream.finish()


def live(stream: Stream, blocks: Iterable[np.ndarray]) -> Iterator[Moment]:
    """The moments of blocks that come in real time. Each is at most a hop and a pass of the model after its
    last sample.

    A thread hears while the model works, and a single window waits. Where the next window is full a hop later
    and the model still is busy, the older window is skipped. The next moment counts skipped windows. A source
    that is faster than real time waits for the model instead. So only a model that needs longer than a hop
    skips, and nothing queues up.

    Args:
        blocks: As for `Stream.push`; taken by another thread, which ends with them.
    """
    waiting = _Waiting(PATIENCE * stream.hop)

    def hear() -> None:
        try:
            for block in blocks:
                for window in stream.cut(block):
                    if not waiting.put(window):
                        return
            for window in stream.end():
                waiting.put(window, last=True)
            waiting.end(None)
        except BaseException as error:  # raised where the moments are taken
            waiting.end(error)

    hearing = threading.Thread(target=hear, name="hear", daemon=True)
    hearing.start()
    try:
        while taken := waiting.take():
            window, skipped = taken
            yield replace(stream.score(window), skipped=skipped)
    finally:
        waiting.leave()
        # the program's end would abort the thread inside the resampler; a thread waiting for sound may stay
        hearing.join(LEAVING)


class _Waiting:
    """The single window between the thread that hears and the thread that scores."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._window: Window | None = None
        self._since = 0.0
        self._skipped = 0
        self._over = False
        self._left = False
        self._error: BaseException | None = None

    def put(self, window: Window, last: bool = False) -> bool:
        """Gives a window, instead of a window that has waited too long; the last window waits for the others.
        False where nobody takes any more.
        """
        with self._changed:
            left = None if last else max(0.0, self._since + self._patience - time.monotonic())
            self._changed.wait_for(lambda: self._window is None or self._left, left)
            self._skipped += self._window is not None
            self._window = window
            self._since = time.monotonic()
            self._changed.notify_all()
            return not self._left

    def end(self, error: BaseException | None) -> None:
        """Says that no window follows, and why."""
        with self._changed:
            self._over = True
            self._error = error
            self._changed.notify_all()

    def take(self) -> tuple[Window, int] | None:
        """The window, and how many were skipped since the last; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._window is not None or self._over)
            if self._window is None:
                if self._error is not None:
                    raise self._error
                return None
            taken = self._window, self._skipped
            self._window = None
            self._skipped = 0
            self._changed.notify_all()
            return taken

    def leave(self) -> None:
        """Says that nobody takes any more."""
        with self._changed:
            self._left = True
            self._changed.notify_all()
