"""`beatline listen`: labels of a microphone, a pipe or a file, as the sound comes."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from beatline.cli.options import (
    add_label_options,
    add_model_options,
    check_label_options,
    choice,
    hop,
    load_tagger,
)
from beatline.cli.parser import Parser, above_zero, whole
from beatline.core.errors import UserError

if TYPE_CHECKING:
    from beatline.audio import stream as pcm
    from beatline.tag.listening import Moment
    from beatline.tag.tagger import AudioTagger

THRESHOLD = 0.3

SOURCES = """Without SOURCE the default microphone is heard (extra `listen`). `-` and named pipes carry a WAV
stream or raw 16-bit little-endian samples:

  arecord -f S16_LE -r 16000 | beatline listen - --model MODEL
  ffmpeg -i rtsp://camera -f s16le -ac 1 -ar 16000 - | beatline listen - --model MODEL --format jsonl

The first line comes when a whole window has been heard. Where the model is slower than the sound, hops are
skipped and counted; a file's never."""


def parser() -> Parser:
    """The options of the command."""
    parser = Parser("listen", "Says what is heard, hop by hop.", epilog=SOURCES)
    parser.add(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="-, a named pipe, or a file of any form that `beatline tag` reads",
    )
    add_model_options(parser)
    parser.add(
        "--rate",
        type=whole(1),
        default=16_000,
        metavar="HERTZ",
        help="samples a second of raw samples or the microphone (16000)",
    )
    parser.add(
        "--channels",
        type=whole(1),
        default=1,
        metavar="N",
        help="channels of raw samples or the microphone (1)",
    )
    parser.add(
        "--window", type=above_zero, default=10.0, metavar="SECONDS", help="what is scored at once (10)"
    )
    parser.add(
        "--hop",
        type=above_zero,
        metavar="SECONDS",
        help="from one line to the next (a quarter of the window)",
    )
    add_label_options(parser, f"least score of a label that is printed ({THRESHOLD})")
    parser.add("--format", choices=("table", "jsonl"), default="table", help="table is for people (table)")
    return parser


def listen(given: Namespace) -> None:
    """Prints a line for every hop, until the sound ends."""
    check_label_options(given)
    given.hop = hop(given, 1 / 4)
    if given.source == "-" and sys.stdin.isatty():
        raise UserError(
            "bad-usage",
            "cannot listen to -",
            "standard input is a terminal",
            "pipe sound into it; `beatline listen --help` shows how",
        )
    count = 0
    skipped = 0
    last = 0.0
    try:
        for line, moment in _lines(given):
            print(line, flush=True)
            count += 1
            skipped += moment.skipped
            last = moment.time
    finally:
        if count:
            slow = (
                f"; {skipped} hops skipped, because the model is slower than the sound: give a longer --hop"
                if skipped
                else ""
            )
            print(f"listen   {last:.1f} s heard, {count} lines{slow}", file=sys.stderr)


def _lines(given: Namespace) -> Iterator[tuple[str, "Moment"]]:
    """Each moment, and what is printed of it."""
    from beatline.audio import stream as pcm

    microphone = (
        pcm.microphone(given.rate, given.channels) if given.source is None else None
    )  # asked for before the model is loaded
    tagger = load_tagger(given)
    chosen, lowest = choice(given, tagger, THRESHOLD)
    for moment in _moments(given, microphone, tagger):
        shown = moment.select(chosen) if given.labels else moment
        if given.format == "jsonl":
            yield json.dumps(shown.to_dict(lowest), ensure_ascii=False), moment
        else:
            yield (
                f"{moment.time:9.1f} s  "
                + (", ".join(f"{label.name} {score:.2f}" for label, score in shown.above(lowest)) or "-"),
                moment,
            )


def _moments(given: Namespace, microphone: "pcm.Sound | None", tagger: "AudioTagger") -> Iterator["Moment"]:
    from beatline.audio import media
    from beatline.audio import stream as pcm
    from beatline.audio.samples import SAMPLE_RATE
    from beatline.tag import listening

    source = given.source
    sound = microphone
    if source is not None and source != "-" and not Path(source).is_fifo():
        return listening.every(listening.Stream(tagger, SAMPLE_RATE), media.blocks(Path(source), tagger.hop))
    if sound is None:
        pipe = 0 if source == "-" else os.open(source, os.O_RDONLY)
        sound = pcm.sound(
            lambda most: os.read(pipe, most),
            "standard input" if source == "-" else source,
            given.rate,
            given.channels,
        )
    return listening.live(listening.Stream(tagger, sound.rate, sound.channels), sound.blocks)
