"""`beatline embed`: audio files to embeddings."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from beatline.cli.options import add_model_options, add_window_options, find_sources, load_tagger
from beatline.cli.parser import Parser
from beatline.core.errors import UserError

if TYPE_CHECKING:
    from beatline.tag.result import Embedded, Refused


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "embed", "Writes what the encoder makes of audio files, into a folder that is there once it is whole."
    )
    parser.add(
        "audio",
        nargs="+",
        metavar="FILE|FOLDER|GLOB|-",
        help="audio of any form that libsndfile or FFmpeg reads; - is standard input",
    )
    add_model_options(parser)
    add_window_options(parser, merge=False)
    parser.add("--to", type=Path, required=True, metavar="FOLDER", help="folder to write")
    parser.add(
        "--level",
        choices=("clip", "window", "token"),
        default="clip",
        help="an embedding for each recording, window, or token of 0.16 s and 16 of 128 mel bands (clip)",
    )
    parser.add(
        "--format",
        choices=("npy", "parquet"),
        default="npy",
        help="embeddings.npy with clips.csv, or embeddings.parquet (npy)",
    )
    return parser


def embed(given: Namespace) -> int:
    """Exit code: 0, or that of the last refused file."""
    from beatline.core.console import progress, say
    from beatline.tag import embeddings
    from beatline.tag.calibration import model_hash

    sources = list(find_sources(given.audio))
    if not sources:
        raise UserError(
            "missing-file",
            f"nothing to embed in {' '.join(given.audio)}",
            "no audio file there",
            "give audio files, or a folder that holds audio",
        )
    embeddings.check(given.to, given.format)
    tagger = load_tagger(given, head=False)
    about = {
        "model_hash": model_hash(given.model),
        "engine": tagger.engine.name,
        "precision": given.precision,
        "window": tagger.window,
        "hop": tagger.hop,
    }
    with progress("embed", len(sources)) as advance:

        def parts() -> "Iterator[Embedded | Refused]":
            for part in tagger.embeddings(sources, given.level):
                if getattr(part, "seconds", 0.0) is not None:
                    advance()
                yield part

        written = embeddings.write(parts(), given.to, given.format, given.level, about)
    say(
        "embed",
        f"{written.recordings} of {len(sources)} recordings ({written.seconds / 3600:.2f} h of sound): "
        f"{written.rows} x {written.width}, one row for each {given.level} -> {given.to}",
    )
    return written.refused.exit_code if written.refused else 0  # each refused file has had its line
