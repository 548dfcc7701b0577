"""A Hugging Face endpoint on loopback for the real client, with a cache of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beatline.fetch import checkpoints, http
from beatline.fetch import hub as client
from beatline.publish import upload
from tests.helpers.servers import TOKEN, Server

QUICK = http.Policy(tries=2, first_wait=0.001, longest_wait=0.01, timeout=5)


@contextmanager
def serving(place: Path, patch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The endpoint, and the client's settings for it, below a folder."""
    (place / "root/hub/models").mkdir(parents=True)
    server = Server(place / "root")
    for name, value in {
        "ENDPOINT": server.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(place / "cache"),
        "HF_TOKEN_PATH": str(place / "no-token"),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        patch.setattr(f"huggingface_hub.constants.{name}", value)
    patch.setattr(http, "POLICY", QUICK)
    for function in (upload.upload, client.cached, client.listing, checkpoints.locate):
        patch.setattr(
            function,
            "__defaults__",
            tuple(QUICK if isinstance(value, http.Policy) else value for value in function.__defaults__),
        )
    patch.setenv("HF_TOKEN", TOKEN)
    server.faults()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The endpoint; the working folder is the test's."""
    with serving(tmp_path, monkeypatch) as server:
        monkeypatch.chdir(tmp_path)
        yield server
