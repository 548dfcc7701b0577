"""What the commands share in reading their arguments.

Outside the straight line. `Parser` is for commands with options of their own; the functions below take single
options out of a list, for those commands whose remaining arguments are settings of `config`.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from beatline.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from beatline.tag.tagger import AudioTagger


class Parser(argparse.ArgumentParser):
    """argparse that raises `UserError` in place of printing and leaving, and takes no abbreviations."""

    def __init__(self, command: str, description: str, **options: Any):
        super().__init__(
            prog=f"beatline {command}",
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError("bad-usage", self.prog, message, f"`{self.prog} --help` shows the form")


def above_zero(text: str) -> float:
    """argparse type: a finite number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


above_zero.__name__ = "number above 0"  # what argparse says of a value that is none


def positive(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


positive.__name__ = "whole number above 0"


def share(text: str) -> float:
    """argparse type: a number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError
    return number


share.__name__ = "number from 0 to 1"


def option(arguments: list[str], name: str) -> str | None:
    """Takes `--name VALUE` out of the arguments."""
    if name not in arguments:
        return None
    place = arguments.index(name)
    if place + 1 == len(arguments):
        raise UserError(
            "bad-usage", f"option {name}", "its value is missing", "`beatline COMMAND --help` shows the form"
        )
    del arguments[place]
    return arguments.pop(place)


def nothing_left(arguments: list[str]) -> None:
    """Raises `bad-usage` for what no option took."""
    if arguments:
        raise UserError(
            "bad-usage",
            f"argument {arguments[0]!r}",
            "not understood",
            "`beatline COMMAND --help` shows the form",
        )


def model_path(name: str) -> Path:
    """Where a model is; a run folder stands for the model in it."""
    from beatline.fetch import checkpoints

    path = checkpoints.locate(name)
    return path / "model" if (path / "model").is_dir() else path


def flag(arguments: list[str], name: str) -> bool:
    """Takes `--name` out of the arguments."""
    given = name in arguments
    arguments[:] = [argument for argument in arguments if argument != name]
    return given


def is_ray(engine: str | None) -> bool:
    """Whether `--engine` names Ray."""
    if engine not in (None, "ray"):
        raise UserError(
            "bad-usage", f"engine {engine!r}", "there is no such engine", "leave --engine out, or name ray"
        )
    return engine == "ray"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which tagger runs, and on what; `load_tagger` takes them."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="RUN|CHECKPOINT|EXPORT|OWNER/NAME",
        help="run folder, checkpoint of any family, export, or hub repository",
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "torch", "onnx", "openvino"),
        default="auto",
        help="runtime (auto: the fastest that is at hand)",
    )
    add_precision_option(parser)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def add_precision_option(parser: argparse.ArgumentParser) -> None:
    """`--precision`, for every command that runs a tagger."""
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="of the products; on CPUs with AMX int8 runs as bfloat16, which is faster there",
    )


def add_window_options(parser: argparse.ArgumentParser, merge: bool = True) -> None:
    """How a long recording is cut, and its scores merged."""
    parser.add_argument(
        "--window",
        type=above_zero,
        default=10.0,
        metavar="SECONDS",
        help="longest stretch scored at once (10)",
    )
    parser.add_argument(
        "--hop",
        type=above_zero,
        metavar="SECONDS",
        help="from one window's begin to the next (half a window)",
    )
    if merge:
        parser.add_argument(
            "--merge",
            choices=("mean", "max", "attention"),
            default="mean",
            help="how a recording's scores come from its windows' (mean)",
        )


def add_label_options(parser: argparse.ArgumentParser, threshold: str) -> None:
    """Which labels are told, and from what score on; `load_tagger` and `choice` take them."""
    bound = parser.add_mutually_exclusive_group()
    bound.add_argument("--threshold", type=share, metavar="SCORE", help=threshold)
    bound.add_argument(
        "--calibrated",
        action="store_true",
        help="use the thresholds and the temperature that `beatline calibrate` has put beside the model",
    )
    parser.add_argument(
        "--labels",
        type=_words,
        action="extend",
        metavar="LABEL[;LABEL]",
        help="these only: names, mids, or branches of AudioSet's ontology, as in 'Dog/'",
    )
    parser.add_argument(
        "--parents",
        action="store_true",
        help="raise a label's score to those of its kinds in AudioSet's ontology",
    )


def _words(text: str) -> list[str]:
    words = [word for word in text.split(";") if word.strip()]
    if not words:
        raise ValueError
    return words


_words.__name__ = "label"


def choice(
    given: argparse.Namespace, tagger: "AudioTagger", threshold: float
) -> "tuple[list[int], np.ndarray]":
    """Indices of the labels that `add_label_options` asks for, and the least score of each, `threshold` where
    nobody said.
    """
    import numpy as np

    from beatline.core.ontology import label_indices

    chosen = label_indices(tagger.labels, given.labels) if given.labels else list(range(len(tagger.labels)))
    lowest = (
        tagger.calibration.thresholds
        if tagger.calibration
        else np.full(
            len(tagger.labels), threshold if given.threshold is None else given.threshold, np.float32
        )
    )
    return chosen, lowest[chosen]


def load_tagger(given: argparse.Namespace, head: bool = True) -> "AudioTagger":
    """The tagger that the options of `add_model_options`, and of `add_window_options` and `add_label_options`
    where they are there, ask for; `head` as `beatline.load`.
    """
    import beatline
    from beatline.fetch import checkpoints

    hop = getattr(given, "hop", None)
    if hop is not None and hop > given.window:
        raise UserError(
            "bad-usage", "option --hop", "it is longer than the window", "give at most --window seconds"
        )
    windows = (
        {
            "window": given.window,
            "hop": hop if hop is not None else given.window / 2,
            "merge": getattr(given, "merge", "mean"),
        }
        if "window" in given
        else {}
    )
    given.model = checkpoints.locate(given.model)  # once, so that its calibration is looked for beside it
    tagger = beatline.load(
        given.model,
        engine=given.engine,
        precision=given.precision,
        device=given.device,
        parents=getattr(given, "parents", False),
        head=head,
        **windows,
    )
    if getattr(given, "calibrated", False):
        from beatline.tag.calibration import Calibration

        tagger.calibration = Calibration.load(given.model, tagger.labels)
    return tagger
