"""A tagger small enough for every test, and its exports."""

import fcntl
import os
from pathlib import Path

import torch

from beatline.config import EncoderConfig
from beatline.core.labels import Label, LabelSet
from beatline.model.engines import export
from beatline.model.engines.onnx import INT8
from beatline.model.tagger import Tagger, initialise_tagger

GOLDEN = Path(__file__).parents[1] / "golden"
LABELS = LabelSet(tuple(Label(f"/m/{name}", name.title()) for name in ("bark", "rain", "speech")))
CONFIG = EncoderConfig(
    embed_dim=16,
    encoder_layers=2,
    encoder_embed_dim=32,
    encoder_ffn_embed_dim=64,
    encoder_attention_heads=4,
    conv_pos=16,
    conv_pos_groups=4,
    num_buckets=32,
    max_distance=60,
)


def make_tagger(config: EncoderConfig = CONFIG) -> Tagger:
    tagger = Tagger(config, len(LABELS))
    initialise_tagger(tagger, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for (
            parameter
        ) in tagger.parameters():  # away from the start, where a bias or a gate that is left out goes unseen
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return tagger.eval()


def tiny_export(tmp_path_factory, to="onnx"):
    """The tiny tagger's export in this form, made once for all workers of pytest-xdist."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "exports"
    root.mkdir(exist_ok=True)
    folder = root / to
    with open(root / f"{to}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who comes second waits, and finds it there
        if not folder.exists():
            made = export.export(make_tagger(), LABELS, folder, int8=to == "onnx", to=to)
            for file, difference in made.items():
                allowed = 0.02 if file == INT8 else 1e-5
                assert (folder / file).exists() and difference["mean"] <= difference["worst"] < allowed
    return folder
