"""Data sets with official splits, a file each; this folder is the registry.

In: a name, which is a file's with `-` for `_`. Out: the file's `DATA_SET`, a `named.DataSet`. To add a data
set, add a file that ends with its `DATA_SET`; `esc50` is the file to read first. A file in another folder
counts as well once that folder is in `sets.__path__`.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from beatline.core.errors import UserError
from beatline.core.text import nearest

if TYPE_CHECKING:
    from beatline.data.manifest.named import DataSet


def names() -> tuple[str, ...]:
    """Every data set's name, sorted; none of them is imported."""
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))


def data_set(name: str) -> "DataSet":
    """The data set of this name.

    Raises:
        UserError: `bad-config` for an unknown name.
    """
    known = names()
    if name not in known:
        near = nearest(name, known)
        raise UserError(
            "bad-config",
            "setting data.dataset",
            f"there is no data set {name!r}" + (f", did you mean {near}?" if near else ""),
            f"the known names are {', '.join(known)}",
        )
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").DATA_SET
