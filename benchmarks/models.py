"""The model, the clips and the store that every benchmark uses: random weights, one set of them in the layout
of each program.

What is random is a function of fixed seeds. `Models` writes a tagger as a beatline folder, as the BEATs
release's `.pt` (openbeats reads it) and in ESPnet's layout. Nothing here is timed.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np
import soundfile
import torch

from beatline import load_config, recipe
from beatline.config import EncoderConfig, to_dict
from beatline.core.labels import audioset
from beatline.data.store import Store
from beatline.model.checkpoints.espnet import export_espnet
from beatline.model.checkpoints.layout import to_release
from beatline.model.checkpoints.load import load_checkpoint
from beatline.model.checkpoints.own import save
from beatline.model.engines import export
from beatline.model.geometry import SAMPLE_RATE
from beatline.model.tagger import Tagger, initialise_tagger

sys.path.insert(0, str(harness.ROOT / "tests/parity"))  # how the peers are built is known there

SECONDS = 10
# dropout as the released checkpoints and the recipe have it; no layer is skipped, so that both sides of a
# pair do the same work
NO_DROPOUT: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0, "encoder_layerdrop": 0.0}
TINY: dict[str, Any] = {
    "embed_dim": 8,
    "encoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 2,
    "conv_pos": 8,
    "conv_pos_groups": 2,
}


def architecture(smoke: bool) -> EncoderConfig:
    """BEATs base, or a tiny encoder for a smoke run."""
    return EncoderConfig(**NO_DROPOUT, **(TINY if smoke else {}))


def random_tagger(smoke: bool) -> Tagger:
    """A tagger of 527 labels with random weights, in evaluation mode."""
    labels = len(audioset())
    return initialise_tagger(Tagger(architecture(smoke), labels), torch.Generator().manual_seed(0)).eval()


@dataclass(frozen=True)
class Models:
    """One set of weights in three layouts."""

    own: Path
    """A beatline model folder."""
    release: Path
    """A `.pt` in the BEATs release's layout, with a head that openbeats finds."""
    espnet: Path
    """A folder with ESPnet's `config.yaml` and `model.pth`."""


def write_models(folder: Path, smoke: bool) -> Models:
    """Writes one random tagger in all three layouts."""
    tagger, labels = random_tagger(smoke), audioset()
    models = Models(folder / "own", folder / "release.pt", folder / "espnet")
    save(models.own, tagger, labels, {})
    released = to_release(tagger.state_dict(), tagger.config, "classifier")
    torch.save({"cfg": to_dict(tagger.config) | {"activation_fn": "gelu"}, "model": released}, models.release)
    export_espnet(models.espnet, tagger, labels)
    return models


def write_export(source: Path, folder: Path) -> Path:
    """The folder that `beatline export --int8` makes of a checkpoint."""
    loaded = load_checkpoint(source)
    assert loaded.labels is not None
    export.export(loaded.tagger("exact"), loaded.labels, folder, int8=True)
    return folder


def waveforms(clips: int, seconds: float = SECONDS, seed: int = 0) -> np.ndarray:
    """Noise with a slow swell, `(clips, samples)` float32, all different."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * SAMPLE_RATE)
    swell = 0.2 + np.abs(np.sin(3 * np.arange(samples) / SAMPLE_RATE + rng.uniform(0, 3, (clips, 1))))
    return (0.1 * swell * rng.standard_normal((clips, samples))).astype(np.float32)


def write_store(folder: Path, clips: int, seconds: float = SECONDS, test: int = 1) -> Store:
    """A store of noise clips with AudioSet's labels, two a clip; `test` more clips are in the test split."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = audioset()
    rows = ["file,labels,split"]
    for number in range(clips + test):
        soundfile.write(folder / f"{number}.wav", waveforms(1, seconds, seed=number)[0], SAMPLE_RATE)
        mids = ";".join(
            labels.labels[(number * step) % len(labels)].mid for step in (1, 7, 11)[: 1 + number % 3]
        )
        rows.append(f"{number}.wav,{mids},{'train' if number < clips else 'test'}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    (folder / "labels.csv").write_text(labels.to_csv(), encoding="utf-8")
    prepare(folder, "--data.labels", str(folder / "labels.csv"))
    for path in folder.glob("*.wav"):
        path.unlink()
    return Store.open(folder / "store")


def prepare(folder: Path, *settings: str) -> None:
    """Makes `folder/store` of `folder/clips.csv` as `beatline prepare` does, with as many workers as there
    are threads.
    """
    given = [
        "--out",
        str(folder / "run"),
        "--store",
        str(folder / "store"),
        "--data.csv",
        str(folder / "clips.csv"),
        "--data.validation",
        "given",
        "--train.workers",
        str(harness.THREADS),
        *settings,
    ]
    recipe.prepare(load_config("mini", given))


def chunks(items: Sequence[Any], count: int) -> list[list[Any]]:
    """The items dealt to `count` lists, so that each has its share of every kind."""
    return [list(items[start::count]) for start in range(count)]
