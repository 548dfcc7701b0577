"""YAML and dotted overrides -> a checked `Config`, and back.

Begin with `load`. A YAML file holds only what differs from the defaults in `config`. The library jsonargparse
turns text into the dataclasses there, and says what does not fit. `table` lists every setting, for help and
completion.
"""

import ast
import dataclasses
import inspect
import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from beatline.config import Config, DataConfig, to_dict
from beatline.core.errors import UserError
from beatline.core.text import did_you_mean, nearest


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A field of the configuration, as the command line shows it."""

    name: str
    """Dotted, such as `optim.lr`."""
    doc: str
    """What, unit and range: the field's docstring."""
    kind: str
    """Its type, such as `float` or `true or false`."""
    default: Any
    """The value when left out; None where that is nothing or empty."""
    values: tuple[str, ...] = ()
    """All values there are, where they are few."""


def table(kind: type = Config, prefix: str = "") -> dict[str, Setting]:
    """Every setting below a dataclass, by dotted name, in the order of the fields."""
    found: dict[str, Setting] = {}
    hints = get_type_hints(kind)
    docs = dict(_docstrings(kind))
    for f in dataclasses.fields(kind):
        name = prefix + f.name
        if isinstance(f.default_factory, type) and dataclasses.is_dataclass(f.default_factory):
            found |= table(f.default_factory, f"{name}.")
        else:
            shown, values = _described(hints[f.name])
            default = None if f.default is dataclasses.MISSING else to_dict(f.default)
            found[name] = Setting(name=name, doc=docs[f.name], kind=shown, default=default, values=values)
    return found


def sections(kind: type = Config, prefix: str = "") -> dict[str, str]:
    """What each part of a configuration is about, by dotted name: the docstring of its field."""
    found: dict[str, str] = {}
    docs = dict(_docstrings(kind))
    for f in dataclasses.fields(kind):
        if isinstance(f.default_factory, type) and dataclasses.is_dataclass(f.default_factory):
            name = prefix + f.name
            found |= {name: docs[f.name]} | sections(f.default_factory, f"{name}.")
    return found


def _described(hint: Any) -> tuple[str, tuple[str, ...]]:
    """How a type is shown, and all its values where they are few."""
    if get_origin(hint) is types.UnionType or type(None) in get_args(hint):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is Literal:
        return "str", get_args(hint)
    if get_origin(hint) is tuple:
        return f"list of {get_args(hint)[0].__name__}", ()
    return {Path: "path"}.get(hint, hint.__name__), ("true", "false") if hint is bool else ()


def _docstrings(kind: type) -> Iterator[tuple[str, str]]:
    """The name and the docstring of each field of a dataclass."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    for node, after in pairwise(body.body):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
            assert isinstance(node.target, ast.Name) and isinstance(after.value, ast.Constant)
            yield node.target.id, str(after.value.value).rstrip(".")


def dump_yaml(config: Config) -> str:
    """The resolved configuration as YAML that `load` reads back."""
    import yaml

    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def shipped() -> dict[str, Path]:
    """The configurations in the package, by name."""
    paths = (Path(str(file)) for file in (files("beatline") / "conf").iterdir())
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem) if path.suffix == ".yaml"}


def find(name: str) -> Path:
    """The file of a configuration given as a path or as the name of a shipped file.

    Raises:
        UserError: `missing-file`, with the nearest name.
    """
    path = Path(name)
    known = shipped()
    if path.is_file():
        return path
    if path.stem in known and path.suffix in ("", ".yaml") and str(path.parent) in (".", "conf"):
        return known[path.stem]  # in another folder it is a path that is mistyped
    if name and path.is_dir():
        raise UserError("not-a-file", f"configuration {name}", "it is a folder", "name the YAML file in it")
    hint = did_you_mean(path.stem, known, f"shipped are {', '.join(known)}")
    raise UserError(
        "missing-file", f"configuration {name}", "no such file, and none shipped has this name", hint
    )


def load(name: str | Path, overrides: Sequence[str] = ()) -> Config:
    """A configuration from a YAML file (or a shipped name) and dotted overrides like `--optim.lr`, `1e-4`.

    Raises:
        UserError: `bad-config` naming the setting and the nearest that exists; `missing-file`.
    """
    from jsonargparse import ArgumentParser

    if not isinstance(name, str | Path) or not isinstance(overrides, list | tuple):
        given = name if isinstance(overrides, list | tuple) else overrides
        raise UserError(
            "bad-config",
            "configuration",
            f"a value of type {type(given).__name__} names none",
            'give a name and words, as ("mini", ("--optim.lr", "1e-4"))',
        )
    path = find(str(name))
    parser = ArgumentParser(exit_on_error=False, default_env=False, allow_abbrev=False)
    parser.add_argument("--settings", action="config")
    parser.add_class_arguments(Config, nested_key=None)
    parsed = _parsed(parser, ["--settings", str(path), *overrides], f"configuration {path}")
    return Config(**{f.name: getattr(parsed, f.name) for f in dataclasses.fields(Config)})


def load_data(overrides: Sequence[str], **defaults: Any) -> DataConfig:
    """Settings of data alone, from dotted overrides like `--data.folder`, `DIR`.

    Args:
        defaults: Those that differ here.

    Raises:
        UserError: `bad-config`, as `load`.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, default_env=False, allow_abbrev=False)
    parser.add_class_arguments(DataConfig, "data")
    parser.set_defaults({f"data.{name}": value for name, value in defaults.items()})
    return _parsed(parser, list(overrides), "settings of data").data


def _given(overrides: Sequence[str]) -> dict[str, str]:
    """The text of each setting among dotted overrides, by name."""
    given: dict[str, str] = {}
    words = iter(overrides)
    for word in words:
        name, equals, value = word.partition("=")
        given[name.removeprefix("--")] = value if equals else next(words, "")
    return given


def _misfit(where: str, name: str, value: str) -> UserError:
    """The error for a value that is not of its setting's type."""
    setting = table().get(name)
    wanted = "of another form"
    if setting and setting.values:
        wanted = f"none of {', '.join(setting.values)}"
    elif setting and setting.kind.startswith("list"):
        wanted = "no list as [0.9, 0.98]" if "float" in setting.kind else "no list as [name, name]"
    elif setting:
        kinds = {"float": "number", "int": "whole number", "dict": "mapping as {name: value}"}
        wanted = f"no {kinds.get(setting.kind, setting.kind)}"
    return UserError(
        "bad-config",
        f"setting {name}",
        f"{value!r} is {wanted}",
        f"correct it {where}",
    )


def _parsed(parser: Any, arguments: list[str], what: str) -> Any:
    """The arguments as the dataclasses they are of."""
    from jsonargparse import ArgumentError

    given = _given(arguments)
    known = table()
    for name, text in given.items():
        if not text and name in known and known[name].kind == "path":
            raise _misfit("on the command line", name, text)
    try:
        return parser.instantiate(parser.parse_args(arguments))
    except (ArgumentError, TypeError, ValueError) as error:
        cause = " ".join(str(error).split())
        if misfit := re.search(r'key "([\w.]+)": .*G(?:ot|iven) value: ?(.*?)$', cause):
            name, value = misfit.groups()
            is_typed = name in given
            where = "on the command line" if is_typed else f"in the {what}"
            raise _misfit(where, name, given[name] if is_typed else value) from error
        if "Unexpected config" in cause:
            cause = "it holds no settings as `name: value`"
        names = {name for key in table() for name in (key, key.split(".")[-1])}
        words = [dotted or quoted for dotted, quoted in re.findall(r"--([\w.]+)|'([\w.]+)'", cause)]
        near = [match for word in words if (match := nearest(word, names))]
        misfits = "Expected" in cause  # the setting there is; its value does not fit
        hint = (
            f"did you mean {near[0]}?"
            if near and not misfits
            else "`beatline run --help` lists every setting"
        )
        raise UserError("bad-config", what, cause, hint) from error
