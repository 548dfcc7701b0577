"""`beatline predict`: the third stage of a run."""

from argparse import Namespace

from beatline.cli.options import add_config, add_settings, load_config
from beatline.cli.parser import Parser


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "predict",
        "Scores the test clips of a run with its model. Other settings of `beatline run` are taken and not "
        "used.",
        usage="beatline predict CONFIG [--SETTING VALUE ...]",
    )
    add_config(parser)
    add_settings(
        parser, ["out", "store", "data.max_seconds", "train.precision", "train.device", "train.workers"]
    )
    return parser


def predict(given: Namespace) -> None:
    """Does what the command says."""
    config = load_config(given)
    from beatline import recipe

    recipe.STAGES["predict"](config)
