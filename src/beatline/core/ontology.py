"""AudioSet's ontology: which sounds are kinds of which, and which labels a word means.

In: the table in the package (`assets/audioset/ontology.csv`, CC BY-SA 4.0). Out: each node with its children,
by mid. A node may have several parents; nodes that are `abstract` or on the `blacklist` are no labels. A word
is a label's name or mid, or a branch: `Dog/` is the dog and every kind of it. Imports no torch.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.core.text import nearest


@dataclass(frozen=True)
class Node:
    """A class of the ontology."""

    mid: str
    name: str
    children: tuple[str, ...]
    """Mids of the classes right below it."""
    restrictions: tuple[str, ...]
    """`abstract`: only there to order others. `blacklist`: left out of the data set."""


@cache
def ontology() -> dict[str, Node]:
    """The 632 nodes by mid, in the official order."""
    path = files("beatline") / "assets/audioset/ontology.csv"
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return {
        row["mid"]: Node(
            row["mid"], row["name"], tuple(row["children"].split()), tuple(row["restrictions"].split())
        )
        for row in rows
    }


def below(mid: str) -> frozenset[str]:
    """Mids of all kinds of this sound, at any depth, without itself."""
    found: set[str] = set()
    waiting = [mid]
    while waiting:
        new = set(ontology()[waiting.pop()].children) - found
        found |= new
        waiting += new
    return frozenset(found)


# --- label sets

Families = tuple[tuple[int, tuple[int, ...]], ...]
"""Of each label that has kinds in the label set: its index, and theirs at any depth."""


def label_indices(labels: LabelSet, words: Iterable[str]) -> list[int]:
    """Indices of the labels that the words mean, in label order.

    Args:
        words: Names in any case, or mids, of labels or of nodes of AudioSet's ontology. A node stands for
            itself and all below it, with `/` at its end or where it is no label.

    Raises:
        UserError: `unknown-label` with the nearest name.
    """
    return sorted({index for word in words for index in _meant(labels, word)})


def _meant(labels: LabelSet, word: str) -> set[int]:
    branch = word.removesuffix("/").strip()
    named = {
        index
        for index, label in enumerate(labels.labels)
        if word.strip() == label.mid or word.strip().lower() == label.name.lower()
    }
    if named:
        return named
    nodes = [
        node for node in ontology().values() if branch == node.mid or branch.lower() == node.name.lower()
    ]
    found = {
        labels.index_of_mid[mid]
        for node in nodes
        for mid in (node.mid, *below(node.mid))
        if mid in labels.index_of_mid
    }
    if found:
        return found
    if nodes:
        raise UserError(
            "unknown-label",
            f"label {word!r}",
            "neither it nor a kind of it is a label of this model",
            "give another",
        )
    nodes = [
        node
        for node in ontology().values()
        if not labels.index_of_mid.keys().isdisjoint((node.mid, *below(node.mid)))
    ]
    names = {name.lower(): name for name in (*(node.name for node in nodes), *labels.names)}
    near = nearest(branch.lower(), names)
    raise UserError(
        "unknown-label",
        f"label {word!r}",
        "this model has none of that name or mid",
        f"did you mean {names[near]!r}?" if near else "see the model's label table",
    )


def families(labels: LabelSet) -> Families:
    """The labels that have kinds among these labels, by AudioSet's ontology."""
    nodes = ((index, below(mid)) for index, mid in enumerate(labels.mids) if mid in ontology())
    kinds = (
        (index, tuple(labels.index_of_mid[mid] for mid in sorted(mids) if mid in labels.index_of_mid))
        for index, mids in nodes
    )
    return tuple((index, own) for index, own in kinds if own)


def raise_parents(scores: np.ndarray, known: Families) -> np.ndarray:
    """Scores `(..., labels)` where a label's is at least that of each of its kinds."""
    raised = scores.copy()
    for index, kinds in known:
        raised[..., index] = np.maximum(scores[..., index], scores[..., kinds].max(axis=-1))
    return raised
