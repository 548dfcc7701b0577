"""Matrix products in float32 on a CPU, by oneDNN.

Outside the straight line. PyTorch hands them to MKL, which reaches less than half of oneDNN's rate on CPUs of other makers than Intel
(`benchmarks/roofline.py`).
"""

import torch
from torch import Tensor
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
