"""In: pooled tokens of clips. Out: their logits; each head has a module, named by the configuration.

Begin with `base`. A new head is a module with a `HEAD`, and its name in `HEADS`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from beatline.core.errors import UserError

if TYPE_CHECKING:
    from beatline.model.heads.base import Head

Task = Literal["multi-label", "single-label"]

HEADS: dict[str, str] = {
    "linear": "beatline.model.heads.linear",
    "neighbours": "beatline.model.heads.neighbours",
}
"""Modules by the name of their head; each has a `HEAD`, a subclass of `base.Head`."""
LINEAR: Mapping[str, Any] = {"name": "linear"}


def neighbours(examples: int) -> Mapping[str, Any]:
    """The settings of a head of so many stored examples."""
    return {"name": "neighbours", "examples": examples}


def make_head(settings: Mapping[str, Any], width: int, labels: int, task: Task) -> "Head":
    """The head that settings describe.

    Args:
        settings: Its `name`, and what else its class takes.
        width: Of a token.
        labels: Number of labels.
        task: As `Tagger`.

    Raises:
        UserError: `bad-checkpoint` for a name that is not known here, or settings that do not fit.
    """
    name = settings.get("name")
    rest = {key: value for key, value in settings.items() if key != "name"}
    try:
        head: Head = import_module(HEADS[str(name)]).HEAD(width, labels, task, **rest)
    except (KeyError, TypeError) as error:
        known = ", ".join(HEADS)
        raise UserError(
            "bad-checkpoint", f"head {name!r}", f"it cannot be made ({error})", f"choose among {known}"
        ) from error
    return head
