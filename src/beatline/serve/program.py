"""the application -> a program that listens, within limits that HTTP knows nothing of, and stops when it is
told to.

In: SIGTERM, connections. Out: an exit code. Connections that say nothing, or do not take what they asked for,
are closed. After SIGTERM running requests are served to their end.
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

from beatline.core.errors import UserError
from beatline.core.limits import ServeLimits
from beatline.serve.service import Service

# Of an answer that the system keeps for a client, twice that on Linux. The rest stays with us, where we see
# how fast it is taken.
KERNEL_BYTES = 65_536
# that a client has taken, at least, between the two calls of a transport: three quarters of asyncio's 64 kB
TAKEN_BYTES = 49_152
TICKS_A_SECOND = 10
SPARE_FILES = 256  # that may be open besides connections
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CUT_SECONDS = 2.0  # that requests may take to end once they are told to


class Connection(H11Protocol):
    """A connection: since when it is quiet, and how long the server has waited for its client to read."""

    quiet_since = behind_since = 0.0
    waited = 0.0  # seconds before `behind_since`
    taken = 0  # bytes that were taken in these seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.quiet_since = self.behind_since = time.monotonic()
        if len(self.connections) > self.config.app.state.service.limits.max_connections:  # type: ignore[union-attr]
            transport.write(FULL)
            transport.close()

    def pause_writing(self) -> None:
        """As the transport calls it, when there is more for its client than it will hold."""
        super().pause_writing()
        self.behind_since = time.monotonic()

    def resume_writing(self) -> None:
        """As the transport calls it, when its client has taken nearly all of that."""
        super().resume_writing()
        now = time.monotonic()
        self.waited = self.waited + now - self.behind_since
        self.taken += TAKEN_BYTES
        self.behind_since = now

    @property
    def unsent(self) -> int:
        """Bytes that its client has not taken."""
        return self.transport.get_write_buffer_size()

    def look(self, now: float, limits: ServeLimits) -> None:
        """Closes the connection where its client is too slow. It may be slow to ask, to send what nobody
        waits for any more, or to take its answer.
        """
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.unsent:
            self.quiet_since = now
        if not (self.flow.write_paused if answering else self.unsent):
            self.behind_since = now
        behind = now - self.behind_since
        too_slow = (
            max(behind, self.waited + behind - self.taken / limits.min_answer_rate) > limits.answer_grace
        )
        if too_slow or now - self.quiet_since > limits.upload_grace:
            self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn that looks after its connections, and that ends running requests before it stops listening.

    Args:
        app: Of `app.create_app`.
        host: Name or address to listen on.
        port: 0 takes a free port.

    Raises:
        OSError: The address cannot be used.
    """

    def __init__(self, app: FastAPI, host: str, port: int):
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._socket = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=self.config.backlog,
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)  # of its connections too
        self._service: Service = app.state.service
        self._stop_at = float("inf")
        address, number = self._socket.getsockname()[:2]
        self.address = f"http://{f'[{address}]' if ':' in address else address}:{number}"
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
                connection.look(now, self._service.limits)  # type: ignore[union-attr]
        if now > self._stop_at:
            self._service.cut()
        if self._service.stopping and (not self._busy or now > self._stop_at + CUT_SECONDS):
            self.should_exit = True
        return await super().on_tick(counter)

    @property
    def _busy(self) -> bool:
        """Whether somebody's answer is not made, or not taken."""
        return self._service.running > 0 or any(
            connection.unsent  # type: ignore[union-attr]
            for connection in self.server_state.connections
        )

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
        raise UserError(
            "bad-usage",
            f"cannot listen on {host}:{port}",
            error.strerror or str(error),
            "give another --host or --port",
        ) from error
    gc.collect()
    # What is there now stays. To look through it again and again takes a quarter of a second, in which nobody
    # is answered.
    gc.freeze()
    server.listen()
    return 0


def _allow_files(count: int) -> None:
    """Raises the number of files that may be open, as far as the machine lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard)
        )
