"""What this machine has.

Outside the straight line. Reads only; whether a run's folders are whole is `verification`'s.
"""

import dataclasses
import os
import platform
import shutil
from importlib.metadata import version

from beatline.core.limits import LIMITS, SERVE_LIMITS


def print_facts() -> None:
    """Prints versions, device and limits."""
    import torch

    packages = ", ".join(
        f"{name} {version(name)}"
        for name in ("beatline", "torch", "numpy", "soundfile", "soxr", "safetensors")
    )
    print(f"python   {platform.python_version()} on {platform.platform()}\npackages {packages}")
    gpu = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) or "none"
    print(
        f"device   {os.cpu_count()} cores, GPU: {gpu}, {shutil.disk_usage('.').free / 1e9:.1f} GB free here"
    )
    for name, limits in (("limits", LIMITS), ("serve", SERVE_LIMITS)):
        print(
            f"{name:8} "
            + ", ".join(f"{f.name} {getattr(limits, f.name)}" for f in dataclasses.fields(limits))
        )
