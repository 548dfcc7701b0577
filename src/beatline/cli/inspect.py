"""`beatline inspect`: what a store holds."""

import sys
from argparse import Namespace
from pathlib import Path

from beatline.cli.parser import Parser
from beatline.core.errors import UserError


def parser() -> Parser:
    """The options of the command."""
    parser = Parser("inspect", "Says what a store holds, lacks, repeats and contradicts.")
    parser.add("store", type=Path, metavar="STORE", help="folder that `beatline prepare` has written")
    parser.add("--json", action="store_true", help="print everything as JSON, for programs")
    parser.add("--html", type=Path, metavar="FILE", help="also write a page to look at")
    parser.add(
        "--quality", type=Path, metavar="FILE", help="AudioSet's qa_true_counts.csv, for doubt about labels"
    )
    return parser


def inspect(given: Namespace) -> None:
    """Does what the command says."""
    import json

    from beatline.core import artefact
    from beatline.core.console import progress
    from beatline.data import inspection, inspection_page
    from beatline.data.label_noise import read_quality

    folder = given.store
    page = given.html
    if page and (page.is_dir() or page.resolve().is_relative_to(folder.resolve())):
        raise UserError(
            "not-writable",
            f"cannot write {page}",
            "it is a folder, or lies in the store, which must stay as it is",
            "name a file elsewhere",
        )
    store = inspection.open_store(folder)
    rated = read_quality(given.quality, store.labels) if given.quality else None
    with progress("inspect", len(store.ids)) as advance:
        found = inspection.inspect(store, rated, advance)
    print(json.dumps(found, indent=1, allow_nan=False) if given.json else inspection_page.console(found))
    if page:
        artefact.write_atomic(page, inspection_page.page(found, store.samples_of))
        print(f"page      {page}", file=sys.stderr if given.json else sys.stdout)
