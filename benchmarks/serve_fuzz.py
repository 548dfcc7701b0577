"""Mutated files and decompression bombs at the server: each is tagged with finite scores or refused with a
known code, soon, and within bounds of memory.

python benchmarks/serve_fuzz.py [--smoke]     (some five minutes)

2 000 mutations (those of `fuzz_decode`), four at once, each on a connection of its own; then every bomb of
`tests/helpers/bombs.py`, eight of a kind at once and eight kinds at once; then schemathesis, with all its
checks, on
what `/openapi.json` promises. Memory is that of the decoding children, all together (proportional set size: a
page that several share counts once), and what the server's has grown since it was ready: its model is not
counted, and the uploads on disk neither (a page cache, unless $TMPDIR is in memory).
"""

import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import fuzz_decode
import harness
import serve_clients as clients
from harness import Options, Row, at_most, below, state

sys.path.insert(0, str(harness.ROOT))

from beatline.core.errors import EXIT_CODES, INPUT
from tests.helpers.bombs import bombs
from tests.helpers.processes import is_decoder

AT_ONCE = 8
REFUSED = (413, 415, 422)


class Watch:
    """The most memory of a server and its decoders while a block runs; a context manager.

    Args:
        pid: The server's.
        name: What is watched.
    """

    def __init__(self, pid: int, name: str = ""):
        self.name, self._pid, self._end = name, pid, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.at_first = resident(pid)
        self.growth = self.decoders = self.most = 0
        """Bytes: of the server itself, of its decoders together, and of the sum at its highest."""

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.01):
            growth, held = resident(self._pid) - self.at_first, sum(map(proportional, decoders(self._pid)))
            self.growth, self.decoders, self.most = (
                max(self.growth, growth),
                max(self.decoders, held),
                max(self.most, growth + held),
            )


def decoders(pid: int) -> list[int]:
    """The decoders that any thread of a process has started; not a child that is still a copy of its parent,
    whose memory it shares.
    """
    found: list[str] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found += (task / "children").read_text().split()
    return [int(child) for child in found if is_decoder(child)]


def proportional(pid: int) -> int:
    """A process's resident memory in bytes, a page that several share counted once among them; 0 where it has
    ended.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def resident(pid: int) -> int:
    """A process's resident memory in bytes, 0 where it has ended."""
    try:
        return 4096 * int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0


def tried(port: int, name: str, content: bytes) -> dict[str, Any]:
    """What became of a file: its outcome, how long that took, and whether it is as it should be."""
    begun = time.monotonic()
    try:
        status, answer = clients.post(port, name, content)
    except (OSError, EOFError, ValueError) as error:
        return {
            "name": name,
            "outcome": type(error).__name__,
            "seconds": time.monotonic() - begun,
            "wrong": f"{name}: {error}",
        }
    (result,) = answer.get("results") or [answer]
    seconds, code = time.monotonic() - begun, result["error"]["code"] if "error" in result else "tagged"
    if code == "tagged":
        good = (
            status == 200
            and len(result["tags"]) > 0
            and all(math.isfinite(tag["score"]) and 0 <= tag["score"] <= 1 for tag in result["tags"])
        )
    else:
        good = (
            status in REFUSED
            and EXIT_CODES.get(code) == INPUT
            and code not in ("decoder-crashed", "decode-timeout")
        )
    return {
        "name": name,
        "outcome": code,
        "seconds": seconds,
        "wrong": "" if good else f"{name}: {status} {result}"[:200],
    }


def rows(options: Options) -> Iterator[Row]:
    """Rows of mutations, then of bombs."""
    with harness.scratch() as name:
        model = clients.write_model(Path(name) / "model", "small")
        for rows_of in (mutations, explosions, contract):
            with clients.served(clients.command(model), Path(name) / "log") as (server, port):
                for _ in range(3):
                    tried(port, "warm.wav", fuzz_decode.originals()[0])
                yield from rows_of(server.pid, port, options)


def mutations(pid: int, port: int, options: Options) -> Iterator[Row]:
    """Rows of many mutated files."""
    count, originals = 60 if options.smoke else 2000, fuzz_decode.originals()
    begun = time.monotonic()
    with Watch(pid) as watch, ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(
                lambda number: tried(port, f"{number}.wav", fuzz_decode.mutated(originals, 0, number)),
                range(count),
            )
        )
    outcomes = Counter(one["outcome"] for one in found)
    facts = {
        "outcomes": ", ".join(f"{code} {number}" for code, number in outcomes.most_common()),
        "seconds": round(time.monotonic() - begun, 1),
    }
    yield from judged("mutations", f"{count} mutated files", found, **facts)
    yield memory("mutations", f"{count} mutated files", watch)


def explosions(pid: int, port: int, options: Options) -> Iterator[Row]:
    """Rows of bombs."""
    made = list(bombs().items())[:: 4 if options.smoke else 1]
    groups = [[bomb] * AT_ONCE for bomb in made] + [
        (made + made)[begin : begin + AT_ONCE] for begin in range(0, len(made), AT_ONCE)
    ]
    found: list[dict[str, Any]] = []
    watches: list[Watch] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for group in groups:
            with Watch(pid, group[0][0] if group[0] is group[1] else "eight kinds") as watch:
                if watches:
                    watch.at_first = watches[0].at_first  # since it was ready, not since the last bomb
                found += pool.map(lambda bomb: tried(port, *bomb), group)
            watches.append(watch)
    outcomes = Counter(one["outcome"] for one in found)
    yield from judged(
        "bombs",
        f"{len(made)} kinds of bomb, {AT_ONCE} at once",
        found,
        outcomes=", ".join(f"{code} {number}" for code, number in outcomes.most_common()),
    )
    most = max(watches, key=lambda watch: watch.most)
    yield memory("bombs", f"{len(made)} kinds of bomb, {AT_ONCE} at once", most, of=most.name)


def contract(pid: int, port: int, options: Options) -> Iterator[Row]:
    """A row of what an OpenAPI fuzzer finds."""
    status, said = schemathesis(port, 10 if options.smoke else 300)
    found = re.search(r"(\d+) generated", said)
    if status not in (0, 1) or found is None:
        raise RuntimeError(said)
    yield state(
        "serve_fuzz/contract",
        "OpenAPI fuzzer (schemathesis): requests whose answer is not as promised",
        said.count("Test Case ID"),
        "found",
        at_most(0),
        requests=int(found[1]),
    )


def schemathesis(port: int, examples: int) -> tuple[int, str]:
    """Exit status and words of `st run` with all checks and so many examples of each operation: 0 where it
    finds nothing.
    """
    command = [
        str(Path(sys.executable).parent / "st"),
        "run",
        f"http://127.0.0.1:{port}/openapi.json",
        "--checks",
        "all",
        "--max-examples",
        str(examples),
        "--seed",
        "0",
        "--continue-on-failure",
        "--no-color",
    ]
    here = str(Path(__file__).parent)
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "openapi_hooks",
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])),
    }
    with tempfile.TemporaryDirectory() as folder:  # it remembers what it found
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=folder, env=environment, check=False
        )
    return done.returncode, done.stdout + done.stderr


def judged(name: str, what: str, found: list[dict[str, Any]], **facts: Any) -> Iterator[Row]:
    """Rows of how many outcomes are not as they should be, and of the longest wait."""
    wrong, slowest = (
        [one["wrong"] for one in found if one["wrong"]],
        max(found, key=lambda one: one["seconds"]),
    )
    yield state(
        f"serve_fuzz/{name} wrong",
        f"{what}: neither tagged with finite scores in [0, 1] nor refused with a known code",
        len(wrong),
        "files",
        at_most(0),
        **facts,
        **({"first": wrong[:3]} if wrong else {}),
    )
    yield state(
        f"serve_fuzz/{name} wait",
        f"{what}: longest wait for an answer",
        slowest["seconds"],
        "s",
        below(10),
        file=slowest["name"],
    )


def memory(name: str, what: str, watch: Watch, **facts: Any) -> Row:
    """A row of the memory that files took."""
    return state(
        f"serve_fuzz/{name} memory",
        f"{what}: memory of the decoders and growth of the server",
        watch.most / 2**20,
        "MiB",
        at_most(256),
        decoders=round(watch.decoders / 2**20),
        growth=round(watch.growth / 2**20),
        server_before=round(watch.at_first / 2**20),
        **facts,
    )


if __name__ == "__main__":
    harness.main(rows, __doc__)
