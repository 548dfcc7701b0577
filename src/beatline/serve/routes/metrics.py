"""`/metrics`: what was counted."""

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from beatline.serve.routes import service_of

router = APIRouter()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """What was counted, for Prometheus."""
    text = service_of(request).metrics.text()
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")
