"""`/v1/labels`: what the model knows."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from beatline.serve.answers import Labels
from beatline.serve.routes import service_of

router = APIRouter()


@router.get("/v1/labels", response_model=Labels)
async def labels(request: Request) -> Response:
    """The model's labels, and where in the ontology they are."""
    return JSONResponse(service_of(request).label_table)
