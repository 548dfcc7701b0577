"""Which generators an augmentation draws from: a rule with a number, which is part of a run's identity."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beatline.core.errors import UserError
from beatline.train.augmentation import generator

SHARED, NAMED = 1, 2
"""The rules. `SHARED`: a clip has a generator and so has a batch, from which all augmentations draw in turn.
`NAMED`: each augmentation has its own, keyed by its name. A longer list shifts no other's draws.
"""

IN_TURN = ("mixup", "roll", "gain", "time_warp", "time_masks", "mel_masks")
"""In which order augmentations draw by the shared rule."""


def rule_of(identity: Mapping[str, Any]) -> int:
    """The rule by which a run has begun, and goes on; the first runs did not name theirs.

    Raises:
        UserError: `run-differs` for a rule that a newer beatline made.
    """
    rule = identity.get("draws", SHARED)
    if rule not in (SHARED, NAMED):
        raise UserError(
            "run-differs",
            "cannot continue the run",
            f"its augmentations draw by rule {rule}, and this beatline knows rules {SHARED} and {NAMED}",
            "use the beatline that began it, or another folder with --out",
        )
    return int(rule)


class Draws:
    """The generators of a step's rows.

    Args:
        rule: `SHARED` or `NAMED`.
        step: Seed, epoch and the step's number within the epoch.
        ids: The clip of each row.
    """

    def __init__(self, rule: int, step: tuple[int, int, int], ids: Sequence[str]):
        self.rule = rule
        self.step = step
        self.ids = ids
        self.shared = self._keyed()

    def _keyed(self, *name: str) -> tuple[list[np.random.Generator], np.random.Generator]:
        seed, epoch, number = self.step
        of_clip = [generator(seed, epoch, "clip", clip, *name) for clip in self.ids]
        return of_clip, generator(seed, epoch, "batch", number, *name)

    def of(self, name: str) -> tuple[list[np.random.Generator], np.random.Generator]:
        """A generator for each row, and a common generator, for the augmentation of that name."""
        return self.shared if self.rule == SHARED else self._keyed(name)

    def turns(self, names: Sequence[str]) -> list[str]:
        """The names in the order in which they draw."""
        if self.rule == NAMED:
            return list(names)
        return sorted(names, key=lambda name: IN_TURN.index(name) if name in IN_TURN else len(IN_TURN))
