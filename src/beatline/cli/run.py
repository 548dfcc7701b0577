"""`beatline run`: all stages in order."""

from argparse import Namespace

from beatline.cli.options import add_config, add_settings, load_config
from beatline.cli.parser import Parser


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "run",
        "Runs all stages in order, each only where something is missing. Without CONFIG it is the main job, "
        "`mini`.",
        usage="beatline run [CONFIG] [--SETTING VALUE ...]",
    )
    add_config(parser)
    add_settings(parser, ["*"])
    return parser


def run(given: Namespace) -> None:
    """Does what the command says."""
    from beatline import recipe

    if given.config is None:
        given.config = "mini"
    recipe.run(load_config(given))
