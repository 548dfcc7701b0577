"""`beatline push`: a model to a hub."""

from argparse import Namespace

from beatline.cli.options import add_license_option
from beatline.cli.parser import Parser


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "push",
        "Uploads a model to the Hugging Face Hub as one commit. It holds weights, configuration, labels, the "
        "run's calibration, and a model card made of its figures.",
    )
    parser.add("source", metavar="RUN|CHECKPOINT", help="run folder, or checkpoint of any family")
    parser.add("repository", metavar="OWNER/NAME", help="repository, made if it is not there")
    parser.add("--private", action="store_true", help="let only its owner see it")
    add_license_option(parser)
    return parser


def push(given: Namespace) -> None:
    """Does what the command says."""
    from beatline.fetch import checkpoints
    from beatline.publish import hub

    address = hub.push(checkpoints.locate(given.source), given.repository, given.private, given.license)
    print(f"push     {given.source} -> {address}")
