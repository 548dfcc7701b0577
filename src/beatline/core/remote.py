"""Folders and addresses alike: what work on many machines reads and writes.

In: an address, which is a folder that all machines see or what fsspec knows (`s3://bucket/store`). Out: its
files. Every file appears whole: under a temporary name first, on S3 by itself. `data.ray` and `tag.ray` stand
on this. Imports no torch.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from beatline.core import artefact
from beatline.core.errors import UserError

STAMPS = (
    "ETag",
    "etag",
    "mtime",
    "LastModified",
    "last_modified",
    "modify",
)  # what file systems call the time or the version of a file


def locked(address: str) -> AbstractContextManager[Any]:
    """Keeps a second run out of a folder; at any other address two runs write the same bytes."""
    path = folder(address)
    return nullcontext() if path is None else artefact.FolderLock(path.parent)


def folder(address: str) -> Path | None:
    """The folder that an address means, None where it is none."""
    path = address.removeprefix("file://")
    return None if "://" in path else Path(path).absolute()


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turns what a file system raises inside the block into user errors; a missing file is an answer.

    Raises:
        UserError: `download-failed`.
    """
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except Exception as error:  # file systems raise what they like
        raise UserError(
            "download-failed",
            f"cannot reach {address}",
            f"{type(error).__name__}: {error}",
            "check the address, the network and the credentials, and run again",
        ) from error


def system(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the name of the address in it.

    Raises:
        UserError: `missing-package`; `bad-usage` for an address of no known form; `download-failed` where
            nobody answers.
    """
    with reaching(address):
        try:
            from fsspec.core import url_to_fs

            before, colons, after = address.partition(
                "::"
            )  # in a name; fsspec would take it for a chain of addresses
            base = address if not colons or "://" in after else before[: before.rfind("/") + 1]
            found, root = url_to_fs(base, use_listings_cache=False)
            root = root.rstrip("/") + "/" + address[len(base) :]
        except ImportError as error:
            raise UserError(
                "missing-package",
                f"cannot reach {address}",
                str(error),
                "pip install 'beatline[bulk]', or the package that is named here",
            ) from error
        except (
            ValueError,
            TypeError,
        ) as error:  # the latter for a chain of addresses (`a::b://c`) that is none
            raise UserError(
                "bad-usage",
                f"cannot reach {address}",
                str(error),
                "give a folder, or an address such as s3://bucket/folder",
            ) from error
    return found, root.rstrip("/")


def opened(address: str) -> Any:
    """The text file at an address, open for reading."""
    path = folder(address)
    if path is not None:
        return path.open(encoding="utf-8")
    found, name = system(address)
    return found.open(name, "r", encoding="utf-8")


def listing(found: Any, root: str) -> dict[str, dict[str, Any]]:
    """Facts about every file below a folder of a file system, by relative name.

    Raises:
        UserError: `download-failed`.
    """
    with reaching(root):
        there = found.find(root, detail=True) if found.exists(root) else {}
    return {
        name.removeprefix(root).lstrip("/"): facts for name, facts in there.items() if not is_marker(name)
    }


def content(found: Any, name: str) -> bytes:
    """The bytes of a file, which should be there.

    Raises:
        FileNotFoundError: it is not there.
        UserError: `download-failed`.
    """
    with reaching(name):
        return found.cat_file(name)


def contents(found: Any, names: list[str]) -> dict[str, bytes]:
    """As `content`, of several files at once."""
    with reaching(names[0] if names else ""):
        return found.cat(names) if names else {}


def remove(found: Any, name: str) -> None:
    """Removes a file that is there.

    Raises:
        UserError: `download-failed`.
    """
    with suppress(FileNotFoundError), reaching(name):
        found.rm_file(name)


def is_marker(name: str) -> bool:
    """Whether a name is that of an empty object for a folder, as consoles of object stores make them."""
    return name.endswith("/")


def stamp(facts: dict[str, Any]) -> list[Any]:
    """What tells a file from another with the same name: its size, and its version or time."""
    return [facts["size"], str(next((facts[name] for name in STAMPS if name in facts), ""))]


def put(found: Any, path: Path, name: str) -> None:
    """Copies a file to a name in a file system, where it appears whole.

    An upload to S3 appears whole by itself. A temporary key would cost a copy there and the right to delete.
    A request for a folder makes the bucket where there is none.

    Raises:
        UserError: `not-writable`.
    """
    try:
        if "s3" in found.protocol:
            found.put_file(str(path), name)
            return
        found.makedirs(name.rsplit("/", 1)[0], exist_ok=True)
        found.put_file(str(path), name + ".partial")
        found.mv(name + ".partial", name)
    except Exception as error:  # file systems raise what they like
        raise UserError(
            "not-writable",
            f"cannot write {name}",
            f"{type(error).__name__}: {error}",
            "check the address and what you may write there, and run again to go on from here",
        ) from error


def get(address: str, local: Path) -> None:
    """Copies a file to this machine. Where there is none, there is none here: its decoder will say so.

    Raises:
        UserError: `download-failed`; the job ends, and goes on from here when it is run again.
    """
    found, name = system(address)
    try:
        found.get_file(name, str(local))
    except Exception as error:  # file systems raise what they like, even for a file that is not there
        local.unlink(missing_ok=True)
        if isinstance(error, FileNotFoundError):
            return
        try:
            with reaching(address):  # a server that does not answer has not said that there is no file
                found.info(name)
        except FileNotFoundError:
            return
        raise UserError(
            "download-failed",
            f"cannot fetch {address}",
            f"{type(error).__name__}: {error}",
            "run again to go on from here",
        ) from error
