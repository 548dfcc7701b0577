"""Golden vectors of the reference implementations: same weights, same input, same numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from beatline.fbank import fbank
from beatline.model.checkpoint import load_checkpoint, load_tokenizer
from beatline.model.tagger import Tagger, token_padding

GOLDEN = Path(__file__).parents[1] / "golden"
OUTPUT = 1e-5  # float32 sums in another order


def load(name: str) -> tuple[Tagger, dict[str, torch.Tensor]]:
    """A tagger (or an encoder with an unused head) under the upstream padding rule, and the golden arrays."""
    arrays = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / f"{name}.npz").items()}
    loaded = load_checkpoint(GOLDEN / f"{name}.pt")
    if loaded.labels is not None:
        return loaded.tagger("upstream"), arrays
    tagger = Tagger(loaded.config, 1, padding="upstream").eval()
    missing = tagger.load_state_dict(loaded.state, strict=False)
    assert set(missing.missing_keys) == {"head.weight", "head.bias"} and not missing.unexpected_keys
    return tagger, arrays


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = OUTPUT) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance


@pytest.mark.parametrize("name", ["unilm_finetuned", "unilm_pretrained", "unilm_prenorm", "unilm_norelpos"])
@torch.no_grad()
def test_release(name):
    tagger, golden = load(name)
    waveforms, lengths = golden["waveforms"], golden["lengths"]

    def outputs(waveforms, lengths=None):
        if "finetuned" in name:
            return tagger.score(tagger(waveforms, lengths))
        is_padding = tagger.is_padding(lengths, waveforms.shape[1])
        return tagger.encoder(tagger.fbank(waveforms), is_padding)

    raw = golden["fbank"] * (2 * tagger.config.fbank_std) + tagger.config.fbank_mean
    close(fbank(waveforms, 0.0, 0.5), raw, 1e-3)
    assert torch.equal(token_padding(lengths, 40_000, tagger.encoder, "upstream"), golden["patch_padding_mask"])
    close(outputs(waveforms), golden["out_unmasked"])
    close(outputs(waveforms[:1, :3300]), golden["out_first3300"])
    masked = outputs(waveforms, lengths)
    close(masked, golden["out_masked"])


@pytest.mark.parametrize("masked", [False, True])
def test_tokenizer(masked):
    golden = np.load(GOLDEN / "unilm_tokenizer.npz")
    reference = np.load(GOLDEN / "unilm_finetuned.npz")
    tokenizer = load_tokenizer(GOLDEN / "unilm_tokenizer.pt", padding="upstream")
    lengths = torch.from_numpy(golden["lengths"]) if masked else None
    codes = tokenizer.codes(torch.from_numpy(golden["waveforms"]), lengths).flatten().numpy()
    expected = golden["codes_masked" if masked else "codes_unmasked"]
    assert np.array_equal(codes, expected)
    assert reference["lengths"].shape == golden["lengths"].shape


@torch.no_grad()
def test_espnet():
    golden = {k: v for k, v in np.load(GOLDEN / "espnet_tiny.npz").items()}
    (GOLDEN / "espnet_tiny.pth").stat()
    loaded = load_checkpoint(GOLDEN / "espnet_tiny.pth")
    assert loaded.family == "ESPnet"
