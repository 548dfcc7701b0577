"""`beatline tag`: audio files to labels."""

from beatline.cli.options import Parser, add_model_options, add_window_options, load_tagger, positive
from beatline.errors import UserError


def tag(arguments: list[str]) -> int:
    """Exit code: 0, or that of the last refused file."""
    from beatline import tag as room

    parser = Parser("tag", "Tags audio files, one result for each, in order.")
    parser.add_argument("audio", nargs="+", metavar="FILE|FOLDER|GLOB", help="audio of any form that libsndfile or FFmpeg reads")
    add_model_options(parser)
    add_window_options(parser)
    parser.add_argument("--top", type=positive, default=5, help="labels of each recording (5)")
    parser.add_argument("--format", choices=("table", "jsonl", "csv"), default="table")
    given = parser.parse_args(arguments)
    sources = list(room.find(given.audio))
    if not sources:
        raise UserError("missing-file", f"nothing to tag in {' '.join(given.audio)}", "no audio file there", "give audio files, or a folder with some")
    refused = room.write(load_tagger(given).tag(sources), given.format, given.top)
    return refused.exit_code if refused else 0  # each refused file has had its line
