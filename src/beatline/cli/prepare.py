"""`beatline prepare`: the first stage of a run."""

from argparse import Namespace

from beatline.cli.options import add_config, add_settings, load_config
from beatline.cli.parser import Parser


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "prepare",
        "Decodes every clip once into the store of a run. Other settings of `beatline run` are taken and not "
        "used.",
        usage="beatline prepare CONFIG [--SETTING VALUE ...]\n"
        "       beatline prepare CONFIG --engine ray [--source ADDRESS] [--to ADDRESS] [--SETTING VALUE ...]",
    )
    add_config(parser)
    many = "on many machines"
    parser.add("--engine", choices=("ray",), section=many, help="work on a Ray cluster")
    parser.add(
        "--source",
        metavar="ADDRESS",
        section=many,
        help="where all machines find the audio (the data's own folder); with --engine ray",
    )
    parser.add(
        "--to",
        metavar="ADDRESS",
        section=many,
        help="store to write (the run's), such as s3://bucket/store; with --engine ray",
    )
    add_settings(parser, ["out", "store", "data", "train.workers"])
    return parser


def prepare(given: Namespace) -> None:
    """Does what the command says."""
    config = load_config(given)
    from beatline import recipe

    if given.engine == "ray":
        recipe.prepare_on_ray(config, given.source or "", given.to or "")
        return
    for name in ("source", "to"):
        if getattr(given, name):
            raise parser().refusal(
                f"option --{name}", "only Ray reads and writes elsewhere; add --engine ray, or use settings"
            )
    recipe.STAGES["prepare"](config)
