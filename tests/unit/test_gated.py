"""Attention with its own gradients says what PyTorch's says."""

import pytest
import torch

from beatline.config import EncoderConfig
from beatline.model.encoder import Encoder, initialise

CONFIG = EncoderConfig(
    embed_dim=8,
    encoder_layers=2,
    encoder_embed_dim=16,
    encoder_ffn_embed_dim=32,
    encoder_attention_heads=2,
    conv_pos=8,
    conv_pos_groups=1,
    dropout=0.0,
    attention_dropout=0.0,
    encoder_layerdrop=0.0,
)


def tokens_and_gradients(own: bool, padded: bool, precision: torch.dtype | None = None) -> list[torch.Tensor]:
    encoder = Encoder(CONFIG)
    initialise(encoder, torch.Generator().manual_seed(0))
    for layer in encoder.layers:
        layer.attention.own_steps = own
    random = torch.Generator().manual_seed(1)
    fbank, weights = torch.randn(3, 48, 128, generator=random), torch.randn(3, 24, 16, generator=random)
    is_padding = torch.arange(24) >= torch.tensor([24, 16, 8])[:, None] if padded else None
    with torch.autocast("cpu", precision, enabled=precision is not None):
        tokens = encoder.train()(fbank, is_padding)
    if padded:
        weights = weights.masked_fill(is_padding[..., None], 0)
    (tokens.float() * weights).sum().backward()
    return [(tokens * (weights != 0)).detach(), *(parameter.grad for parameter in encoder.parameters())]


@pytest.mark.parametrize("padded", [False, True])
def test_tokens_and_gradients_are_the_same(padded):
    for own, theirs in zip(*(tokens_and_gradients(own, padded) for own in (True, False)), strict=True):
        assert torch.allclose(own, theirs, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_they_are_as_near_to_float32_as_pytorchs():
    exact = tokens_and_gradients(False, False)
    errors = [
        sum(float((a - b).norm() / b.norm().clamp(min=1e-3)) for a, b in zip(found, exact, strict=True))
        for found in (tokens_and_gradients(own, False, torch.bfloat16) for own in (True, False))
    ]
    assert errors[0] < 1.3 * errors[1] + 0.01


def test_evaluation_does_not_take_it(monkeypatch):
    monkeypatch.setattr("beatline.model.attention.GatedAttention.apply", None)
    encoder = Encoder(CONFIG)
    initialise(encoder, torch.Generator().manual_seed(0))
    for layer in encoder.layers:
        layer.attention.own_steps = True
    assert encoder.eval()(torch.zeros(1, 16, 128)).shape == (1, 8, 16)
