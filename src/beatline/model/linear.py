"""Linear layers whose float32 products on a CPU go to the library that is faster there, see `products`;
elsewhere, and for other types, they are PyTorch's own.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from beatline.model.cpu import on_cpu_in_float32, product, product_into, steady_product


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


class FeedForward(torch.autograd.Function):
    """Two linear layers with a GELU between, of which nothing but the input is kept: what lies between is
    four times as wide, and made again.
    """

    @staticmethod
    def forward(
        ctx, features: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, down_bias: Tensor
    ) -> Tensor:
        ctx.save_for_backward(features, up, up_bias, down)
        hidden = product(features, up, up_bias)
        return product(torch.ops.aten.gelu.out(hidden, out=hidden), down, down_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        features, up, up_bias, down = ctx.saved_tensors
        rows, inputs = gradient.flatten(0, -2), features.flatten(0, -2)
        hidden = product(inputs, up, up_bias)
        to_hidden = F.gelu(hidden)  # for now: the two are the largest of all, so one's memory serves both
        to_down = product(rows.t(), to_hidden.t())
        product_into(to_hidden, rows, down.t())
        torch.ops.aten.gelu_backward.grad_input(to_hidden, hidden, grad_input=to_hidden)
        return (
            product(to_hidden, up.t()).view(features.shape),
            product(to_hidden.t(), inputs.t()),
            to_hidden.sum(0),
            to_down,
            rows.sum(0),
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


def feed_forward(features: Tensor, up: Linear, down: Linear, dropout: nn.Dropout) -> Tensor:
    """`down(dropout(gelu(up(features))))`."""
    if torch.is_grad_enabled() and on_cpu_in_float32(features) and not (dropout.training and dropout.p):
        return FeedForward.apply(features, up.weight, up.bias, down.weight, down.bias)
    return down(dropout(F.gelu(up(features))))
