"""a tagger -> the application that uvicorn runs: routes, request ids, and what a client may see of an error.

In: HTTP. Out: what the routes answer, with an id and headers; errors as JSON. Each file in `routes` is an
endpoint.
"""

import logging
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beatline.core.errors import UserError, expect
from beatline.core.limits import SERVE_LIMITS, ServeLimits
from beatline.core.version import __version__
from beatline.serve import answers
from beatline.serve.routes import routers
from beatline.serve.service import Service
from beatline.tag.tagger import AudioTagger

LOG = logging.getLogger("beatline.serve")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SILENT: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
HEADERS = {  # of every answer
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri "
    "'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Guard:
    """Around everything: gives each request an id and each answer its headers, and keeps what went wrong
    inside.

    Args:
        app: What it is around.
        service: Counts the answers, and turns requests away where there is no room.
    """

    def __init__(self, app: ASGIApp, service: Service):
        self._app = app
        self._service = service

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
                self._service.metrics.requests.labels(str(message["status"])).inc()
                own = {
                    name.lower().encode(): value.encode()
                    for name, value in (HEADERS | {"X-Request-ID": request_id}).items()
                }
                message["headers"] = [*message["headers"], *own.items()]
            await send(message)

        try:
            if scope["method"] == "POST":  # an upload: most of a crowd are turned away cheaply
                self._service.admit()
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
    service.metrics.rejections.labels(error.code).inc()
    headers = {"Retry-After": str(service.retry_after)} if status in answers.PASSING else None
    return JSONResponse({"request_id": request_id, "error": answers.error_values(error)}, status, headers)


def create_app(
    tagger: AudioTagger, limits: ServeLimits = SERVE_LIMITS, routes: Sequence[APIRouter] = ()
) -> FastAPI:
    """The application; its `state.service` is the `Service`.

    Args:
        tagger: What tags.
        limits: What clients may cost.
        routes: Endpoints beside those in the folder `routes`.
    """
    expect(tagger, AudioTagger, "tagger", "give what beatline.load returns")
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
    for router in (*routers(), *routes):
        app.include_router(router)

    def refuse(request: Request, error: UserError, status: int | None = None) -> JSONResponse:
        return refusal(service, request.state.request_id, error, status)

    @app.exception_handler(UserError)
    async def user_error(request: Request, error: UserError) -> JSONResponse:
        return refuse(request, error)

    @app.exception_handler(RequestValidationError)
    async def not_valid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"])
        return refuse(
            request,
            UserError(
                "bad-usage", f"cannot use {where}", first["msg"], "/openapi.json describes what can be asked"
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

    return app
