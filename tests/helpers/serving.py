"""A running server of the tiny tagger, and a client that asks it over real connections."""

import contextlib
import http.client
import io
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import soundfile
from fastapi import APIRouter

from beatline.core.labels import Label, LabelSet
from beatline.core.limits import ServeLimits
from beatline.model.engines.pytorch import TorchEngine
from beatline.serve import app as apps
from beatline.serve.program import Server
from beatline.tag.tagger import AudioTagger
from tests.helpers.models import make_tagger
from tests.helpers.processes import children, until

LABELS = LabelSet((Label("/m/05tny_", "Bark"), Label("/m/06mb1", "Rain"), Label("hum", "Hum")))
LIMITS = ServeLimits(
    max_file_bytes=4 << 20,
    max_request_bytes=8 << 20,
    max_files=4,
    max_seconds=40,
    upload_grace=1.5,
    max_wait=20.0,
)


def wav(seconds: float, seed: int = 0, rate: int = 16_000) -> bytes:
    out = io.BytesIO()
    soundfile.write(
        out, 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate)), rate, format="WAV"
    )
    return out.getvalue()


SHORT, LONG = wav(0.7), wav(5.3, 1)


class SlowEngine(TorchEngine):
    """A tagger that takes its time, so that others come meanwhile."""

    seconds = 0.0

    def run_pass(self, waveforms, lengths, names):
        time.sleep(self.seconds)
        return super().run_pass(waveforms, lengths, names)


@contextlib.contextmanager
def serving(
    limits: ServeLimits = LIMITS,
    seconds: float = 0.0,
    window: float = 1.0,
    tagger: AudioTagger | None = None,
    routes: Sequence[APIRouter] = (),
) -> Iterator["Client"]:
    engine, before = SlowEngine(make_tagger(), LABELS), set(children())
    server = Server(
        apps.create_app(tagger or AudioTagger(engine, window, window / 2), limits, routes), "127.0.0.1", 0
    )
    thread = threading.Thread(target=server.listen)
    thread.start()
    client = Client(server)
    try:
        until(lambda: server.started and client.get("/readyz")[0] == 200)
        engine.seconds = seconds
        yield client
    finally:
        server.handle_exit(signal.SIGTERM, None)
        server.handle_exit(signal.SIGTERM, None)
        thread.join(20)
    assert not thread.is_alive() and set(children()) <= before


class Client:
    """Asks a server, each time on a connection of its own."""

    def __init__(self, server: Server):
        self.server, self.service = server, server.config.app.state.service

    @property
    def place(self) -> tuple[str, int]:
        parts = urlsplit(self.server.address)
        return parts.hostname or "", parts.port or 0

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(*self.place, timeout=30)
        try:
            connection.request(
                method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
            )
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return self.ask("GET", path, **headers)

    def tag(
        self, *files: tuple[str, bytes], query: str = "", **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        status, got, body = self.ask(
            "POST",
            f"/v1/tag?{query}",
            form(*files),
            Content_Type="multipart/form-data; boundary=limit",
            **headers,
        )
        lines = [json.loads(line) for line in body.splitlines()]
        return status, got, lines if "ndjson" in got["content-type"] else lines[0]

    def raw(self, content: bytes = b"") -> socket.socket:
        link = socket.create_connection(self.place, timeout=20)
        link.sendall(content)
        return link


def form(*files: tuple[str, bytes], field: str = "files") -> bytes:
    parts = [
        b'--limit\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\nContent-Type: '
        b"audio/x\r\n\r\n%s\r\n" % (field.encode(), name.encode(), content)
        for name, content in files
    ]
    return b"".join(parts) + b"--limit--\r\n"


def head(length: int, more: str = "") -> bytes:
    return (
        f"POST /v1/tag HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; "
        f"boundary=limit\r\nContent-Length: {length}\r\n{more}\r\n"
    ).encode()
