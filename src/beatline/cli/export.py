"""`beatline convert` and `beatline export`: a model in another form."""

from pathlib import Path

from beatline.cli.options import Parser, model_path
from beatline.core.errors import UserError


def convert(arguments: list[str]) -> None:
    """Writes a checkpoint in another form."""
    from beatline.model.checkpoints.espnet import export_espnet
    from beatline.model.checkpoints.load import load_tagger
    from beatline.model.checkpoints.own import save

    parser = Parser(
        "convert",
        "Turns a checkpoint of any family into a beatline model folder, or into what ESPnet's own classes "
        "load.",
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("target", metavar="TARGET", help="folder to write")
    parser.add_argument("--to", choices=("beatline", "espnet"), default="beatline")
    parser.add_argument(
        "--architecture",
        metavar="FILE",
        help="YAML with the encoder's sizes, where the checkpoint does not say",
    )
    given = parser.parse_args(arguments)
    source, target = given.source, given.target
    if Path(target).exists():
        raise UserError(
            "not-writable",
            f"cannot write {target}",
            "it is there already",
            "name another folder, or move it away",
        )
    print(
        f"convert  {source} -> {target}, "
        f"{'as ESPnet loads it' if given.to == 'espnet' else 'a model folder of beatline'}",
        flush=True,
    )
    loaded = load_tagger(source, given.architecture)
    tagger, labels = loaded.tagger(), loaded.labels
    if given.to == "espnet":
        export_espnet(Path(target), tagger, labels)
    else:
        save(Path(target), tagger, labels, {"converted_from": str(loaded.source), "family": loaded.family})
    left = f", {len(loaded.ignored)} tensors left out on purpose" if loaded.ignored else ""
    print(f"convert  {loaded.family}, {len(labels)} labels{left}: {target}")


def export(arguments: list[str]) -> None:
    """Writes a graph."""
    parser = Parser(
        "export",
        "Writes a model as a folder that runs without beatline, once its outputs agree with PyTorch's on "
        "real clips.",
    )
    parser.add_argument("source", metavar="RUN|CHECKPOINT")
    parser.add_argument("folder", metavar="FOLDER", help="folder to write")
    parser.add_argument(
        "--to", choices=("onnx", "torch-export", "openvino"), default="onnx", help="form of the graph (onnx)"
    )
    parser.add_argument("--int8", action="store_true", help="also a graph with int8 weights (onnx)")
    given = parser.parse_args(arguments)
    source, folder = model_path(given.source), Path(given.folder)
    if folder.exists():
        raise UserError(
            "not-writable",
            f"cannot write {folder}",
            "it is there already",
            "name another folder, or move it away",
        )
    from beatline.model.checkpoints.load import load_tagger
    from beatline.model.engines import export

    loaded = load_tagger(source)
    tagger, labels = loaded.tagger("exact"), loaded.labels
    for file, difference in export.export(
        tagger, labels, folder, given.int8, {"source": str(loaded.source)}, given.to
    ).items():
        print(
            f"export   {folder / file}: scores within {difference['worst']:.2g} of PyTorch's on real clips, "
            f"{difference['mean']:.2g} in the mean"
        )
