"""Folders that are whole or do not exist.

In: the files of a result. Out: a folder that its readers can check. Stores, checkpoints, predictions, scores
and reports all pass through `publish` and `verify`. A folder is written beside its final name.
`contents.json` comes last and lists every file with size and SHA-256; then come fsync and rename. A folder
without a valid list does not exist for its reader. Earlier versions called the list `manifest.json`: it is
read, and keeps its name. `FolderLock` keeps a second run out of the same folder.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from beatline.core.errors import UserError

CONTENTS = "contents.json"
OLDER = "manifest.json"
LISTS = (CONTENTS, OLDER)
"""What the list of a folder's files may be called, the preferred name first."""
FORMAT = 1
CHANGED = "SHA-256 differs from the list of contents"
UNLISTED = "the file is not in the list of contents"


def checkpoint_hook(name: str) -> None:
    """Called at each named point of a save; the kill tests replace it to pull the plug there."""


def sha256_file(path: Path) -> str:
    """The file's SHA-256 as hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def facts_of(path: Path) -> dict[str, Any]:
    """What a list of contents says of a file: `bytes` and `sha256`."""
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


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
            raise UserError(
                "disk-full",
                f"cannot write {path}",
                os.strerror(error.errno),
                "free space or choose another folder and run again",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise UserError(
                "not-writable",
                f"cannot write {path}",
                os.strerror(error.errno),
                "make the folder writable or choose another folder",
            ) from error
        raise


def sync(path: Path) -> None:
    """Returns when a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_existing(path: Path) -> None:
    """Returns where nothing has this name yet; a result never replaces what somebody keeps.

    Raises:
        UserError: `not-writable`.
    """
    if path.exists():
        raise UserError(
            "not-writable", f"cannot write {path}", "it is there already", "name another, or move it away"
        )


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which becomes `path` when the block ends well; otherwise nothing changes.

    Raises:
        UserError: `disk-full` or `not-writable`.
    """
    temporary = path.with_name(path.name + ".partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        os.replace(temporary, path)
        sync(path.parent)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes a file so that after a crash it has its old content or its new content, whole.

    Raises:
        UserError: `disk-full` or `not-writable`.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def contents_name(names: Container[str]) -> str:
    """What the list of a published folder with these files is called: `CONTENTS`, unless only `OLDER` is
    there.
    """
    return OLDER if OLDER in names and CONTENTS not in names else CONTENTS


def contents_file(folder: Path) -> Path:
    """The list of a published folder's files, there or not."""
    return folder / contents_name([name for name in LISTS if (folder / name).exists()])


def seal(
    folder: Path, about: dict[str, Any], known: Mapping[str, dict[str, Any]] = MappingProxyType({})
) -> None:
    """Lists every file below `folder` with size and SHA-256 in its list of contents, written last and synced.

    Args:
        known: `bytes` and `sha256` of files that need not be read again, by name; they may also be elsewhere
            for now.
    """
    files = dict(known)
    for path in (p for p in folder.rglob("*") if p.is_file() and p.name not in LISTS):
        name = path.relative_to(folder).as_posix()
        if name not in known:
            files[name] = facts_of(path)
        sync(path)
    files = dict(sorted(files.items()))
    checkpoint_hook("files-written")
    body = {"format": FORMAT, "about": about, "files": files}
    write_atomic(contents_file(folder), json.dumps(body | {"self": hash_json(body)}, indent=1) + "\n")
    for directory in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        sync(directory)
    checkpoint_hook("sealed")


def beside(final: Path, suffix: str) -> Path:
    """What a folder is called before it is whole, or when it is to go.

    Raises:
        UserError: `not-writable` for a folder that cannot be renamed, as the working folder.
    """
    if final.name in ("", ".."):
        raise UserError(
            "not-writable",
            f"cannot write {final}",
            "a folder is replaced as a whole, and this folder cannot be",
            "name a folder below it",
        )
    return final.with_name(final.name + suffix)


def replace_folder(partial: Path, final: Path) -> None:
    """Renames a sealed folder to its final name, replacing what is there."""
    old = beside(final, ".old")
    with disk_errors(final):
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
            checkpoint_hook("old-moved")
        partial.rename(final)
        checkpoint_hook("renamed")
        sync(final.parent)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def publish(final: Path, about: dict[str, Any]) -> Iterator[Path]:
    """A fresh folder to fill, sealed and renamed to `final` where the block ends well; else nothing changes.

    Args:
        final: The folder's final name; replaced as a whole if it exists.
        about: JSON facts for the list of contents: `kind`, and what identifies the inputs; `open` where other
            files may lie beside those listed.

    Raises:
        UserError: `disk-full` or `not-writable`.
    """
    partial = beside(final, ".partial")
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
        replace_folder(partial, final)


def recover(final: Path) -> None:
    """Ends a replacement that was cut.

    The old folder gets its name back where the new folder is not there; else the old folder goes.
    """
    old = beside(final, ".old")
    if old.exists() and not final.exists():
        old.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def parse_contents(text: str | bytes) -> tuple[dict[str, Any], dict[str, dict[str, Any]], bool]:
    """A list's `about`, its files with `bytes` and `sha256`, and whether the list matches its own hash.

    Raises:
        ValueError: The text is no list of contents at all.
    """
    try:
        body = json.loads(text)
        own = body.pop("self")
        about = body["about"]
        files = body["files"]
        if any(
            not isinstance(facts["bytes"], int) or not isinstance(facts["sha256"], str)
            for facts in files.values()
        ):
            raise ValueError("sizes and hashes are not of their form")
        return about, files, own == hash_json(body) and body["format"] == FORMAT
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def read_contents(folder: Path) -> dict[str, Any] | None:
    """The `about` part of a folder's list of contents; None without a readable list that matches its own
    hash.
    """
    try:
        about, _, good = parse_contents(contents_file(folder).read_bytes())
    except (OSError, ValueError):
        return None
    return about if good else None


def damaged(folder: Path, select: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, str]]:
    """Name and cause of every file of a published folder that is missing, cut, changed or not listed. The
    list itself comes first.

    Args:
        folder: A folder made by `publish`.
        select: Which files to read in full (by relative name); of the others only presence and size are
            checked.
    """
    own = contents_file(folder)
    try:
        about, files, good = parse_contents(own.read_bytes())
    except (OSError, ValueError) as error:
        older = ", nor the manifest.json of an older folder" if isinstance(error, FileNotFoundError) else ""
        yield own.name, f"no readable list of contents ({type(error).__name__}){older}"
        return
    if not good:
        yield own.name, "the list of contents does not match its own hash"
    there = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    for name, facts in files.items():
        cause = changed(there[name], facts, select(name)) if name in there else difference(facts, None)
        if cause:
            yield name, cause
    for name in there:
        if name not in files and name not in LISTS and not about.get("open"):
            yield name, UNLISTED


def changed(path: Path, facts: dict[str, Any], in_full: bool = True) -> str:
    """How a file differs from its facts in a list of contents; empty where nothing differs.

    Args:
        in_full: Whether to compare the SHA-256 too, and not the size only.
    """
    try:
        return difference(facts, path.stat().st_size) or (
            CHANGED if in_full and sha256_file(path) != facts["sha256"] else ""
        )
    except OSError as error:  # what a dying disk says
        return error.strerror or str(error)


def difference(facts: dict[str, Any], size: int | None) -> str:
    """How a file's size differs from its facts in the list of contents; empty where nothing differs.

    Args:
        size: Bytes; None for a file that is not there.
    """
    if size is None:
        return "the file is missing"
    return "" if size == facts["bytes"] else f"{size} bytes instead of {facts['bytes']}"


def verify(folder: Path, select: Callable[[str], bool] = lambda name: True) -> dict[str, Any]:
    """The `about` of a published folder's list of contents, after a check of the folder's files against it.

    Args:
        folder: As `damaged`.
        select: As `damaged`.

    Raises:
        UserError: `corrupt-artefact`, naming the first file that is missing, cut, changed or not listed.
    """
    for name, cause in damaged(folder, select):
        raise UserError(
            "corrupt-artefact",
            f"cannot use {folder / name}",
            cause,
            f"delete {folder} and run again to make it anew",
        )
    return parse_contents(contents_file(folder).read_bytes())[0]


class FolderLock:
    """Keeps a second run out of a folder, by an exclusive lock on `<folder>/.lock`.

    The lock ends with the process, whatever ends the process.

    Args:
        wait: Whether to wait until the folder is free.

    Raises:
        UserError: `busy-folder`, naming the owner; `not-writable`, `disk-full`.
    """

    def __init__(self, folder: Path, wait: bool = False):
        self.path = folder / ".lock"
        self._wait = wait

    def __enter__(self) -> "FolderLock":
        import fcntl  # here, so that Windows comes as far as `core.system`

        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX if self._wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(
                "busy-folder",
                f"{self.path.parent} is in use",
                f"{owner} is writing to it",
                "wait for it to end or choose another folder",
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
