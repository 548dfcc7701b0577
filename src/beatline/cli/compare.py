"""`beatline compare`: two runs, or two models of any kind, on their common clips."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from beatline.cli.options import add_device_option
from beatline.cli.parser import Parser
from beatline.core.errors import UserError

if TYPE_CHECKING:
    from beatline.evaluate.labelled import Labelled
    from beatline.evaluate.predictions import Predictions

FORMS = """Without --clips: two runs, or folders of predictions. With it: two models of any kind,
scored on these clips as `beatline tag` does. A folder of predictions is then taken as it is.
Models with different labels are compared on those that both have."""


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "compare",
        "Scores two models on their common clips, with paired bootstrap intervals of the differences.",
        epilog=FORMS,
    )
    parser.add(
        "first",
        metavar="A",
        help="run folder, folder of predictions, checkpoint of any family, export, or hub repository",
    )
    parser.add("second", metavar="B", help="what A is compared with, in any of these forms")
    parser.add(
        "--clips",
        type=Path,
        metavar="STORE|FOLDER|CSV",
        help="test clips of a store or run; a folder for each class; a table with columns file,labels",
    )
    parser.add(
        "--html", type=Path, metavar="FILE", help="also write a page, to listen to where they disagree"
    )
    add_device_option(parser)
    parser.add("--json", action="store_true", help="print everything as JSON, for programs")
    return parser


def compare(given: Namespace) -> None:
    """Does what the command says."""
    from beatline.core import artefact
    from beatline.evaluate import compare as comparison

    page = given.html
    if page and (
        page.is_dir() or any(artefact.contents_file(folder).exists() for folder in page.resolve().parents)
    ):
        raise UserError(
            "not-writable",
            f"cannot write {page}",
            "it is a folder, or lies in a folder of beatline's that must stay as it is",
            "name a file elsewhere",
        )
    clips = comparison.find_clips(given.clips) if given.clips else None
    if clips and clips.rejected:
        _note(
            f"{len(clips.rejected)} rows or files of {clips.name} are no clips; the first, "
            f"{clips.rejected[0].input}: {clips.rejected[0].reason}"
        )
    first, second = (_predictions(source, clips, given.device) for source in (given.first, given.second))
    result = comparison.compare(first, second, (given.first, given.second))
    print(
        json.dumps(result.to_dict(), indent=1, allow_nan=False) if given.json else comparison.console(result)
    )
    if page:
        from beatline.evaluate import compare_page

        heard = clips or _clips_of(given.first) or _clips_of(given.second)
        shown = [
            result.predictions[0].ids[i] for rows in compare_page.disagreements(result).values() for i in rows
        ]
        if not heard:
            _note("the page has no sound: no store is beside the runs; name the clips with --clips")
        artefact.write_atomic(
            page,
            compare_page.page(result, heard.samples_of(shown) if heard else {}).encode(
                "utf-8", "backslashreplace"
            ),
        )
        print(f"page      {page}", file=sys.stderr if given.json else sys.stdout)


def _note(message: str) -> None:
    print(f"compare   {message}", file=sys.stderr)


def _predictions(name: str, clips: "Labelled | None", device: str) -> "Predictions":
    """What is there of a run, or what its model says of the clips."""
    import beatline
    from beatline.core.console import progress
    from beatline.evaluate import compare as comparison

    folder = Path(name)
    alone = (folder / "scores.npy").exists()
    if clips is None and folder.exists() and not alone and not (folder / "predictions").is_dir():
        raise UserError(
            "missing-file",
            f"cannot compare {name}",
            "it holds no predictions",
            "name clips to score its model on with --clips",
        )
    if clips is None or alone:
        return comparison.find_predictions(folder)
    tagger = beatline.load(name, device=device)
    with progress("compare", len(clips.ids)) as advance:
        predictions, refused = comparison.score(tagger, clips, advance)
    if refused:
        _note(f"{len(refused)} of {len(clips.ids)} clips cannot be read; the first, {refused[0]}")
    return predictions


def _clips_of(name: str) -> "Labelled | None":
    """The clips that a run was tested on, where its store can be found."""
    from beatline.evaluate import compare as comparison
    from beatline.evaluate import labelled

    folder = Path(name)
    try:
        return (
            comparison.find_clips(folder)
            if (folder / "predictions").is_dir() and labelled.store_of(folder)
            else None
        )
    except UserError as error:
        _note(str(error))
        return None
