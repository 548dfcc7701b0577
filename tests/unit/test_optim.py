"""The learning rate is a pure function of the step; the optimiser's state survives a round trip."""

import pytest
import torch

from beatline.config import OptimConfig
from beatline.core.errors import UserError
from beatline.train.optim import adamw, learning_rate, load_state_tensors, set_rate, state_tensors


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


def model_of_parts() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.ModuleDict({"body": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})


def rates_of(model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, float]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: group["lr"] for group in optimiser.param_groups for p in group["params"]}


def test_vectors_may_be_spared_weight_decay():
    model = model_of_parts()
    spared = adamw(model, OptimConfig(weight_decay=0.1, decay_vectors=False, rates={"head": 2.0}))
    names = {parameter: name for name, parameter in model.named_parameters()}
    decays = {names[p]: group["weight_decay"] for group in spared.param_groups for p in group["params"]}
    assert decays == {"body.weight": 0.1, "body.bias": 0, "head.weight": 0.1, "head.bias": 0}
    assert {g["weight_decay"] for g in adamw(model, OptimConfig(weight_decay=0.1)).param_groups} == {0.1}


def test_without_rates_there_is_one_group():
    optimiser = adamw(model_of_parts(), OptimConfig())
    set_rate(optimiser, 0.1)
    assert [group["lr"] for group in optimiser.param_groups] == [0.1]


def test_the_longest_begin_of_a_name_says_its_share_of_the_rate():
    model = model_of_parts()
    optimiser = adamw(model, OptimConfig(rates={"head": 10.0, "head.bias": 0.0}))
    set_rate(optimiser, 0.1)
    assert rates_of(model, optimiser) == {
        "body.weight": 0.1,
        "body.bias": 0.1,
        "head.weight": 1.0,
        "head.bias": 0.0,
    }


def test_groups_move_by_their_rates_and_a_factor_of_1_changes_no_bit():
    results = []
    for rates in ({}, {"head": 1.0}, {"head": 0.0}):
        model = model_of_parts()
        optimiser = adamw(model, OptimConfig(rates=rates, weight_decay=0.1))
        set_rate(optimiser, 0.01)
        model["head"](model["body"](torch.ones(1, 2))).sum().backward()
        optimiser.step()
        results.append({name: parameter.detach() for name, parameter in model.named_parameters()})
    plain, same, frozen = results
    assert all(torch.equal(plain[name], same[name]) for name in plain)
    start = dict(model_of_parts().named_parameters())
    assert all(torch.equal(frozen[f"head.{part}"], start[f"head.{part}"]) for part in ("weight", "bias"))
    assert torch.equal(frozen["body.weight"], plain["body.weight"])


@pytest.mark.parametrize("begin", ["tail", "hea", "head.weigh"])
def test_a_begin_that_no_parameter_has_is_refused(begin):
    with pytest.raises(UserError, match=f"begins with {begin}") as caught:
        adamw(model_of_parts(), OptimConfig(rates={begin: 1.0}))
    assert caught.value.code == "bad-config"
