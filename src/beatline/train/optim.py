"""loss -> optimiser step: AdamW, its learning rate as a pure function of the step, and its state as plain
tensors.

In: parameters with gradients. Out: parameters moved. State goes to and from named tensors, so that a
checkpoint needs no pickle.
"""

import math

import torch
from torch import Tensor, nn

from beatline.config import OptimConfig


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
    place = step % cycle
    if place < warmup:
        return config.min_lr + (config.lr - config.min_lr) * place / warmup
    return (
        config.min_lr
        + (config.lr - config.min_lr) * (1 + math.cos(math.pi * (place - warmup) / (cycle - warmup))) / 2
    )


def adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over all parameters with one weight decay, in its fused form where the device has one."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


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
