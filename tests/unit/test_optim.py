"""The learning rate is a pure function of the step; the optimiser's state survives a round trip."""

import pytest
import torch

from beatline.config import OptimConfig
from beatline.train.optim import adamw, learning_rate, load_state_tensors, state_tensors


def test_the_recipes_schedule():
    recipe = OptimConfig()
    assert learning_rate(0, recipe, 1) == 5e-6 and learning_rate(8000, recipe, 1) == 3e-5
    assert learning_rate(4000, recipe, 1) == pytest.approx(1.75e-5)
    assert learning_rate(44_000, recipe, 1) == pytest.approx(1.75e-5)  # the middle of the cosine
    assert learning_rate(79_999, recipe, 1) == pytest.approx(5e-6, rel=1e-6)
    assert learning_rate(80_000, recipe, 1) == 5e-6  # restart
    whole = OptimConfig(lr=1.0, min_lr=0.0, warmup_steps=0, cycle_steps=0)
    assert learning_rate(0, whole, 10) == 1.0 and learning_rate(5, whole, 10) == pytest.approx(0.5)


def test_state_round_trip_continues_with_the_same_bits():
    def steps(model, optimiser, count, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(count):
            optimiser.zero_grad()
            model[0](torch.randn(3, 4, generator=generator)).square().sum().backward()
            optimiser.step()

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))  # the second has no gradient
    optimiser = adamw(model, OptimConfig())
    steps(model, optimiser, 3, 1)
    saved = {k: v.clone() for k, v in state_tensors(optimiser, model).items()}
    assert set(saved) == {f"0.{p}|{k}" for p in ("weight", "bias") for k in ("step", "exp_avg", "exp_avg_sq")}
    other = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    other.load_state_dict(model.state_dict())
    fresh = adamw(other, OptimConfig())
    load_state_tensors(fresh, other, saved)
    steps(model, optimiser, 3, 2)
    steps(other, fresh, 3, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
