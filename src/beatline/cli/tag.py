"""`beatline tag`: audio files to labels."""

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from beatline.cli.options import (
    Parser,
    add_label_options,
    add_model_options,
    add_window_options,
    choice,
    load_tagger,
    positive,
    share,
)
from beatline.core.errors import UserError

if TYPE_CHECKING:
    from beatline.audio.media import Audio
    from beatline.tag.events import EventOptions
    from beatline.tag.result import Refused, Tagged

TOP = 5


def seconds(text: str) -> float:
    """argparse type: a finite number of at least 0."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


seconds.__name__ = "number of at least 0"


def tag(arguments: list[str]) -> int:
    """Exit code: 0, or that of the last refused file."""
    if "--engine=ray" in arguments or ("--engine", "ray") in pairwise(arguments):
        from beatline.cli import tag_ray

        return tag_ray.tag(arguments)
    given = _parser().parse_args(arguments)
    from beatline.core.console import progress
    from beatline.tag import formats

    options, sources = _event_options(given), list(find_sources(given.audio))
    if not sources:
        raise UserError(
            "missing-file",
            f"nothing to tag in {' '.join(given.audio)}",
            "no audio file there",
            "give audio files, or a folder with some",
        )
    formats.check(
        given.format, [str(source) if isinstance(source, Path) else "audio" for source in sources], given.out
    )
    tagger = load_tagger(given)
    chosen, lowest = choice(given, tagger, 0.0)
    open_end = given.labels or given.calibrated or given.threshold is not None
    shown = formats.Choice(
        level="events" if options else "windows" if given.timeline else "clip",
        count=given.top or (None if open_end else TOP),
        threshold=lowest,
    )
    with progress("tag", len(sources)) if len(sources) > 1 else nullcontext(lambda: None) as advance:

        def results() -> "Iterator[Tagged | Refused]":
            for result in tagger.tag(sources, options):
                advance()
                yield result if not given.labels or not hasattr(result, "select") else result.select(chosen)

        refused = formats.write(results(), given.format, shown, given.out)
    return refused.exit_code if refused else 0  # each refused file has had its line


def _parser() -> Parser:
    from beatline.tag.formats import NAMES, OF_EVENTS

    parser = Parser(
        "tag",
        "Tags audio files, one result for each, in order.",
        epilog="`beatline tag --engine ray --help`: any number of files, on many machines, to Parquet.",
    )
    parser.add_argument(
        "audio",
        nargs="+",
        metavar="FILE|FOLDER|GLOB|-",
        help="audio of any form that docs/tagging.md lists; - is standard input",
    )
    add_model_options(parser)
    add_window_options(parser)
    parser.add_argument(
        "--format",
        choices=NAMES,
        default="table",
        help=f"table is for people; {', '.join(OF_EVENTS)} are of events",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="written when it is whole (standard output)")
    parser.add_argument(
        "--top",
        type=positive,
        metavar="N",
        help=f"most labels of each recording or window ({TOP}; all with --threshold, --calibrated or "
        f"--labels)",
    )
    add_label_options(parser, "leave out labels below it; of events, the score that one reaches (0.5)")
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--timeline", action="store_true", help="the labels of each window")
    level.add_argument(
        "--events",
        choices=("steps", "windows"),
        help="what sounds from when to when, by the scores of steps of 0.16 s or of windows",
    )
    add_event_options(parser)
    return parser


def add_event_options(parser: Parser) -> None:
    """How scores become events."""
    parser.add_argument(
        "--low", type=share, metavar="SHARE", help="of the threshold, at which an event ends (0.5)"
    )
    parser.add_argument(
        "--median",
        type=seconds,
        metavar="SECONDS",
        help="length of the median filter over scores (0.48; 0 is none)",
    )
    parser.add_argument("--gap", type=seconds, metavar="SECONDS", help="longest pause within an event (0.32)")
    parser.add_argument("--shortest", type=seconds, metavar="SECONDS", help="leave out shorter events (0)")


def _event_options(given: Namespace) -> "EventOptions | None":
    """How to find events; None where they are not asked for."""
    from beatline.tag.events import EventOptions
    from beatline.tag.formats import OF_EVENTS

    asked = {
        field.name: getattr(given, field.name)
        for field in fields(EventOptions)
        if getattr(given, field.name, None) is not None
    }
    if given.events is None and given.format not in OF_EVENTS:
        unused = sorted(asked.keys() - {"threshold"})
        if unused:
            raise UserError(
                "bad-usage",
                f"option --{unused[0]}",
                "it is about events, which are not asked for",
                "add --events steps, or leave it out",
            )
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
            f"the format {given.format} is of events",
            "leave it out, or take another --format",
        )
    return EventOptions(**asked, level=given.events or "steps")


def find_sources(words: Iterable[str]) -> "Iterator[Audio]":
    """What the words name, standard input included."""
    from beatline.audio.inputs import find_audio

    if list(words).count("-") > 1:
        raise UserError("bad-usage", "argument -", "standard input can be read only once", "give it once")
    for word in words:
        if word != "-":
            found = find_audio([word])
            first = next(found, None)
            if first is None:
                raise UserError(
                    "missing-file",
                    f"nothing to use in {word}",
                    "no audio file there",
                    "check the path, or leave it out",
                )
            yield first
            yield from found
        elif sys.stdin is None or sys.stdin.isatty():
            raise UserError(
                "bad-usage",
                "argument -",
                "standard input is no pipe",
                "pipe a sound file into the command: cat FILE | beatline tag - ...",
            )
        else:
            yield sys.stdin.buffer
