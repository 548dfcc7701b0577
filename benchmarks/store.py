"""How fast a store feeds batches of 40, and how soon and how small a store of two million clips opens.

./bench.sh store        some three minutes on two cores

Reading: `batches.read_clips` on one core, 40 clips of 10 s at random places, as training reads them (from the
page cache, so what is measured is ours). Opening: a store of AudioSet's size, its tables written by the
writer's own functions, its shards files with holes of the right size, opened in a process of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np

from beatline.core import artefact
from beatline.core.labels import audioset
from beatline.data import shards, store_tables
from beatline.data.manifest import Clip, Manifest
from beatline.data.plan import finish
from beatline.data.store import Store, shard_name
from beatline.train.batches import read_clips

SAMPLES = 160_000
BATCH = 40
MEASURED = {
    "rate_in": 48_000,
    "channels_in": 2,
    "peak": 0.501234,
    "rms": 0.101234,
    "quiet": 0.012346,
    "clipped": 0.0,
    "note": "",
}
OPEN = """
import json, sys, time
from pathlib import Path
from beatline.data.store import Store
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
facts = {"seconds": seconds, "peak_mb": peak, "before_mb": before, "clips": len(opened.ids)}
print(json.dumps(facts | {"all_ids_s": time.perf_counter() - begin}))
"""


def synthetic(folder: Path, clips: int, audio: bool) -> None:
    """A store of clips of 10 s, with noise as audio or with shards that are holes."""
    labels = audioset()
    rng = np.random.default_rng(0)
    picked = rng.integers(0, len(labels), (clips, 3))
    table = Manifest(
        clips=tuple(
            Clip(
                f"as2m-train-{n}",
                f"{n:011d}",
                Path("/data") / f"unbalanced_{n % 41:02d}/Y{n:011d}.flac",
                tuple({labels.mids[k] for k in picked[n]}),
                30.0,
                40.0,
            )
            for n in range(clips)
        ),
        splits={"train": tuple(range(clips // 100, clips)), "val": (), "test": tuple(range(clips // 100))},
        rejected=(),
        labels=labels,
        val="none",
        inputs=clips,
        root=Path("/data"),
    )
    folder.mkdir(parents=True)
    for number in range(shards.count(table)):
        count = len(table.clips[number * shards.SHARD_CLIPS : (number + 1) * shards.SHARD_CLIPS])
        rows = []
        with (folder / shard_name(number)).open("wb") as file:
            if audio:
                samples = rng.integers(-8000, 8000, (count, SAMPLES), np.int16)
                file.write(samples.data)
                rows = [
                    {"length": SAMPLES, "crc": shards.zlib.crc32(one.data), **MEASURED} for one in samples
                ]
            else:
                file.truncate(2 * count * SAMPLES)
                silence = shards.zlib.crc32(bytes(2 * SAMPLES))
                rows = [{"length": SAMPLES, "crc": silence, **MEASURED}] * count
        facts: dict[str, Any] = {"plan": "synthetic", "sha256": "0" * 64, "rows": rows}
        (folder / shards.facts_name(number)).write_text(
            json.dumps(facts | {"self": artefact.hash_json(facts)})
        )
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


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Clips a second and core; seconds and memory of opening."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    clips = 20_000 if options.smoke else 2_041_789
    with harness.scratch() as name:
        folder = Path(name)
        synthetic(folder / "small", 200 if options.smoke else 2000, audio=True)
        speeds = list(reading(folder / "small", options.pairs))[1:]
        yield harness.summarise(
            "store/reading",
            f"clips of 10 s read in batches of {BATCH} at random places, one core",
            speeds,
            "clips/s",
            harness.at_least(2000),
        )
        begin = time.perf_counter()
        synthetic(folder / "large", clips, audio=False)
        written = time.perf_counter() - begin
        openings = [
            json.loads(
                subprocess.run(
                    [sys.executable, "-c", OPEN, str(folder / "large")],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
            for _ in range(options.pairs)
        ]
        tables_mb = sum((folder / "large" / file).stat().st_size for file in store_tables.NAMES) / 1e6
    yield harness.summarise(
        "store/open",
        f"opening a store of {clips} clips",
        [one["seconds"] for one in openings],
        "s",
        harness.at_most(5),
        tables_mb=tables_mb,
        tables_written_s=written,
        all_ids_read_s=openings[0]["all_ids_s"],
    )
    yield harness.state(
        "store/open-memory",
        "the process that opened it, at its highest",
        max(one["peak_mb"] for one in openings),
        "MB",
        harness.at_most(1000),
        of_which_imports=openings[0]["before_mb"],
    )


if __name__ == "__main__":
    harness.main(rows, __doc__)
