"""A file over HTTP: resumed by range, checked by length and SHA-256, whole before it has its name.

In: an address. Out: the file, or parts of it as a stream (`RangeStream`). While it is incomplete it is called
`<name>.partial`. Beside it `<name>.partial.json` says which version of the file the part belongs to. Retries
wait as long as the server asks; `request` makes a single request.
"""

import io
import json
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from beatline.core.artefact import disk_errors, sha256_file, sync, write_atomic
from beatline.core.errors import UserError
from beatline.fetch import request
from beatline.fetch.request import POLICY, Again, NoRanges, Policy

if TYPE_CHECKING:
    import httpx2

GAIN = 1 << 16  # bytes that make an attempt count as progress
SPARE = 64 << 20  # bytes left free on the disk
NETWORK = (
    "no-network",
    "download-failed",
    "service-refused",
)  # codes of errors that another source or another day may change
Value = TypeVar("Value")


def patiently(
    what: str,
    attempt: Callable[[], Value],
    remedy: str,
    policy: Policy = POLICY,
    have: Callable[[], int] = lambda: 0,
) -> Value:
    """What `attempt` returns, tried again while it raises `Again`.

    Args:
        what: For the error: what fails where it fails for good.
        remedy: For the error: what the user can do instead.
        have: Bytes got so far; tries are counted anew after progress.

    Raises:
        UserError: `no-network` where no server ever answered, `service-refused` where it asks for a pause
            that is too long, `download-failed`.
    """
    tries = 0
    answered = False
    while True:
        before = have()
        try:
            return attempt()
        except Again as again:
            answered |= again.answered
            tries = 1 if have() >= before + GAIN else tries + 1
            if again.wait is not None and again.wait > policy.longest_request:
                raise UserError(
                    "service-refused",
                    f"cannot get {what}",
                    f"the server asks to wait {again.wait:.0f} s ({again.cause})",
                    "run the same command after that; it goes on from here",
                ) from again
            if tries >= (policy.tries if answered else min(3, policy.tries)):
                raise UserError(
                    "download-failed" if answered else "no-network", f"cannot get {what}", again.cause, remedy
                ) from again
            time.sleep(max(again.wait or 0.0, min(policy.longest_wait, policy.first_wait * 2 ** (tries - 1))))


def download(
    address: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str = "",
    headers: Mapping[str, str] | None = None,
    check: Callable[[Path], None] = lambda path: None,
    remedy: str = "run the same command again; it goes on from here",
    policy: Policy = POLICY,
) -> str:
    """SHA-256 of the file, which is now at `target`.

    What an earlier run left is continued where ETag, date or known hash can tell that the file is the same.

    Args:
        size: Length in bytes, where known.
        sha256: As hex, where known.
        headers: More request headers; they are not sent to another host.
        check: Called on the whole file before it gets its name; a `UserError` refuses it.
        remedy: For errors: what the user can do instead.

    Raises:
        UserError: as `patiently`; `download-failed`, `hash-mismatch`, `disk-full`, `not-writable`, or what
            `check` raises.
    """
    partial = _Partial(target, address)

    def attempt() -> str:
        doubtful = (
            True
            if partial.is_whole(size)
            else _attempt(address, partial, size, bool(sha256), headers or {}, policy)
        )
        digest = sha256_file(partial.path)
        if sha256 and digest != sha256:
            partial.clear()
            if (
                doubtful and not partial.was_mixed
            ):  # once: a file that is never right would be transferred for ever
                partial.was_mixed = True
                raise Again("the parts of the file do not belong together")
            raise UserError(
                "hash-mismatch",
                f"refused {address}",
                f"its SHA-256 is {digest}, not {sha256}",
                "get the right file from another source",
            )
        return digest

    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = patiently(address, attempt, remedy, policy, partial.have)
        finish(partial.path, target, check)
    return digest


def finish(partial: Path, target: Path, check: Callable[[Path], None] = lambda path: None) -> None:
    """Gives a whole file its final name once it has passed `check`; a file that has not is removed.

    Raises:
        UserError: what `check` raises; `disk-full`, `not-writable`.
    """
    about = partial.with_name(partial.name + ".json")
    try:
        check(partial)
    except UserError:
        partial.unlink()
        about.unlink(missing_ok=True)
        raise
    with disk_errors(target):
        sync(partial)
        about.unlink(missing_ok=True)  # before the rename: a kill in between must not leave it for good
        os.replace(partial, target)
        sync(target.parent)


def check_room(folder: Path, size: int) -> None:
    """Refuses to begin what the disk cannot hold.

    Raises:
        UserError: `disk-full`, `not-writable`.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    if size > free - SPARE:
        raise UserError(
            "disk-full",
            f"cannot begin in {folder}",
            f"{size:,} bytes are to come, {free:,} are free",
            "free space or choose another folder",
        )


def read_range(
    address: str, first: int, count: int, headers: Mapping[str, str] | None = None, policy: Policy = POLICY
) -> tuple[bytes, int]:
    """The `count` bytes from `first` on, fewer at the end, and the file's length.

    Raises:
        NoRanges: The server sends whole files only.
        UserError: as `patiently`.
    """

    def attempt() -> tuple[bytes, int]:
        wanted = {"Range": f"bytes={first}-{first + count - 1}"}
        with request.opened(address, {**(headers or {}), **wanted}, policy) as answer:
            begin, total = request.span(answer)
            if answer.status_code != 206 or begin != first or total is None:
                raise NoRanges
            content = _first_bytes(answer, count)
        if len(content) != min(count, total - first):
            raise Again("the connection ended early")
        return content, total

    return patiently(address, attempt, "run the same command again", policy)


def _first_bytes(answer: "httpx2.Response", count: int) -> bytes:
    content = bytearray()
    for piece in answer.iter_raw():
        content += piece
        if len(content) >= count:
            break
    return bytes(content[:count])


class RangeStream(io.RawIOBase):
    """A remote file as a raw stream that can seek. Only the blocks that are read are transferred. A read ends
    at a block's end.

    Args:
        read: (first byte, count) -> those bytes and the file's length.
    """

    BLOCK = 1 << 17
    HELD = 16

    def __init__(self, read: Callable[[int, int], tuple[bytes, int]]):
        self._read = read
        self._at = 0
        first, self.size = read(0, self.BLOCK)
        self._blocks: OrderedDict[int, bytes] = OrderedDict({0: first})

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        number, begin = divmod(self._at, self.BLOCK)
        if self._at >= self.size:
            return 0
        if number not in self._blocks:
            self._blocks[number] = self._read(number * self.BLOCK, self.BLOCK)[0]
            if len(self._blocks) > self.HELD:
                self._blocks.popitem(last=False)
        part = self._blocks[number][begin : begin + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


# --- an attempt


class _Partial:
    """What there is of a file that is not whole, and of which version of it."""

    def __init__(self, target: Path, address: str):
        self.target = target
        self.address = address
        self.path = target.with_name(target.name + ".partial")
        self.about = target.with_name(target.name + ".partial.json")
        self.was_mixed = False  # its parts made a file of another hash

    def have(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> tuple[str, int | None]:
        """ETag or date, and length, of the version that this is a part of; nothing where they are not
        known.
        """
        try:
            about = json.loads(self.about.read_text())
            return (
                (str(about["validator"]), about["total"]) if about["address"] == self.address else ("", None)
            )
        except (OSError, ValueError, KeyError, TypeError):
            return "", None

    def is_whole(self, size: int | None) -> bool:
        """Whether nothing is missing, where the file's length is known."""
        return self.path.exists() and self.have() == (self.version()[1] if size is None else size)

    def begin(self, validator: str, total: int | None) -> None:
        """Forgets what there is: the next bytes are the file's first, of this version."""
        self.clear()
        write_atomic(
            self.about, json.dumps({"address": self.address, "validator": validator, "total": total}) + "\n"
        )

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)


def _attempt(
    address: str,
    partial: _Partial,
    size: int | None,
    hash_known: bool,
    headers: Mapping[str, str],
    policy: Policy,
) -> bool:
    """Transfers what is missing by a request; whether the result may be a mixture or cut."""
    validator, _ = partial.version()
    if partial.have() and not (validator or hash_known):
        partial.clear()
    have = partial.have()
    wanted = {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {}) if have else {}
    with request.opened(address, {**headers, **wanted}, policy) as answer:
        if answer.status_code == 416:
            partial.clear()  # it has more bytes than the file: of another version
            raise Again("the file has become shorter")
        begin, total = request.span(answer)
        if begin not in (0, have):
            raise Again("the server sent another part than was asked for")
        if size is not None and total is not None and size != total:
            raise UserError(
                "hash-mismatch",
                f"refused {address}",
                f"it has {total} bytes, not {size}",
                "get the right file from another source",
            )
        total = size if total is None else total
        if total is None and not request.is_chunked(answer) and not hash_known:
            raise UserError(
                "download-failed",
                f"cannot get {address}",
                "the server does not say how long it is",
                "get it from another source",
            )
        if begin == 0:
            partial.begin(request.validator(answer), total)
        check_room(partial.target.parent, (total or 0) - begin)
        _transfer(answer, partial, total, policy)
    if total is not None and partial.have() < total:
        raise Again(f"the connection ended after {partial.have()} of {total} bytes")
    if total is not None and partial.have() > total:
        partial.clear()
        raise UserError(
            "hash-mismatch",
            f"refused {address}",
            f"it has more than {total} bytes",
            "get the right file from another source",
        )
    return begin > 0 or total is None


def _transfer(answer: "httpx2.Response", partial: _Partial, total: int | None, policy: Policy) -> None:
    """Appends the answer's bytes to the file as they arrive."""
    since = time.monotonic()
    count = 0
    with partial.path.open("ab") as file:
        for piece in answer.iter_raw():
            file.write(piece)
            count += len(piece)
            if total is not None and file.tell() > total:
                return
            if (passed := time.monotonic() - since) > policy.timeout:
                if count < policy.slowest * passed:
                    raise Again(f"it comes at {count / passed:.0f} bytes a second")
                since = time.monotonic()
                count = 0
