"""The label set: index, mid and display name of every label a model scores.

Outside the straight line: `manifest`, `model/checkpoint`, `metrics` and `report` share it. Imports no torch.
The 527 AudioSet labels are in the package (`assets/audioset/class_labels_indices.csv`, official, CC BY 4.0).
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

from beatline.core.errors import UserError


@dataclass(frozen=True)
class Label:
    """A class: `mid` is its stable id (AudioSet's `/m/...`, or the name itself for other data), `name` its
    display name.
    """

    mid: str
    name: str


@dataclass(frozen=True)
class LabelSet:
    """Labels in output order."""

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        if not self.labels:
            raise UserError("bad-table", "label set", "it is empty", "give at least one label")
        seen: set[str] = set()
        for label in self.labels:
            if label.mid in seen:
                raise UserError(
                    "bad-table", "label set", f"{label.mid!r} occurs twice", "list every label once"
                )
            seen.add(label.mid)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def index_of_mid(self) -> dict[str, int]:
        return {label.mid: i for i, label in enumerate(self.labels)}

    @cached_property
    def mids(self) -> tuple[str, ...]:
        return tuple(label.mid for label in self.labels)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the mids in order: two models with the same hash have the same outputs."""
        return hashlib.sha256("\n".join(self.mids).encode()).hexdigest()

    def to_csv(self) -> str:
        """The table in AudioSet's form: `index,mid,display_name`."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["index", "mid", "display_name"])
        writer.writerows([i, label.mid, label.name] for i, label in enumerate(self.labels))
        return out.getvalue()

    @staticmethod
    def from_csv(text: str, source: str = "label table") -> "LabelSet":
        """Reads `to_csv`'s form, or `mid,display_name` without the index.

        Raises:
            UserError: `bad-table` where columns are missing, a row is short or an index is out of order.
        """
        rows = csv.DictReader(io.StringIO(text))
        if not {"mid", "display_name"} <= set(rows.fieldnames or ()):
            raise UserError(
                "bad-table",
                source,
                "no columns mid and display_name",
                "use the form of class_labels_indices.csv",
            )
        labels = []
        for i, row in enumerate(rows):
            if not row["mid"] or not row["display_name"] or row.get("index", str(i)) != str(i):
                raise UserError(
                    "bad-table",
                    f"{source} line {i + 2}",
                    "incomplete or out of order",
                    "use the form of class_labels_indices.csv",
                )
            labels.append(Label(row["mid"], row["display_name"]))
        return LabelSet(tuple(labels))

    @staticmethod
    def from_names(names: Iterable[str]) -> "LabelSet":
        """A label set whose mids are the names themselves (folders, ESC-50-style data)."""
        return LabelSet(tuple(Label(name, name) for name in names))

    def select(self, indices: Iterable[int]) -> "LabelSet":
        """The label set of these labels only, in this order."""
        return LabelSet(tuple(self.labels[i] for i in indices))


@cache
def audioset() -> LabelSet:
    """AudioSet's 527 labels in their official order. Source: class_labels_indices.csv (storage of the
    AudioSet release).
    """
    path = files("beatline") / "assets/audioset/class_labels_indices.csv"
    return LabelSet.from_csv(path.read_text(encoding="utf-8"), str(path))


@cache
def _audioset_by_token() -> dict[str, Label]:
    return {espnet_token(label.name): label for label in audioset().labels}


def espnet_token(name: str) -> str:
    """A label's display name as ESPnet's recipe writes it: spaces as underscores."""
    return name.replace(" ", "_")


def from_espnet_tokens(tokens: Sequence[str]) -> LabelSet:
    """The label set of an ESPnet `token_list`: special tokens (`<unk>`, `<blank>`) dropped, AudioSet names
    mapped to mids.

    A token that is no AudioSet name becomes its own mid, so that models of other tasks can be read.
    """
    kept = [token for token in tokens if not (token.startswith("<") and token.endswith(">"))]
    return LabelSet(tuple(_audioset_by_token().get(token, Label(token, token)) for token in kept))
