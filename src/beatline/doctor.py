"""What this machine has, and whether a run's folders are whole.

Outside the straight line. Reads only.
"""

import dataclasses
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from beatline import artefact
from beatline.errors import UserError
from beatline.limits import LIMITS, SERVE_LIMITS


def print_facts(runs: list[Path]) -> None:
    """Prints versions, device, limits, and for each run folder which of its parts are whole.

    Raises:
        UserError: `missing-file` for a folder that is not there; `corrupt-artefact` after everything was printed, if a part is damaged.
    """
    import torch

    packages = ", ".join(f"{name} {version(name)}" for name in ("beatline", "torch", "numpy", "soundfile", "soxr", "safetensors"))
    print(f"python   {platform.python_version()} on {platform.platform()}\npackages {packages}")
    gpu = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) or "none"
    print(f"device   {os.cpu_count()} cores, GPU: {gpu}, {shutil.disk_usage('.').free / 1e9:.1f} GB free here")
    for name, limits in (("limits", LIMITS), ("serve", SERVE_LIMITS)):
        print(f"{name:8} " + ", ".join(f"{f.name} {getattr(limits, f.name)}" for f in dataclasses.fields(limits)))
    damaged: UserError | None = None
    for run in runs:
        if not run.is_dir():
            raise UserError("missing-file", f"run {run}", "no such folder", "check the path")
        for folder in sorted({m.parent for m in run.rglob(artefact.MANIFEST)}):
            try:
                about = artefact.verify(folder)
                print(f"whole    {folder} ({about.get('kind', 'unknown')})")
            except UserError as error:
                print(f"damaged  {error}")
                damaged = error
    if damaged is not None:
        raise damaged
