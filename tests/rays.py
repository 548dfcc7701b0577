"""A real Ray of two workers, and a real server of another file system."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beatline import cluster as rays


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
    home = tmp_path_factory.getbasetemp() / "home"  # where Ray writes its token, which a process reads once: the same for every file
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
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists() and b"Z" not in Path(f"/proc/{pid}/stat").read_bytes().split()[2:3]]:
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
