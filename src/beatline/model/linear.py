"""A linear layer whose float32 products on a CPU go to oneDNN.

PyTorch hands float32 matrix products to MKL, which reaches less than half of oneDNN's rate on CPUs of other makers than Intel
(`benchmarks/roofline.py`). Elsewhere, and for other types, this is `nn.Linear`, also in an exported or compiled graph.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def on_cpu_in_float32(tensor: Tensor) -> bool:
    """Whether the next product is float32 on a CPU for certain: outside autocast, and not being traced or exported."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """`left @ right.T + bias` of `(..., k)` and `(n, k)` for what `on_cpu_in_float32` allows; has no gradient."""
    if not torch.backends.mkldnn.is_available() or left.numel() == 0 or right.numel() == 0:
        return F.linear(left, right, bias)
    return torch.ops.mkldnn._linear_pointwise(_dense(left), _dense(right), bias, "none", [], "")


def _dense(matrix: Tensor) -> Tensor:
    """The matrix without gaps between its rows or its columns: oneDNN is a thousand times slower with them."""
    return matrix if matrix.is_contiguous() or (matrix.dim() == 2 and matrix.t().is_contiguous()) else matrix.contiguous()


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
        if not on_cpu_in_float32(features):
            return F.linear(features, self.weight, self.bias)
        if torch.is_grad_enabled():
            return _Linear.apply(features, self.weight, self.bias)
        return product(features, self.weight, self.bias)
