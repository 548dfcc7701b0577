"""Clients of a server on this machine, for `serve_load` and `serve_fuzz`: the server as a process of its own,
many clients at once, slow ones, and a probe.

Everything goes to 127.0.0.1 and ends after a given time. Clients and probe are programs of their own, which
print what they saw as JSON, so that neither waits for the other's interpreter: `python
benchmarks/serve_clients.py ROLE PORT SECONDS ...`.
"""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

PROBE_EVERY = 0.05  # seconds
TRICKLE_EVERY = 0.5
PATIENCE = 90.0  # for an answer
BOUNDARY = "beatline"


def form(name: str, content: bytes) -> bytes:
    """A body of one file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    return head + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def head(length: int, accept: str = "*/*") -> bytes:
    """What comes before a body of so many bytes."""
    return (
        f"POST /v1/tag HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\nContent-Type: "
        f"multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


# ------------------------------------------------------------------ the server


def write_model(folder: Path, size: str) -> Path:
    """A model folder with random weights and AudioSet's labels: `small` as `conf/mini.yaml` has it, or BEATs
    `base`.
    """
    import torch

    from beatline import load_config
    from beatline.config import EncoderConfig
    from beatline.core.labels import audioset
    from beatline.model.checkpoints.own import save
    from beatline.model.tagger import Tagger, initialise_tagger

    encoder = EncoderConfig() if size == "base" else load_config("mini", []).model.encoder
    save(
        folder,
        initialise_tagger(Tagger(encoder, len(audioset())), torch.Generator().manual_seed(0)).eval(),
        audioset(),
        {},
    )
    return folder


def command(model: Path) -> list[str]:
    """`beatline serve` on a free port."""
    return [sys.executable, "-m", "beatline", "serve", "--model", str(model), "--port", "0"]


@contextlib.contextmanager
def served(program: list[str], log: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server as a process, and its port, once it is ready; at the end it drains, or the block fails.

    Args:
        program: Its command; it prints where it listens, as `beatline serve` does.
        log: Takes what it says of errors.
    """
    with (
        log.open("w") as errors,
        subprocess.Popen(program, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)", server.stdout.readline())
            if found is None:
                raise RuntimeError(f"the server did not start:\n{log.read_text()}")
            port, deadline = int(found[1]), time.monotonic() + 120
            while get(port, "/readyz")[0] != 200:
                if time.monotonic() > deadline:
                    raise RuntimeError("the server did not become ready")
                time.sleep(0.05)
            yield server, port
            server.terminate()
            if server.wait(60) != 0:
                raise RuntimeError(f"the server ended with {server.returncode}:\n{log.read_text()}")
        finally:
            server.kill()


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of an address, on a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post(port: int, name: str, content: bytes) -> tuple[int, dict[str, Any]]:
    """Status and answer for one file, on a connection of its own."""
    body = form(name, content)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as link:
        link.sendall(head(len(body)) + body)
        answer = HTTPResponse(link, method="POST")
        answer.begin()
        return answer.status, json.loads(answer.read())


# ------------------------------------------------------------------ many clients


def start(role: str, port: int, seconds: float, *more: str) -> "subprocess.Popen[str]":
    """A role of this file as a process; `said` waits for what it says."""
    return subprocess.Popen(
        [sys.executable, __file__, role, str(port), str(seconds), *more], stdout=subprocess.PIPE, text=True
    )


def said(program: "subprocess.Popen[str]") -> Any:
    """What it printed when it was done."""
    text, _ = program.communicate()
    if program.returncode:
        raise RuntimeError(f"clients ended with {program.returncode}")
    return json.loads(text)


async def crowd(port: int, seconds: float, count: int, files: list[Path]) -> dict[str, Any]:
    """So many clients for so long, each with one file at a time on a connection of its own; one that is
    turned away comes again after Retry-After.

    Returns: `asked` (seconds since the start, seconds for the answer, status of each request), `tags` (the
    different answers to each file, as mids and scores), `trouble`.
    """
    bodies = {path.name: form(path.name, path.read_bytes()) for path in files}
    names, begun = list(bodies), time.monotonic()
    asked: list[tuple[float, float, int]] = []
    tags: dict[str, set[tuple[tuple[str, float], ...]]] = {name: set() for name in names}
    trouble: list[str] = []

    async def client(number: int) -> None:
        turn = number
        await asyncio.sleep(number / count)  # not all in one moment
        while time.monotonic() - begun < seconds:
            name, wait = names[turn % len(names)], 0.0
            turn += 1
            sent = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head(len(bodies[name])) + bodies[name])
                status, headers, body = await asyncio.wait_for(answer_of(reader), PATIENCE)
                writer.close()
            except (OSError, EOFError, TimeoutError) as error:
                trouble.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(1.0)
                continue
            asked.append((sent - begun, time.monotonic() - sent, status))
            if status == 200:
                tags[name].add(
                    tuple((tag["mid"], tag["score"]) for tag in json.loads(body)["results"][0]["tags"])
                )
            elif status in (429, 503) and "retry-after" in headers:
                wait = float(headers["retry-after"])
            else:
                trouble.append(f"{status} {body[:200]!r}")
            await asyncio.sleep(wait)

    await asyncio.gather(*map(client, range(count)))
    return {"asked": asked, "tags": {name: sorted(found) for name, found in tags.items()}, "trouble": trouble}


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer of known length."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def slow(port: int, seconds: float, count: int) -> dict[str, Any]:
    """So many clients, half of which send a body by a byte twice a second, half a head; each comes again when
    it is cut.
    """
    begun, cut = time.monotonic(), 0

    async def client(number: int) -> None:
        nonlocal cut
        while time.monotonic() - begun < seconds:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=16)
                if number % 2 == 0:
                    writer.write(head(1_000_000))
                while time.monotonic() - begun < seconds and not reader.at_eof():
                    writer.write(b"x")
                    await asyncio.sleep(TRICKLE_EVERY)
                cut += reader.at_eof()
                writer.close()
            except OSError:
                cut += 1
            await asyncio.sleep(0.1)

    await asyncio.gather(*map(client, range(count)))
    return {"cut": cut}


def probe(port: int, seconds: float, path: str) -> list[float]:
    """How long an address takes to answer 200 on a new connection, asked twenty times a second, seconds
    each.
    """
    begun, found = time.monotonic(), []
    while (now := time.monotonic()) - begun < seconds:
        status, _ = get(port, path)
        assert status == 200, status
        found.append(time.monotonic() - now)
        time.sleep(max(0.0, PROBE_EVERY - found[-1]))
    return found


def main() -> None:
    """Plays a role and prints what it saw."""
    role, port, seconds, *more = sys.argv[1:]
    if role == "crowd":
        print(
            json.dumps(
                asyncio.run(crowd(int(port), float(seconds), int(more[0]), sorted(Path(more[1]).iterdir())))
            )
        )
    elif role == "slow":
        print(json.dumps(asyncio.run(slow(int(port), float(seconds), int(more[0])))))
    else:
        print(json.dumps(probe(int(port), float(seconds), more[0])))


if __name__ == "__main__":
    main()
