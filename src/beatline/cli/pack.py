"""`beatline pack`: a model as others take it."""

from argparse import Namespace
from pathlib import Path

from beatline.cli.options import add_license_option, refuse_existing
from beatline.cli.parser import Parser


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "pack",
        "Writes a model as the folder that `beatline push` uploads, or as one file of ESPnet's packed form.",
    )
    parser.add("source", metavar="RUN|CHECKPOINT", help="run folder, or checkpoint of any family")
    parser.add("target", metavar="FOLDER|FILE.zip", type=Path, help="what to write")
    parser.add(
        "--form",
        choices=("hub", "espnet"),
        required=True,
        help="a folder for the Hugging Face Hub, or a zip file for ESPnet",
    )
    add_license_option(parser)
    return parser


def pack(given: Namespace) -> None:
    """Does what the command says."""
    refuse_existing(given.target)
    if given.form == "hub":
        from beatline.fetch import checkpoints
        from beatline.publish import hub

        hub.pack(checkpoints.locate(given.source), given.target, licence=given.license)
    else:
        _pack_for_espnet(given)
    print(f"pack     {given.source} -> {given.target}")


def _pack_for_espnet(given: Namespace) -> None:
    if given.license:
        raise parser().refusal("option --license", "ESPnet's form holds no licence")
    if given.target.suffix != ".zip":
        raise parser().refusal(f"target {given.target}", "it does not end in .zip, which ESPnet goes by")
    from beatline.fetch import checkpoints
    from beatline.model.checkpoints.load import load_tagger
    from beatline.publish import espnet_zip

    loaded = load_tagger(checkpoints.locate(given.source))
    tagger = loaded.tagger()
    labels = loaded.labels
    espnet_zip.write(given.target, tagger, labels)
