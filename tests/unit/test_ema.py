"""A running mean of weights: its formula, and that using it changes nothing."""

import pytest
import torch

from beatline.train.ema import Ema


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.ModuleDict({"head": torch.nn.Linear(2, 2), "objective": torch.nn.Linear(2, 2)})


def test_the_mean_follows_the_formula():
    network = model()
    ema, expected = Ema(network, 0.9), network["head"].weight.detach().double().clone()
    for step in range(1, 200):
        with torch.no_grad():
            network["head"].weight.add_(0.1)
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network["head"].weight.detach().double()
    assert torch.allclose(ema.mean["head.weight"].double(), expected, atol=1e-4)
    assert set(ema.mean) == {"head.weight", "head.bias"}


def test_the_weights_come_back_after_use():
    network = model()
    ema = Ema(network, 0.5)
    with torch.no_grad():
        network["head"].weight.add_(1)
    own = network["head"].weight.clone()
    with pytest.raises(RuntimeError), ema.in_use():
        assert torch.equal(network["head"].weight, ema.mean["head.weight"])
        raise RuntimeError
    assert torch.equal(network["head"].weight, own)


def test_without_a_decay_there_is_no_mean():
    network = model()
    ema, own = Ema(network, 0.0), network["head"].weight.clone()
    ema.update(1)
    with ema.in_use():
        assert torch.equal(network["head"].weight, own)
    assert not ema.mean
