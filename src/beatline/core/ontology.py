"""AudioSet's ontology: which sounds are kinds of which.

Outside the straight line: for scoring and reports. In: the table in the package
(`assets/audioset/ontology.csv`, CC BY-SA 4.0). Out: each node with its children, by mid. A node may have
several parents; nodes that are `abstract` or on the `blacklist` are no labels. Imports no torch.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Node:
    """One class of the ontology."""

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
