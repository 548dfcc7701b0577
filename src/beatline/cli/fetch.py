"""`beatline fetch`: AudioSet's tables and clips, checkpoints."""

from argparse import Namespace
from pathlib import Path

from beatline.cli.parser import Parser, number, whole

AGAIN = "What is there already stays; the same command goes on after a stop. See docs/audioset.md."


def parser(what: str) -> Parser:
    """The arguments of `beatline fetch audioset`, `clips` or `checkpoint`."""
    parsers = {"audioset": _audioset_parser, "clips": _clips_parser, "checkpoint": _checkpoint_parser}
    return parsers[what]()


def fetch(given: Namespace) -> None:
    """Does what the command says."""
    if given.command == "fetch audioset":
        from beatline.fetch import audioset

        audioset.fetch(given.folder, given.sources, given.unbalanced)
    elif given.command == "fetch clips":
        from beatline.fetch import clips

        numbers = {
            name: getattr(given, name) for name in ("rate", "jobs") if getattr(given, name) is not None
        }
        tables = tuple(given.tables.split(","))
        options = clips.Options(tables=tables, cookies=given.cookies, **numbers)
        print(clips.fetch(given.folder, given.sources, options))
    else:
        from beatline.fetch import checkpoints

        path = checkpoints.locate(given.name, given.to, [Path(source) for source in given.sources])
        print(f"use it with --model.init {path}")


def _audioset_parser() -> Parser:
    parser = Parser(
        "fetch audioset", "Downloads AudioSet's tables, ontology and strong labels into DIR.", epilog=AGAIN
    )
    parser.add("folder", type=Path, metavar="DIR", help="folder to fill")
    parser.add(
        "--from",
        dest="sources",
        action="append",
        default=[],
        metavar="FOLDER|ADDRESS",
        help="folder or web address that is asked first; may be given again",
    )
    parser.add("--unbalanced", action="store_true", help="also the table of two million clips (101 MB)")
    return parser


def _clips_parser() -> Parser:
    parser = Parser(
        "fetch clips",
        "Downloads the audio of AudioSet's tables in DIR, each clip from the first SOURCE that has it.\n\n"
        "A SOURCE is a folder with audio, hub:OWNER/NAME[/FOLDER], or youtube. Copies on the hub are "
        "hub:confit/audioset-16khz-wds and hub:agkphysics/AudioSet. Without a SOURCE only the ledger is "
        "made. DIR/fetch-ledger.jsonl says of every clip where it is, or why it is missing.",
        epilog=AGAIN,
    )
    parser.add("folder", type=Path, metavar="DIR", help="folder with the tables of `fetch audioset`")
    parser.add(
        "--from",
        dest="sources",
        action="append",
        default=[],
        metavar="SOURCE",
        help="where to look, in this order; may be given again",
    )
    parser.add(
        "--tables",
        default="balanced,eval",
        metavar="NAME[,NAME]",
        help="tables whose clips are wanted (balanced,eval): also unbalanced, or names of CSVs in DIR",
    )
    youtube = "YouTube"
    parser.add("--cookies", type=Path, metavar="FILE", section=youtube, help="file of a browser's cookies")
    parser.add(
        "--rate",
        type=number(1, 1_000_000),
        metavar="VIDEOS",
        section=youtube,
        help="videos asked for in an hour (250)",
    )
    parser.add(
        "--jobs",
        type=whole(1, 64),
        metavar="N",
        section=youtube,
        help="videos asked for at the same time, 1 to 64 (4)",
    )
    return parser


def _checkpoint_parser() -> Parser:
    parser = Parser("fetch checkpoint", "Downloads a checkpoint to start from.", epilog=AGAIN)
    parser.add(
        "name",
        metavar="NAME|OWNER/NAME[/FILE]|PATH",
        help="BEATs_iter3, BEATs_iter3_plus_AS20K, BEATs_iter3_plus_AS2M, or a Hugging Face repository",
        values=lambda: ("BEATs_iter3", "BEATs_iter3_plus_AS20K", "BEATs_iter3_plus_AS2M"),
    )
    parser.add(
        "--to",
        type=Path,
        default=Path("checkpoints"),
        metavar="FOLDER",
        help="folder to fill (checkpoints)",
    )
    parser.add(
        "--from",
        dest="sources",
        action="append",
        default=[],
        metavar="FOLDER",
        help="folder that is asked before any network; may be given again",
    )
    return parser
