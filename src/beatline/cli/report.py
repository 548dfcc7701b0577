"""`beatline report`: the last stage of a run."""

from argparse import Namespace

from beatline.cli.options import add_config, add_settings, load_config
from beatline.cli.parser import Parser


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "report",
        "Writes RESULTS.md, a table per label and report.html of a run. Other settings of `beatline run` are "
        "taken and not used.",
        usage="beatline report CONFIG [--SETTING VALUE ...]",
    )
    add_config(parser)
    add_settings(parser, ["out", "store"])
    return parser


def report(given: Namespace) -> None:
    """Does what the command says."""
    config = load_config(given)
    from beatline import recipe

    recipe.STAGES["report"](config)
