"""In: a batch, or the clips of validation. Out: a loss, or figures.

Each file is an objective, named like it in `train.objective`; see `train/objective` for what it has to do.
From outside of the package, `OBJECTIVES["name"] = Class` adds another.
"""

from beatline.config import Config
from beatline.data.store import Store
from beatline.train.objective import Objective
from beatline.train.registry import classes_in, find

OBJECTIVES: dict[str, type[Objective]] = classes_in(__name__, __path__)
"""Every objective by its name in `train.objective`."""


def named(config: Config, store: Store) -> Objective:
    """The objective that `train.objective` names.

    Raises:
        UserError: `bad-config` for a name that there is not, or clips that do not suit.
    """
    objective = find(OBJECTIVES, config.train.objective, "train.objective")
    objective.check(config)
    return objective(config, store)
