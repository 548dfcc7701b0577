"""Through the real program: real sounds to embeddings and to a tagger of one's own labels; a kill leaves
nothing that looks like a result.
"""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from beatline import load_config
from beatline.core import artefact
from beatline.core.labels import LabelSet
from beatline.model.checkpoints.own import save
from beatline.model.tagger import Tagger, initialise_tagger
from beatline.tag import tagger as tag

CLIPS = Path(str(files("beatline"))) / "assets/mini-audioset/audio"
KINDS = {"Beats": "drum_kit", "Strings": "guitar"}


def program(*words, expect=0):
    done = subprocess.run(
        [sys.executable, "-m", "beatline", *map(str, words)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == expect, done.stderr
    return done


def encoder(folder):
    """The main job's architecture with random weights: what it hears is little, but drums are no guitar."""
    tagger = Tagger(load_config("mini").model.encoder, 1)
    save(
        folder, initialise_tagger(tagger, torch.Generator().manual_seed(0)), LabelSet.from_names(["none"]), {}
    )
    return folder


@pytest.mark.slow
def test_few_real_clips_become_a_tagger(tmp_path):
    model = encoder(tmp_path / "model")
    for name, stem in KINDS.items():
        for split in ("train", "test"):
            (tmp_path / "own" / split / name).mkdir(parents=True)
            for path in sorted(CLIPS.glob(f"{split}_{stem}_*"))[:5]:
                shutil.copy(path, tmp_path / "own" / split / name)
    (tmp_path / "own/train/Beats/broken.wav").write_bytes(b"RIFF0000WAVEjunk")
    said = program(
        "probe", tmp_path / "own", "--model", model, "--to", tmp_path / "probe", "--head", "nearest"
    ).stdout
    assert (
        "20 clips (train 10, test 10), 2 labels, single-label" in said
        and "broken.wav" in said
        and "cross-validation" in said
    )
    figures = json.loads((tmp_path / "probe/score/figures.json").read_text())["figures"]
    assert figures["top1_hit_rate"] > 0.6, said
    said = program(
        "tag", tmp_path / "own/test", "--model", tmp_path / "probe", "--format", "csv", "--top", "1"
    ).stdout
    best = {row["file"]: row["name"] for row in csv.DictReader(said.splitlines())}
    assert (
        len(best) == 10
        and np.mean([Path(path).parent.name == name for path, name in best.items()])
        == figures["top1_hit_rate"]
    )


def test_a_kill_in_the_middle_leaves_nothing_to_believe(tmp_path):
    model, out = encoder(tmp_path / "model"), tmp_path / "out"
    (tmp_path / "broken.wav").write_bytes(b"RIFF0000WAVEjunk")
    words = [
        "embed",
        *sorted(CLIPS.glob("test_g*")),
        tmp_path / "broken.wav",
        "--model",
        model,
        "--to",
        out,
        "--level",
        "token",
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "beatline", *map(str, words)], stdout=subprocess.DEVNULL
    )
    rows, deadline = tmp_path / "out.partial/embeddings.npy", time.monotonic() + 100
    while not rows.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -9 and not out.exists()
    said = program(*words, expect=3)
    assert said.stderr.count("\n") == 1 and "5 of 6 recordings" in said.stdout and not rows.exists()
    artefact.verify(out)
    with (out / "clips.csv").open(newline="") as file:
        names = [Path(row["file"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(
        np.load(out / "embeddings.npy"),
        np.concatenate(tag.load(model).embed(names, level="token")),
        atol=1e-5,
    )
