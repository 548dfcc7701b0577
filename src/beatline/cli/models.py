"""`beatline models`: the models that have names."""

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from beatline.cli.options import model_names
from beatline.cli.parser import Parser
from beatline.core.errors import UserError

if TYPE_CHECKING:
    from beatline.fetch.known import Known

CHECKED = ("test_speech_00.ogg", "Speech", 3)
"""An embedded clip, its label, and among how many of the best labels a model must have it."""

WORDS = """A model with 0 labels is a pre-trained encoder, to embed with, to probe or to fine-tune. Licences
and figures are as published; an empty cell is not known. `box` comes with beatline. Any other model is
fetched when it is first named, and needs PyTorch. `beats` is the best of the BEATs release."""


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "models", "Lists the models that --model takes by name, and which of them are here.", epilog=WORDS
    )
    parser.add("--json", action="store_true", help="print everything as JSON, for programs")
    parser.add(
        "--check",
        metavar="NAME",
        values=model_names,
        help="tag a known clip with this model, fetched first, to see that its labels are right",
    )
    return parser


def models(given: Namespace) -> None:
    """Prints the table, or what the check found."""
    from beatline.fetch import known

    if given.check is not None:
        _check(given.check)
        return
    rows = [(model, known.here(model)) for model in known.models()]
    if given.json:
        facts = [
            {
                "name": model.name,
                "labels": model.labels,
                "bytes": model.size,
                "licence": model.licence or None,
                "figure": model.figure or None,
                "sha256": model.sha256 or None,
                "path": None if path is None else str(path),
            }
            for model, path in rows
        ]
        print(json.dumps(facts, indent=1))
        return
    short = {name: alias for alias, name in known.ALIASES.items()}
    table: list[tuple[str, ...]] = [("name", "labels", "size", "licence", "published", "here")]
    table += [_row(model, short.get(model.name, ""), path is not None) for model, path in rows]
    print(columns(table))


def _row(model: "Known", short: str, is_here: bool) -> tuple[str, ...]:
    from beatline.core.text import megabytes

    return (
        model.name + (f" ({short})" if short else ""),
        "" if model.labels is None else str(model.labels),
        "" if model.size is None else megabytes(model.size),
        model.licence,
        model.figure,
        "yes" if is_here else "",
    )


def columns(table: Sequence[Sequence[str]]) -> str:
    """Rows of text, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def _check(name: str) -> None:
    """Says what the model hears in the known clip.

    Raises:
        UserError: `label-mismatch` where it is something else; as `beatline.load`.
    """
    import beatline
    from beatline.fetch import known

    clip, label, count = CHECKED
    tagger = beatline.load(name)
    best = tagger(known.box_folder().parent / "mini-audioset/audio" / clip).top(count)
    heard = ", ".join(f"{found.name} {score:.2f}" for found, score in best)
    if label not in {found.name for found, _ in best}:
        raise UserError(
            "label-mismatch",
            f"model {name}",
            f"it hears {heard} in {clip}, where {label} is heard",
            "its labels are not in the order of its outputs, or it knows no speech; do not trust it",
        )
    print(f"models   {name} hears {heard} in {clip}: its labels are right")
