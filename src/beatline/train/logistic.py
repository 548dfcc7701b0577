"""features -> logits: a regularised linear layer, fitted to its optimum, for `baseline` and `probe`."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

STEPS = 200


def fit(
    features: Tensor,
    targets: Tensor,
    penalty: float,
    task: Literal["multi-label", "single-label"] = "multi-label",
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Weight `(width, labels)` and bias `(labels,)` of the least loss. The loss is the cross-entropy of a
    clip, all labels together, and the penalised squares of the weight.

    Deterministic: L-BFGS on all clips at once, in the type of the features.

    Args:
        features: `(clips, width)`, centred and of unit scale, or the penalty means something else for each.
        targets: `(clips, labels)` of the same type, 0 or 1; with one label a clip rows that sum to 1.
        penalty: Weight of the squared coefficients, above 0; the bias is free.
        task: A regression for each label, or a single regression over all labels.
        start: Where to begin; zero when left out.
    """
    weight, bias = start or (
        features.new_zeros(features.shape[1], targets.shape[1]),
        features.new_zeros(targets.shape[1]),
    )
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    solver = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        logits = features @ weight + bias
        entropy = (
            F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
            if task == "multi-label"
            else F.cross_entropy(logits, targets, reduction="sum")
        )
        value = entropy / len(features) + penalty * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)  # type: ignore[arg-type]
    return weight.detach(), bias.detach()
