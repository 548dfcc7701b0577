"""An endpoint from outside the package: a router, given to the application, is served like its own."""

import dataclasses
import json
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from beatline.serve import routes
from beatline.serve.routes import service_of
from beatline.serve.uploads.intake import BODY, FilesAnswer, Intake
from tests.helpers.processes import until
from tests.helpers.serving import LIMITS, SHORT, form, serving, wav

toys = APIRouter()


@toys.get("/toy")
async def toy(request: Request) -> dict[str, int]:
    """How many labels the model has."""
    return {"labels": len(service_of(request).tagger.labels)}


@toys.post("/lengths", openapi_extra={"requestBody": BODY})
async def lengths() -> Response:
    """How long each file is, in samples."""

    async def answer(intake: Intake) -> None:
        decoded = [await intake.decode(upload) for upload in intake.files]
        await intake.start(200, "application/json")
        await intake.send(json.dumps([one.samples for one in decoded]).encode(), more=False)

    return FilesAnswer(answer)


def test_a_route_from_outside_is_answered_and_described():
    with serving(routes=[toys]) as client:
        status, headers, body = client.get("/toy", X_Request_ID="mine")
        assert (status, json.loads(body), headers["x-request-id"]) == (200, {"labels": 3}, "mine")
        described = json.loads(client.get("/openapi.json")[2])["paths"]
        assert "/toy" in described and "/v1/tag" in described
        assert client.get("/metrics")[0] == client.get("/")[0] == 200


def test_a_route_from_outside_takes_files_within_the_same_limits():
    kind = {"Content_Type": "multipart/form-data; boundary=limit"}
    with serving(routes=[toys]) as client:
        both = form(("a.wav", SHORT), ("b.wav", wav(2.5)))
        status, _, body = client.ask("POST", "/lengths", both, **kind)
        assert (status, json.loads(body)) == (200, [11_200, 40_000])
        status, _, body = client.ask("POST", "/lengths", form(("x", b"words " * 9)), **kind)
        assert status == 415 and json.loads(body)["error"]["code"] == "not-audio"
        status, _, body = client.ask("POST", "/lengths", form(*[("x", SHORT)] * 5), **kind)
        assert status == 413 and json.loads(body)["error"]["code"] == "too-large"
        until(lambda: not client.service.running)
        assert not client.service.spool.used and not list(client.service.folder.iterdir())


def test_a_route_from_outside_is_turned_away_early_where_there_is_no_room():
    limits = dataclasses.replace(LIMITS, max_uploads=0)
    with serving(limits, routes=[toys]) as client:
        for path in ("/lengths", "/v1/tag"):
            status, _, body = client.ask("POST", path, form(("a.wav", SHORT)))
            assert status == 429 and json.loads(body)["error"]["code"] == "server-busy"


def test_the_registry_of_routes_is_the_folder():
    files = {path.stem for path in Path(routes.__file__).parent.glob("*.py")} - {"__init__"}
    assert {"tag", "labels", "health", "metrics", "page"} <= files and len(routes.routers()) == len(files)
