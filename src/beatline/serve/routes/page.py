"""`/` and `/page/...`: the page for browsers, as its files lie in `serve/page`."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException

PAGE = Path(__file__).parents[1] / "page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index() -> Response:
    """The page itself."""
    return file("index.html")


@router.get("/page/{name}")
async def page(name: str) -> Response:
    """What the page asks for."""
    return file(name)


def file(name: str) -> Response:
    """A file of the page; a name that is none of its files is not found, whatever it looks like."""
    path = {path.name: path for path in PAGE.iterdir()}.get(name)
    if path is None or path.suffix not in KINDS:
        raise HTTPException(404)
    return FileResponse(path, media_type=KINDS[path.suffix])
