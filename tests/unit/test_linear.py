"""Products by either library and the recomputing attention equal PyTorch's own, forward and backward."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from beatline.config import EncoderConfig
from beatline.model.attention import KEPT_WEIGHTS, Attention, Recomputed, RelativeBias
from beatline.model.cpu import by_onednn, on_cpu_in_float32, product, product_into
from beatline.model.linear import FeedForward, Linear, feed_forward


@pytest.fixture(params=["onednn", "mkl"], autouse=True)
def library(request, monkeypatch):
    """Every test by both, whatever the CPU."""
    monkeypatch.setattr("beatline.model.cpu.by_onednn", lambda: request.param == "onednn")


def test_mkl_is_asked_where_it_is_at_full_rate(monkeypatch):
    of_intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    for capability, expected in (("AVX2", False), ("AVX512", not of_intel)):
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda capability=capability: capability)
        assert by_onednn.__wrapped__() == expected


@pytest.mark.parametrize("shape", [(7, 16), (2, 5, 16), (2, 0, 16)])
def test_a_linear_layer_and_its_gradients_are_those_of_pytorch(shape):
    torch.manual_seed(0)
    layer, features = Linear(16, 24), torch.randn(shape)
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    weight, bias = (
        layer.weight.detach().clone().requires_grad_(),
        layer.bias.detach().clone().requires_grad_(),
    )
    got, wanted = layer(ours), F.linear(theirs, weight, bias)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    gradient = torch.randn_like(wanted)
    got.backward(gradient)
    wanted.backward(gradient)
    for a, b in ((ours.grad, theirs.grad), (layer.weight.grad, weight.grad), (layer.bias.grad, bias.grad)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_feed_forward_part_and_its_gradients_are_those_of_pytorch(rate, monkeypatch):
    torch.manual_seed(0)
    up, down, dropout, features = Linear(8, 32), Linear(32, 8), torch.nn.Dropout(rate), torch.randn(2, 5, 8)
    used = []
    monkeypatch.setattr(FeedForward, "apply", lambda *a, apply=FeedForward.apply: used.append(a) or apply(*a))
    found = []
    for function in (
        feed_forward,
        lambda x, a, b, drop: F.linear(drop(F.gelu(F.linear(x, a.weight, a.bias))), b.weight, b.bias),
    ):
        torch.manual_seed(3)
        inputs = features.clone().requires_grad_()
        tensors = (inputs, up.weight, up.bias, down.weight, down.bias)
        result = function(inputs, up, down, dropout)
        found.append([result.detach(), *torch.autograd.grad(result.square().sum(), tensors)])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert len(used) == (rate == 0)  # dropped activations cannot be made again


def test_gaps_between_rows_do_not_change_a_product():
    wide, other = torch.randn(6, 40), torch.randn(9, 30)
    wanted, out = wide[:, 5:15] @ other[:, ::3].t(), torch.zeros(9, 12)
    torch.testing.assert_close(product(wide[:, 5:15], other[:, ::3]), wanted, rtol=1e-5, atol=1e-5)
    product_into(out[:, :6].t(), wide[:, 5:15], other[:, ::3])
    torch.testing.assert_close(out, F.pad(wanted.t(), (0, 6)), rtol=1e-5, atol=1e-5)


def test_other_types_and_autocast_are_left_to_pytorch():
    features = torch.randn(3, 8)
    assert on_cpu_in_float32(features)
    assert not on_cpu_in_float32(features.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not on_cpu_in_float32(features)
        assert Linear(8, 4)(features).dtype == torch.bfloat16
    assert Linear(8, 4).double()(features.double()).dtype == torch.float64


def reference(qkv, gate, bias, is_padding):
    query, key, value = qkv.unflatten(-1, (3, 3, -1)).permute(2, 0, 3, 1, 4)
    mask = torch.zeros(query.shape[0], 1, 1, key.shape[2])
    if bias is not None:
        mask = mask + (bias if gate is None else gate * bias)
    if is_padding is not None:
        mask = mask.masked_fill(is_padding[:, None, None, :], -math.inf)
    return ((query @ key.mT / query.shape[-1] ** 0.5 + mask).softmax(-1) @ value).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_recomputing_attention_has_the_gradients_of_the_formula(gated, biased, padded):
    torch.manual_seed(1)
    inputs = [
        torch.randn(2, 10, 36),
        torch.rand(2, 3, 10, 1) if gated and biased else None,
        torch.randn(3, 10, 10) if biased else None,
    ]
    is_padding = torch.arange(10)[None] >= torch.tensor([[10], [6]]) if padded else None
    ours, theirs = ([None if t is None else t.clone().requires_grad_() for t in inputs] for _ in range(2))
    got, wanted = Recomputed.apply(*ours, is_padding, 3, 0.0), reference(*theirs, is_padding)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    gradient = torch.randn_like(wanted)
    got.backward(gradient)
    wanted.backward(gradient)
    for a, b in zip(ours, theirs, strict=True):
        if a is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


def test_dropout_drops_weights_and_its_gradient_sees_the_same_ones():
    """With values that pick out each weight, the output is the dropped and scaled weights; the gradient of
    the values must hold the same.
    """
    torch.manual_seed(2)
    tokens, rate = 40, 0.25
    query, key = torch.randn(tokens, 4), torch.randn(tokens, 4)
    wide = [
        F.pad(t, (0, tokens - 4)) * (tokens / 4) ** 0.25 for t in (query, key)
    ]  # the scale is that of the padded width
    qkv = torch.cat([*wide, torch.eye(tokens)], dim=1)[None].requires_grad_()
    used = Recomputed.apply(qkv, None, None, None, 1, rate)[0]
    plain = (query @ key.mT / 2).softmax(-1)
    kept = used != 0
    assert 0.15 < 1 - kept.float().mean() < 0.35
    torch.testing.assert_close(used[kept], (plain / (1 - rate))[kept], rtol=1e-4, atol=1e-6)
    gradient = torch.randn(tokens, tokens)
    used.backward(gradient)
    torch.testing.assert_close(
        qkv.grad[0, :, 2 * tokens :], used.detach().mT @ gradient, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kept", [0, KEPT_WEIGHTS])
def test_training_and_scoring_take_different_ways_to_the_same_numbers(kept, monkeypatch):
    monkeypatch.setattr("beatline.model.attention.KEPT_WEIGHTS", kept)
    config = EncoderConfig(
        encoder_embed_dim=32,
        encoder_attention_heads=4,
        conv_pos_groups=4,
        num_buckets=16,
        max_distance=20,
        attention_dropout=0.0,
    )
    torch.manual_seed(3)
    attention, bias = Attention(config), RelativeBias(config)
    tokens, is_padding = torch.randn(2, 30, 32), torch.arange(30)[None] >= torch.tensor([[30], [11]])
    with torch.no_grad():
        scored = attention(tokens, bias(30), is_padding)
    trained = attention(tokens, bias(30), is_padding)
    assert trained.requires_grad
    torch.testing.assert_close(trained.detach(), scored, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [8, 40, 248])
def test_a_clips_rows_have_the_same_bits_whatever_is_beside_it(rows, threads, library):
    layer, clips = Linear(3072, 768), torch.randn(4, rows, 3072)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            together = layer(clips)
            for count in (1, 2, 3):
                assert torch.equal(layer(clips[:count]), together[:count])
    finally:
        torch.set_num_threads(before)
