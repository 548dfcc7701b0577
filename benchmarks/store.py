"""How fast a store feeds batches of 40, and how soon and how small a store of two million clips opens.

python benchmarks/store.py [--clips 2041789] [--rounds 5] [--json FILE]      some three minutes on two cores; prints text, then one line of JSON

Reading: `batches.read_clips` on one core, 40 clips of 10 s at random places, as training reads them (from the page cache, so what is measured is ours). Opening: a store of
AudioSet's size, its tables written by the writer's own functions, its shards files with holes of the right size, opened in a process of its own.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from beatline import artefact, shards, tables
from beatline.batches import read_clips
from beatline.labels import audioset
from beatline.manifest import Clip, Manifest
from beatline.prepare import finish
from beatline.store import Store, shard_name

SAMPLES = 160_000
BATCH = 40
MEASURED = {"rate_in": 48_000, "channels_in": 2, "peak": 0.501234, "rms": 0.101234, "quiet": 0.012346, "clipped": 0.0, "note": ""}
OPEN = """
import json, sys, time
from pathlib import Path
from beatline.store import Store
def most():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = most()
begin = time.perf_counter()
opened = Store.open(Path(sys.argv[1]))
seconds = time.perf_counter() - begin
names = [opened.ids[0], opened.ids[-1], opened.clip(len(opened.ids) - 1)["id"]]
assert names[1] == names[2] and opened.targets([5, len(opened.ids) - 1]).sum() > 0
peak = most()
begin = time.perf_counter()
for name in opened.ids: pass
print(json.dumps({"seconds": seconds, "peak_mb": peak, "before_mb": before, "clips": len(opened.ids), "all_ids_s": time.perf_counter() - begin}))
"""


def synthetic(folder: Path, clips: int, audio: bool) -> None:
    """A store of clips of 10 s, with noise as audio or with shards that are holes."""
    labels = audioset()
    rng = np.random.default_rng(0)
    picked = rng.integers(0, len(labels), (clips, 3))
    table = Manifest(
        clips=tuple(Clip(f"as2m-train-{n}", f"{n:011d}", Path("/data") / f"unbalanced_{n % 41:02d}/Y{n:011d}.flac", tuple({labels.mids[k] for k in picked[n]}), 30.0, 40.0) for n in range(clips)),
        splits={"train": tuple(range(clips // 100, clips)), "val": (), "test": tuple(range(clips // 100))}, rejected=(), labels=labels, val="none", inputs=clips, root=Path("/data"),
    )  # fmt: skip
    folder.mkdir(parents=True)
    for number in range(shards.count(table)):
        count = len(table.clips[number * shards.SHARD_CLIPS : (number + 1) * shards.SHARD_CLIPS])
        rows = []
        with (folder / shard_name(number)).open("wb") as file:
            if audio:
                samples = rng.integers(-8000, 8000, (count, SAMPLES), np.int16)
                file.write(samples.data)
                rows = [{"length": SAMPLES, "crc": shards.zlib.crc32(one.data), **MEASURED} for one in samples]
            else:
                file.truncate(2 * count * SAMPLES)
                rows = [{"length": SAMPLES, "crc": 0, **MEASURED}] * count
        facts: dict[str, Any] = {"plan": "synthetic", "sha256": "0" * 64, "rows": rows}
        (folder / shards.facts_name(number)).write_text(json.dumps(facts | {"self": artefact.hash_json(facts)}))
    finish(table, folder, "synthetic")


def reading(folder: Path, rounds: int) -> Iterator[float]:
    """Clips a second of each round."""
    store = Store.open(folder)
    rng = np.random.default_rng(1)
    for _ in range(rounds + 1):
        batches = rng.permutation(len(store.ids))[: len(store.ids) // BATCH * BATCH].reshape(-1, BATCH)
        begin = time.perf_counter()
        for batch in batches:
            read_clips(store, batch, SAMPLES)
        yield batches.size / (time.perf_counter() - begin)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2_041_789)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="beatline-store-", dir=options.folder) as folder:
        synthetic(Path(folder, "small"), 2000, audio=True)
        speeds = list(reading(Path(folder, "small"), options.rounds))[1:]
        begin = time.perf_counter()
        synthetic(Path(folder, "large"), options.clips, audio=False)
        written = time.perf_counter() - begin
        openings = [json.loads(subprocess.run([sys.executable, "-c", OPEN, str(Path(folder, "large"))], capture_output=True, text=True, check=True).stdout) for _ in range(options.rounds)]
        small = sum(Path(folder, "large", name).stat().st_size for name in tables.NAMES)
    result = {
        "what": f"reading batches of {BATCH}, and opening a store of {options.clips} clips",
        "clips_a_second_and_core": statistics.median(speeds),
        "slowest_round": min(speeds),
        "open_s": statistics.median(one["seconds"] for one in openings),
        "open_first_s": openings[0]["seconds"],
        "open_peak_mb": max(one["peak_mb"] for one in openings),
        "imports_mb": openings[0]["before_mb"],
        "all_ids_s": statistics.median(one["all_ids_s"] for one in openings),
        "tables_mb": small / 1e6,
        "tables_written_s": written,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }
    for name, value in result.items():
        print(f"{name:32}{value:.4g}" if isinstance(value, float) else f"{name:32}{value}")
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
