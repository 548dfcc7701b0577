"""In: argv. Out: a command's work, one line for an error, and an exit code.

Begin with `main`; one module a command, named like it, imported when it is called. Only in this room are
arguments parsed and errors printed. `beatline --help` imports no torch.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from beatline.core import system
from beatline.core.artefact import disk_errors
from beatline.core.errors import USAGE, UserError
from beatline.core.version import __version__

STAGES = {
    "run": "all stages in order, each only where something is missing",
    "prepare": "decode every clip once into a store",
    "train": "fine-tune the tagger",
    "predict": "score the test clips with it",
    "score": "every figure of the recipe, or of given score files",
    "report": "RESULTS.md, a table per label, and report.html",
}
OTHERS = {  # in which room each is, under its own name
    "fetch": ("fetch", "get AudioSet's tables, its clips, a starting checkpoint"),
    "inspect": ("inspect", "say what a store holds, lacks, repeats and contradicts"),
    "compare": (
        "compare",
        "say what tells two runs or two models apart, with intervals and a page to listen to",
    ),
    "common": ("compare", "the same as compare"),
    "tag": ("tag", "tag audio files with a trained model"),
    "embed": ("embed", "write embeddings of audio files"),
    "probe": ("probe", "fit a head to labelled clips of your own, on frozen embeddings"),
    "calibrate": ("calibrate", "learn thresholds, and a temperature with which scores mean probabilities"),
    "listen": ("listen", "tag a microphone or a pipe as the sound comes"),
    "serve": ("serve", "tag audio files sent over HTTP, and show a page"),
    "convert": ("export", "turn a checkpoint into a beatline model folder or into ESPnet's layout"),
    "export": ("export", "write a model as a graph that runs without PyTorch"),
    "pack": ("publish", "write a model as a folder for a hub, or as ESPnet's zip file"),
    "push": ("publish", "upload a model with its card to the Hugging Face Hub"),
    "verify": (
        "verify",
        "find every damaged or missing file of a folder that beatline made, and mend a store",
    ),
    "doctor": ("verify", "say what this machine and a run folder are like"),
}
COMMANDS = [
    f"  {name:9} {text}"
    for name, text in (STAGES | {name: text for name, (_, text) in OTHERS.items()}).items()
]
HELP = f"""usage: beatline <command> [...]

{chr(10).join(COMMANDS)}

beatline run                                 the main job on the embedded real sound
beatline run as20k --data.audioset DIR --model.init CHECKPOINT
beatline run FILE.yaml [--section.setting VALUE ...]
beatline tag FILE|FOLDER --model RUN
beatline <command> --help                    every option

--debug shows the whole traceback of an error. Exit codes: 0 done, 2 usage, 3 bad input, 4 damaged file of
ours, 5 disk or memory, 130/143 stopped.
"""


def _dispatch(arguments: list[str]) -> int:
    command, rest = arguments[0], arguments[1:]
    if command in STAGES:
        from beatline.cli import stages

        stages.stage(command, rest, STAGES[command])
        return 0
    if command not in OTHERS:
        import difflib

        near = difflib.get_close_matches(command, STAGES | OTHERS, n=1)
        raise UserError(
            "bad-usage",
            f"command {command!r}",
            "there is no such command",
            f"did you mean {near[0]}?" if near else "`beatline --help` lists them",
        )
    room, _ = OTHERS[command]
    return getattr(import_module(f"beatline.cli.{room}"), command)(rest) or 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # busy waiting makes two threads slower than one on a shared machine
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
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0 if arguments else USAGE
    if arguments[0] == "--version":
        print(f"beatline {__version__}")
        return 0
    try:
        system.check()
        return _dispatch(arguments)
    except SystemExit as end:  # argparse has printed its help
        return int(end.code or 0)
    except UserError as error:
        if debug:
            raise
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
            "beatline: stopped"
            + ("; the same command goes on from here" if arguments[0] in (*STAGES, "fetch") else ""),
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
