"""Live peers: the openbeats and espnet packages and two Kaldi filter banks, on full-size models: same
weights, same numbers.

The peers live in an environment of their own (`peers.sh` makes it), named by BEATLINE_PEERS; without it their
tests are skipped. They make the checkpoints themselves. openbeats 0.1.1 follows the `exact` padding rule,
espnet 202511 the `upstream` one. Each package is started few times and given many commands, because its
imports and a full-size checkpoint take seconds.
"""

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from beatline.config import OptimConfig
from beatline.model.checkpoints.espnet import export_espnet
from beatline.model.checkpoints.layout import to_release
from beatline.model.checkpoints.load import load_checkpoint
from beatline.model.fbank import log_mel
from beatline.model.geometry import SAMPLE_RATE, tile_short
from beatline.model.tagger import Tagger
from beatline.train.optim import adamw, clip_gradients

pytestmark = pytest.mark.xdist_group("peers")  # one worker starts the peers, not all of them
HERE = Path(__file__).parent
OUTPUT = 1e-5  # logits and scores in float32: sums in another order over 12 layers (seen: 3e-6)
LOG_MEL = 1e-3  # raw log-mel energies in float32 within 78 dB of the frame's loudest band (seen: 5e-4)
# the fainter ones, where the rounding of the peers' FFT shows: there they are that far from float64, and we
# are not
FAINT_LOG_MEL = 1e-2
DOUBLE = 1e-9  # the same mathematics in float64 (seen: 1e-13)

TINY = {
    "embed_dim": 24,
    "encoder_layers": 2,
    "encoder_embed_dim": 48,
    "encoder_ffn_embed_dim": 96,
    "encoder_attention_heads": 4,
}
TINY |= {"conv_pos": 32, "conv_pos_groups": 4, "num_buckets": 32, "max_distance": 80}
VARIANTS: dict[str, dict[str, Any]] = {
    "own-normalisation": {"fbank_mean": 11.72215, "fbank_std": 10.60431},
    "pre-norm": {
        "layer_norm_first": True,
        "deep_norm": False,
        "gru_rel_pos": False,
        "conv_bias": True,
        "embed_dim": 48,
    },
    "unsaid": dict.fromkeys(
        ("deep_norm", "layer_norm_first", "gru_rel_pos", "max_distance")
    ),  # left out of `cfg`: the originals' defaults hold
}

Arrays = dict[str, torch.Tensor]
Run = Callable[..., None]


def make_clips(*seconds: float) -> Arrays:
    """A padded batch of clips with sweeps, decays and noise."""
    generator = np.random.default_rng(7)
    lengths = [round(s * SAMPLE_RATE) for s in seconds]
    waveforms = np.zeros((len(lengths), max(lengths)), np.float32)
    for i, length in enumerate(lengths):
        time = np.arange(length) / SAMPLE_RATE
        sweep = np.sin(2 * np.pi * (200 * (i + 1) + 300 * time) * time) * np.exp(-3 * (2 * time % 1))
        waveforms[i, :length] = 0.1 * sweep + 0.1 * generator.standard_normal(length) * (
            0.2 + np.abs(np.sin(3 * time))
        )
    return {"waveforms": torch.from_numpy(waveforms), "lengths": torch.tensor(lengths)}


CLIPS = make_clips(10, 3.3)
SHORT = make_clips(2.5, 1.3)
INSTANT = make_clips(0.1)


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= tolerance


def close_log_mel(actual: torch.Tensor, expected: torch.Tensor) -> None:
    close(actual, expected, FAINT_LOG_MEL)
    is_loud = expected > expected.amax(dim=-1, keepdim=True) - 18  # 18 nats
    close(actual[is_loud], expected[is_loud], LOG_MEL)


@torch.no_grad()
def score_alone(tagger: Tagger, clips: Arrays) -> torch.Tensor:
    """Scores of each clip alone, `(batch, labels)`."""
    alone = [
        tagger(waveform[None, :length])
        for waveform, length in zip(clips["waveforms"], clips["lengths"], strict=True)
    ]
    return tagger.score(torch.cat(alone))


@torch.no_grad()
def check_scores(tagger: Tagger, clips: Arrays, logits: torch.Tensor, scores: torch.Tensor) -> None:
    """Logits of the padded batch and scores of each clip alone are the peer's."""
    close(tagger(clips["waveforms"], clips["lengths"]), logits, OUTPUT)
    close(score_alone(tagger, clips), scores, OUTPUT)


# ------------------------------------------------------------------ the peers at work


@pytest.fixture(scope="module")
def run() -> Run:
    """Runs commands of one of the peers' scripts, each a tuple, with the peers' Python."""
    environment = os.environ.get("BEATLINE_PEERS")
    if not environment:
        pytest.skip("BEATLINE_PEERS names no peers' environment (tests/parity/peers.sh makes one)")

    def run(script: str, *commands: tuple[str | Path, ...]) -> None:
        words = [str(word) for command in commands for word in ("+", *command)]
        done = subprocess.run(
            [Path(environment, "bin/python").absolute(), "-W", "ignore", HERE / script, *words],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A folder with the clips; goes when the tests are done, as a full-size checkpoint has 363 MB."""
    path = tmp_path_factory.mktemp("peers")
    generator = torch.Generator().manual_seed(0)
    training = {
        "targets": (torch.rand(2, 527, generator=generator) < 0.01).float(),
        "train_lr": torch.tensor([3e-5, 3e-5], dtype=torch.float64),
    }
    for name, arrays in {
        "clips": CLIPS,
        "short": SHORT,
        "instant": INSTANT,
        "training": SHORT | training,
    }.items():
        np.savez(path / f"{name}.npz", **{key: array.numpy() for key, array in arrays.items()})  # type: ignore[arg-type]
    yield path
    shutil.rmtree(path)


def read(path: Path) -> Arrays:
    """Arrays that a peer wrote."""
    return {name: torch.from_numpy(array) for name, array in np.load(path).items() if array.dtype.kind != "U"}


@pytest.fixture(scope="module")
def openbeats(run, folder) -> Path:
    """Answers of openbeats, and its full-size fine-tuned checkpoint (12 layers of 768, 527 labels) in the
    release's layout, `base.pt`.
    """
    commands: list[tuple[str | Path, ...]] = [
        ("new", folder / "base.pt", "--labels", "527"),
        ("score", folder / "base.pt", folder / "clips.npz", folder / "base-clips.npz"),
        ("double", folder / "base.pt", folder / "short.npz", folder / "base-double.npz"),
        ("fbank", folder / "clips.npz", folder / "fbank.npz"),
    ]
    for name, changes in VARIANTS.items():
        commands.append(("new", folder / f"{name}.pt", "--labels", "7", "--cfg", json.dumps(TINY | changes)))
        commands += [
            ("score", folder / f"{name}.pt", folder / f"{clips}.npz", folder / f"{name}-{clips}.npz")
            for clips in ("short", "instant")
        ]
    run("peer_openbeats.py", *commands)
    return folder


@pytest.fixture(scope="module")
def espnet(run, folder, openbeats) -> Path:
    """Answers of ESPnet, and what its AS-20K recipe makes of `base.pt`, folder `espnet`: `config.yaml` with
    the recipe's changes alone, `model.pth`.
    """
    model = folder / "espnet"
    run(
        "peer_espnet.py",
        ("new", model, folder / "base.pt"),
        ("score", model, folder / "clips.npz", folder / "espnet-clips.npz"),
        (
            "train",
            model,
            folder / "training.npz",
            folder / "espnet-training.npz",
            "--decay",
            "none",
            "--clips",
            "2",
        ),
    )
    return folder


# ------------------------------------------------------------------ filter bank


def kaldi(waveform: torch.Tensor) -> torch.Tensor:
    """Raw log-mel energies `(frames, 128)` of kaldi-native-fbank."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 128
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(SAMPLE_RATE, (waveform * 2**15).tolist())
    bank.input_finished()
    return torch.from_numpy(np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)]))


@pytest.mark.parametrize("gain", [1.0, 1e-3])
def test_filter_bank_kaldi(gain):
    for waveform in gain * CLIPS["waveforms"]:  # the second ends in silence
        close_log_mel(log_mel(waveform[None])[0], kaldi(waveform))


def test_filter_bank_of_one_window():
    waveform = SHORT["waveforms"][0, :400]
    close_log_mel(log_mel(waveform[None])[0], kaldi(waveform))


@pytest.mark.peers
def test_filter_bank_torchaudio(openbeats):
    close_log_mel(log_mel(CLIPS["waveforms"]), read(openbeats / "fbank.npz")["log_mel"])


# ------------------------------------------------------------------ openbeats: padding `exact`


@pytest.mark.peers
def test_openbeats(openbeats):
    expected = read(openbeats / "base-clips.npz")
    tagger = load_checkpoint(openbeats / "base.pt").tagger("exact")
    assert torch.equal(
        tagger.is_padding(CLIPS["lengths"], CLIPS["waveforms"].shape[1]), expected["is_padding"]
    )
    check_scores(tagger, CLIPS, expected["logits_alone"], expected["scores_alone"])


@pytest.mark.peers
@torch.no_grad()
def test_openbeats_in_float64(openbeats):
    """Rounding hides nothing: from one filter bank, every token of a padded batch agrees to its last
    digits.
    """
    expected = read(openbeats / "base-double.npz")
    tagger = load_checkpoint(openbeats / "base.pt").tagger("exact").double()
    is_padding = tagger.is_padding(SHORT["lengths"], SHORT["waveforms"].shape[1])
    assert torch.equal(is_padding, expected["is_padding"])
    close(tagger.encoder(expected["fbank"], is_padding)[~is_padding], expected["tokens"][~is_padding], DOUBLE)


@pytest.mark.peers
@pytest.mark.parametrize("name", VARIANTS)
def test_openbeats_variants(openbeats, name):
    expected = read(openbeats / f"{name}-short.npz")
    check_scores(
        load_checkpoint(openbeats / f"{name}.pt").tagger("exact"),
        SHORT,
        expected["logits_alone"],
        expected["scores_alone"],
    )


@pytest.mark.peers
@pytest.mark.parametrize("name", VARIANTS)
def test_a_clip_shorter_than_a_patch(openbeats, name):
    """0.1 s is repeated until it fills a patch; the peers repeat it once more than beatline, which no token
    sees.
    """
    repeated = torch.from_numpy(tile_short(INSTANT["waveforms"][0].numpy()))
    tagger = load_checkpoint(openbeats / f"{name}.pt").tagger()
    with torch.no_grad():
        close(tagger(repeated[None]), read(openbeats / f"{name}-instant.npz")["logits_alone"], OUTPUT)


# ------------------------------------------------------------------ ESPnet: padding `upstream`


@pytest.mark.peers
def test_espnet(espnet):
    expected = read(espnet / "espnet-clips.npz")
    loaded = load_checkpoint(espnet / "espnet")
    assert loaded.labels is not None and len(loaded.labels) == 527
    assert loaded.config.layer_wise_gradient_decay_ratio == 0.3
    check_scores(loaded.tagger("upstream"), CLIPS, expected["logits"], expected["scores_alone"])
    assert (
        expected["logits"].sigmoid() - expected["scores_alone"]
    ).abs().max() > 1e-3  # else it would not matter which rule


@pytest.mark.peers
def test_espnet_loads_and_scores_our_export(run, openbeats):
    names = ["base", *VARIANTS]
    taggers = {}
    for name in names:
        loaded = load_checkpoint(openbeats / f"{name}.pt")
        taggers[name] = loaded.tagger("upstream")
        export_espnet(openbeats / f"{name}-export", taggers[name], loaded.labels)
    run(
        "peer_espnet.py",
        *[
            ("score", openbeats / f"{name}-export", openbeats / "short.npz", openbeats / f"{name}-export.npz")
            for name in names
        ],
    )
    for name in names:
        expected = read(openbeats / f"{name}-export.npz")
        check_scores(taggers[name], SHORT, expected["logits"], expected["scores_alone"])


@pytest.mark.peers
def test_espnet_training(espnet):
    """Two steps on full size with no gradient cut: losses, global gradient norms, and every parameter's
    gradient of the first step.
    """
    given, expected = read(espnet / "training.npz"), np.load(espnet / "espnet-training.npz")
    loaded = load_checkpoint(espnet / "espnet")
    # the base's attention dropout (0 here) is not in a fine-tuned folder
    config = dataclasses.replace(loaded.config, layer_wise_gradient_decay_ratio=1.0, attention_dropout=0.0)
    tagger = Tagger(config, 527, padding="upstream").train()
    tagger.load_state_dict(loaded.state)
    optimiser = adamw(tagger, OptimConfig(lr=3e-5, weight_decay=0.01, betas=(0.9, 0.98)))
    losses, norms = [], []
    for step in range(2):
        loss = F.binary_cross_entropy_with_logits(
            tagger(given["waveforms"], given["lengths"]), given["targets"]
        )
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            gradients = to_release(
                {name: p.grad for name, p in tagger.named_parameters() if p.grad is not None},
                tagger.config,
                "decoder.linear_out",
            )
            ours = [
                float(gradients[str(name).removeprefix("encoder.")].norm())
                for name in expected["parameter_names"]
            ]
            np.testing.assert_allclose(
                ours, expected["first_step_grad_norms"], rtol=1e-4, atol=1e-9
            )  # a key bias has none but rounding
        norms.append(float(clip_gradients(tagger, 1.0)))
        optimiser.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, expected["loss"], rtol=1e-4)
    np.testing.assert_allclose(norms, expected["grad_norm"], rtol=1e-4)
