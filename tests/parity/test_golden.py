"""Golden vectors of the reference implementations: same weights, same input, same numbers, same training."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from beatline.config import OptimConfig
from beatline.model.checkpoints.layout import correspondence
from beatline.model.checkpoints.load import load_checkpoint
from beatline.model.checkpoints.release import load_tokenizer
from beatline.model.fbank import log_mel
from beatline.model.tagger import Tagger, token_padding
from beatline.train.optim import adamw, clip_gradients, learning_rate
from tests.helpers.models import GOLDEN

OUTPUT = 1e-5  # float32 sums in another order
LOG_MEL = 1e-3  # the references' own distance from float64 in the quietest bins; ours is 1.7e-4 there


def arrays_of(name: str) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / f"{name}.npz").items() if v.dtype.kind != "U"}


def load(name: str) -> Tagger:
    """A tagger under the upstream padding rule; where the file has no head, with an unused one."""
    loaded = load_checkpoint(GOLDEN / f"{name}.pt")
    if loaded.labels is not None:
        return loaded.tagger("upstream")
    tagger = Tagger(loaded.config, 1, padding="upstream").eval()
    missing = tagger.load_state_dict(loaded.state, strict=False)
    assert set(missing.missing_keys) == {"head.weight", "head.bias"} and not missing.unexpected_keys
    return tagger


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = OUTPUT) -> None:
    assert actual.shape == expected.shape
    difference = float((actual - expected).abs().max())
    assert difference <= tolerance, difference


@pytest.mark.parametrize("name", ["unilm_finetuned", "unilm_pretrained", "unilm_prenorm", "unilm_norelpos"])
@torch.no_grad()
def test_release(name):
    tagger, golden = load(name), arrays_of(name)
    waveforms, lengths, fbank = golden["waveforms"], golden["lengths"], golden["fbank"]
    raw = fbank * (2 * tagger.config.fbank_std) + tagger.config.fbank_mean
    close(log_mel(waveforms), raw, LOG_MEL)
    is_padding = tagger.is_padding(lengths, waveforms.shape[1])
    assert torch.equal(is_padding, golden["patch_padding_mask"])

    def outputs(fbank, is_padding=None):
        if "finetuned" in name:
            return tagger.score(tagger.from_fbank(fbank, is_padding))
        return tagger.encoder(fbank, is_padding)

    close(outputs(fbank), golden["out_unmasked"])
    close(outputs(fbank, is_padding), golden["out_masked"])
    close(outputs(fbank[:1, :19]), golden["out_first3300"])  # 3 300 samples are 19 frames
    if "finetuned" in name:  # all the way from the waveform
        close(tagger.score(tagger(waveforms)), golden["out_unmasked"])
        close(tagger.score(tagger(waveforms, lengths)), golden["out_masked"])
        close(tagger.score(tagger(waveforms[:1, :3300])), golden["out_first3300"])


@pytest.mark.parametrize("masked", [False, True])
def test_tokenizer(masked):
    golden = arrays_of("unilm_tokenizer")
    tokenizer = load_tokenizer(GOLDEN / "unilm_tokenizer.pt", padding="upstream")
    codes = tokenizer.codes(golden["waveforms"], golden["lengths"] if masked else None)
    assert torch.equal(codes.flatten(), golden["codes_masked" if masked else "codes_unmasked"])


@torch.no_grad()
def test_espnet():
    golden = arrays_of("espnet_tiny")
    loaded = load_checkpoint(GOLDEN / "espnet_tiny")
    assert loaded.family == "ESPnet" and loaded.labels.names == tuple(f"label_{i}" for i in range(7))
    close(loaded.tagger(ESPNET_PADDING)(golden["waveforms"], golden["lengths"]), golden["logits"])
    tagger = loaded.tagger()
    for waveform, length, expected in zip(
        golden["waveforms"], golden["lengths"], golden["probabilities_one_by_one"], strict=True
    ):
        close(tagger.score(tagger(waveform[None, :length]))[0], expected)


ESPNET_PADDING = "upstream"  # ESPnet 202511 still has the release's rule


@pytest.mark.parametrize(
    ("prefix", "ratio", "decay"),
    [("full", 1.0, "release"), ("decay", 0.3, "release"), ("espnet_cut", 0.3, "espnet-cut")],
)
@pytest.mark.parametrize("recompute", [False, True], ids=["layers kept", "layers made again"])
def test_training_trajectory(prefix, ratio, decay, recompute):
    """Thirty steps of the originals' training: each loss and gradient norm within 1e-4 relative (seen: 6e-6),
    and the logits after.
    """
    import dataclasses

    golden = arrays_of("espnet_tiny")
    loaded = load_checkpoint(GOLDEN / "espnet_tiny")
    config = dataclasses.replace(loaded.config, layer_wise_gradient_decay_ratio=ratio)
    tagger = Tagger(config, 7, padding=ESPNET_PADDING, gradient_decay=decay)
    tagger.load_state_dict(loaded.state)
    tagger.train()
    tagger.encoder.recompute = recompute
    settings = OptimConfig(lr=3e-3, min_lr=5e-4, warmup_steps=4, cycle_steps=20)
    optimiser = adamw(tagger, settings)
    losses, norms = [], []
    for step in range(30):
        rows = slice(4 * (step % 5), 4 * (step % 5) + 4)
        rate = learning_rate(step, settings, 30)
        assert rate == pytest.approx(float(golden["train_lr"][step]), rel=1e-9)
        for group in optimiser.param_groups:
            group["lr"] = rate
        logits = tagger(golden["waveforms"][rows], golden["lengths"][rows])
        loss = F.binary_cross_entropy_with_logits(logits, golden["targets"][rows])
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            check_first_gradients(tagger, golden[f"{prefix}_first_step_grad_norms"])
        norms.append(float(clip_gradients(tagger, 1.0).detach()))
        optimiser.step()
        losses.append(float(loss.detach()))
    np.testing.assert_allclose(losses, golden[f"{prefix}_loss"].numpy(), rtol=1e-4)
    np.testing.assert_allclose(norms, golden[f"{prefix}_grad_norm"].numpy(), rtol=1e-4)
    with torch.no_grad():
        close(tagger.eval()(golden["waveforms"], golden["lengths"]), golden[f"{prefix}_logits_after"], 1e-3)


def check_first_gradients(tagger: Tagger, expected: torch.Tensor) -> None:
    """Each parameter's gradient norm of the first step, under the originals' names."""
    parameters = dict(tagger.named_parameters())
    norms = {}
    for pair in correspondence(tagger.config):
        gradient = parameters[pair.ours].grad
        for name, part in zip(
            pair.theirs,
            pair.to_theirs(gradient if gradient is not None else torch.zeros_like(parameters[pair.ours])),
            strict=True,
        ):
            norms[f"encoder.{name}"] = float(part.norm())
    for part in ("weight", "bias"):
        norms[f"decoder.linear_out.{part}"] = float(parameters[f"head.{part}"].grad.norm())
    names = np.load(GOLDEN / "espnet_tiny.npz")["parameter_names"]
    np.testing.assert_allclose([norms[name] for name in names], expected.numpy(), rtol=1e-4, atol=1e-7)


@torch.no_grad()
def test_a_clip_alone_equals_the_clip_in_a_padded_batch():
    golden = arrays_of("unilm_finetuned")
    tagger = load_checkpoint(GOLDEN / "unilm_finetuned.pt").tagger("exact")
    waveforms, lengths = golden["waveforms"], golden["lengths"]
    together = tagger(waveforms, lengths)
    for waveform, length, expected in zip(waveforms, lengths, together, strict=True):
        close(tagger(waveform[None, :length])[0], expected)
    assert int((~token_padding(lengths, 40_000, tagger.encoder, "exact")).sum()) == sum(
        8 * ((1 + (int(n) - 400) // 160) // 16) for n in lengths
    )
