"""Which operating systems beatline runs on; the program and `beatline.load` ask before all else."""

import sys

from beatline.core.errors import UserError


def check() -> None:
    """Does nothing on Linux and macOS.

    Raises:
        UserError: `unsupported-system`, on Windows, which lacks the locks and the bounds of processes.
    """
    if sys.platform == "win32":
        raise UserError(
            "unsupported-system",
            "beatline on Windows",
            "it runs on Linux and macOS",
            "install WSL2 and use beatline there",
        )
