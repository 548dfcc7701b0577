"""loss -> optimiser step: AdamW, its learning rate as a function of the step, its state as plain tensors.

In: parameters with gradients. Out: parameters moved. State goes to and from named tensors, so that a
checkpoint needs no pickle.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from beatline.config import OptimConfig
from beatline.core.errors import UserError


def learning_rate(step: int, config: OptimConfig, total: int) -> float:
    """The learning rate of step 0, 1, ...: linear from min_lr to lr, cosine back, restart.

    Args:
        step: Steps taken so far.
        total: Steps of the whole training, the cycle's length where the configuration leaves it out.

    Source: CosineAnnealingWarmupRestarts as ESPnet's recipe configures it (cycle multiplier 1, no decay of
    the peak).
    """
    cycle = config.cycle_steps or total
    warmup = min(config.warmup_steps, cycle - 1)
    position = step % cycle
    if position < warmup:
        return config.min_lr + (config.lr - config.min_lr) * position / warmup
    return (
        config.min_lr
        + (config.lr - config.min_lr) * (1 + math.cos(math.pi * (position - warmup) / (cycle - warmup))) / 2
    )


def parameter_groups(
    model: nn.Module, rates: Mapping[str, float], decay_vectors: bool = True
) -> list[dict[str, Any]]:
    """The parameters in groups of one rate and one weight decay each, for an optimiser. A group's rate is
    `factor` times the rate of the schedule.

    Args:
        rates: Factors by the begin of parameters' names, the longest that fits counts; others have 1.
        decay_vectors: Whether weight decay acts on parameters of one dimension too.

    Raises:
        UserError: `bad-config` for a begin that no parameter's name has.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        begin = max((begin for begin in rates if _begins(name, begin)), key=len, default="")
        decays = decay_vectors or parameter.dim() > 1
        groups.setdefault((rates.get(begin, 1.0), decays), []).append(parameter)
    for begin in rates:
        if not any(_begins(name, begin) for name, _ in model.named_parameters()):
            parts = ", ".join(name for name, _ in model.named_children())
            raise UserError(
                "bad-config",
                "setting optim.rates",
                f"no parameter's name begins with {begin}",
                f"begin with a part ({parts}), then a dot and what the part contains",
            )
    return [
        {"params": parameters, "factor": factor} | ({} if decays else {"weight_decay": 0.0})
        for (factor, decays), parameters in groups.items()
    ]


def _begins(name: str, begin: str) -> bool:
    """Whether a dotted name is `begin` or goes on from it."""
    return f"{name}.".startswith(f"{begin}.")


def adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over all parameters, in the groups of `parameter_groups`. AdamW is fused where the device allows
    that.
    """
    return torch.optim.AdamW(
        parameter_groups(model, config.rates, config.decay_vectors),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Gives every group its share of the schedule's rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]


def clip_gradients(model: nn.Module, largest: float) -> Tensor:
    """The global gradient norm before clipping it to `largest`; a scalar tensor."""
    return nn.utils.clip_grad_norm_(model.parameters(), largest)


def state_tensors(optimiser: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state as `<parameter>|<kind>` tensors; parameters that never had a gradient have
    none.
    """
    state = {}
    for name, parameter in model.named_parameters():
        for kind, value in optimiser.state.get(parameter, {}).items():
            state[f"{name}|{kind}"] = value
    return state


def load_state_tensors(optimiser: torch.optim.Optimizer, model: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts back what `state_tensors` gave."""
    parameters = dict(model.named_parameters())
    optimiser.state.clear()
    for key, value in state.items():
        name, kind = key.split("|")
        parameter = parameters[name]
        # the step counter's device and type are AdamW's own affair: fused wants float32 beside the parameter
        optimiser.state.setdefault(parameter, {})[kind] = value.to(parameter.device, torch.float32).clone()
