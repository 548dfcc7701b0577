"""What a CPU needs of its own: products in float32 by the library that is fastest there, free memory given
back.

Outside the straight line. MKL is fastest on Intel's CPUs and on those with AVX2 alone, oneDNN on all others.
PyTorch carries both and always asks MKL. MKL has no AVX-512 for CPUs of other makers and reaches half of
oneDNN's rate there. On Intel's CPUs, oneDNN reaches less than MKL, and a third to two thirds of its rate
for a weight's gradient (`benchmarks/roofline.py`). So it is on an AMD with AVX2. MKL's bits of a row depend
on how many rows there are, oneDNN's do not. Where a clip's scores must not depend on its neighbours, oneDNN
is asked everywhere (`steady_product`).
"""

import ctypes
import platform
import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def on_cpu_in_float32(tensor: Tensor) -> bool:
    """Whether the next product is float32 on a CPU for certain: outside autocast, and not being traced or
    exported.
    """
    return (
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def keep_gpu_exact() -> None:
    """Keeps a GPU's products and convolutions in float32 from TF32, and cuDNN from attention, for the whole
    process.

    Rounded to TF32, the filter bank would be wrong. PyTorch prefers cuDNN's attention on newer GPUs where
    nothing is trained; it prepares itself for every new length.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.enable_cudnn_sdp(False)


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """`left @ right.T + bias` of `(..., k)` and `(n, k)` for what `on_cpu_in_float32` allows; has no
    gradient.
    """
    return steady_product(left, right, bias) if by_onednn() else F.linear(left, right, bias)


def steady_product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `product`, with bits of each row that do not depend on the other rows, or on their number."""
    if not torch.backends.mkldnn.is_available() or left.numel() == 0 or right.numel() == 0:
        return F.linear(left, right, bias)
    return torch.ops.mkldnn._linear_pointwise(_dense(left), _dense(right), bias, "none", [], "")


@cache
def by_onednn() -> bool:
    """Whether oneDNN multiplies here; MKL is slow on AVX-512 that Intel did not make."""
    facts = Path("/proc/cpuinfo")
    of_intel = "GenuineIntel" in (facts.read_text() if facts.exists() else platform.processor())
    return (
        torch.backends.mkldnn.is_available()
        and not of_intel
        and torch.backends.cpu.get_cpu_capability() != "AVX2"
    )


def _dense(matrix: Tensor) -> Tensor:
    """The matrix without gaps between its rows or its columns: oneDNN is a thousand times slower with
    them.
    """
    return (
        matrix
        if matrix.is_contiguous() or (matrix.dim() == 2 and matrix.t().is_contiguous())
        else matrix.contiguous()
    )


def keep_memory() -> None:
    """Keeps what is freed in this process from now on for the next allocation, where C's heap is glibc's: a
    training step otherwise spends up to a quarter of its time on pages that the system takes and gives.
    """
    if sys.platform == "linux" and (option := getattr(ctypes.CDLL(None), "mallopt", None)):
        for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 64 << 20)):
            option(name, value)


def give_back() -> None:
    """Returns to the system what is free in C's heap, where that is glibc's. Otherwise what lies between two
    blocks in use stays there.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
