"""What tests see of the processes that beatline starts."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Waits for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def children() -> list[int]:
    """The decoders among this process's children; threads and children that end meanwhile are gone, not an
    error.
    """
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            pids = (task / "children").read_text().split()
            found += [int(pid) for pid in pids if is_decoder(pid)]
    return found


def is_decoder(pid: str) -> bool:
    try:
        return b"beatline.audio.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def most_memory(pid: int) -> int:
    """The most bytes that a process has held; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
