"""Folders that are whole or do not exist.

Outside the straight line: stores, checkpoints, predictions, scores and reports all pass through `publish` and `verify`. A folder is written
beside its final name, every file is listed with size and SHA-256 in `manifest.json`, which is written last; then fsync and rename. A
folder without a valid manifest does not exist for its reader. `FolderLock` keeps a second run out of the same folder.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beatline.errors import UserError

MANIFEST = "manifest.json"
FORMAT = 1


def checkpoint_hook(name: str) -> None:
    """Called at each named point of a save; the kill tests replace it to pull the plug there."""


def sha256_file(path: Path) -> str:
    """The file's SHA-256 as hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write `path` into one-line user errors.

    Raises:
        UserError: `disk-full` or `not-writable`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError("disk-full", f"cannot write {path}", os.strerror(error.errno), "free some space or choose another folder and run again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise UserError("not-writable", f"cannot write {path}", os.strerror(error.errno), "make the folder writable or choose another one") from error
        raise


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes a file so that after a crash it has either its old content or the new one.

    Raises:
        UserError: `disk-full` or `not-writable`.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(path.name + ".partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _fsync(path.parent)


def seal(folder: Path, about: dict[str, Any]) -> None:
    """Lists every file below `folder` with size and SHA-256 in its manifest, written last and synced."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        _fsync(path)
    checkpoint_hook("files-written")
    body = {"format": FORMAT, "about": about, "files": files}
    write_atomic(folder / MANIFEST, json.dumps(body | {"self": hash_json(body)}, indent=1) + "\n")
    for directory in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        _fsync(directory)
    checkpoint_hook("sealed")


def put_in_place(partial: Path, final: Path) -> None:
    """Renames a sealed folder to its final name, replacing what is there."""
    old = final.with_name(final.name + ".old")
    with disk_errors(final):
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
            checkpoint_hook("old-moved")
        partial.rename(final)
        checkpoint_hook("renamed")
        _fsync(final.parent)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def publish(final: Path, about: dict[str, Any]) -> Iterator[Path]:
    """A fresh folder to fill; when the block ends well it is sealed and becomes `final`, otherwise nothing changes.

    Args:
        final: The folder's final name; replaced as a whole if it exists.
        about: JSON facts for the manifest: `kind` and whatever identifies the inputs.

    Raises:
        UserError: `disk-full` or `not-writable`.
    """
    partial = final.with_name(final.name + ".partial")
    with disk_errors(final):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            checkpoint_hook("content-written")
            seal(partial, about)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        put_in_place(partial, final)


def recover(final: Path) -> None:
    """Ends a replacement that was cut: the old folder gets its name back, or goes where the new one is in place."""
    old = final.with_name(final.name + ".old")
    if old.exists() and not final.exists():
        old.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The `about` part of a folder's manifest, or None where there is no folder with a readable, self-consistent manifest."""
    try:
        body = json.loads((folder / MANIFEST).read_text())
        own = body.pop("self")
        return body["about"] if own == hash_json(body) and body["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def verify(folder: Path, select: Callable[[str], bool] = lambda name: True) -> dict[str, Any]:
    """Checks a published folder's files against its manifest, and returns the manifest's `about`.

    Args:
        folder: A folder made by `publish`.
        select: Which files to read in full (by relative name); of the others only presence and size are checked.

    Raises:
        UserError: `corrupt-artefact`, naming the first file that is missing, cut, changed or not listed.
    """

    def corrupt(what: Path, cause: str) -> UserError:
        return UserError("corrupt-artefact", f"cannot use {what}", cause, f"delete {folder} and run again to make it anew")

    try:
        body = json.loads((folder / MANIFEST).read_text())
        own, files = body.pop("self"), body["files"]
        good = own == hash_json(body) and body["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise corrupt(folder / MANIFEST, f"no readable manifest ({type(error).__name__})") from error
    if not good:
        raise corrupt(folder / MANIFEST, "the manifest does not match its own hash")
    for name, facts in files.items():
        path = folder / name
        if not path.is_file():
            raise corrupt(path, "the file is missing")
        if path.stat().st_size != facts["bytes"]:
            raise corrupt(path, f"{path.stat().st_size} bytes instead of {facts['bytes']}")
        if select(name) and sha256_file(path) != facts["sha256"]:
            raise corrupt(path, "SHA-256 differs from the manifest")
    extra = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - set(files) - {MANIFEST}
    if extra:
        raise corrupt(folder / sorted(extra)[0], "the file is not in the manifest")
    return body["about"]


class FolderLock:
    """One run per folder: an exclusive lock on `<folder>/.lock` that ends with the process, whatever ends it.

    Raises:
        UserError: `busy-folder`, naming the owner; `not-writable`, `disk-full`.
    """

    def __init__(self, folder: Path):
        self.path = folder / ".lock"

    def __enter__(self) -> "FolderLock":
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError("busy-folder", f"{self.path.parent} is in use", f"{owner} is writing to it", "wait for it to end or choose another folder") from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
