"""What a tagger says of a recording, for programs and people.

Outside the straight line: `tag` makes these. Imports no torch.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from beatline.errors import UserError
from beatline.labels import Label, LabelSet


@dataclass(frozen=True)
class Tagged:
    """What a tagger says of one recording."""

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

    def top(self, count: int = 5) -> list[tuple[Label, float]]:
        """The labels with the highest scores, best first; equal ones in label order."""
        best = np.argsort(-self.scores, kind="stable")[:count]
        return [(self.labels.labels[i], float(self.scores[i])) for i in best]

    def to_dict(self, count: int | None = None) -> dict[str, Any]:
        """Plain values for JSON, with the `count` best labels, or all in order of score."""
        best = self.top(len(self.labels) if count is None else count)
        tags = [{"mid": label.mid, "name": label.name, "score": round(score, 6)} for label, score in best]
        return {"file": self.source, "seconds": round(self.seconds, 3), "tags": tags} | ({"note": self.note} if self.note else {})


@dataclass(frozen=True)
class Refused:
    """A recording that could not be tagged."""

    source: str
    error: UserError
