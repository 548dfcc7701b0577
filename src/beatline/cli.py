"""The program `beatline`: argv in, stages called, one line and an exit code out.

Only here are arguments parsed and errors printed. `beatline --help` imports no torch.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from beatline import __version__
from beatline.artefact import disk_errors
from beatline.errors import USAGE, UserError

STAGES = {
    "run": "all stages in order, each only where something is missing",
    "prepare": "decode every clip once into a store",
    "train": "fine-tune the tagger",
    "predict": "score the test clips with it",
    "score": "every figure of the recipe, or of given score files",
    "report": "RESULTS.md, a table per label, and report.html",
}
OTHERS = {
    "convert": "turn a checkpoint into a beatline model folder or into ESPnet's layout",
    "doctor": "say what this machine and a run folder are like",
}
HELP = f"""usage: beatline <command> [...]

{chr(10).join(f"  {name:8} {text}" for name, text in (STAGES | OTHERS).items())}

beatline run                                 the main job on the embedded real sound
beatline run as20k --data.audioset DIR --model.init CHECKPOINT
beatline run FILE.yaml [--section.setting VALUE ...]
beatline <command> --help                    every setting
beatline score --scores FILE --text FILE --tokens FILE     ESPnet's own text files
beatline score --predictions FOLDER
beatline convert SOURCE TARGET [--to beatline|espnet] [--architecture FILE]
beatline doctor [RUN]

--debug shows the whole traceback of an error. Exit codes: 0 done, 2 usage, 3 bad input, 4 damaged file of ours, 5 disk or memory, 130/143 stopped.
"""


def _stage(name: str, arguments: list[str]) -> None:
    from beatline import config

    if "--help" in arguments or "-h" in arguments:
        print(f"usage: beatline {name} [CONFIG.yaml or shipped name: {', '.join(sorted(config.shipped()))}] [--section.setting VALUE ...]\n{STAGES.get(name, '')}\n")
        print(config.settings_parser(prog=f"beatline {name}").format_help().split("\n\n", 1)[1])
        return
    chosen = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "mini"
    settings = config.load(chosen, arguments)
    from beatline import stages

    (stages.run if name == "run" else stages.STAGES[name])(settings)


def _option(arguments: list[str], name: str) -> str | None:
    """Takes `--name VALUE` out of the arguments."""
    if name not in arguments:
        return None
    place = arguments.index(name)
    if place + 1 == len(arguments):
        raise UserError("bad-usage", f"option {name}", "its value is missing", "`beatline --help` shows the form")
    del arguments[place]
    return arguments.pop(place)


def _nothing_left(arguments: list[str]) -> None:
    if arguments:
        raise UserError("bad-usage", f"argument {arguments[0]!r}", "not understood", "`beatline --help` shows the form")


def _score_files(arguments: list[str]) -> None:
    from beatline import metrics
    from beatline.predictions import Predictions
    from beatline.stages import score_table

    folder, scores, text, tokens = (_option(arguments, name) for name in ("--predictions", "--scores", "--text", "--tokens"))
    _nothing_left(arguments)
    if folder:
        predictions = Predictions.load(Path(folder))
    elif scores and text and tokens:
        predictions = Predictions.from_espnet(Path(scores), Path(text), Path(tokens))
    else:
        raise UserError("bad-usage", "beatline score", "score files need all of --scores, --text and --tokens", "`beatline --help` shows the form")
    figures = metrics.figures(predictions.scores, predictions.targets, clips_hash=predictions.clips_hash)
    print(score_table(figures, {}))
    if folder:
        print("mean_acc is in the label table's order; `beatline score CONFIG` takes the training frequency's, as ESPnet's files do")


def _convert(arguments: list[str]) -> None:
    from beatline.model.checkpoint import export_espnet, load_checkpoint, save

    target_form = _option(arguments, "--to") or "beatline"
    architecture = _option(arguments, "--architecture")
    if len(arguments) != 2 or target_form not in ("beatline", "espnet"):
        raise UserError("bad-usage", "beatline convert", "it takes SOURCE and TARGET and --to beatline or espnet", "`beatline --help` shows the form")
    source, target = arguments
    if Path(target).exists():
        raise UserError("not-writable", f"cannot write {target}", "it is there already", "name another folder, or move it away")
    loaded = load_checkpoint(source, architecture)
    tagger, labels = loaded.tagger(), loaded.labels
    assert labels is not None  # tagger() refuses a model without a head
    if target_form == "espnet":
        export_espnet(Path(target), tagger, labels)
    else:
        save(Path(target), tagger, labels, {"converted_from": str(loaded.source), "family": loaded.family})
    left = f", {len(loaded.ignored)} tensors left out on purpose" if loaded.ignored else ""
    print(f"convert  {loaded.source} ({loaded.family}, {len(labels)} labels{left}) -> {target}")


def _doctor(arguments: list[str]) -> None:
    from beatline.doctor import print_facts

    print_facts([Path(a) for a in arguments])


def _dispatch(arguments: list[str]) -> None:
    command, rest = arguments[0], arguments[1:]
    if command == "score" and {"--scores", "--predictions", "--text", "--tokens"} & set(rest):
        _score_files(rest)
    elif command in STAGES:
        _stage(command, rest)
    elif command in OTHERS:
        if "--help" in rest or "-h" in rest:
            print(HELP)
        else:
            {"convert": _convert, "doctor": _doctor}[command](rest)
    else:
        import difflib

        near = difflib.get_close_matches(command, STAGES | OTHERS, n=1)
        raise UserError("bad-usage", f"command {command!r}", "there is no such command", f"did you mean {near[0]}?" if near else "`beatline --help` lists them")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # busy waiting makes two threads slower than one on a shared machine
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0 if arguments else USAGE
    if arguments[0] == "--version":
        print(f"beatline {__version__}")
        return 0
    try:
        _dispatch(arguments)
    except UserError as error:
        if debug:
            raise
        print(f"beatline: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("beatline: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        if debug or not (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"):  # torch's, without importing torch
            raise
        print("beatline: out of memory; use a smaller --train.batch, or cut the step with --train.accumulate [out-of-memory]", file=sys.stderr)
        return 5
    except OSError as error:
        if debug:
            raise
        try:
            with disk_errors(Path(error.filename or "a file of the run")):
                raise error
        except UserError as refused:
            print(f"beatline: {refused}", file=sys.stderr)
            return refused.exit_code
    return 0
