"""`beatline doctor`: what this machine has, and whether runs are whole."""

import dataclasses
import os
import platform
import shutil
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path

from beatline.cli.parser import Parser
from beatline.core.errors import UserError
from beatline.core.limits import LIMITS, SERVE_LIMITS


def parser() -> Parser:
    """The options of the command."""
    parser = Parser("doctor", "Prints versions, device and limits of this machine, and verifies run folders.")
    parser.add("runs", nargs="*", type=Path, metavar="RUN", help="folder to verify")
    return parser


def doctor(given: Namespace) -> None:
    """Does what the command says."""
    from beatline.data import verify as verification

    _print_facts()
    damaged: UserError | None = None
    for run in given.runs:
        try:
            verification.verify(run)
        except UserError as error:
            damaged = damaged or error
    if damaged:
        raise damaged


def _print_facts() -> None:
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
