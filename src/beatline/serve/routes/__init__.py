"""In: a request. Out: its answer. Each file here is an endpoint: its `router` is part of every application.

Begin with `health`, the shortest. What routes share comes from `service_of`; a route that takes files answers
with `uploads.intake.FilesAnswer`.
"""

import pkgutil
from importlib import import_module

from fastapi import APIRouter, Request

from beatline.serve.service import Service


def routers() -> list[APIRouter]:
    """The router of each file in this folder."""
    return [import_module(f"{__name__}.{found.name}").router for found in pkgutil.iter_modules(__path__)]


def service_of(request: Request) -> Service:
    """What all requests of the application share."""
    return request.app.state.service
