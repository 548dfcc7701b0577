"""A run small enough to repeat hundreds of times: twelve synthetic clips, a two-layer model, six steps."""

from pathlib import Path

import numpy as np
import soundfile

from beatline import load_config
from beatline.config import Config

SETTINGS = {
    "data.validation": "given",
    "model.encoder.embed_dim": "8",
    "model.encoder.encoder_layers": "2",
    "model.encoder.encoder_embed_dim": "16",
    "model.encoder.encoder_ffn_embed_dim": "32",
    "model.encoder.encoder_attention_heads": "2",
    "model.encoder.conv_pos": "8",
    "model.encoder.conv_pos_groups": "2",
    "model.encoder.encoder_layerdrop": "0.3",
    "optim.warmup_steps": "2",
    "train.epochs": "3",
    "train.batch": "4",
    "train.save_every": "1",
    "train.average": "2",
    "train.validate_every": "1",
    "train.workers": "0",
    "score.resamples": "20",
    "score.baseline": "false",
}


def write_data(folder: Path) -> Path:
    """Tones and noise of different lengths: a CSV with 7 train, 2 val and 3 test clips of two labels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["file,labels,split"]
    for number in range(12):
        samples = int(rng.integers(2000, 9000))
        tone = number % 2
        sound = np.sin(np.arange(samples) * 0.2) if tone else rng.standard_normal(samples)
        soundfile.write(folder / f"c{number}.wav", 0.2 * sound, 16_000)
        labels = "Tone" if tone else "Noise"
        rows.append(
            f"c{number}.wav,{labels + (';Quiet' if number in (0, 1, 7, 8, 10) else '')},"
            f"{'train' if number < 7 else 'val' if number < 9 else 'test'}"
        )
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder / "clips.csv"


def arguments(csv: Path, out: Path, **changes: str) -> list[str]:
    """The overrides of `conf/mini.yaml` that make it tiny."""
    settings = SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    given = {"out": str(out), "store": str(csv.parent.parent / "store"), "data.csv": str(csv)} | settings
    return [word for name, value in given.items() for word in (f"--{name}", value)]


def tiny(csv: Path, out: Path, **changes: str) -> Config:
    """A tiny run's configuration; all runs on one CSV share the store."""
    return load_config("mini", arguments(csv, out, **changes))
