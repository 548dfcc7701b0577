"""Files that PyTorch pickled, from elsewhere and untrusted.

In: a path. Out: tensors and plain values, as the file nests them. The only owner of `torch.load`: it reads
with `weights_only=True`, which runs no code, and up to a size.
"""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from beatline.core.errors import UserError
from beatline.core.limits import LIMITS
from beatline.model.checkpoints.loaded import bad_checkpoint


def read_pickle(path: Path) -> Any:
    """What a PyTorch file holds: tensors, on the CPU, and plain values only.

    Raises:
        UserError: `missing-file`, `empty-file`; `bad-checkpoint` for a file that is too large, damaged, no
            PyTorch file, or a file that holds other objects.
    """
    if not path.is_file():
        raise UserError("missing-file", f"cannot load {path}", "no such file", "check the path")
    size = path.stat().st_size
    if size == 0:
        raise UserError("empty-file", f"cannot load {path}", "it has no bytes", "copy or download it again")
    if size > LIMITS.max_checkpoint_bytes:
        raise bad_checkpoint(path, f"{size} bytes are more than the limit of {LIMITS.max_checkpoint_bytes}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        reason = str(error)
        if "Unsupported global" in reason or "GLOBAL" in reason:
            raise bad_checkpoint(
                path,
                "it holds Python objects besides tensors, which could run code",
                "ask its maker for a file of tensors only",
            ) from error
        raise bad_checkpoint(
            path, "it is no PyTorch checkpoint, or it is damaged", "download it again and compare its SHA-256"
        ) from error
    except Exception as error:  # whatever the unpickler and the zip reader raise: the user needs the name
        raise bad_checkpoint(
            path,
            f"it is no PyTorch checkpoint, or it is damaged ({type(error).__name__})",
            "download it again and compare its SHA-256",
        ) from error
