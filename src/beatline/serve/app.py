"""a tagger -> the application that uvicorn runs: addresses, documents, request ids, and what a client may see
of an error.

In: HTTP. Out: JSON, lines of JSON, Prometheus' text, the page. The work is in `service`.
"""

import logging
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.telemetry import TelemetryConfig
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beatline.core.errors import UserError
from beatline.core.limits import SERVE_LIMITS, ServeLimits
from beatline.core.version import __version__
from beatline.serve import answers
from beatline.serve.answers import Answer, Labels, Refusal, State, Wanted
from beatline.serve.request import LINES, TagRequest
from beatline.serve.service import Service
from beatline.tag.events import EventOptions
from beatline.tag.tagger import AudioTagger

LOG = logging.getLogger("beatline.serve")
PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
TAGGING = ("POST", "/v1/tag")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SILENT: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
HEADERS = {  # of every answer
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri "
    "'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "additionalProperties": False,
                "properties": {
                    "files": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "audio of any form that libsndfile or FFmpeg reads",
                    }
                },
            },
            "encoding": {
                "files": {"contentType": "audio/*"}
            },  # not that anybody looks at what a part says of itself
        }
    },
}
REFUSED: dict[int | str, dict[str, Any]] = {
    status: {
        "model": Refusal | Answer if status in (413, 415, 422, 429, 503) else Refusal,
        "description": text,
    }
    for status, text in {
        400: "Not HTTP as it should be",
        408: "The body arrived too slowly",
        413: "Too large, or too long",
        415: "Not audio that can be read",
        422: "The request, or all of its files, cannot be used",
        429: "Too much to do; Retry-After says when to try again",
        500: "A mistake of the server, logged under the request's id",
        503: "Stopping, or out of disk; Retry-After says when to try again",
    }.items()
}


class Tagging(Response):
    """The answer to a request for tags, which is made while it is sent."""

    def __init__(self, service: Service, request: Request, wanted: Wanted):
        super().__init__()
        self._service, self._request, self._wanted = service, request, wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await TagRequest(
            self._service, scope["state"]["request_id"], self._request.headers, self._wanted, send
        ).serve(receive)


class Guard:
    """Around everything: gives each request an id and each answer its headers, and keeps what went wrong
    inside.

    Args:
        app: What it is around.
        service: Counts the answers, and turns requests away where there is no room.
    """

    def __init__(self, app: ASGIApp, service: Service):
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._service.metrics.requests.add(str(message["status"]))
                own = {
                    name.lower().encode(): value.encode()
                    for name, value in (HEADERS | {"X-Request-ID": request_id}).items()
                }
                message["headers"] = [*message["headers"], *own.items()]
            await send(message)

        try:
            if (scope["method"], scope["path"]) == TAGGING:
                self._service.admit()  # of many at once, most are turned away: as cheaply as can be
            await self._app(scope, receive, answer)
        except UserError as error:
            await refusal(self._service, request_id, error)(scope, receive, answer)
        except Exception:
            LOG.exception("request %s failed", request_id)
            if begun:
                raise  # uvicorn closes the connection: what was sent is not taken for whole
            await JSONResponse({"request_id": request_id, "error": answers.mistake(request_id)}, 500)(
                scope, receive, answer
            )


def refusal(service: Service, request_id: str, error: UserError, status: int | None = None) -> JSONResponse:
    """The answer to a request that is not served, which is counted."""
    status = status or answers.status_of(error)
    service.metrics.rejections.add(error.code)
    headers = {"Retry-After": str(service.retry_after)} if status in answers.PASSING else None
    return JSONResponse({"request_id": request_id, "error": answers.error_values(error)}, status, headers)


def create_app(tagger: AudioTagger, limits: ServeLimits = SERVE_LIMITS) -> FastAPI:
    """The application; its `state.service` is the `Service`.

    Args:
        tagger: What tags.
        limits: What clients may cost.
    """
    service = Service(tagger, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.open():
            yield

    app = FastAPI(
        title="beatline",
        version=__version__,
        description="Audio in, labels out.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=SILENT,
    )
    app.state.service = service
    app.add_middleware(Guard, service=service)
    table = answers.label_table(tagger.labels)

    def refuse(request: Request, error: UserError, status: int | None = None) -> JSONResponse:
        return refusal(service, request.state.request_id, error, status)

    @app.exception_handler(UserError)
    async def user_error(request: Request, error: UserError) -> JSONResponse:
        return refuse(request, error)

    @app.exception_handler(RequestValidationError)
    async def not_valid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = " ".join(str(part) for part in first["loc"])
        return refuse(
            request,
            UserError(
                "bad-usage", f"cannot use {place}", first["msg"], "/openapi.json describes what can be asked"
            ),
        )

    @app.exception_handler(HTTPException)
    async def not_there(request: Request, error: HTTPException) -> JSONResponse:
        code = "missing-file" if error.status_code == 404 else "bad-usage"
        answer = refuse(
            request,
            UserError(
                code,
                f"cannot {request.method} this address",
                str(error.detail),
                "/openapi.json lists what there is",
            ),
            error.status_code,
        )
        answer.headers.update(error.headers or {})
        return answer

    @app.post(
        TAGGING[1],
        responses=REFUSED | {200: {"model": Answer, "content": {LINES: {"schema": {"type": "string"}}}}},
        openapi_extra={"requestBody": BODY},
    )
    async def tag(
        request: Request,
        top: Annotated[
            int, Query(ge=1, le=10_000, description="labels of each file, and of each window in lines")
        ] = 10,
        threshold: Annotated[
            float | None,
            Query(
                ge=0,
                le=1,
                description="least score of a label (0), and of an event somewhere in it (the "
                "calibration's, or 0.5)",
            ),
        ] = None,
        labels: Annotated[
            list[Annotated[str, Field(json_schema_extra={"format": "label"})]] | None,
            Query(description="only these: names, mids, or branches of the ontology"),
        ] = None,
        timeline: Annotated[bool, Query(description="scores over time too")] = False,
        events: Annotated[bool, Query(description="onsets and offsets too")] = False,
    ) -> Response:
        """Tags audio files. With `Accept: application/x-ndjson` windows come as lines when they are scored,
        then a line for each file.
        """
        options = EventOptions(threshold=threshold) if events else None
        return Tagging(
            service,
            request,
            Wanted(top, threshold or 0.0, answers.chosen(tagger.labels, labels or []), timeline, options),
        )

    @app.get("/v1/labels", response_model=Labels)
    async def labels() -> Response:
        """The model's labels, and where in the ontology they are."""
        return JSONResponse(table)

    @app.get("/healthz", response_model=State)
    async def health() -> Response:
        """Whether the server lives."""
        return JSONResponse({"status": "ok"})

    @app.get(
        "/readyz",
        response_model=State,
        responses={503: {"model": State, "description": "Starting or stopping"}},
    )
    async def ready() -> Response:
        """Whether the server takes requests."""
        return JSONResponse({"status": service.state}, 200 if service.state == "ok" else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """What was counted, for Prometheus."""
        return PlainTextResponse(
            service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return _page("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        return _page(name)

    return app


def _page(name: str) -> Response:
    """A file of the page; a name that is none of its files is not found, whatever it looks like."""
    path = {path.name: path for path in PAGE.iterdir()}.get(name)
    if path is None or path.suffix not in KINDS:
        raise HTTPException(404)
    return FileResponse(path, media_type=KINDS[path.suffix])
