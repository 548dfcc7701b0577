"""`beatline tag --engine ray`: audio of any amount to Parquet, on many machines."""

import os
from argparse import Namespace
from dataclasses import fields
from typing import TYPE_CHECKING

from beatline.cli.options import Parser, add_precision_option, add_window_options, share
from beatline.core.errors import UserError

if TYPE_CHECKING:
    from beatline.tag.events import EventOptions

PLACES = """A PLACE is a folder, a file, a glob, or an address such as s3://bucket/folder or
hf://datasets/owner/name. Tar (WebDataset), Parquet and HDF5
files are archives of recordings. RAY_ADDRESS names the cluster; without it Ray runs on this machine alone.
Typed again, the same command does only the rest."""


def tag(arguments: list[str]) -> int:
    """Writes the tables and says what is in them; 0."""
    given = _parser().parse_args(arguments)
    from beatline.core import remote
    from beatline.core.console import progress, say
    from beatline.tag import ray as bulk_tag
    from beatline.tag.batch_tagger import Settings

    inputs = bulk_tag.find_inputs(given.audio, given.to)
    settings = Settings.of(given.model, given.calibrated, _event_options(given), **_tagger_options(given))
    say("tag", f"{len(inputs)} files -> {given.to}, on Ray")
    with remote.locked(given.to), progress("tag", len(inputs)) as advance:
        made = bulk_tag.tag_inputs(
            inputs,
            settings,
            given.to,
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            advance,
        )
    refused = ", ".join(f"{code} {count}" for code, count in made["refused"].items())
    hours, speed = made["seconds"] / 3600, made["rows"] / max(made["core_seconds"], 1e-3)
    say(
        "tag",
        f"{made['rows']} rows ({hours:.2f} h of sound), {sum(made['refused'].values())} "
        f"refused{f' ({refused})' if refused else ''}, {speed:.1f} rows a second and core",
    )
    return 0


def _parser() -> Parser:
    from beatline.cli.tag import add_event_options

    parser = Parser(
        "tag --engine ray",
        "Tags any number of recordings into partitioned Parquet, one row for each, refused ones too.",
        epilog=PLACES,
    )
    parser.add_argument("audio", nargs="+", metavar="PLACE", help="where the recordings are")
    parser.add_argument("--engine", choices=("ray",), required=True)
    parser.add_argument(
        "--to", required=True, metavar="PLACE", help="a folder that all machines see, or an address"
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="RUN|CHECKPOINT|EXPORT|OWNER/NAME",
        help="run folder, checkpoint, export, where all machines find it, or hub repository",
    )
    add_precision_option(parser)
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="with cuda each task takes a GPU"
    )
    add_window_options(parser)
    parser.add_argument(
        "--parents",
        action="store_true",
        help="raise a label's score to those of its kinds in AudioSet's ontology",
    )
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="use the thresholds and the temperature that `beatline calibrate` has put beside the model",
    )
    parser.add_argument("--events", choices=("steps", "windows"), help="also what sounds from when to when")
    parser.add_argument(
        "--threshold",
        type=share,
        metavar="SCORE",
        help="of events, the score that one reaches (the calibration's, or 0.5)",
    )
    add_event_options(parser)
    return parser


def _tagger_options(given: Namespace) -> dict[str, object]:
    """For `tag.load`; every worker has one processor."""
    hop = given.window / 2 if given.hop is None else given.hop
    if hop > given.window:
        raise UserError(
            "bad-usage", "option --hop", "it is longer than the window", "give at most --window seconds"
        )
    return {
        "precision": given.precision,
        "device": given.device,
        "window": given.window,
        "hop": hop,
        "merge": given.merge,
        "parents": given.parents,
        "threads": 1,
    }


def _event_options(given: Namespace) -> "EventOptions | None":
    """How to find events; None where they are not asked for."""
    from beatline.tag.events import EventOptions

    asked = {
        field.name: value
        for field in fields(EventOptions)
        if (value := getattr(given, field.name, None)) is not None
    }
    if given.events is None and asked:
        raise UserError(
            "bad-usage",
            f"option --{min(asked)}",
            "it is about events, which are not asked for",
            "add --events steps, or leave it out",
        )
    return EventOptions(**asked, level=given.events) if given.events else None
