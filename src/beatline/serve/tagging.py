"""The files of a request -> labels: decoded, scored, answered whole or line by line.

In: an `Intake` and what its client wants to know. Out: an answer, made as fast as the client takes it. A
client that leaves takes its files out of the model's queue. Imports no torch.
"""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

from beatline.audio.samples import SAMPLE_RATE
from beatline.core.errors import UserError
from beatline.serve import answers
from beatline.serve.answers import Wanted
from beatline.serve.batcher import Lane, Scored
from beatline.serve.service import stopping
from beatline.serve.uploads.intake import Intake
from beatline.serve.uploads.multipart import Upload
from beatline.tag.result import Result

LOG = logging.getLogger("beatline.serve")
LINES = "application/x-ndjson"
PIECE = 32_768  # characters of an answer made and sent at once


class Tagging:
    """The answer about the files of a request.

    Args:
        intake: The files.
        wanted: What their client asked for.
        in_lines: Whether the client takes lines of JSON as they are made.
    """

    def __init__(self, intake: Intake, wanted: Wanted, in_lines: bool):
        self._intake = intake
        self._service = intake.service
        self._wanted = wanted
        self._in_lines = in_lines
        self._line = asyncio.Lock()  # held by the line that is being sent
        self._torn = False  # a line is not sent to its end

    async def answer(self) -> None:
        """Answers, whole or in lines."""
        await (self._lines() if self._in_lines else self._whole())

    async def _whole(self) -> None:
        """Answers when all files are done."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._file(upload)) for upload in self._intake.files]
        results = [task.result() for task in tasks]
        status = answers.status_of_all(
            [result["error"]["code"] if "error" in result else "" for result in results]
        )
        pieces = _pieces({"request_id": self._intake.request_id, "results": iter(results)})
        first, more = await asyncio.to_thread(next, pieces)
        facts = [] if more else [(b"content-length", b"%d" % len(first))]
        if status in answers.PASSING:
            facts.append((b"retry-after", b"%d" % self._service.retry_after))
        await self._intake.start(status, "application/json", *facts)
        await self._intake.send(first, more)
        while more:
            piece, more = await asyncio.to_thread(next, pieces)
            await self._intake.send(piece, more)

    async def _lines(self) -> None:
        """Answers line by line: windows as they are scored, a result as a file is done."""
        await self._intake.start(200, LINES)

        async def file(upload: Upload) -> None:
            try:
                result = await self._file(upload)
            except asyncio.CancelledError:
                if not self._service.cutting:
                    raise
                result = {"file": upload.name, "error": answers.error_values(stopping())}
            except Exception:
                LOG.exception("request %s failed", self._intake.request_id)
                result = {"file": upload.name, "error": answers.mistake(self._intake.request_id)}
            await self._emit({"type": "result"} | result)

        async with asyncio.TaskGroup() as group:
            for upload in self._intake.files:
                group.create_task(file(upload))
        await self._intake.send(b"", False)

    async def _emit(self, line: dict[str, Any]) -> None:
        async with self._line:
            pieces = _pieces(line, "\n")
            more = not self._torn
            while more:
                piece, more = await asyncio.to_thread(next, pieces)
                await self._intake.send(piece, True)
                self._torn = more

    async def _file(self, upload: Upload) -> dict[str, Any]:
        """What the model says of a file, or why nothing, as `answers.Result`."""
        outcome = "left"
        metrics = self._service.metrics
        try:
            tagged = await self._score(upload)
            values = await asyncio.to_thread(answers.result, tagged, self._wanted)
            metrics.audio.inc(tagged.seconds)
            outcome = "tagged"
            return values
        except (UserError, OSError) as error:
            refused = error if isinstance(error, UserError) else self._intake.not_stored(upload.name, error)
            outcome = refused.code
            return {"file": upload.name, "error": answers.error_values(refused)}
        finally:
            metrics.files.labels(outcome).inc()

    async def _score(self, upload: Upload) -> Result:
        """What the model says of a file.

        Raises:
            UserError: What is wrong with the file; `server-busy` where its turn does not come in time.
        """
        service = self._service
        events = self._wanted.events
        recording = service.tagger.recording(upload.name, events)
        try:
            async with asyncio.timeout(service.limits.max_wait) as patience:
                decoded = await self._intake.decode(upload)
                lane = Lane(
                    decoded.windows(service.window, service.hop),
                    decoded.count(service.window, service.hop),
                    min(decoded.samples, service.window),
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
        recording.samples = decoded.samples
        recording.note = decoded.note
        return await asyncio.to_thread(recording.result)

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
    """The JSON of a value in pieces of about `PIECE` characters, each with whether more follow."""
    piece: list[str] = []
    size = 0
    for text in answers.encoded(value):
        if size >= PIECE:
            yield "".join(piece).encode(), True
            piece = []
            size = 0
        piece.append(text)
        size += len(text)
    yield "".join((*piece, end)).encode(), False
