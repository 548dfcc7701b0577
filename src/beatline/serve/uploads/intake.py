"""A request that brings files, from its first byte to the end of its answer, whatever that says of them.

In: ASGI's `receive` and `send`, and what makes an answer of the files. Out: that answer, or the reason why
there is none. A client that leaves ends the work on its files, and gives back their room. Imports no torch.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from beatline.core.errors import UserError
from beatline.serve.service import Service, stopping
from beatline.serve.uploads import multipart
from beatline.serve.uploads.decoding import Decoded, decode
from beatline.serve.uploads.multipart import FIELD, Left, Upload
from beatline.serve.uploads.spool import Share

LOG = logging.getLogger("beatline.serve")
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "additionalProperties": False,
                "properties": {
                    FIELD: {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "audio of any form that libsndfile or FFmpeg reads",
                    }
                },
            },
            # not that anybody looks at what a part says of itself
            "encoding": {FIELD: {"contentType": "audio/*"}},
        }
    },
}
"""The body of such a request, for `/openapi.json`."""


class Intake:
    """The files of a request, and the way back to its client.

    Args:
        service: What the request shares with others.
        request_id: The name of the request.
        send: Of ASGI.
    """

    def __init__(self, service: Service, request_id: str, send: Send):
        self.service = service
        self.request_id = request_id
        self.files: list[Upload] = []
        self.share = Share(service.spool)
        self.begun = False
        """Whether the answer is on its way."""
        self._send = send

    async def start(self, status: int, kind: str, *more: tuple[bytes, bytes]) -> None:
        """Begins the answer: its status, its media type, more headers."""
        self.begun = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", kind.encode()), *more],
            }
        )

    async def send(self, body: bytes, more: bool) -> None:
        """Sends a piece of the answer, and says whether there is more of it."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def decode(self, upload: Upload) -> Decoded:
        """The samples of a file; the file itself is removed.

        Raises:
            UserError: As `decoding.decode`; `server-busy` where the samples do not fit beside other uploads.
        """
        if upload.error:
            raise upload.error
        begun = time.monotonic()
        decoded = await decode(self.service.decoders, upload.path, upload.name, self.service.limits)
        upload.path.unlink()
        try:
            self.share.take(decoded.bytes - upload.size)
        except UserError:
            decoded.path.unlink()
            raise
        self.service.metrics.decode_seconds.observe(time.monotonic() - begun)
        return decoded

    def not_stored(self, what: str, error: OSError) -> UserError:
        """What the client is told of a disk that is full or broken; the log has the rest."""
        LOG.error("request %s cannot be stored: %s", self.request_id, error)
        return UserError(
            "disk-full",
            f"cannot take {what}",
            "the server cannot store it",
            "try again later, or tell who runs the server",
        )


class FilesAnswer(Response):
    """The answer to a request that brings files, made while it is sent.

    Args:
        work: Sends the answer, once the files have arrived.

    Raises:
        UserError: When it is sent: why the request is refused as a whole; nothing was sent then.
    """

    def __init__(self, work: Callable[[Intake], Coroutine[Any, Any, None]]):
        super().__init__()
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service: Service = scope["app"].state.service
        intake = Intake(service, scope["state"]["request_id"], send)
        with service.run():
            try:
                await self._serve(intake, Headers(scope=scope), receive)
            except Left:
                LOG.debug("%s: the client went away", intake.request_id)
            except OSError as error:
                if intake.begun:
                    raise
                raise intake.not_stored("the upload", error) from error
            except asyncio.CancelledError:
                if not service.cutting:
                    raise
                if not intake.begun:
                    raise stopping() from None

    async def _serve(self, intake: Intake, headers: Headers, receive: Receive) -> None:
        service = intake.service
        with service.room() as folder, intake.share:
            with service.arriving():
                intake.files = await multipart.receive(
                    headers.get("content-type", ""),
                    headers.get("content-length", ""),
                    receive,
                    folder,
                    service.limits,
                    intake.share,
                )
            with service.queued(len(intake.files)):
                await _unless_left(receive, self._work(intake))


async def _unless_left(receive: Callable[[], Awaitable[Any]], work: Coroutine[Any, Any, None]) -> None:
    """Does the work, or ends it as soon as the client has gone.

    Raises:
        Left: The client has gone.
    """

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working = asyncio.create_task(work)
    leaving = asyncio.create_task(leave())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Left
        await working
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
