"""`beatline pack` and `beatline push`: a model as others take it."""

from pathlib import Path

from beatline.cli.options import Parser
from beatline.core.errors import UserError


def pack(arguments: list[str]) -> None:
    """Writes a model in a form for others."""
    parser = Parser(
        "pack",
        "Writes a model as the folder that `beatline push` uploads, or as one file of ESPnet's packed form.",
    )
    parser.add_argument("source", metavar="RUN|CHECKPOINT")
    parser.add_argument("target", metavar="FOLDER|FILE.zip", type=Path, help="what to write")
    parser.add_argument(
        "--form",
        choices=("hub", "espnet"),
        required=True,
        help="a folder for the Hugging Face Hub, or a zip file for ESPnet",
    )
    parser.add_argument(
        "--license",
        default="",
        metavar="ID",
        help="of the weights, for the model card: cc-by-4.0, apache-2.0, ...",
    )
    given = parser.parse_args(arguments)
    if given.target.exists():
        raise UserError(
            "not-writable",
            f"cannot write {given.target}",
            "it is there already",
            "name another, or move it away",
        )
    if given.form == "hub":
        from beatline.fetch import checkpoints
        from beatline.publish import hub as publish

        publish.pack(checkpoints.locate(given.source), given.target, licence=given.license)
    else:
        if given.target.suffix != ".zip" or given.license:
            cause = (
                "it does not end in .zip, which ESPnet goes by"
                if not given.license
                else "ESPnet's form has no place for a licence"
            )
            raise UserError(
                "bad-usage",
                f"target {given.target}" if not given.license else "option --license",
                cause,
                "name it FILE.zip" if not given.license else "leave it out",
            )
        from beatline.fetch import checkpoints
        from beatline.model.checkpoints.load import load_tagger
        from beatline.publish import espnet_zip

        loaded = load_tagger(checkpoints.locate(given.source))
        tagger, labels = loaded.tagger(), loaded.labels
        espnet_zip.write(given.target, tagger, labels)
    print(f"pack     {given.source} -> {given.target}")


def push(arguments: list[str]) -> None:
    """Uploads a model."""
    parser = Parser(
        "push",
        "Uploads a model to the Hugging Face Hub as one commit: weights, configuration, labels, the run's "
        "calibration, a model card made of the run's figures.",
    )
    parser.add_argument("source", metavar="RUN|CHECKPOINT")
    parser.add_argument("repository", metavar="OWNER/NAME", help="made if it is not there")
    parser.add_argument("--private", action="store_true", help="only its owner may see it")
    parser.add_argument(
        "--license",
        default="",
        metavar="ID",
        help="of the weights, for the model card: cc-by-4.0, apache-2.0, ...",
    )
    given = parser.parse_args(arguments)
    from beatline.fetch import checkpoints
    from beatline.publish import hub as publish

    address = publish.push(checkpoints.locate(given.source), given.repository, given.private, given.license)
    print(f"push     {given.source} -> {address}")
