"""A real Ray of two workers, and real servers of other file systems."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from beatline.core import ray as rays
from tests.helpers.processes import until


def processes(selected: Callable[[bytes], bool], by: str = "cmdline") -> list[int]:
    """Processes by command line, or by `environ`."""
    found = []
    for path in Path("/proc").glob(f"[0-9]*/{by}"):
        try:
            found += [int(path.parent.name)] if selected(path.read_bytes()) else []
        except OSError:  # it ended
            continue
    return found


def workers(work: bytes) -> list[int]:
    """Ray's processes that are at this work, by its function's name."""
    return processes(lambda line: line.startswith(b"ray::Map(" + work))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Ray as beatline starts it, kept for all tests of a file; in the end nothing of it is left."""
    home = (
        tmp_path_factory.getbasetemp() / "home"
    )  # where Ray writes its token, which a process reads once: the same for every file
    home.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.delenv("RAY_ADDRESS", raising=False)
        before = set(processes(lambda line: b"ray" in line))
        with rays.connected(2):
            mine = set(processes(lambda line: b"ray" in line)) - before
            yield mine
    gone(mine)


def gone(pids: set[int]) -> None:
    """Waits until these processes have ended."""
    deadline = time.monotonic() + 20
    while left := [
        pid
        for pid in pids
        if Path(f"/proc/{pid}").exists() and b"Z" not in Path(f"/proc/{pid}/stat").read_bytes().split()[2:3]
    ]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@contextmanager
def assassin(work: bytes) -> Iterator[list[int]]:
    """Kills the first worker that is seen at this work, and lists it."""
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not killed and not ended.is_set():
            for worker in workers(work):
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def ftp(tmp_path):
    """A real server of another file system; its folder, and its address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on Python 3.11 it stands on a module that 3.12 lacks
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.servers import ThreadedFTPServer
    folder = tmp_path / "ftp"
    folder.mkdir()
    authorizer = DummyAuthorizer()
    authorizer.add_user("user", "word", str(folder), perm="elradfmwMT")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    with ThreadedFTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"handle_exit": False})
        thread.start()
        yield folder, f"ftp://user:word@127.0.0.1:{server.address[1]}"
        server.close_all()
        thread.join()


@pytest.fixture(scope="module")
def s3():
    """A real server of S3 with an empty bucket that keeps every version; the environment names it, also to a
    Ray that is started after it. Its client.
    """
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))
        host, port = link.getsockname()
    known = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "user",
        "AWS_SECRET_ACCESS_KEY": "word",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)], stderr=subprocess.DEVNULL
        ) as server,
    ):
        for name, value in known.items():
            patch.setenv(name, value)
        try:
            until(lambda: server.poll() is not None or answers(host, port), 60)
            yield bucket()
        finally:
            server.kill()


def answers(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port)):
        return True
    return False


def bucket() -> Any:
    """The client of a new `s3://bucket`."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # clients of another file's server
    client = S3FileSystem(use_listings_cache=False)
    client.mkdir("bucket")
    client.call_s3("put_bucket_versioning", Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    return client


def versions(client: Any, prefix: str) -> dict[str, list[str]]:
    """By key of the bucket all that it ever held, newest first."""
    found: dict[str, list[str]] = {}
    for one in client.call_s3("list_object_versions", Bucket="bucket", Prefix=prefix)["Versions"]:
        found.setdefault(one["Key"], []).append(one["VersionId"])
    return found
