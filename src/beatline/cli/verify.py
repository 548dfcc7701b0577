"""`beatline verify`: is a folder that beatline wrote whole?"""

from argparse import Namespace
from pathlib import Path

from beatline.cli.options import add_config, add_settings, load_config
from beatline.cli.parser import Parser
from beatline.core.errors import UserError


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "verify",
        "Finds every damaged or missing file of a folder that beatline made, and repairs a store.",
        usage="beatline verify FOLDER\n"
        "       beatline verify FOLDER|ADDRESS --engine ray\n"
        "       beatline verify STORE --repair [CONFIG] [--SETTING VALUE ...]",
    )
    parser.add("folder", metavar="FOLDER", help="run, store, model or other folder; for Ray also an address")
    add_config(parser)
    parser.add("--engine", choices=("ray",), help="read a store on a Ray cluster")
    parser.add(
        "--repair",
        action="store_true",
        help="decode the damaged shards of a store again, from the data of CONFIG (the run's config.yaml)",
    )
    add_settings(parser, ["data", "train.workers"])
    return parser


def verify(given: Namespace) -> None:
    """Does what the command says."""
    from beatline.data import verify as verification

    on_ray = given.engine == "ray"
    is_address = "://" in given.folder
    if not given.repair and (given.config or given.overrides):
        word = given.config or given.overrides[0].partition("=")[0]
        raise parser().refusal(f"argument {word}", "only --repair takes a configuration and settings")
    if on_ray and not given.repair:
        verification.verify_on_ray(given.folder)
        return
    if on_ray or is_address:
        raise parser().refusal(
            f"folder {given.folder}", "an address is verified by Ray, and only a folder here can be repaired"
        )
    folder = Path(given.folder)
    if not given.repair:
        verification.verify(folder)
        return
    of_the_run = folder.parent / "config.yaml"
    if given.config is None and not of_the_run.exists():
        raise UserError(
            "bad-usage",
            f"cannot repair {folder}",
            "it does not say which configuration it was prepared with",
            f"name it: beatline verify {folder} --repair CONFIG",
        )
    given.config = given.config or str(of_the_run)
    verification.repair(folder, load_config(given))
