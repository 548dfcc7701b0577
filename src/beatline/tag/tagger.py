"""audio files -> scores: any recordings, of any length, through any engine.

In: paths, bytes or streams. Out: one `Tagged` for each, in order, or the reason why not. Files are decoded
ahead of the model; windows of different recordings share batches; memory holds a few dozen windows and a row
of scores for each, however long a recording is. Imports no torch.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, get_args, overload

import numpy as np

from beatline.audio import inputs, media
from beatline.audio.media import Audio
from beatline.audio.samples import SAMPLE_RATE
from beatline.audio.windows import Merge
from beatline.core.errors import UserError
from beatline.core.ontology import families, raise_parents
from beatline.model.engines import load as engines
from beatline.model.engines.base import Engine, Outputs, Precision
from beatline.model.geometry import (
    STEP_SAMPLES,
    step_count,
)
from beatline.tag.events import EventOptions
from beatline.tag.recordings import Embeddings, Read, Tags, scored
from beatline.tag.result import Embedded, EmbeddingLevel, Refused, Tagged

if TYPE_CHECKING:
    from beatline.tag.calibration import Calibration

Sound = str | os.PathLike[str] | bytes | BinaryIO | np.ndarray | tuple[np.ndarray, int]
"""What a user may mean by audio: a path, a file's bytes or stream, an array, an array with its rate."""
WINDOW_SECONDS = 10.0
HOP_SECONDS = 5.0


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

    @overload
    def __call__(
        self, audio: list[Any], rate: int | None = None, events: EventOptions | None = None
    ) -> list[Tagged]: ...

    @overload
    def __call__(
        self, audio: Sound, rate: int | None = None, events: EventOptions | None = None
    ) -> Tagged: ...

    def __call__(
        self, audio: Sound | list[Any], rate: int | None = None, events: EventOptions | None = None
    ) -> Tagged | list[Tagged]:
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
        """A recording whose windows are scored elsewhere: give it what the engine says of each with `take`,
        count them in `taken`, set `samples`, and ask for its `result`.
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
        """Scores `(..., labels)`, those of parents raised where that was asked for."""
        return raise_parents(scores, self._families) if self._families else scores


Found = TypeVar("Found")


def _asked(
    audio: Sound | list[Any],
    rate: int | None,
    run: Callable[[Iterable[Audio]], Iterator[Found | Refused]],
) -> Found | list[Found]:
    """What `run` gives for a recording, or a list for a list; what it refuses is raised."""
    several = isinstance(audio, list | tuple) and not inputs.has_rate(audio)
    sources: Any = audio if several else [audio]
    results: list[Found] = []
    for result in run(inputs.as_source(source, rate) for source in sources):
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
