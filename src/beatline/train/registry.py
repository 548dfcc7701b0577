"""A folder as a registry: each file defines one class, which is found by the file's name."""

import difflib
import pkgutil
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from beatline.core.errors import UserError


def classes_in(package: str, path: Iterable[str]) -> dict[str, type[Any]]:
    """The class of each file of a package, by the file's name: `TimeWarp` of `time_warp.py`.

    Args:
        package: Its `__name__`.
        path: Its `__path__`.
    """
    return {
        file.name: getattr(import_module(f"{package}.{file.name}"), file.name.title().replace("_", ""))
        for file in pkgutil.iter_modules(path)
    }


def find(classes: dict[str, type[Any]], name: str, setting: str) -> type[Any]:
    """The class of that name.

    Raises:
        UserError: `bad-config`, with the setting that has the name, and the nearest name.
    """
    if name in classes:
        return classes[name]
    near = difflib.get_close_matches(name, classes, n=1)
    raise UserError(
        "bad-config",
        f"setting {setting}",
        f"there is no {name}",
        f"did you mean {near[0]}?" if near else f"choose from {', '.join(classes)}",
    )
