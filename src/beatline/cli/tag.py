"""`beatline tag`: audio files to labels, on this machine or with Ray on many."""

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from beatline.cli.options import (
    add_event_options,
    add_label_options,
    add_model_options,
    add_window_options,
    check_label_options,
    choice,
    find_sources,
    hop,
    load_tagger,
)
from beatline.cli.parser import Parser, whole
from beatline.core.errors import UserError

if TYPE_CHECKING:
    from beatline.tag.events import EventOptions
    from beatline.tag.result import Refused, Result

TOP = 5

RAY = """With --engine ray any number of recordings become partitioned Parquet, a row for each, also
if refused. Inputs may then also be addresses, such as s3://bucket/folder or
hf://datasets/owner/name. Files of tar (WebDataset), Parquet and HDF5 are archives of recordings.
All machines must find inputs, model and --to. RAY_ADDRESS names the cluster; without it Ray runs on
this machine alone. Typed again, the same command does only the rest."""


def parser() -> Parser:
    """The options of the command."""
    from beatline.tag.formats import OF_EVENTS, names

    parser = Parser("tag", "Tags audio files, one result for each, in order.", epilog=RAY)
    parser.add(
        "audio",
        nargs="+",
        metavar="FILE|FOLDER|GLOB|-",
        help="audio of any form that docs/tagging.md lists; - is standard input",
    )
    add_model_options(parser, ("ray",))
    add_window_options(parser)
    parser.add(
        "--format",
        choices=names(),
        default="table",
        help=f"table is for people (table); {', '.join(OF_EVENTS)} are of events",
    )
    parser.add(
        "--out", type=Path, metavar="FILE", help="file that is there once it is whole (standard output)"
    )
    parser.add(
        "--top",
        type=whole(1),
        metavar="N",
        help=f"most labels of each recording or window ({TOP}; all with --threshold, --calibrated or "
        f"--labels)",
    )
    add_label_options(parser, "least score of a label (0), or of an event (0.5)")
    parser.add("--timeline", action="store_true", help="tell the labels of each window")
    events = "events"
    parser.add(
        "--events",
        choices=("steps", "windows"),
        section=events,
        help="tell what sounds from when to when, by the scores of steps of 0.16 s or of windows",
    )
    add_event_options(parser, events)
    parser.add(
        "--to",
        metavar="FOLDER|ADDRESS",
        section="on many machines",
        help="folder that all machines see, or address; with --engine ray",
    )
    return parser


def tag(given: Namespace) -> int:
    """Exit code: 0, or that of the last refused file."""
    if given.engine == "ray":
        _tag_on_ray(given)
        return 0
    if given.to:
        raise parser().refusal("option --to", "it goes with --engine ray; --out names a file to write")
    check_label_options(given)
    from beatline.core.console import progress
    from beatline.tag import formats

    options = _event_options(given)
    sources = list(find_sources(given.audio))
    if not sources:
        raise UserError(
            "missing-file",
            f"nothing to tag in {' '.join(given.audio)}",
            "no audio file there",
            "give audio files, or a folder that holds audio",
        )
    formats.check(
        given.format, [str(source) if isinstance(source, Path) else "audio" for source in sources], given.out
    )
    tagger = load_tagger(given)
    chosen, lowest = choice(given, tagger, 0.0)
    open_end = given.labels or given.calibrated or given.threshold is not None
    level: formats.Level = "windows" if given.timeline else "clip"
    shown = formats.Choice(
        level="events" if options else level,
        count=given.top or (None if open_end else TOP),
        threshold=lowest,
    )
    with progress("tag", len(sources)) if len(sources) > 1 else nullcontext(lambda: None) as advance:

        def results() -> "Iterator[Result | Refused]":
            for result in tagger.tag(sources, options):
                advance()
                yield result if not given.labels or not hasattr(result, "select") else result.select(chosen)

        refused = formats.write(results(), given.format, shown, given.out)
    return refused.exit_code if refused else 0  # each refused file has had its line


def _event_options(given: Namespace) -> "EventOptions | None":
    """How to find events; None where they are not asked for."""
    from beatline.tag.events import EventOptions
    from beatline.tag.formats import OF_EVENTS

    if given.events is None and given.format not in OF_EVENTS:
        _refuse_unused(_asked(given).keys() - {"threshold"})
        return None
    if given.top and not given.format.startswith("json"):
        raise UserError(
            "bad-usage",
            "option --top",
            "it is about recordings and windows, not events",
            "choose events by --labels or --threshold",
        )
    if given.timeline:
        raise UserError(
            "bad-usage",
            "option --timeline",
            "it cannot be combined with events"
            if given.events
            else f"the format {given.format} is of events",
            "leave it out, or leave events out",
        )
    return EventOptions(**_asked(given), level=given.events or "steps")


def _asked(given: Namespace) -> dict[str, float]:
    """The options of events that are given."""
    from beatline.tag.events import EventOptions

    names = [field.name for field in fields(EventOptions) if field.name != "level"]
    return {name: getattr(given, name) for name in names if getattr(given, name) is not None}


def _refuse_unused(options: set[str]) -> None:
    """Raises `bad-usage` for options of events where none are asked for."""
    if options:
        raise UserError(
            "bad-usage",
            f"option --{min(options)}",
            "it is about events, which are not asked for",
            "add --events steps, or leave it out",
        )


def _tag_on_ray(given: Namespace) -> None:
    """Writes the tables and says what is in them."""
    from beatline.core import remote
    from beatline.core.console import progress, say
    from beatline.tag import ray as bulk
    from beatline.tag.batch_tagger import Settings
    from beatline.tag.events import EventOptions

    if given.to is None:
        raise parser().refusal("beatline tag --engine ray", "the following arguments are required: --to")
    unused = [name for name in ("out", "top", "labels", "timeline") if getattr(given, name)]
    unused += ["format"] if given.format != "table" else []
    if unused:
        raise parser().refusal(f"option --{unused[0]}", "with --engine ray, all labels go to Parquet in --to")
    events = None
    if given.events is None:
        _refuse_unused(set(_asked(given)))
    else:
        events = EventOptions(**_asked(given), level=given.events)
    options = {name: getattr(given, name) for name in ("precision", "device", "window", "merge", "parents")}
    inputs = bulk.find_inputs(given.audio, given.to)
    settings = Settings.of(given.model, given.calibrated, events, **options, hop=hop(given), threads=1)
    say("tag", f"{len(inputs)} files -> {given.to}, on Ray")
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with remote.locked(given.to), progress("tag", len(inputs)) as advance:
        made = bulk.tag_inputs(inputs, settings, given.to, workers, advance)
    refused = ", ".join(f"{code} {count}" for code, count in made["refused"].items())
    hours = made["seconds"] / 3600
    speed = made["rows"] / max(made["core_seconds"], 1e-3)
    say(
        "tag",
        f"{made['rows']} rows ({hours:.2f} h of sound), {sum(made['refused'].values())} "
        f"refused{f' ({refused})' if refused else ''}, {speed:.1f} rows a second and core",
    )
