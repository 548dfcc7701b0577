"""the application -> a program that listens, within limits that HTTP knows nothing of, and stops when it is told to.

In: SIGTERM, connections. Out: an exit code. Connections that say nothing, or do not take what they asked for, are closed; after SIGTERM running requests
are served to their end.
"""

import asyncio
import gc
import logging
import resource
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from beatline.errors import UserError
from beatline.serve.service import Service

STUCK_SECONDS = 30.0  # without a byte taken by a client that is to take some
TICKS_A_SECOND = 10
SPARE_FILES = 256  # that may be open besides connections
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CUT_SECONDS = 2.0  # that requests may take to end once they are told to


class Connection(H11Protocol):
    """One connection, and since when nothing has happened on it."""

    quiet_since = 0.0
    unsent, unsent_since = 0, 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.quiet_since = time.monotonic()
        if len(self.connections) > self.config.app.state.service.limits.max_connections:  # type: ignore[union-attr]
            transport.write(FULL)
            transport.close()

    def look(self, now: float, patience: float) -> None:
        """Closes the connection where its client is too slow to ask, to send what nobody waits for any more, or to take its answer."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.quiet_since = now
        unsent = self.transport.get_write_buffer_size()
        if unsent != self.unsent or not unsent:
            self.unsent, self.unsent_since = unsent, now
        if now - self.quiet_since > patience or now - self.unsent_since > STUCK_SECONDS:
            self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn that looks after its connections, and that ends running requests before it stops listening.

    Args:
        app: Of `app.create_app`.
        host: Name or address to listen on.
        port: 0 takes a free one.

    Raises:
        OSError: The address cannot be used.
    """

    def __init__(self, app: FastAPI, host: str, port: int):
        super().__init__(uvicorn.Config(app, http=Connection, ws="none", loop="asyncio", lifespan="on", log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=1))
        self._socket = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=self.config.backlog)
        self._service: Service = app.state.service
        self._stop_at = float("inf")
        place, number = self._socket.getsockname()[:2]
        self.address = f"http://{f'[{place}]' if ':' in place else place}:{number}"
        self._service.connections = lambda: len(self.server_state.connections)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets running requests end, the second does not."""
        now = time.monotonic()
        self._stop_at = now if self._service.stopping else now + self._service.limits.max_drain
        self._service.stopping = True

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's, ten times a second: whether to stop."""
        now = time.monotonic()
        if counter % TICKS_A_SECOND == 0:
            for connection in list(self.server_state.connections):
                connection.look(now, self._service.limits.upload_grace)  # type: ignore[union-attr]
        if now > self._stop_at:
            self._service.cut()
        if self._service.stopping and (not self._service.running or now > self._stop_at + CUT_SECONDS):
            self.should_exit = True
        return await super().on_tick(counter)

    def listen(self) -> None:
        """Serves until it is told to stop."""
        self.run([self._socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; says where it listens."""
        await super().startup(sockets)
        print(f"beatline: listening on {self.address}", flush=True)


def run(app: FastAPI, host: str, port: int) -> int:
    """Serves until SIGTERM or Ctrl-C, and the running requests to their end; the exit code.

    Args:
        app: Of `app.create_app`.
        host: As `Server`.
        port: As `Server`.

    Raises:
        UserError: `bad-usage` where the address cannot be used.
    """
    _allow_files(2 * app.state.service.limits.max_connections + SPARE_FILES)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("uvicorn", "python_multipart"):  # which warn of what strangers send
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        server = Server(app, host, port)
    except OSError as error:
        raise UserError("bad-usage", f"cannot listen on {host}:{port}", error.strerror or str(error), "give another --host or --port") from error
    gc.collect()
    gc.freeze()  # what is there now stays; to look through it again and again takes a quarter of a second, in which nobody is answered
    server.listen()
    return 0


def _allow_files(count: int) -> None:
    """Raises the number of files that may be open, as far as the machine lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard))
