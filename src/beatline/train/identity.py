"""What makes a resumed run the same run: a function of its configuration and its store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beatline.config import Config, to_dict
from beatline.core.errors import UserError
from beatline.data.store import Store
from beatline.train.draws import NAMED, rule_of

FREE = ("workers", "device", "save_every", "recompute")
"""Settings of `train` that a run may change when it is resumed: they change no bit, or the machine does."""


def identity(config: Config, store: Store, rule: int = NAMED) -> dict[str, Any]:
    """What a run may not change when it is resumed, and the rule of its draws, which it keeps."""
    return _settings(config) | {"store": store.about["content"], "draws": rule}


def _settings(config: Config) -> dict[str, Any]:
    settings = to_dict(config)
    train = {name: value for name, value in settings["train"].items() if name not in FREE}
    return {name: settings[name] for name in ("model", "augment", "optim")} | {"train": train}


def check_identity(out: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """A resumed run is the same run; a setting that its beatline did not have yet had today's default. By
    which rule it draws may differ: it keeps its own.

    Raises:
        UserError: `run-differs`, naming the first setting that changed, or a rule that is not known.
    """
    rule = rule_of(then)
    for change in _changes(_filled(then, _settings(Config())) | {"draws": rule}, now | {"draws": rule}, ""):
        raise UserError(
            "run-differs",
            f"cannot continue the run in {out}",
            change,
            "give the old setting, or another folder with --out",
        )


def _filled(given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The given settings, and the defaults of those that are missing."""
    filled = defaults | given
    for name, value in defaults.items():
        if isinstance(value, dict) and isinstance(given.get(name), dict):
            filled[name] = _filled(given[name], value)
    return filled


def _changes(then: Any, now: Any, name: str) -> Iterator[str]:
    """A sentence for each setting that differs."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            yield from _changes(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif then != now:
        yield f"{name} is {now}, was {then}"
