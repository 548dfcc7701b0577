"""`/healthz` and `/readyz`: whether the server lives, and whether it takes requests."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from beatline.serve.answers import State
from beatline.serve.routes import service_of

router = APIRouter()


@router.get("/healthz", response_model=State)
async def health() -> Response:
    """Whether the server lives."""
    return JSONResponse({"status": "ok"})


@router.get(
    "/readyz",
    response_model=State,
    responses={503: {"model": State, "description": "Starting or stopping"}},
)
async def ready(request: Request) -> Response:
    """Whether the server takes requests."""
    state = service_of(request).state
    return JSONResponse({"status": state}, 200 if state == "ok" else 503)
