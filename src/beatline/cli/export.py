"""`beatline export`: a model as a graph."""

from argparse import Namespace
from pathlib import Path

from beatline.cli.options import refuse_existing
from beatline.cli.parser import Parser


def parser() -> Parser:
    """The options of the command."""
    from beatline.model.engines.load import export_names

    parser = Parser(
        "export",
        "Writes a model as a folder that runs without beatline. It is there once its outputs agree with "
        "PyTorch's on real clips.",
    )
    parser.add("source", metavar="RUN|CHECKPOINT", help="run folder, or checkpoint of any family")
    parser.add("folder", metavar="FOLDER", type=Path, help="folder to write")
    parser.add("--to", choices=export_names(), default="onnx", help="form of the graph (onnx)")
    parser.add("--int8", action="store_true", help="also write a graph with int8 weights (onnx only)")
    return parser


def export(given: Namespace) -> None:
    """Does what the command says."""
    from beatline.fetch import checkpoints

    source = checkpoints.locate(given.source)
    if (source / "model").is_dir():  # a run folder stands for its model
        source = source / "model"
    refuse_existing(given.folder)
    from beatline.model.checkpoints.load import load_tagger
    from beatline.model.engines import export as exporting

    loaded = load_tagger(source)
    tagger = loaded.tagger("exact")
    labels = loaded.labels
    about = {"source": str(loaded.source)}
    differences = exporting.export(tagger, labels, given.folder, given.int8, about, given.to)
    for file, difference in differences.items():
        print(
            f"export   {given.folder / file}: scores within {difference['worst']:.2g} of PyTorch's on real "
            f"clips, {difference['mean']:.2g} in the mean"
        )
