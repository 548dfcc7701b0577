"""What every test shares: one thread, no GPU, no network beyond loopback."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers import costs

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job does not hear it, nor would the programs that tests start

pytest_plugins = ["tests.helpers.stores"]  # its fixtures


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test by what it costs."""
    for item in items:
        for mark in costs.marks(item):
            item.add_marker(mark)


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    """A test that would leave this machine fails."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            assert address[0] in ("127.0.0.1", "::1", "localhost"), f"a test tried to reach {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def half_closed() -> Iterator[Path]:
    """A folder, and `closed` in it, which may not be read; root may read everything, so the test is somebody
    else.
    """
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        root = Path(name)
        (root / "closed").mkdir(mode=0)
        root.chmod(0o777)
        if user == 0:
            os.seteuid(65534)
        try:
            yield root
        finally:
            os.seteuid(user)
