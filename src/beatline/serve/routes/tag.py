"""`/v1/tag`: files in, labels out."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from beatline.serve import answers
from beatline.serve.answers import Answer, Refusal, Wanted
from beatline.serve.routes import service_of
from beatline.serve.tagging import LINES, Tagging
from beatline.serve.uploads.intake import BODY, FilesAnswer
from beatline.tag.events import EventOptions

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

router = APIRouter()


@router.post(
    "/v1/tag",
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
            description="least score of a label (0), and of an event somewhere in it (the calibration's, or "
            "0.5)",
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
    chosen = answers.chosen(service_of(request).tagger.labels, labels or [])
    options = EventOptions(threshold=threshold) if events else None
    wanted = Wanted(top, threshold or 0.0, chosen, timeline, options)
    in_lines = LINES in request.headers.get("accept", "")
    return FilesAnswer(lambda intake: Tagging(intake, wanted, in_lines).answer())
