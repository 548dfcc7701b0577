"""A crowd at the server, two cores for everybody: who is turned away is told at once, who is served gets the
offline bits, and slow clients slow nobody.

python benchmarks/serve_load.py [--smoke]     (some ten minutes)

256 clients ask for a minute, each with one real clip at a time on a connection of its own, and come again
after Retry-After; a program beside them asks `/healthz` twenty times a second. Then eight clients ask with
and without 200 that send a byte twice a second, in turns. Clients share the server's cores.
"""

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np
import serve_clients as clients
from harness import Options, Row, at_most, below, ratio, state

HERE = Path(__file__).resolve().parent
CLIPS = harness.ROOT / "src/beatline/assets/mini-audioset/audio"
SETTLED = 1.0  # seconds from the first request on that are not counted


def rows(options: Options) -> Iterator[Row]:
    """Rows of a small and of a full-size model."""
    with harness.scratch() as name:
        folder = Path(name)
        files = folder / "clips"
        files.mkdir()
        for path in sorted(CLIPS.glob("test_*.ogg"))[: 8 if options.smoke else 64]:
            shutil.copy(path, files)
        for size in ("small",) if options.smoke else ("small", "base"):
            model = clients.write_model(folder / size, size)
            with clients.served(clients.command(model), folder / "log") as (_, port):
                yield from crowded(size, model, port, files, options)
                if size == "small":
                    yield slowed(port, files, options)


def crowded(size: str, model: Path, port: int, files: Path, options: Options) -> Iterator[Row]:
    """Rows of what many clients at once are answered."""
    count, seconds, load = (96, 3.0, os.getloadavg()[0]) if options.smoke else (256, 60.0, os.getloadavg()[0])
    crowd = clients.start("crowd", port, seconds, str(count), str(files))
    time.sleep(SETTLED)
    health = clients.said(clients.start("probe", port, seconds - SETTLED - 0.5, "/healthz"))
    found = clients.said(crowd)
    asked = [one for one in found["asked"] if one[0] > SETTLED]
    of = {status: [one[1] for one in asked if one[2] == status] for status in (200, 429)}
    facts = {"for_s": seconds, "load_before": round(load, 1), "asked": len(health)}
    planned = Counter(f"{status}" for _, _, status in found["asked"])
    name, model_name = f"serve_load/{size}", {"small": "model of mini.yaml", "base": "BEATs base"}[size]
    yield percentile(
        f"{name} health", f"{count} clients, {model_name}: /healthz, 99th percentile", health, **facts
    )
    yield percentile(
        f"{name} refusals",
        f"{count} clients, {model_name}: answer 429, 99th percentile",
        of[429],
        answers=len(of[429]),
    )
    yield state(
        f"{name} trouble",
        f"{count} clients, {model_name}: other answers than 200, 429 and 503 with Retry-After, or none",
        len(found["trouble"]),
        "requests",
        at_most(0),
        statuses=", ".join(f"{n} x {s}" for s, n in planned.items()),
        first=found["trouble"][:1],
    )
    yield state(
        f"{name} bits",
        f"{count} clients, {model_name}: answers whose scores are not those of the offline tagger, to the "
        f"bit",
        differing(model, files, found["tags"]),
        "answers",
        at_most(0),
        files=sum(map(bool, found["tags"].values())),
        served=len(of[200]),
        median_s=round(float(np.median(of[200] or [0])), 2),
    )


def percentile(name: str, what: str, waits: list[float], **facts: Any) -> Row:
    """A row of the 99th percentile of waits, in milliseconds."""
    quantiles = [float(value) for value in 1000 * np.percentile(waits, (50, 99, 100))]
    return state(
        name, what, quantiles[1], "ms", below(100), median_ms=quantiles[0], longest_ms=quantiles[2], **facts
    )


def differing(model: Path, files: Path, tags: dict[str, list[str]]) -> int:
    """How many of the different answers to a file are not what the library says of it."""
    import beatline

    tagger, wrong = beatline.load(model), 0
    for name, found in tags.items():
        wanted = (
            {label.mid: np.float32(score) for label, score in tagger(files / name).top(10)} if found else {}
        )
        wrong += sum({mid: np.float32(score) for mid, score in scores} != wanted for scores in found)
    return wrong


def slowed(port: int, files: Path, options: Options) -> Row:
    """A row of how much longer an answer takes beside slow clients."""
    seconds, count = (1.5, 50) if options.smoke else (10.0, 200)
    waits: dict[bool, list[float]] = {
        False: [],
        True: [],
    }  # seconds for each answer, with those until a client that was turned away came again
    refused = 0
    for _ in range(options.pairs):
        for beside in (False, True):
            slow = clients.start("slow", port, seconds + 2.0, str(count)) if beside else None
            time.sleep(1.5)  # until they are all there
            found = clients.said(clients.start("crowd", port, seconds, "8", str(files)))
            if found["trouble"]:
                raise RuntimeError(f"not answered: {found['trouble'][:3]}")
            served = sum(status == 200 for _, _, status in found["asked"])
            waits[beside].append(seconds / served)
            refused += len(found["asked"]) - served
            if slow:
                clients.said(slow)
    return ratio(
        "serve_load/slow",
        f"8 clients beside {count} slow ones: how many times longer an answer takes",
        waits[False],
        waits[True],
        at_most(1.2),
        refused=refused,
    )


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    harness.main(rows, __doc__)
