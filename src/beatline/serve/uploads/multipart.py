"""the body of a request -> files on disk, within limits of size and time.

In: `multipart/form-data` as it arrives. Out: an `Upload` for each part named `files`. What a client calls its
file is data: it is given back, and names nothing here.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from beatline.core.errors import UserError
from beatline.core.limits import ServeLimits
from beatline.core.text import printable
from beatline.serve.uploads.spool import Share

FIELD = "files"
LONGEST_NAME = 255
WRITE_BYTES = 1 << 18
RESEND = "send multipart/form-data whose files are in a field named files, as `curl -F files=@bark.mp3` does"

CALLBACKS = (
    "on_part_begin",
    "on_header_field",
    "on_header_value",
    "on_header_end",
    "on_headers_finished",
    "on_part_data",
    "on_end",
)

Receive = Callable[[], Awaitable[Any]]


class Left(Exception):
    """The client has gone."""


@dataclass
class Upload:
    """A file that a client sent."""

    name: str
    """As the client calls it, made printable."""
    path: Path
    """The file on this machine."""
    size: int = 0
    error: UserError | None = None
    """Why the file is not here as a whole."""


@dataclass
class _Body:
    """What the parser says of a body, and what follows from it."""

    folder: Path
    limits: ServeLimits
    uploads: list[Upload] = field(default_factory=list)
    pending: list[tuple[Upload, bytes]] = field(default_factory=list)
    held: int = 0
    whole: bool = False
    _name: bytes = b""
    _value: bytes = b""
    _about: bytes = b""

    def on_part_begin(self) -> None:
        self._name = self._value = self._about = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._about = self._value
        self._name = self._value = b""

    def on_headers_finished(self) -> None:
        _, about = parse_options_header(self._about)
        if about.get(b"name") != FIELD.encode():
            raise UserError(
                "bad-usage",
                "cannot use the request",
                f"a part of its body is named {_name(about.get(b'name', b''))!r}, not {FIELD}",
                RESEND,
            )
        if len(self.uploads) == self.limits.max_files:
            raise UserError(
                "too-large",
                "cannot use the request",
                f"it has more than {self.limits.max_files} files",
                "send fewer at once",
            )
        self.uploads.append(
            Upload(_name(about.get(b"filename", b"")) or "audio", self.folder / str(len(self.uploads)))
        )
        self.pending.append((self.uploads[-1], b""))  # an empty file is a file too

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        upload = self.uploads[-1]
        upload.size += end - start
        if upload.size > self.limits.max_file_bytes:
            upload.error = UserError(
                "too-large",
                f"cannot use {upload.name}",
                f"it is larger than {self.limits.max_file_bytes} bytes",
                "send a shorter stretch of it, or compress it",
            )
        else:
            self.pending.append((upload, data[start:end]))
            self.held += end - start

    def on_end(self) -> None:
        self.whole = True


def _name(name: bytes) -> str:
    """A client's name of a file as a short line."""
    return printable(name.decode(errors="replace")[:LONGEST_NAME], "\ufffd")


async def receive(
    content_type: str, content_length: str, incoming: Receive, folder: Path, limits: ServeLimits, share: Share
) -> list[Upload]:
    """The files of a request, at least one file; files too large have an `error`. Their bytes on disk count
    on the caller's share.

    Args:
        content_type: The header.
        content_length: The header, or nothing.
        incoming: Of ASGI.
        folder: An empty folder.

    Raises:
        UserError: `bad-usage`, `too-large`, `upload-timeout`, `server-busy`, `disk-full`.
        Left: The client went away.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise UserError("bad-usage", "cannot use the request", "its body is not multipart/form-data", RESEND)
    if content_length.isdecimal() and int(content_length) > limits.max_request_bytes:
        raise _too_large(limits)
    body = _Body(folder, limits)
    try:
        parser = MultipartParser(options[b"boundary"], {name: getattr(body, name) for name in CALLBACKS})  # type: ignore[arg-type]
        async for piece in _pieces(incoming, limits):
            parser.write(piece)
            if body.held >= WRITE_BYTES:
                await _write(body, share)
        parser.finalize()
        await _write(body, share)
    except FormParserError as error:
        raise UserError(
            "bad-usage", "cannot use the request", "its body is not well-formed multipart/form-data", RESEND
        ) from error
    if not body.whole or not body.uploads:
        raise UserError(
            "bad-usage",
            "cannot use the request",
            "its body breaks off" if body.uploads else "there is no file in it",
            RESEND,
        )
    return body.uploads


async def _pieces(incoming: Receive, limits: ServeLimits) -> AsyncIterator[bytes]:
    """The body as it arrives, while it does so fast enough."""
    begun = time.monotonic()
    size = 0
    more = True
    while more:
        left = begun + limits.upload_grace + size / limits.min_upload_rate - time.monotonic()
        try:
            async with asyncio.timeout(min(left, limits.upload_grace)):  # fast bytes earn no silence
                message = await incoming()
        except TimeoutError:
            cause = (
                f"its body arrives slower than {limits.min_upload_rate} bytes a second, or paused for "
                f"{limits.upload_grace:g} s"
            )
            raise UserError(
                "upload-timeout", "cannot use the request", cause, "use a faster connection, or send less"
            ) from None
        if message["type"] == "http.disconnect":
            raise Left
        piece = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(piece)
        if size > limits.max_request_bytes:
            raise _too_large(limits)
        yield piece


async def _write(body: _Body, share: Share) -> None:
    """Brings to disk what the parser found."""
    pending = body.pending
    body.pending = []
    share.take(body.held)
    body.held = 0
    if pending:
        await asyncio.to_thread(_append, pending)


def _append(pending: list[tuple[Upload, bytes]]) -> None:
    for upload, data in pending:
        if upload.error:
            upload.path.unlink(missing_ok=True)
            continue
        with upload.path.open("ab") as file:
            file.write(data)


def _too_large(limits: ServeLimits) -> UserError:
    return UserError(
        "too-large",
        "cannot use the request",
        f"its body is larger than {limits.max_request_bytes} bytes",
        "send fewer or shorter files at once",
    )
