"""a request for tags, from its first byte to its last: received, decoded, scored, answered.

In: ASGI's `receive` and `send`. Out: an answer, whole or line by line, made as fast as its client takes it. A
client that leaves takes its files out of every queue. Imports no torch.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from beatline.audio.samples import SAMPLE_RATE
from beatline.core.errors import UserError
from beatline.serve import answers, uploads
from beatline.serve.answers import Wanted
from beatline.serve.batcher import Lane, Scored
from beatline.serve.decoding import Decoded, decode
from beatline.serve.service import Service, stopping
from beatline.serve.spool import Share
from beatline.serve.uploads import Left, Receive, Upload
from beatline.tag.result import Tagged

LOG = logging.getLogger("beatline.serve")
LINES = "application/x-ndjson"
PIECE = 32_768  # characters of an answer made and sent at once
Send = Callable[[Any], Awaitable[None]]


class TagRequest:
    """One request.

    Args:
        service: What it shares with others.
        request_id: How it is called.
        headers: By their names, in any case.
        wanted: What its client asked for.
        send: Of ASGI.
    """

    def __init__(self, service: Service, request_id: str, headers: Any, wanted: Wanted, send: Send):
        self._service, self._id, self._headers, self._wanted, self._send = (
            service,
            request_id,
            headers,
            wanted,
            send,
        )
        self._in_lines = LINES in headers.get("accept", "")
        self._share = Share(service.spool)
        self._begun = False  # the answer
        self._line = asyncio.Lock()  # held by the line that is being sent
        self._torn = False  # it is not sent to its end

    async def serve(self, receive: Receive) -> None:
        """Answers.

        Raises:
            UserError: Why the request is refused as a whole; nothing was sent then.
        """
        with self._service.run():
            try:
                with self._service.room() as folder, self._share:
                    with self._service.arriving():
                        sent = await uploads.receive(
                            self._headers.get("content-type", ""),
                            self._headers.get("content-length", ""),
                            receive,
                            folder,
                            self._service.limits,
                            self._share,
                        )
                    with self._service.queued(len(sent)):
                        await _unless_left(
                            receive, self._lines(sent) if self._in_lines else self._whole(sent)
                        )
            except Left:
                LOG.debug("%s: the client went away", self._id)
            except OSError as error:
                if self._begun:
                    raise
                raise self._not_stored("the upload", error) from error
            except asyncio.CancelledError:
                if not self._service.cutting:
                    raise
                if not self._begun:
                    raise stopping() from None

    def _not_stored(self, what: str, error: OSError) -> UserError:
        """What the client is told of a disk that is full or broken; the log has the rest."""
        LOG.error("request %s cannot be stored: %s", self._id, error)
        return UserError(
            "disk-full",
            f"cannot take {what}",
            "the server cannot store it",
            "try again later, or tell who runs the server",
        )

    async def _start(self, status: int, kind: str, *more: tuple[bytes, bytes]) -> None:
        self._begun = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", kind.encode()), *more],
            }
        )

    async def _whole(self, sent: list[Upload]) -> None:
        """Answers when all files are done."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._file(upload)) for upload in sent]
        results = [task.result() for task in tasks]
        status = answers.status_of_all(
            [result["error"]["code"] if "error" in result else "" for result in results]
        )
        pieces = _pieces({"request_id": self._id, "results": iter(results)})
        first, more = await asyncio.to_thread(next, pieces)
        facts = [] if more else [(b"content-length", b"%d" % len(first))]
        if status in answers.PASSING:
            facts.append((b"retry-after", b"%d" % self._service.retry_after))
        await self._start(status, "application/json", *facts)
        await self._send({"type": "http.response.body", "body": first, "more_body": more})
        while more:
            piece, more = await asyncio.to_thread(next, pieces)
            await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _lines(self, sent: list[Upload]) -> None:
        """Answers line by line: windows as they are scored, a result as a file is done."""
        await self._start(200, LINES)

        async def file(upload: Upload) -> None:
            try:
                result = await self._file(upload)
            except asyncio.CancelledError:
                if not self._service.cutting:
                    raise
                result = {"file": upload.name, "error": answers.error_values(stopping())}
            except Exception:
                LOG.exception("request %s failed", self._id)
                result = {"file": upload.name, "error": answers.mistake(self._id)}
            await self._emit({"type": "result"} | result)

        async with asyncio.TaskGroup() as group:
            for upload in sent:
                group.create_task(file(upload))
        await self._send({"type": "http.response.body", "body": b""})

    async def _emit(self, line: dict[str, Any]) -> None:
        async with self._line:
            pieces, more = _pieces(line, "\n"), not self._torn
            while more:
                piece, more = await asyncio.to_thread(next, pieces)
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                self._torn = more

    async def _file(self, upload: Upload) -> dict[str, Any]:
        """What the model says of a file, or why nothing, as `answers.Result`."""
        outcome, metrics = "left", self._service.metrics
        try:
            tagged = await self._score(upload)
            values = await asyncio.to_thread(answers.result, tagged, self._wanted)
            metrics.audio.add(amount=tagged.seconds)
            outcome = "tagged"
            return values
        except (UserError, OSError) as error:
            refused = error if isinstance(error, UserError) else self._not_stored(upload.name, error)
            outcome = refused.code
            return {"file": upload.name, "error": answers.error_values(refused)}
        finally:
            metrics.files.add(outcome)

    async def _score(self, upload: Upload) -> Tagged:
        """What the model says of a file.

        Raises:
            UserError: What is wrong with it; `server-busy` where its turn does not come in time.
        """
        service, events = self._service, self._wanted.events
        recording = service.tagger.recording(upload.name, events)
        try:
            async with asyncio.timeout(service.limits.max_wait) as patience:
                decoded = await self._decode(upload)
                count, length = (
                    decoded.count(service.window, service.hop),
                    min(decoded.samples, service.window),
                )
                lane = Lane(
                    decoded.windows(service.window, service.hop),
                    count,
                    length,
                    events is not None and events.level == "steps",
                )
                service.batcher.add(lane)
                try:
                    async for part in lane:
                        patience.reschedule(None)
                        await asyncio.to_thread(
                            recording.take, part.begin, part.length, part.outputs, part.row
                        )
                        recording.taken += 1
                        if self._in_lines:
                            await self._emit(self._window(upload, part))
                finally:
                    service.batcher.drop(lane)
        except TimeoutError:
            raise UserError(
                "server-busy",
                f"cannot use {upload.name}",
                f"its turn did not come within {service.limits.max_wait:g} s",
                "try again later",
            ) from None
        recording.samples, recording.note = decoded.samples, decoded.note
        return await asyncio.to_thread(recording.result)

    async def _decode(self, upload: Upload) -> Decoded:
        if upload.error:
            raise upload.error
        begun = time.monotonic()
        decoded = await decode(self._service.decoders, upload.path, upload.name, self._service.limits)
        upload.path.unlink()
        try:
            self._share.take(decoded.bytes - upload.size)
        except UserError:
            decoded.path.unlink()
            raise
        self._service.metrics.decode_seconds.add(time.monotonic() - begun)
        return decoded

    def _window(self, upload: Upload, part: Scored) -> dict[str, Any]:
        """The line for a window."""
        tagger = self._service.tagger
        scores = tagger.raised(tagger.window_scores(part.outputs, part.row))
        best = answers.tags(answers.best(tagger.labels, scores, self._wanted))
        return {
            "type": "window",
            "file": upload.name,
            "start": part.begin / SAMPLE_RATE,
            "end": (part.begin + part.length) / SAMPLE_RATE,
            "tags": best,
        }


def _pieces(value: Any, end: str = "") -> Iterator[tuple[bytes, bool]]:
    """The JSON of a value in pieces that are small beside what all of an answer may be, each with whether
    there are more.
    """
    piece: list[str] = []
    size = 0
    for text in answers.encoded(value):
        if size >= PIECE:
            yield "".join(piece).encode(), True
            piece, size = [], 0
        piece.append(text)
        size += len(text)
    yield "".join((*piece, end)).encode(), False


async def _unless_left(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Does the work, or ends it as soon as the client has gone.

    Raises:
        Left: It has.
    """

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(leave())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Left
        await working
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
