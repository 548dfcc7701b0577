"""A local file -> a copy of it, as whole and as checked as a downloaded file."""

from collections.abc import Callable
from pathlib import Path

from beatline.core.artefact import disk_errors, sha256_file
from beatline.core.errors import UserError
from beatline.fetch import http


def copy(
    source: Path, target: Path, sha256: str = "", check: Callable[[Path], None] = lambda path: None
) -> str:
    """SHA-256 of a local file, which now has a copy, as whole and as checked as a downloaded file.

    Raises:
        UserError: `hash-mismatch`, `missing-file`, `disk-full`, `not-writable`, or what `check` raises.
    """
    try:
        size = source.stat().st_size
        digest = sha256_file(source)
    except OSError as error:
        raise UserError(
            "missing-file",
            f"cannot read {source}",
            error.strerror or str(error),
            "check the path and its permissions",
        ) from error
    if sha256 and digest != sha256:
        raise UserError(
            "hash-mismatch",
            f"refused {source}",
            f"its SHA-256 is {digest}, not {sha256}",
            "get the right file",
        )
    http.check_room(target.parent, size)
    partial = target.with_name(target.name + ".partial")
    with disk_errors(target), source.open("rb") as original, partial.open("wb") as file:
        while piece := original.read(1 << 20):
            file.write(piece)
    http.finish(partial, target, check)
    return digest
