"""`beatline fetch`: AudioSet's tables and clips, checkpoints."""

from pathlib import Path
from typing import Any

from beatline.cli.options import flag, option
from beatline.core.errors import UserError

FETCH_HELP = """usage: beatline fetch audioset DIR [--from FOLDER|ADDRESS]... [--unbalanced]
       beatline fetch clips DIR [--from SOURCE]... [--tables balanced,eval] [--cookies FILE] [--rate
                          CLIPS_AN_HOUR] [--jobs N]
       beatline fetch checkpoint NAME|OWNER/NAME[/FILE]|PATH [--to FOLDER] [--from FOLDER]...

audioset     AudioSet's tables, ontology and strong labels into DIR; --unbalanced adds the table of two
             million clips (101 MB)
clips        the audio of the tables' clips into DIR, each from the first SOURCE that has it: a folder with
             audio, hub:OWNER/NAME[/FOLDER] (hub:confit/audioset-16khz-wds,
             hub:agkphysics/AudioSet), or youtube; without a SOURCE the ledger of what DIR has.
             DIR/fetch-ledger.jsonl says of every clip where it is, or why it is missing
             --tables balanced,eval   or unbalanced, or names of CSVs of the same form in DIR
             --cookies FILE           of a browser, for YouTube; --rate 250 videos an hour; --jobs 4 at the
                                       same time
checkpoint   BEATs_iter3, BEATs_iter3_plus_AS20K, BEATs_iter3_plus_AS2M; or a Hugging Face repository; into
             --to checkpoints

What is in DIR already stays, what is found in a --from FOLDER comes before any network; the same command goes
on after a stop. See docs/audioset.md.
"""


def fetch(arguments: list[str]) -> None:
    """Gets what the arguments name."""
    from beatline.fetch import audioset, checkpoints, clips

    if "--help" in arguments or "-h" in arguments:
        print(FETCH_HELP)
        return
    what, rest = (arguments[0] if arguments else ""), arguments[1:]
    if what not in ("audioset", "clips", "checkpoint"):
        raise UserError(
            "bad-usage",
            f"beatline fetch {what}".rstrip(),
            "it takes audioset, clips or checkpoint",
            "`beatline fetch --help` shows the form",
        )
    sources: list[str] = []
    while (source := option(rest, "--from")) is not None:
        sources.append(source)
    target = option(rest, "--to") if what == "checkpoint" else None
    unbalanced = what == "audioset" and flag(rest, "--unbalanced")
    options = _clips_options(rest) if what == "clips" else None
    if len(rest) != 1 or rest[0].startswith("-"):
        raise UserError(
            "bad-usage",
            f"beatline fetch {what}",
            f"it takes one argument besides its options, not {' '.join(rest) or 'none'}",
            "`beatline fetch --help` shows the form",
        )
    if what == "audioset":
        audioset.fetch(Path(rest[0]), sources, unbalanced)
    elif options is not None:
        print(clips.fetch(Path(rest[0]), sources, options))
    else:
        path = checkpoints.locate(
            rest[0], Path(target or "checkpoints"), [Path(source) for source in sources]
        )
        print(f"use it with --model.init {path}")


def _clips_options(rest: list[str]) -> Any:
    """The options of `beatline fetch clips`, checked."""
    from beatline.fetch.clips import Options

    given = {name: option(rest, f"--{name}") for name in ("tables", "cookies", "rate", "jobs")}
    numbers: dict[str, float] = {}
    for name, lowest, highest in (("rate", 1.0, 1_000_000), ("jobs", 1, 64)):
        if (text := given[name]) is not None:
            try:
                numbers[name] = type(lowest)(text)
            except ValueError:
                numbers[name] = -1
            if not lowest <= numbers[name] <= highest:
                raise UserError(
                    "bad-usage",
                    f"option --{name}",
                    f"{text!r} is not a number from {lowest} to {highest}",
                    "`beatline fetch --help` shows the form",
                )
    tables = tuple((given["tables"] or "balanced,eval").split(","))
    return Options(tables=tables, cookies=Path(given["cookies"]) if given["cookies"] else None, **numbers)  # type: ignore[arg-type]
