"""audio files -> scores: any recordings, of any length, through any engine.

In: paths, bytes, streams or arrays. Out: a `Result` for each, in order, or a `Refused`. Files are decoded
ahead of the model; windows of different recordings share batches. Memory holds a few dozen windows and a row
of scores for each, however long a recording is. Imports no torch.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, get_args, overload

import numpy as np

from beatline.audio import inputs, media
from beatline.audio.media import Audio
from beatline.audio.samples import SAMPLE_RATE
from beatline.audio.windows import Merge
from beatline.core.errors import UserError, expect
from beatline.core.ontology import families, raise_parents
from beatline.model.engines import load as engines
from beatline.model.engines.base import Engine, Outputs, Precision
from beatline.model.geometry import (
    STEP_SAMPLES,
    step_count,
)
from beatline.tag.events import EventOptions
from beatline.tag.recordings import Embeddings, Read, Tags, scored
from beatline.tag.result import Embedded, EmbeddingLevel, Refused, Result

if TYPE_CHECKING:
    from beatline.tag.calibration import Calibration

Sound = str | os.PathLike[str] | bytes | BinaryIO | np.ndarray | tuple[np.ndarray, int]
"""What a user may mean by audio: a path, a file's bytes or stream, an array with or without rate."""
WINDOW_SECONDS = 10.0
HOP_SECONDS = 5.0


class AudioTagger:
    """Audio in, labels out: any path, bytes, stream or array. Any thread may call a tagger; `beatline.load`
    makes it.

    Args:
        engine: What runs the model.
        window: Longest stretch scored at once, seconds; a recording no longer than a window is scored whole.
        hop: Seconds between the begins of neighbouring windows, a sample to `window`.
        merge: How a recording's scores come from those of its windows, see `windows.merge`.
        parents: Raise a label's scores to those of its kinds in AudioSet's ontology.

    Raises:
        UserError: `bad-usage` for a hop that does not fit the window, an unknown merge, or where the labels
            have no parents.
    """

    calibration: "Calibration | None" = None
    """The calibration's temperature goes into every score. Its thresholds decide about events where
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
        expect(engine, Engine, "an engine", "give a model to beatline.load, which makes it")
        _check_types(window, hop)
        _check_known("merge", merge, get_args(Merge))
        if not 1 <= hop * SAMPLE_RATE <= window * SAMPLE_RATE < math.inf:
            raise UserError(
                "bad-usage",
                f"a hop of {hop:g} s",
                f"it is not between a sample and the window of {window:g} s",
                "give another",
            )
        self.engine = engine
        self.labels = engine.labels
        self.window = window
        self.hop = hop
        self.merge = merge
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

    @overload
    def __call__(
        self, audio: list[Any], rate: int | None = None, events: EventOptions | None = None
    ) -> list[Result]: ...

    @overload
    def __call__(
        self, audio: Sound, rate: int | None = None, events: EventOptions | None = None
    ) -> Result: ...

    def __call__(
        self, audio: Sound | list[Any], rate: int | None = None, events: EventOptions | None = None
    ) -> Result | list[Result]:
        """A `Result`, or a list of `Result`s for a list.

        Args:
            audio: A path, bytes of a file, a binary stream, or an array `(samples,)` or `(samples, channels)`
                with its `rate`. Or a list of these. The rate may stand beside the array, as `soundfile.read`
                gives both.
            rate: Samples a second of arrays, Hz.
            events: As `tag`.

        Raises:
            UserError: What is wrong with the audio, or with the first wrong item of a list.
        """
        return _asked(audio, rate, lambda sources: self.tag(sources, events))

    def tag(
        self, sources: Iterable[Any], events: EventOptions | None = None, read: Read = media.blocks
    ) -> Iterator[Result | Refused]:
        """A result for each recording, in order, each as soon as it is made. A refused recording costs the
        others nothing.

        Args:
            sources: `media.Audio`, or whatever `read` takes.
            events: How to find when each label sounds; None finds no events.
            read: How a source becomes blocks of so many seconds, and a note; `audio.pool.Decoders.blocks`
                for what strangers send.
        """
        if events is not None:
            expect(events, EventOptions, "events", "give beatline.EventOptions()")
        detail = events is not None and events.level == "steps"
        for recording in scored(
            self.engine,
            sources,
            lambda source: Tags(source, self, events),
            round(self.window * SAMPLE_RATE),
            round(self.hop * SAMPLE_RATE),
            detail=detail,
            read=read,
        ):
            yield (
                recording.result() if recording.error is None else Refused(recording.source, recording.error)
            )

    def recording(self, source: str, events: EventOptions | None = None) -> Tags:
        """A recording whose windows are scored elsewhere.

        The caller gives each window's outputs to `take`, counts windows in `taken`, sets `samples`, and asks
        for the `result`.
        """
        return Tags(source, self, events)

    @overload
    def embed(
        self, audio: list[Any], rate: int | None = None, level: EmbeddingLevel = "clip"
    ) -> list[np.ndarray]: ...

    @overload
    def embed(self, audio: Sound, rate: int | None = None, level: EmbeddingLevel = "clip") -> np.ndarray: ...

    def embed(
        self, audio: Sound | list[Any], rate: int | None = None, level: EmbeddingLevel = "clip"
    ) -> np.ndarray | list[np.ndarray]:
        """Embeddings of a recording, float32, or a list of arrays for a list.

        `clip` is `(width,)`, the mean over windows of the mean of their tokens. `window` is `(windows,
        width)`, the mean of each window's tokens. `token` is `(tokens, width)`: time-major, 8 tokens for each
        time step, of rising frequency. Step k begins at k * 0.16 s. A recording has as many steps as
        `geometry.step_count` says, from windows whose steps do not overlap.

        Args:
            audio: As `__call__`.
            rate: As `__call__`.
            level: What an embedding is of.

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
        """Each recording's embeddings, in order: a long recording comes in parts, so that memory does not
        follow its length.

        A recording that cannot be used ends in a `Refused`, perhaps after parts of it; it costs the others
        nothing.

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
        window = round(self.window * SAMPLE_RATE)
        hop = round(self.hop * SAMPLE_RATE)
        grid = 1
        if level == "token":
            window = max(window, SAMPLE_RATE)
            grid = STEP_SAMPLES
            hop = step_count(window) * STEP_SAMPLES  # the next window begins where this window's steps end
        for recording in scored(
            self.engine,
            sources,
            lambda source: Embeddings(source, level),
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
        """The scores `(..., labels)`, with parents raised where `parents` was asked for."""
        return raise_parents(scores, self._families) if self._families else scores


Found = TypeVar("Found")


def _asked(
    audio: Sound | list[Any],
    rate: int | None,
    run: Callable[[Iterable[Audio]], Iterator[Found | Refused]],
) -> Found | list[Found]:
    """What `run` gives for a recording, or a list for a list; the error of a `Refused` is raised."""
    several = isinstance(audio, list | tuple) and not inputs.has_rate(audio)
    sources: Any = audio if several else [audio]
    results: list[Found] = []
    for result in run(inputs.as_source(source, rate) for source in sources):
        if isinstance(result, Refused):
            raise result.error
        results.append(result)
    return results if several else results[0]


def _check_known(name: str, value: object, known: Iterable[str]) -> None:
    """Raises `bad-usage` for a value that is no known name."""
    if not any(value == each for each in known):
        raise UserError(
            "bad-usage", f"{name} {value!r}", f"there is no such {name}", f"give {' or '.join(known)}"
        )


def _check_types(window: object, hop: object) -> None:
    """Raises `bad-usage` for a window or hop that is no number."""
    expect(window, Real, "window", "give a number of seconds")
    expect(hop, Real, "hop", "give a number of seconds")


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
        head: Whether the model must have a head. A pre-trained encoder has none: its tagger embeds, and its
            single label means nothing.

    Raises:
        UserError: `bad-usage` for an unknown engine, precision or merge; as `AudioTagger` and
            `engines.load`.
    """
    _check_known("engine", engine, engines.engine_names())
    _check_known("precision", precision, engines.PRECISIONS)
    _check_known("merge", merge, get_args(Merge))
    _check_types(window, window if hop is None else hop)
    path = Path(source)
    if (path / "model").is_dir():  # a run folder stands for the model in it
        path = path / "model"
    ready = engines.load(path, engine, precision, device, threads, head)
    return AudioTagger(ready, window, window / 2 if hop is None else hop, merge, parents)
