"""argv -> a command's arguments: argparse, with what every command has in common.

`Parser.read` takes `--option value` and `--option=value` before, between and after the other arguments. It
takes no abbreviations, and names the option nearest to an unknown name. Dotted settings are gathered as text,
which `settings` turns into a configuration.
"""

import re
from argparse import (
    SUPPRESS,
    Action,
    ArgumentError,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, NoReturn

from beatline.core.errors import UserError
from beatline.core.text import nearest

Values = Callable[[], Iterable[str]]
"""The words that an argument may have, asked for by shell completion alone."""


def filled(text: str) -> str:
    """Argument type: a text that is not empty."""
    if not text:
        raise ArgumentTypeError("it is empty")
    return text


def path(text: str) -> Path:
    """Argument type: a path; an empty text would mean the current folder, which nobody types so."""
    if not text:
        raise ArgumentTypeError("it is empty, and a path is wanted")
    return Path(text)


class Parser(ArgumentParser):
    """The arguments of one command.

    Args:
        name: The command, as it is typed after `beatline`.
        description: A sentence for its help.
        epilog: Paragraphs after the options.
        options: For argparse, such as `usage`.
    """

    def __init__(self, name: str, description: str, epilog: str = "", **options: Any):
        self._description = description
        self._epilog = epilog
        self.actions: dict[str, Action] = {}
        self.positionals: list[Action] = []
        self.settings: set[str] = set()
        self.values: dict[str, Values] = {}
        self._sections: dict[str, Any] = {}
        super().__init__(
            prog=f"beatline {name}",
            description=description,
            epilog=epilog,
            exit_on_error=False,
            allow_abbrev=False,
            add_help=False,
            formatter_class=RawDescriptionHelpFormatter,
            **options,
        )
        self.add("-h", "--help", action="help", help="show this text")

    def add(self, *names: str, section: str = "", values: Values | None = None, **options: Any) -> None:
        """An argument, as of argparse's `add_argument`; its text must not be empty unless `type` is `str`.

        Args:
            section: Heading under which the help has it; empty for the common heading.
            values: For shell completion, where `choices` do not say it.
        """
        if section and section not in self._sections:
            self._sections[section] = self.add_argument_group(section)
        if options.get("action", "append") == "append" and "choices" not in options:
            options["type"] = {None: filled, Path: path}.get(options.get("type"), options.get("type"))
        action = (self._sections[section] if section else self).add_argument(*names, **options)
        for name in action.option_strings:
            self.actions[name] = action
        if not action.option_strings:
            self.positionals.append(action)
        for name in action.option_strings or [action.dest]:
            self.values[name] = values or (lambda: action.choices or ())

    def add_setting(self, name: str, **options: Any) -> None:
        """A dotted setting; `read` leaves its text to `settings`. As `add`."""
        self.add(f"--{name}", dest=f"setting {name}", default=SUPPRESS, **options)
        self.settings.add(f"--{name}")

    def read(self, words: Sequence[str]) -> Namespace:
        """The arguments by name; `command` is the command's, `overrides` are settings as `--optim.lr=1e-4`.

        Raises:
            UserError: `bad-usage`; `bad-config` for a setting that does not exist.
        """
        options: list[str] = []
        others: list[str] = []
        overrides: list[str] = []
        queue = deque(words)
        while queue:
            word = queue.popleft()
            if word == "--":
                others += ["--", *queue]
                break
            if word == "-" or not word.startswith("-"):
                others.append(word)
                continue
            name, equals, value = word.partition("=")
            action = self.actions.get(name) or self._unknown(name)
            if action.nargs == 0:
                if equals:
                    raise self.refusal(f"option {name}", f"it takes no value, and {value!r} is given")
                options.append(word)
                continue
            if not equals:
                if not queue or queue[0].startswith("--"):
                    raise self.refusal(f"option {name}", "its value is missing")
                value = queue.popleft()
            (overrides if name in self.settings else options).append(f"{name}={value}")
        try:
            given = self.parse_args([*options, *others])
        except ArgumentError as error:
            raise self._misfit(error) from error
        given.command = self.prog.removeprefix("beatline ")
        given.overrides = overrides
        return given

    def takes_value(self, option: str) -> bool:
        """Whether a value follows this option as a word of its own."""
        return option in self.actions and self.actions[option].nargs != 0

    def values_of(self, argument: str) -> Iterable[str]:
        """The values of an option (`--format`) or a positional argument, where they are known."""
        return self.values[argument]() if argument in self.values else ()

    def refusal(self, what: str, cause: str) -> UserError:
        """A `bad-usage` error about one argument."""
        return UserError("bad-usage", what, cause, f"`{self.prog} --help` shows the form")

    def _unknown(self, name: str) -> NoReturn:
        near = nearest(name, self.actions)
        if not name.startswith("--") and not near:
            raise UserError(
                "bad-usage",
                f"option {name}",
                f"`{self.prog}` has no such option",
                f"write ./{name} for a file of that name",
            )
        raise UserError(
            "bad-config" if name.startswith("--") and "." in name else "bad-usage",
            f"option {name}",
            f"`{self.prog}` has no such option",
            f"did you mean {near}?" if near else f"`{self.prog} --help` lists them",
        )

    def _misfit(self, error: ArgumentError) -> UserError:
        """The error for a value that its argument does not take."""
        name = error.argument_name or "?"
        what = f"option {name}" if name.startswith("-") else f"argument {name}"
        action = self.actions.get(name.split("/")[0])
        if action is None:
            action = next((each for each in self.positionals if each.metavar == name), None)
        choices = action.choices if action else None
        given = re.match(r"invalid choice: (.*?) \(choose", error.message)
        if given and choices:
            near = nearest(given[1].strip("'"), choices)
            remedy = f"did you mean {near}?" if near else f"`{self.prog} --help` shows the form"
            return UserError(
                "bad-usage", what, f"{given[1]} is none of {', '.join(map(str, choices))}", remedy
            )
        return self.refusal(what, error.message)

    def error(self, message: str) -> NoReturn:
        _, missing, names = message.partition("arguments are required: ")
        _, more, words = message.partition("unrecognized arguments: ")
        if missing:
            raise self.refusal(self.prog, f"missing: {names}")
        if more:
            raise self.refusal(self.prog, f"it takes no more words, and {words} is left")
        raise self.refusal(self.prog, message)

    def text(self, columns: int | None = None) -> str:
        """The help, that many columns wide; as wide as the terminal when left out."""
        width = columns or max(60, get_terminal_size().columns - 2)
        self.formatter_class = partial(  # type: ignore[assignment]
            RawDescriptionHelpFormatter, width=width
        )
        self.description = _filled(self._description, width)
        self.epilog = _filled(self._epilog, width)
        return str(self.format_help())


def _filled(text: str, width: int) -> str:
    """Paragraphs broken anew; indented lines stay as they are."""
    return "\n\n".join(part if part.startswith(" ") else fill(part, width) for part in text.split("\n\n"))


def _number(text: str, kind: type, fits: Callable[[Any], bool], what: str) -> Any:
    try:
        number = kind(text)
    except ValueError:
        number = float("nan")
    if not fits(number):
        raise ArgumentTypeError(f"{text!r} is not {what}")
    return number


def above_zero(text: str) -> float:
    """Argument type: a finite number above 0."""
    return float(_number(text, float, lambda x: 0 < x < float("inf"), "a number above 0"))


def not_negative(text: str) -> float:
    """Argument type: a finite number of at least 0."""
    return float(_number(text, float, lambda x: 0 <= x < float("inf"), "a number of at least 0"))


def share(text: str) -> float:
    """Argument type: a number from 0 to 1."""
    return float(_number(text, float, lambda x: 0 <= x <= 1, "a number from 0 to 1"))


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Argument type: a whole number from `least` on, up to `most`."""
    what = f"a whole number from {least} {'on' if most is None else f'to {most}'}"
    return lambda text: int(_number(text, int, lambda x: x >= least and (most is None or x <= most), what))


def number(least: float, most: float) -> Callable[[str], float]:
    """Argument type: a number from `least` to `most`."""
    what = f"a number from {least:.0f} to {most:.0f}"
    return lambda text: float(_number(text, float, lambda x: least <= x <= most, what))
