"""What a tagger says of a recording, for programs and people.

Outside the straight line: `tagger` makes results, `formats` writes them. Imports no torch; pandas and jinja2
only where a table is asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet
from beatline.tag.events import Event

SHOWN = 5  # labels, in a notebook
EVENTS_SHOWN = 20  # in a notebook
Level = Literal["clip", "windows", "events"]
EmbeddingLevel = Literal["clip", "window", "token"]


class ResultRow(NamedTuple):
    """A row of a table of results: a label, and the stretch of time it belongs to."""

    file: str
    onset: float
    """Seconds."""
    offset: float
    """Seconds."""
    mid: str
    name: str
    score: float


@dataclass(frozen=True)
class Result:
    """What a tagger says of a recording."""

    source: str
    """The file's path as given, or `audio`."""
    labels: LabelSet = field(repr=False)
    scores: np.ndarray = field(repr=False)
    """`(labels,)` float32 in [0, 1]."""
    embedding: np.ndarray = field(repr=False)
    """`(width,)` float32, the mean over windows."""
    starts: np.ndarray = field(repr=False)
    """Where each window begins, seconds, `(windows,)`."""
    window_scores: np.ndarray = field(repr=False)
    """`(windows, labels)` float32."""
    seconds: float
    """Length of the recording."""
    note: str = ""
    """What a careful reader should know, e.g. that the file is cut short."""
    window: float | None = None
    """Length of a window, seconds; None is the whole recording."""
    events: tuple[Event, ...] | None = field(default=None, repr=False)
    """What sounds from when to when, by onset; None where no events were asked for."""

    @property
    def ends(self) -> np.ndarray:
        """Where each window ends, seconds, `(windows,)`."""
        return np.minimum(self.starts + (self.seconds if self.window is None else self.window), self.seconds)

    def top(self, count: int | None = 5, threshold: float | np.ndarray = 0.0) -> list[tuple[Label, float]]:
        """The labels with the highest scores, best first; equal scores in label order.

        Args:
            count: How many at most; None is all.
            threshold: Lowest score, for all labels or for each, `(labels,)`.
        """
        return self._best(self.scores, count, threshold)

    def select(self, indices: Sequence[int]) -> "Result":
        """The result with these labels only, in this order."""
        chosen = self.labels.select(indices)
        events = (
            None
            if self.events is None
            else tuple(event for event in self.events if event.label.mid in chosen.index_of_mid)
        )
        return replace(
            self,
            labels=chosen,
            scores=self.scores[list(indices)],
            window_scores=self.window_scores[:, list(indices)],
            events=events,
        )

    def rows(
        self, level: Level = "clip", count: int | None = None, threshold: float | np.ndarray = 0.0
    ) -> Iterator[ResultRow]:
        """The result as a table.

        Args:
            level: What a row is of: a label of the whole `clip` or of a window, best first. Or an event, by
                onset.
            count: Labels of the clip or of a window at most, None is all; of events it is always all.
            threshold: Lowest score of the clip or a window, as `top`; events have had theirs.

        Raises:
            UserError: `bad-usage` where no events were asked for.
        """
        if level == "events":
            if self.events is None:
                raise UserError(
                    "bad-usage",
                    f"events of {self.source}",
                    "they were not asked for",
                    "call the tagger with events=EventOptions()",
                )
            yield from (
                ResultRow(
                    self.source, event.onset, event.offset, event.label.mid, event.label.name, event.score
                )
                for event in self.events
            )
            return
        stretches = (
            [(0.0, self.seconds, self.scores)]
            if level == "clip"
            else zip(self.starts.tolist(), self.ends.tolist(), self.window_scores, strict=True)
        )
        for onset, offset, scores in stretches:
            for label, score in self._best(scores, count, threshold):
                yield ResultRow(self.source, onset, offset, label.mid, label.name, score)

    def to_dict(
        self, count: int | None = None, threshold: float | np.ndarray = 0.0, windows: bool = False
    ) -> dict[str, Any]:
        """Plain values for JSON: the labels as `top` has them, and the events where they were asked for.

        Args:
            count: Labels of the clip and of each window at most; None is all.
            threshold: As `rows`.
            windows: Also the labels of each window.
        """
        result: dict[str, Any] = {
            "file": self.source,
            "seconds": round(self.seconds, 3),
            "tags": _plain(self.top(count, threshold)),
        }
        if windows:
            spans = zip(self.starts.tolist(), self.ends.tolist(), self.window_scores, strict=True)
            result["windows"] = [
                {
                    "onset": round(start, 3),
                    "offset": round(end, 3),
                    "tags": _plain(self._best(scores, count, threshold)),
                }
                for start, end, scores in spans
            ]
        if self.events is not None:
            result["events"] = [
                {
                    "onset": round(event.onset, 3),
                    "offset": round(event.offset, 3),
                    **_plain([(event.label, event.score)])[0],
                }
                for event in self.events
            ]
        return result | ({"note": self.note} if self.note else {})

    def to_dataframe(
        self, level: Level = "clip", count: int | None = None, threshold: float | np.ndarray = 0.0
    ) -> Any:
        """`rows` as a pandas data frame with the columns of `ResultRow`.

        Raises:
            UserError: `missing-package`; as `rows`.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise UserError(
                "missing-package",
                "a data frame",
                "pandas is not installed",
                "pip install 'beatline[data]', or take rows()",
            ) from error
        return pandas.DataFrame(list(self.rows(level, count, threshold)), columns=list(ResultRow._fields))

    def _repr_html_(self) -> str:
        """As a notebook shows it: the best labels of the recording, and its first events where they were
        asked for.
        """
        from beatline.core.html import fragment

        return fragment("result.html", result=self, labels_shown=SHOWN, events_shown=EVENTS_SHOWN)

    def _best(
        self, scores: np.ndarray, count: int | None, threshold: float | np.ndarray
    ) -> list[tuple[Label, float]]:
        best = np.argsort(-scores, kind="stable")
        kept = best[(scores >= threshold)[best]][:count]
        return [(self.labels.labels[i], float(scores[i])) for i in kept]


def _plain(best: list[tuple[Label, float]]) -> list[dict[str, Any]]:
    return [{"mid": label.mid, "name": label.name, "score": round(score, 6)} for label, score in best]


@dataclass(frozen=True)
class Embedded:
    """Embeddings of a recording, or of its next part."""

    source: str
    """As `Result.source`."""
    rows: np.ndarray = field(repr=False)
    """`(rows, width)` float32."""
    times: np.ndarray = field(repr=False)
    """Begin and end of what each row is of, seconds, `(rows, 2)` float64."""
    seconds: float | None = None
    """Length of the recording, in its last part; None in the parts before."""
    note: str = ""
    """As `Result.note`, in the last part."""


@dataclass(frozen=True)
class Refused:
    """A recording that could not be tagged."""

    source: str
    error: UserError
