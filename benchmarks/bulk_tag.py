"""Many short real files, one in twenty bad, tagged by `beatline tag --engine ray` while a worker and then the
driver are killed; started again, it does the rest.

python benchmarks/bulk_tag.py 10000 [--like as20k] [--json FILE]      (prints text, then one line of JSON)

The model has random weights and the architecture of the configuration `mini`, or of the one that is named:
`as20k` is BEATs base. Files are pieces of half a second to two seconds of the embedded clips, in WAV, FLAC
and Ogg. Ends with status 1 unless there is exactly one row for each file, with finite scores in [0, 1] or the
code that its damage deserves, and what was there before the driver was killed is what it was. Seconds of a
core include decoding in a child process beside it, and loading the model.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pyarrow.parquet as pq
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from beatline import load_config
from beatline.core.errors import EXIT_CODES, INPUT
from beatline.core.labels import audioset
from beatline.model.checkpoints.own import save
from beatline.model.tagger import Tagger, initialise_tagger
from tests.helpers.rays import workers

CLIPS = Path(__file__).parents[1] / "src/beatline/assets/mini-audioset/audio"
KINDS = ("wav", "flac", "ogg")
BAD_EVERY = 20


def write_files(folder: Path, count: int) -> set[str]:
    """Names of the bad ones."""
    folder.mkdir()
    clips = [soundfile.read(clip, dtype="int16") for clip in sorted(CLIPS.iterdir())]
    random, bad = np.random.default_rng(0), set()
    for number in range(count):
        samples, rate = clips[number % len(clips)]
        length = int(rate * random.uniform(0.5, 2.0))
        begin = int(random.integers(len(samples) - length))
        path = folder / f"{number:05d}.{KINDS[number % 3]}"
        soundfile.write(path, samples[begin : begin + length], rate)
        if number % BAD_EVERY == 0:
            path.write_bytes(spoilt(path.read_bytes(), number // BAD_EVERY % 4))
            bad.add(path.name)
    return bad


def spoilt(content: bytes, how: int) -> bytes:
    """Nothing, a page, a header alone, or noise."""
    return (b"", b"<html><body>404</body></html>", content[:20], np.random.default_rng(how).bytes(4000))[how]


def main() -> int:
    """Prints what was made, how often it was interrupted, and the rows a second and core."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--like", default="mini")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, labels = Path(name), audioset()
        tagger = Tagger(load_config(options.like, []).model.encoder, len(labels))
        save(folder / "model", initialise_tagger(tagger, torch.Generator().manual_seed(0)).eval(), labels, {})
        bad = write_files(folder / "in", options.count)
        result = work(folder, folder / "model", options.count, bad) | {
            "model": f"{options.like}, random, {len(labels)} labels",
            "where": harness.place(),
        }
    print(
        f"{result['rows']} rows, {result['refused']} refused, {result['done_before_restart']} rows were "
        f"there when the driver was killed"
    )
    print(
        f"a core tags {result['rows_per_core_second']} files and {result['sound_per_core_second']} seconds "
        f"of sound a second"
    )
    return harness.conclude(result, options.json)


def work(folder: Path, model: Path, count: int, bad: set[str]) -> dict[str, Any]:
    """Runs it twice, with two kills in the first."""
    out, before = folder / "out", set(workers(b"_make_part"))
    command = [
        "beatline",
        "tag",
        str(folder / "in"),
        "--engine",
        "ray",
        "--model",
        str(model),
        "--to",
        str(out),
    ]
    parts = -(-count // 256)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(command, env=environment) as driver:
        until(lambda: len(made(out)) >= parts // 4, driver)
        worker = next(pid for pid in workers(b"_make_part") if pid not in before)
        os.kill(worker, signal.SIGKILL)
        until(lambda: len(made(out)) >= parts // 2, driver)
        driver.send_signal(signal.SIGKILL)
    time.sleep(2)
    there = made(out)
    done = pq.read_table(out / "tags", columns=["file"]).num_rows
    subprocess.run(command, env=environment, check=True)
    about = json.loads((out / "contents.json").read_text())["about"]
    wrong = ["a part that was there was made again"] * any(
        made(out)[path] != stamp for path, stamp in there.items()
    ) + check(pq.read_table(out / "tags").to_pylist(), count, bad)
    return {
        "files": count,
        "rows": about["rows"],
        "refused": about["refused"],
        "kills": ["worker", "driver"],
        "done_before_restart": done,
        "seconds_of_sound": about["seconds"],
        "core_seconds": about["core_seconds"],
        "rows_per_core_second": round(about["rows"] / about["core_seconds"], 1),
        "sound_per_core_second": round(about["seconds"] / about["core_seconds"], 1),
        "wrong": wrong,
    }


def check(rows: list[dict[str, Any]], count: int, bad: set[str]) -> list[str]:
    """What is not as it should be."""
    wrong = []
    names = Counter(Path(row["file"]).name for row in rows)
    if len(names) != count or set(names.values()) != {1}:
        wrong.append(
            f"{len(names)} files have a row, {sum(number > 1 for number in names.values())} have several"
        )
    for row in rows:
        name = Path(row["file"]).name
        if name in bad:
            good = row["scores"] is None and EXIT_CODES[row["code"]] == INPUT
        else:
            scores = np.array(row["scores"] if row["scores"] is not None else [np.nan])
            good = row["code"] is None and bool(
                np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()
            )
        if not good:
            wrong.append(f"{name}: {row['code']}")
    return wrong[:20]


def made(out: Path) -> dict[Path, int]:
    """The parts that are there, and when each was made."""
    return {path: path.stat().st_mtime_ns for path in out.glob("facts/*.json")}


def until(condition: Callable[[], bool], driver: subprocess.Popen) -> None:
    """Waits for it, as long as the driver works."""
    while not condition():
        if driver.poll() is not None:
            raise SystemExit("the job ended before it could be killed: give more files")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
