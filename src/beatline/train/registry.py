"""A folder as a registry: each file defines one class, which is found by the file's name."""

import pkgutil
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from beatline.core.errors import UserError
from beatline.core.text import did_you_mean


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


Entry = TypeVar("Entry")


def find(entries: Mapping[str, Entry], name: str, setting: str) -> Entry:
    """The entry of that name.

    Raises:
        UserError: `bad-config`, with the setting that has the name, and the nearest name.
    """
    if name in entries:
        return entries[name]
    raise UserError(
        "bad-config",
        f"setting {setting}",
        f"there is no {name}",
        did_you_mean(name, entries, f"choose from {', '.join(entries)}"),
    )
