"""In: a batch and its draws. Out: the batch changed, as `augment.order` says.

Each file is an augmentation, named like it; see `train/augmentation` for what it has to do. From outside of
the package, `AUGMENTATIONS["name"] = Class` adds another.
"""

from beatline.config import AugmentConfig
from beatline.core.errors import UserError
from beatline.train.augmentation import Augmentation
from beatline.train.registry import classes_in, find

AUGMENTATIONS: dict[str, type[Augmentation]] = classes_in(__name__, __path__)
"""Every augmentation by its name in `augment.order`."""


def named(settings: AugmentConfig) -> dict[str, Augmentation]:
    """The augmentations of `augment.order`, by name, in order.

    Raises:
        UserError: `bad-config` for a name that there is not, twice the same, or two that mix clips.
    """
    found = {name: find(AUGMENTATIONS, name, "augment.order")(settings) for name in settings.order}
    mixing = [name for name, augmentation in found.items() if augmentation.on == "clips"]
    if len(found) < len(settings.order) or len(mixing) > 1:
        cause = f"{' and '.join(mixing)} both mix clips" if len(mixing) > 1 else "it has a name twice"
        raise UserError("bad-config", "setting augment.order", cause, "take a name off the list")
    return found
