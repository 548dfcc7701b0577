"""label set + ontology -> which labels are meant by a word, and which are kinds of another.

Outside the straight line: for results. A word is a label's name or mid, or a branch of AudioSet's ontology:
`Dog/` is the dog and every kind of it. Imports no torch.
"""

import difflib
from collections.abc import Iterable

import numpy as np

from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.core.ontology import below, ontology

Families = tuple[tuple[int, tuple[int, ...]], ...]
"""Of each label that has kinds in the label set: its index, and theirs at any depth."""


def find(labels: LabelSet, words: Iterable[str]) -> list[int]:
    """Indices of the labels that the words mean, in label order.

    Args:
        words: Names in any case, or mids, of labels; or of nodes of AudioSet's ontology: with `/` at the end,
            or where it is no label, a node stands for itself and all below it.

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
    near = difflib.get_close_matches(branch.lower(), names, n=1)
    raise UserError(
        "unknown-label",
        f"label {word!r}",
        "this model has none of that name or mid",
        f"did you mean {names[near[0]]!r}?" if near else "see the model's label table",
    )


def families(labels: LabelSet) -> Families:
    """Which of these labels have kinds among them, by AudioSet's ontology."""
    nodes = ((index, below(mid)) for index, mid in enumerate(labels.mids) if mid in ontology())
    kinds = (
        (index, tuple(labels.index_of_mid[mid] for mid in sorted(mids) if mid in labels.index_of_mid))
        for index, mids in nodes
    )
    return tuple((index, some) for index, some in kinds if some)


def raise_parents(scores: np.ndarray, known: Families) -> np.ndarray:
    """Scores `(..., labels)` where a label's is at least that of each of its kinds."""
    raised = scores.copy()
    for index, kinds in known:
        raised[..., index] = np.maximum(scores[..., index], scores[..., kinds].max(axis=-1))
    return raised
