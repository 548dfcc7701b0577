"""`beatline convert`: a checkpoint in another form."""

from argparse import Namespace
from pathlib import Path

from beatline.cli.options import refuse_existing
from beatline.cli.parser import Parser


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "convert",
        "Turns a checkpoint of any family into a beatline model folder, or into what ESPnet's own classes "
        "load.",
    )
    parser.add("source", metavar="SOURCE", help="checkpoint of any family, or a run folder")
    parser.add("target", metavar="TARGET", type=Path, help="folder to write")
    parser.add("--to", choices=("beatline", "espnet"), default="beatline", help="form to write (beatline)")
    parser.add(
        "--architecture",
        metavar="FILE",
        help="YAML with the encoder's sizes, where the checkpoint does not say",
    )
    return parser


def convert(given: Namespace) -> None:
    """Does what the command says."""
    source = given.source
    target = given.target
    refuse_existing(target)
    form = "as ESPnet loads it" if given.to == "espnet" else "a model folder of beatline"
    print(f"convert  {source} -> {target}, {form}", flush=True)
    from beatline.model.checkpoints.espnet import export_espnet
    from beatline.model.checkpoints.load import load_tagger
    from beatline.model.checkpoints.own import save

    loaded = load_tagger(source, given.architecture)
    tagger = loaded.tagger()
    labels = loaded.labels
    if given.to == "espnet":
        export_espnet(target, tagger, labels)
    else:
        save(target, tagger, labels, {"converted_from": str(loaded.source), "family": loaded.family})
    left = f", {len(loaded.ignored)} tensors left out on purpose" if loaded.ignored else ""
    print(f"convert  {loaded.family}, {len(labels)} labels{left}: {target}")
