"""Live peers: the openbeats and espnet packages and two Kaldi filter banks, on full-size models, same weights, same numbers.

The peers' own environment (`peers.sh` makes it) is found by BEATLINE_PEERS; without it their tests are skipped. They run in processes of their own
and make the checkpoints themselves. openbeats 0.1.1 follows the `exact` padding rule, espnet 202511 the `upstream` one.
"""

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from beatline.config import OptimConfig
from beatline.fbank import log_mel
from beatline.model.checkpoint import export_espnet, load_checkpoint
from beatline.model.layout import to_release
from beatline.model.tagger import Tagger
from beatline.optim import adamw, clip_gradients

HERE = Path(__file__).parent
OUTPUT = 1e-5  # logits and scores in float32: sums in another order over 12 layers (seen: 3e-6)
LOG_MEL = 1e-3  # raw log-mel energies in float32: the peers' own distance from float64 at quiet frequencies of loud frames (seen: 7e-4)
DOUBLE = 1e-9  # the same mathematics in float64 (seen: 1e-13)
SECONDS = 16_000
TINY: dict[str, object] = {"embed_dim": 24, "encoder_layers": 2, "encoder_embed_dim": 48, "encoder_ffn_embed_dim": 96, "encoder_attention_heads": 4}
TINY |= {"conv_pos": 32, "conv_pos_groups": 4, "num_buckets": 32, "max_distance": 80}
VARIANTS: dict[str, dict[str, object]] = {
    "short": {},
    "own-normalisation": {"fbank_mean": 11.72215, "fbank_std": 10.60431},
    "pre-norm": {"layer_norm_first": True, "deep_norm": False, "gru_rel_pos": False, "conv_bias": True, "embed_dim": 48},
    "unsaid": dict.fromkeys(("deep_norm", "layer_norm_first", "gru_rel_pos", "max_distance")),  # the originals' defaults, not the release's values
}

Arrays = dict[str, torch.Tensor]
Peer = Callable[..., None]


def make_clips(*seconds: float) -> Arrays:
    """A padded batch of clips with sweeps, decays and noise."""
    generator = np.random.default_rng(7)
    lengths = [round(s * SECONDS) for s in seconds]
    waveforms = np.zeros((len(lengths), max(lengths)), np.float32)
    for i, length in enumerate(lengths):
        time = np.arange(length) / SECONDS
        sweep = np.sin(2 * np.pi * (200 * (i + 1) + 300 * time) * time) * np.exp(-3 * (2 * time % 1))
        waveforms[i, :length] = 0.3 * sweep + 0.05 * generator.standard_normal(length) * (0.2 + np.abs(np.sin(3 * time)))
    return {"waveforms": torch.from_numpy(waveforms), "lengths": torch.tensor(lengths)}


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= tolerance


@pytest.fixture(scope="module")
def peer() -> Peer:
    """Runs one of the peers' scripts with the peers' Python."""
    environment = os.environ.get("BEATLINE_PEERS")
    if not environment:
        pytest.skip("BEATLINE_PEERS names no peers' environment (tests/parity/peers.sh makes one)")

    def run(script: str, *args: str | Path) -> None:
        command = [Path(environment, "bin/python").absolute(), "-W", "ignore", HERE / f"peer_{script}.py", *args]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return run


def ask(peer: Peer, script: str, what: str, model: Path, clips: Arrays, *options: str) -> Arrays:
    """What a peer's script makes of some clips."""
    given, answer = model.parent / "in.npz", model.parent / "out.npz"
    np.savez(given, **{name: array.numpy() for name, array in clips.items()})
    peer(script, what, model, given, answer, *options)
    return {name: torch.from_numpy(array) if array.dtype.kind != "U" else array for name, array in np.load(answer).items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A folder that goes when its tests are done: a full-size checkpoint has 363 MB."""
    path = tmp_path_factory.mktemp("peers")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def release(peer, folder) -> Path:
    """A full-size fine-tuned checkpoint (12 layers of 768, 527 labels) in the release's layout, weights by openbeats."""
    peer("openbeats", "new", folder / "base.pt", "--labels", "527")
    return folder / "base.pt"


@pytest.fixture(scope="module")
def espnet(peer, folder, release) -> Path:
    """What ESPnet's AS-20K recipe makes of that checkpoint: `config.yaml` with the recipe's changes alone, and `model.pth`."""
    peer("espnet", "new", folder / "espnet", release)
    return folder / "espnet"


@pytest.fixture(scope="module")
def clips() -> Arrays:
    """10 s, 3.3 s and 6.6 s."""
    return make_clips(10, 3.3, 6.6)


@torch.no_grad()
def score_alone(tagger: Tagger, clips: Arrays) -> torch.Tensor:
    """Logits of each clip alone, `(batch, labels)`."""
    return torch.cat([tagger(waveform[None, :length]) for waveform, length in zip(clips["waveforms"], clips["lengths"], strict=True)])


# ------------------------------------------------------------------ filter bank


def kaldi(waveform: torch.Tensor) -> torch.Tensor:
    """Raw log-mel energies `(frames, 128)` of kaldi-native-fbank."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 128
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(SECONDS, (waveform * 2**15).tolist())
    bank.input_finished()
    return torch.from_numpy(np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)]))


@pytest.mark.parametrize("gain", [1.0, 1e-3])
def test_filter_bank_kaldi(gain):
    waveforms = gain * make_clips(3.3)["waveforms"]
    close(log_mel(waveforms)[0], kaldi(waveforms[0]), LOG_MEL)


def test_filter_bank_of_silence_and_of_one_window():
    for samples in (torch.zeros(1, 800), torch.rand(1, 400) - 0.5):
        close(log_mel(samples)[0], kaldi(samples[0]), LOG_MEL)


@pytest.mark.peers
def test_filter_bank_torchaudio(peer, folder, clips):
    given, answer = folder / "in.npz", folder / "out.npz"
    np.savez(given, **{name: array.numpy() for name, array in clips.items()})
    peer("openbeats", "fbank", given, answer)
    close(log_mel(clips["waveforms"]), torch.from_numpy(np.load(answer)["log_mel"]), LOG_MEL)


# ------------------------------------------------------------------ openbeats: padding `exact`


@pytest.mark.peers
@torch.no_grad()
def test_openbeats(peer, release, clips):
    expected = ask(peer, "openbeats", "score", release, clips)
    loaded = load_checkpoint(release)
    tagger = loaded.tagger("exact")
    is_padding = tagger.is_padding(clips["lengths"], clips["waveforms"].shape[1])
    assert torch.equal(is_padding, expected["is_padding"])
    tokens = tagger.encoder(expected["fbank"], is_padding)
    torch.testing.assert_close(tokens[~is_padding], expected["tokens"][~is_padding], atol=OUTPUT, rtol=OUTPUT)
    logits = score_alone(tagger, clips)
    close(logits, expected["logits_alone"], OUTPUT)
    close(tagger.score(logits), expected["scores_alone"], OUTPUT)
    close(tagger(clips["waveforms"], clips["lengths"]), expected["logits_alone"], OUTPUT)
    assert not torch.equal(loaded.tagger("upstream").is_padding(clips["lengths"], clips["waveforms"].shape[1]), is_padding)


@pytest.mark.peers
@torch.no_grad()
def test_openbeats_in_float64(peer, release):
    """Rounding hides nothing: in float64 both encoders agree to their last digits."""
    short = make_clips(3.3, 2.1)
    expected = ask(peer, "openbeats", "double", release, short)
    tagger = load_checkpoint(release).tagger("exact").double()
    kept = ~expected["is_padding"]
    close(tagger.encoder(expected["fbank"], expected["is_padding"])[kept], expected["tokens"][kept], DOUBLE)
    close(log_mel(short["waveforms"]), expected["fbank"] * 2 * tagger.config.fbank_std + tagger.config.fbank_mean, LOG_MEL)


@pytest.fixture
def variant(peer, folder, request) -> Path:
    """A tiny fine-tuned checkpoint with an architecture or a `cfg` unlike the release's."""
    path = folder / f"{request.param}.pt"
    peer("openbeats", "new", path, "--labels", "7", "--cfg", json.dumps(TINY | VARIANTS[request.param]))
    return path


@pytest.mark.peers
@pytest.mark.parametrize("variant", ["own-normalisation", "pre-norm", "unsaid"], indirect=True)
@torch.no_grad()
def test_openbeats_variants(peer, variant):
    clips = make_clips(2.5, 1.3)
    expected = ask(peer, "openbeats", "score", variant, clips)
    tagger = load_checkpoint(variant).tagger("exact")
    close(score_alone(tagger, clips), expected["logits_alone"], OUTPUT)
    close(tagger(clips["waveforms"], clips["lengths"]), expected["logits_alone"], OUTPUT)


@pytest.mark.peers
@pytest.mark.parametrize("variant", ["short"], indirect=True)
@torch.no_grad()
def test_a_clip_shorter_than_a_patch(peer, variant):
    """0.1 s, repeated: the peers repeat once more often than we do where the length divides 3 200, and no token sees it."""
    from beatline.batches import tile_short

    clips = make_clips(0.1)
    expected = ask(peer, "openbeats", "score", variant, clips)
    repeated = torch.from_numpy(tile_short(clips["waveforms"][0].numpy()))
    close(load_checkpoint(variant).tagger("exact")(repeated[None]), expected["logits_alone"], OUTPUT)


# ------------------------------------------------------------------ ESPnet: padding `upstream`


@pytest.mark.peers
@torch.no_grad()
def test_espnet(peer, espnet, clips):
    expected = ask(peer, "espnet", "score", espnet, clips)
    loaded = load_checkpoint(espnet)
    tagger = loaded.tagger("upstream")
    assert len(loaded.labels) == 527 and loaded.config.layer_wise_gradient_decay_ratio == 0.3
    close(tagger(clips["waveforms"], clips["lengths"]), expected["logits"], OUTPUT)
    logits = score_alone(tagger, clips)
    close(logits, expected["logits_alone"], OUTPUT)
    close(tagger.score(logits), expected["scores_alone"], OUTPUT)
    assert (expected["logits"] - expected["logits_alone"]).abs().max() > 100 * OUTPUT  # the rule matters here


@torch.no_grad()
def check_export(peer: Peer, checkpoint: Path, clips: Arrays) -> None:
    """ESPnet's own classes load what beatline exports, strictly, and score as beatline does."""
    loaded = load_checkpoint(checkpoint)
    tagger = loaded.tagger("upstream")
    export = checkpoint.with_suffix(".export")
    export_espnet(export, tagger, loaded.labels)
    expected = ask(peer, "espnet", "score", export, clips)
    close(tagger(clips["waveforms"], clips["lengths"]), expected["logits"], OUTPUT)
    close(score_alone(tagger, clips), expected["logits_alone"], OUTPUT)


@pytest.mark.peers
def test_espnet_scores_our_export(peer, release, clips):
    check_export(peer, release, clips)


@pytest.mark.peers
@pytest.mark.parametrize("variant", ["own-normalisation", "pre-norm", "unsaid"], indirect=True)
def test_espnet_scores_our_export_of_variants(peer, variant):
    check_export(peer, variant, make_clips(2.5, 1.3))


@pytest.mark.peers
def test_espnet_training(peer, espnet):
    """Two steps on full size with nothing cut: losses, gradient norm, every parameter's gradient of the first step."""
    clips = make_clips(2.0, 1.3)
    clips["targets"] = (torch.rand(2, 527, generator=torch.Generator().manual_seed(0)) < 0.01).float()
    clips["train_lr"] = torch.tensor([3e-5, 3e-5], dtype=torch.float64)
    expected = ask(peer, "espnet", "train", espnet, clips, "--decay", "none", "--clips", "2")
    loaded = load_checkpoint(espnet)
    tagger = Tagger(dataclasses.replace(loaded.config, layer_wise_gradient_decay_ratio=1.0), 527, padding="upstream").train()
    tagger.load_state_dict(loaded.state)
    optimiser = adamw(tagger, OptimConfig(lr=3e-5, weight_decay=0.01, betas=(0.9, 0.98)))
    losses, norms = [], []
    for step in range(2):
        loss = F.binary_cross_entropy_with_logits(tagger(clips["waveforms"], clips["lengths"]), clips["targets"])
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            gradients = to_release({name: p.grad for name, p in tagger.named_parameters()}, tagger.config, "decoder.linear_out")
        norms.append(float(clip_gradients(tagger, 1.0)))
        optimiser.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, expected["loss"], rtol=1e-4)
    np.testing.assert_allclose(norms, expected["grad_norm"], rtol=1e-4)
    # "encoder.encoder.layers.0..." is theirs; each name says once more where it is
    named = zip(expected["parameter_names"], expected["first_step_grad_norms"], strict=True)
    theirs = {str(name).removeprefix("encoder.") if name.startswith("encoder.") else str(name): float(norm) for name, norm in named}
    ours = {name: float(gradients[name].norm()) for name in theirs}
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-7)
