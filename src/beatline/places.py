"""Folders and addresses as one: where work on many machines reads and writes.

Outside the straight line: `bulk` and `bulk_tag` stand on it. A place is a folder that all machines see, or an address that fsspec knows (`s3://bucket/store`).
Every file is written under a temporary name first. Imports no torch.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from beatline import artefact
from beatline.errors import UserError

STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "modify")  # what file systems call the time or the version of a file


def locked(place: str) -> AbstractContextManager[Any]:
    """One run per folder, as elsewhere; at an address two runs write the same bytes."""
    path = folder(place)
    return nullcontext() if path is None else artefact.FolderLock(path.parent)


def folder(place: str) -> Path | None:
    """The folder that a place is, None for an address."""
    path = place.removeprefix("file://")
    return None if "://" in path else Path(path).absolute()


def system(place: str) -> tuple[Any, str]:
    """fsspec's file system of a place, and the place's name in it.

    Raises:
        UserError: `missing-package`; `bad-usage` for an address of no known form.
    """
    try:
        from fsspec.core import url_to_fs

        found, root = url_to_fs(place, use_listings_cache=False)
    except ImportError as error:
        raise UserError("missing-package", f"cannot reach {place}", str(error), "pip install 'beatline[bulk]' and the package that fsspec names for such an address") from error
    except ValueError as error:
        raise UserError("bad-usage", f"cannot reach {place}", str(error), "give a folder, or an address such as s3://bucket/folder") from error
    return found, root.rstrip("/")


def opened(address: str) -> Any:
    """The text file at an address, open for reading."""
    path = folder(address)
    if path is not None:
        return path.open(encoding="utf-8")
    found, name = system(address)
    return found.open(name, "r", encoding="utf-8")


def listing(found: Any, root: str) -> dict[str, dict[str, Any]]:
    """Facts about every file below a place, by relative name."""
    there = found.find(root, detail=True)
    return {name.removeprefix(root).lstrip("/"): facts for name, facts in there.items()}


def stamp(facts: dict[str, Any]) -> list[Any]:
    """What tells a file from another with the same name."""
    return [facts["size"], str(next((facts[name] for name in STAMPS if name in facts), ""))]


def put(found: Any, path: Path, name: str) -> None:
    """Copies a file to its place, under a temporary name until it is all there.

    Raises:
        UserError: `not-writable`.
    """
    try:
        found.makedirs(name.rsplit("/", 1)[0], exist_ok=True)
        found.put_file(str(path), name + ".partial")
        found.mv(name + ".partial", name)
    except Exception as error:  # file systems raise what they like
        raise UserError("not-writable", f"cannot write {name}", f"{type(error).__name__}: {error}", "run again to go on from here") from error


def get(address: str, local: Path) -> None:
    """Copies a file to here, or leaves none where there is none: its decoder will say so.

    Raises:
        UserError: `download-failed`; the job ends, and goes on from here when it is run again.
    """
    found, name = system(address)
    try:
        found.get_file(name, str(local))
    except Exception as error:  # file systems raise what they like, even for a file that is not there
        local.unlink(missing_ok=True)
        if not isinstance(error, FileNotFoundError) and found.exists(name):
            raise UserError("download-failed", f"cannot fetch {address}", f"{type(error).__name__}: {error}", "run again to go on from here") from error
