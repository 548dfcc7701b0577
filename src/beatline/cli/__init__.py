"""In: argv. Out: a command's work, one line for an error, and an exit code.

Begin with `main`. Each command is a module of the same name, with `parser()` and a function of that name. The
module is imported when the command is called. `beatline --help` imports no torch.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from beatline.core import system
from beatline.core.artefact import disk_errors
from beatline.core.errors import USAGE, UserError
from beatline.core.text import did_you_mean
from beatline.core.version import __version__

if TYPE_CHECKING:
    from beatline.cli.parser import Parser

COMMANDS = {
    "run": "all stages in order, each only where something is missing",
    "prepare": "decode every clip once into a store",
    "train": "fine-tune the tagger",
    "predict": "score the test clips with it",
    "score": "every figure of the recipe, or of given score files",
    "report": "RESULTS.md, a table per label, and report.html",
    "fetch audioset": "download AudioSet's tables",
    "fetch clips": "download the audio of the tables' clips",
    "fetch checkpoint": "download a checkpoint to start from",
    "inspect": "say what a store holds, lacks, repeats and contradicts",
    "compare": "say what tells two runs or two models apart, with intervals and a page to listen to",
    "tag": "tag audio files with a trained model",
    "embed": "write embeddings of audio files",
    "probe": "fit a head to labelled clips of your own, on frozen embeddings",
    "calibrate": "learn thresholds, and a temperature with which scores mean probabilities",
    "listen": "tag a microphone or a pipe as the sound comes",
    "serve": "tag audio files sent over HTTP, and show a page",
    "convert": "turn a checkpoint into a beatline model folder or into ESPnet's layout",
    "export": "write a model as a graph that runs without PyTorch",
    "pack": "write a model as a folder for a hub, or as ESPnet's zip file",
    "push": "upload a model with its card to the Hugging Face Hub",
    "verify": "find every damaged or missing file of a folder that beatline made, and mend a store",
    "doctor": "say what this machine and a run folder are like",
    "completion": "print what makes a shell complete commands, options and values",
}
"""Every command and what it is for; of two words the second is an argument of the module's `parser`."""

FORMER = {"common": "compare"}
"""Commands by the names that they had."""

GOES_ON = ("run", "prepare", "train", "predict", "score", "report", "fetch")
"""Modules whose commands go on where they were stopped."""

HELP = f"""usage: beatline COMMAND [...]

{chr(10).join(f"  {name:17} {text}" for name, text in COMMANDS.items())}

beatline run                                 the main job on the embedded real sound
beatline run as20k --data.audioset DIR --model.init CHECKPOINT
beatline run FILE.yaml [--SETTING VALUE ...]
beatline tag FILE|FOLDER --model RUN
beatline help COMMAND                        every option; or beatline COMMAND --help

--debug shows the whole traceback of an error. Exit codes: 0 done, 2 usage, 3 bad input, 4 damaged file of
ours, 5 disk or memory, 130/143 stopped.
"""


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command's name, as in `COMMANDS`, and the words after it.

    Raises:
        UserError: `bad-usage`, with the nearest name.
    """
    first = FORMER.get(words[0], words[0])
    below = [name.split()[1] for name in COMMANDS if name.startswith(f"{first} ")]
    if below and words[1:2] and words[1] in below:
        return f"{first} {words[1]}", list(words[2:])
    if first in COMMANDS:
        return first, list(words[1:])
    if below:
        raise UserError(
            "bad-usage",
            f"beatline {' '.join([first, *words[1:2]])}",
            f"it takes {', '.join(below[:-1])} or {below[-1]}",
            f"`beatline help {first} {below[0]}` shows a form",
        )
    known = [*FORMER, *(name.split()[0] for name in COMMANDS)]
    raise UserError(
        "bad-usage",
        f"command {first!r}",
        "there is no such command",
        did_you_mean(first, known, "`beatline --help` lists them"),
    )


def parser_of(name: str) -> "Parser":
    """The arguments of a command of `COMMANDS`."""
    module, *rest = name.split()
    parser: Parser = import_module(f"beatline.cli.{module}").parser(*rest)
    return parser


def reference() -> dict[str, str]:
    """The help of the program and of each command, 100 columns wide, by what is typed: `beatline tag`."""
    return {"beatline": HELP} | {f"beatline {name}": parser_of(name).text(100) for name in COMMANDS}


def _help(words: Sequence[str]) -> str:
    """The help of the command that the words begin with, or of all below it."""
    if not words:
        return HELP
    group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if group and (len(words) == 1 or f"{words[0]} {words[1]}" not in COMMANDS):
        return "\n".join(parser_of(name).text() for name in group)
    return parser_of(split(words)[0]).text()


def _dispatch(words: list[str]) -> int:
    before = words[: words.index("--")] if "--" in words else words
    asked = [word for word in before if word in ("-h", "--help")]
    if asked or words[0] == "help":
        print(_help([word for word in before if word not in ("-h", "--help", "help")]))
        return 0
    system.check()
    name, rest = split(words)
    given = parser_of(name).read(rest)
    module = name.split()[0]
    return getattr(import_module(f"beatline.cli.{module}"), module)(given) or 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "BEATLINE_COMPLETE" in os.environ:
        from beatline.cli import completion

        for word in completion.candidates(arguments):
            print(word)
        return 0
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # busy waiting makes two threads slower than a single thread on a shared machine
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        code = _run(arguments, debug)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # here, where what the other end says of it is heard
        return code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _silence(1, 2)
        return 141
    except OSError as error:
        if debug:
            raise
        if error.filename is None:
            _silence(1)  # where it may have come from
        try:
            with disk_errors(Path(error.filename or "the output")):
                raise error
        except UserError as refused:
            print(f"beatline: {refused}", file=sys.stderr)
            return refused.exit_code
    return 0


def _silence(*descriptors: int) -> None:
    """Sends what is still written there to nowhere, or Python complains once more at its end."""
    for descriptor in descriptors:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _run(arguments: list[str], debug: bool) -> int:
    """The command's exit code, its errors printed."""
    if not arguments:
        print(HELP)
        return USAGE
    if arguments[0] == "--version":
        print(f"beatline {__version__}")
        return 0
    try:
        return _dispatch(arguments)
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"beatline: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:  # a light installation, see requirements-onnx.txt
        if debug or (error.name or "beatline").startswith("beatline"):
            raise
        missing = UserError(
            "missing-package",
            f"beatline {arguments[0]}",
            f"{error.name} is not installed",
            "install beatline with all it depends on: pip install beatline",
        )
        print(f"beatline: {missing}", file=sys.stderr)
        return missing.exit_code
    except KeyboardInterrupt:
        print(
            "beatline: stopped" + ("; the same command goes on from here" if arguments[0] in GOES_ON else ""),
            file=sys.stderr,
        )
        return 130
    except (MemoryError, RuntimeError) as error:
        if debug or not (
            isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        ):  # torch's, without importing torch
            raise
        print(
            "beatline: out of memory; in training use a smaller --train.batch or cut the step with "
            "--train.accumulate, else shorter windows [out-of-memory]",
            file=sys.stderr,
        )
        return 5
