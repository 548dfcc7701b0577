"""Linear layers whose float32 products on a CPU go to the library that is faster there, see `products`.
Elsewhere, and for other types, the products are PyTorch's own.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from beatline.model.cpu import on_cpu_in_float32, product, steady_product


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(features, weight)
        return product(features, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        features, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        to_features, to_weight, to_bias = ctx.needs_input_grad
        return (
            product(rows, weight.t()).view(features.shape) if to_features else None,
            product(rows.t(), features.flatten(0, -2).t()) if to_weight else None,
            rows.sum(0) if to_bias else None,
        )


class Linear(nn.Linear):
    """`nn.Linear`; see the module's docstring."""

    def forward(self, features: Tensor) -> Tensor:
        return linear(features, self.weight, self.bias)


def linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`features @ weight.T + bias`; see the module's docstring."""
    if not on_cpu_in_float32(features):
        return F.linear(features, weight, bias)
    return (
        _Linear.apply(features, weight, bias)
        if torch.is_grad_enabled()
        else steady_product(features, weight, bias)
    )
