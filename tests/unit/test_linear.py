"""Products by either library, attention, and layers computed again equal PyTorch's own, forward and
backward.
"""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from beatline.config import EncoderConfig
from beatline.model.attention import Attention, RelativeBias
from beatline.model.cpu import by_onednn, on_cpu_in_float32, product
from beatline.model.encoder import Encoder, initialise
from beatline.model.linear import Linear

SMALL = EncoderConfig(
    embed_dim=16,
    encoder_embed_dim=32,
    encoder_ffn_embed_dim=64,
    encoder_attention_heads=4,
    conv_pos=8,
    conv_pos_groups=4,
    num_buckets=16,
    max_distance=20,
    attention_dropout=0.0,
)


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


def test_gaps_between_rows_do_not_change_a_product():
    wide, other = torch.randn(6, 40), torch.randn(9, 30)
    wanted = wide[:, 5:15] @ other[:, ::3].t()
    torch.testing.assert_close(product(wide[:, 5:15], other[:, ::3]), wanted, rtol=1e-5, atol=1e-5)


def test_other_types_and_autocast_are_left_to_pytorch():
    features = torch.randn(3, 8)
    assert on_cpu_in_float32(features)
    assert not on_cpu_in_float32(features.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not on_cpu_in_float32(features)
        assert Linear(8, 4)(features).dtype == torch.bfloat16
    assert Linear(8, 4).double()(features.double()).dtype == torch.float64


def reference(attention, tokens, bias, is_padding):
    """Attention by its formula."""
    query, key, value = attention.qkv(tokens).unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    mask = torch.zeros(len(tokens), 1, 1, tokens.shape[1])
    if bias is not None:
        mask = mask + (attention.gate_values(tokens) * bias if attention.gated else bias)
    if is_padding is not None:
        mask = mask.masked_fill(is_padding[:, None, None, :], -math.inf)
    weights = (query @ key.mT / query.shape[-1] ** 0.5 + mask).softmax(-1)
    return attention.out((weights @ value).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_attention_and_its_gradients_are_those_of_the_formula(gated, biased, padded):
    torch.manual_seed(1)
    attention = Attention(dataclasses.replace(SMALL, gru_rel_pos=gated))
    tokens = torch.randn(2, 30, 32, requires_grad=True)
    bias = RelativeBias(SMALL)(30).detach().requires_grad_() if biased else None
    is_padding = torch.arange(30)[None] >= torch.tensor([[30], [11]]) if padded else None
    inputs = [tokens, *([bias] if biased else []), *attention.qkv.parameters(), *attention.out.parameters()]
    gradient, found = torch.randn(2, 30, 32), []
    for result in (attention(tokens, bias, is_padding), reference(attention, tokens, bias, is_padding)):
        found.append([result, *torch.autograd.grad(result, inputs, gradient)])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_training_and_scoring_attend_to_the_same_numbers():
    torch.manual_seed(3)
    attention, bias = Attention(SMALL), RelativeBias(SMALL)
    tokens, is_padding = torch.randn(2, 30, 32), torch.arange(30)[None] >= torch.tensor([[30], [11]])
    with torch.no_grad():
        scored = attention(tokens, bias(30), is_padding)
    trained = attention(tokens, bias(30), is_padding)
    assert trained.requires_grad
    torch.testing.assert_close(trained.detach(), scored, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay", ["release", "espnet-cut"])
def test_layers_computed_again_have_the_same_bits_and_keep_less(decay):
    """Dropout draws the same again."""
    config = dataclasses.replace(
        SMALL, encoder_layers=3, attention_dropout=0.2, dropout=0.2, layer_wise_gradient_decay_ratio=0.5
    )
    encoder = Encoder(config, decay)
    initialise(encoder, torch.Generator().manual_seed(0))
    fbank = torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(1))
    results, kept = [], []
    for recompute in (False, True):
        encoder.recompute = recompute
        encoder.zero_grad()
        torch.manual_seed(4)
        kept.append(0)

        def keep(tensor):
            kept[-1] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            tokens = encoder(fbank)
        tokens.square().sum().backward()
        results.append(
            [tokens.detach(), *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)]
        )
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert kept[1] < kept[0] / 2


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
