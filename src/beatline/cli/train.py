"""`beatline train`: the second stage of a run."""

from argparse import Namespace

from beatline.cli.options import add_config, add_settings, load_config
from beatline.cli.parser import Parser


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "train",
        "Fine-tunes the tagger on the prepared clips of a run. Stopped, it goes on from its last checkpoint. "
        "Other settings of `beatline run` are taken and not used.",
        usage="beatline train CONFIG [--SETTING VALUE ...]",
    )
    add_config(parser)
    add_settings(parser, ["out", "store", "model", "augment", "optim", "train"])
    return parser


def train(given: Namespace) -> None:
    """Does what the command says."""
    config = load_config(given)
    from beatline import recipe

    recipe.STAGES["train"](config)
