"""Matrix products in float32 on a CPU, by whichever library has the full rate there: MKL on Intel's CPUs, oneDNN on all others.

Outside the straight line. PyTorch carries both and always asks MKL, which reaches less than half of oneDNN's rate on CPUs of other makers; on Intel's, oneDNN
reaches less than MKL, and a third to two thirds of it for a weight's gradient (`benchmarks/roofline.py`).
"""

import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F


def on_cpu_in_float32(tensor: Tensor) -> bool:
    """Whether the next product is float32 on a CPU for certain: outside autocast, and not being traced or exported."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """`left @ right.T + bias` of `(..., k)` and `(n, k)` for what `on_cpu_in_float32` allows; has no gradient."""
    if not _by_onednn() or left.numel() == 0 or right.numel() == 0:
        return F.linear(left, right, bias)
    return torch.ops.mkldnn._linear_pointwise(_dense(left), _dense(right), bias, "none", [], "")


def product_into(out: Tensor, left: Tensor, right: Tensor) -> None:
    """`out = left @ right.T` of matrices, as `product`."""
    if _by_onednn():
        out.copy_(product(left, right))
    else:
        torch.mm(left, right.t(), out=out)


@cache
def _by_onednn() -> bool:
    facts = Path("/proc/cpuinfo")
    return torch.backends.mkldnn.is_available() and "GenuineIntel" not in (facts.read_text() if facts.exists() else platform.processor())


def _dense(matrix: Tensor) -> Tensor:
    """The matrix without gaps between its rows or its columns: oneDNN is a thousand times slower with them."""
    return matrix if matrix.is_contiguous() or (matrix.dim() == 2 and matrix.t().is_contiguous()) else matrix.contiguous()
