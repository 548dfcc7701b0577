"""A tagger -> the folder that every installation has: `assets/box`, which runs with PyTorch and without.

In: a model, and what is to be said of it. Out: a model folder with float16 weights, and a graph beside them
that refers to these weights, so that no weight is there twice. `recipes/box` calls `write`.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.model.checkpoints import own
from beatline.model.checkpoints.loaded import LoadedTagger
from beatline.model.engines import export, slim
from beatline.model.engines.graphs import LABELS, GraphEngine
from beatline.model.engines.onnx import ONNX

PAPERS = ("MODEL_CARD.md", "LICENSE", "attribution.csv")
BOUND = 1e-5
"""Largest difference of scores between the graph with and without weights of its own."""


def write(loaded: LoadedTagger, folder: Path, papers: Mapping[str, str], about: dict[str, Any]) -> float:
    """The largest difference of scores between PyTorch's and the graph's, on real clips; both have the
    weights as they are stored.

    Args:
        loaded: The model; its weights are rounded to float16.
        folder: Published whole; what is there goes.
        papers: The text of each of `PAPERS`.
        about: JSON that says how the model was made, for `config.json`.

    Raises:
        UserError: `missing-package`; `export-differs`; `disk-full`, `not-writable`.
    """
    stored = {name: tensor.half() for name, tensor in loaded.state.items()}
    rounded = replace(loaded, state={name: tensor.float() for name, tensor in stored.items()})
    tagger = rounded.tagger("exact")
    labels = loaded.labels
    with tempfile.TemporaryDirectory(prefix="beatline-") as temporary:
        whole = Path(temporary) / "export"
        differences = export.export(tagger, labels, whole)
        with artefact.publish(folder, {"kind": "model", "labels_hash": labels.hash}) as partial:
            own.write_model(partial, stored, tagger, labels, about)
            facts = json.loads((whole / own.ABOUT).read_text()) | json.loads(
                (partial / own.ABOUT).read_text()
            )
            (partial / own.ABOUT).write_text(json.dumps(facts, indent=1) + "\n")
            for name in (ONNX, LABELS):
                (partial / name).write_bytes((whole / name).read_bytes())
            for name in PAPERS:
                (partial / name).write_text(papers[name], encoding="utf-8")
            slim.slim(partial / ONNX, partial / own.WEIGHTS)
            _compare(GraphEngine(whole, "onnx"), GraphEngine(partial, "onnx"))
    return differences[ONNX]["worst"]


def _compare(wanted: GraphEngine, got: GraphEngine) -> None:
    """Raises `export-differs` where two graphs do not say the same of real clips."""
    for clip in export.check_clips():
        difference = np.abs(wanted.scores(clip[None]) - got.scores(clip[None])).max()
        if not difference <= BOUND:
            raise UserError(
                "export-differs",
                "cannot write the box",
                f"its graph's scores are off by {difference:.2g}",
                "report it; nothing was written",
            )
