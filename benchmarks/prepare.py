"""How fast `beatline prepare` is against its own decoder and resampler, and how much memory it holds; and AudioSet-20K whole, on stand-in audio.

python benchmarks/prepare.py [--clips 2000] [--rounds 3] [--json FILE]       some ten minutes on two quiet cores; prints text, then one line of JSON
python benchmarks/prepare.py --audioset CSVDIR [--json FILE]                 the 42 531 clips of the official CSVs, each synthesised from its id: some half an hour, 20 GB

Clips of 10 s in equal parts of FLAC (48 kHz, 24 bit, stereo), MP3 and WAV (44.1 kHz stereo). A round times in turn, on the same clips: `audio.decode` in a loop in one
process and in two at once (the bare speed of this machine's cores), then `prepare` with one worker and with two. Results are medians of quotients within a round; the best round of each is printed
too, for machines that do other work. Memory is
the sum over prepare's processes, sampled, of preparing a quarter of the clips and all of them.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from beatline.audio import decode
from beatline.manifest.audioset import segments
from beatline.store import Store

FORMS = (("flac", 48_000, "PCM_24"), ("mp3", 44_100, None), ("wav", 44_100, "PCM_16"))
DIFFERENT = 8  # sounds of each form; the other files are links to them
PREPARE = "import sys; from pathlib import Path; from beatline import manifest, prepare; from beatline.config import DataConfig; " \
    "prepare.prepare(manifest.read(DataConfig(csv=Path(sys.argv[1]))), Path(sys.argv[2]), int(sys.argv[3]))"  # fmt: skip


def write_clips(folder: Path, count: int) -> Path:
    """Stereo clips of 10 s, chords over noise, and their table; its path."""
    rng = np.random.default_rng(0)
    for number in range(DIFFERENT):
        for form, rate, subtype in FORMS:
            seconds = np.arange(10 * rate) / rate
            tones = sum(0.1 * np.sin(2 * np.pi * hertz * seconds) for hertz in rng.uniform(100, 6000, 5))
            soundfile.write(folder / f"sound-{number}.{form}", tones[:, None] + 0.03 * rng.standard_normal((len(seconds), 2)), rate, subtype=subtype)
    for number in range(count):
        form = FORMS[number % len(FORMS)][0]
        os.link(folder / f"sound-{number // len(FORMS) % DIFFERENT}.{form}", folder / f"{number:05d}.{form}")
    return write_table(folder, count)


def write_table(folder: Path, count: int) -> Path:
    """The table of the first clips."""
    rows = [f"{n:05d}.{FORMS[n % len(FORMS)][0]},x,{'test' if n % 10 == 9 else 'train'}" for n in range(count)]
    table = folder / f"first-{count}.csv"
    table.write_text("\n".join(["file,labels,split", *rows]) + "\n")
    return table


def decode_all(files: list[Path]) -> float:
    """Seconds that decoding the files takes, after one that does not count."""
    decode(files[0])
    begin = time.perf_counter()
    for file in files:
        decode(file)
    return time.perf_counter() - begin


def bare(files: list[Path], processes: int) -> float:
    """Clips a second of the decoder and resampler alone, in so many processes at once."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(decode_all, [files[:8]] * processes))  # started
        longest = max(pool.map(decode_all, [files[i::processes] for i in range(processes)]))
    return len(files) / longest


def prepared(table: Path, clips: int, workers: int) -> tuple[float, float]:
    """Clips a second of `prepare`, its start and its end included, and the most memory its processes held together, MB."""
    store, most, ended = table.parent / "out/store", [0.0], threading.Event()
    shutil.rmtree(store.parent, ignore_errors=True)
    begin = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", PREPARE, str(table), str(store), str(workers)]) as process:

        def watch() -> None:
            while not ended.wait(0.05):
                most[0] = max(most[0], tree_memory(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert process.wait() == 0
        seconds = time.perf_counter() - begin
        ended.set()
        watcher.join()
    assert len(Store.open(store).ids) == clips
    return clips / seconds, most[0]


def tree_memory(pid: int) -> float:
    """Resident memory of a process and those below it, MB."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        below = {int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()}
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGESIZE") / 1e6 + sum(map(tree_memory, below))


def speed(folder: Path, clips: int, rounds: int) -> dict[str, Any]:
    """All measurements on real formats."""
    table = write_clips(folder, clips)
    sample = [folder / line.split(",")[0] for line in table.read_text().splitlines()[1:]]
    half, quarter = write_table(folder, clips // 2), write_table(folder, clips // 4)
    found = []
    for _ in range(rounds):
        row = {"bare_1": bare(sample[: clips // 4], 1), "prepare_1": prepared(half, clips // 2, 1)[0]}
        row |= {"bare_2": bare(sample[: clips // 2], 2)}
        row["prepare_2"], row["memory_mb"] = prepared(table, clips, 2)
        row["memory_quarter_mb"] = prepared(quarter, clips // 4, 2)[1]
        found.append(row)
        print(", ".join(f"{name} {value:.1f}" for name, value in row.items()), flush=True)

    def median(quotient: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(map(quotient, found))

    return {
        "what": f"prepare of {clips} clips of 10 s (FLAC 48 kHz, MP3, WAV)",
        "clips_a_second_of_two_workers": median(lambda row: row["prepare_2"]),
        "of_bare_speed_one": median(lambda row: row["prepare_1"] / row["bare_1"]),
        "of_bare_speed_two": median(lambda row: row["prepare_2"] / row["bare_2"]),
        "two_over_one": median(lambda row: row["prepare_2"] / row["prepare_1"]),
        "bare_two_over_one": median(lambda row: row["bare_2"] / row["bare_1"]),
        "scaling_of_bare_scaling": median(lambda row: row["prepare_2"] / row["prepare_1"] / (row["bare_2"] / row["bare_1"])),
        **{f"best_{name}": max(row[name] for row in found) for name in ("bare_1", "prepare_1", "bare_2", "prepare_2")},
        f"memory_mb_at_{clips // 4}": max(row["memory_quarter_mb"] for row in found),
        f"memory_mb_at_{clips}": max(row["memory_mb"] for row in found),
    }


# --- AudioSet-20K, whole


def synthesise(job: tuple[Path, str, float]) -> None:
    """A clip whose sound is a function of its id: two tones and noise, 16 kHz FLAC."""
    path, name, seconds = job
    rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    time_axis = np.arange(round(seconds * 16_000), dtype=np.float32) / 16_000
    sound = sum(0.2 * np.sin(np.float32(2 * np.pi * hertz) * time_axis) for hertz in rng.uniform(80, 4000, 2)) + 0.002 * rng.standard_normal(len(time_axis), np.float32)
    soundfile.write(path, sound, 16_000, compression_level=0.0)


def audioset(folder: Path, tables: Path) -> dict[str, Any]:
    """The whole pipeline on the official tables: copy, stand-in audio (8 % of it missing, as in every copy), prepare, verify, open."""
    jobs = []
    for table, audio in (("balanced_train_segments.csv", "balance_wav"), ("eval_segments.csv", "eval_wav")):
        shutil.copy(tables / table, folder / table)
        (folder / audio).mkdir()
        for row in segments(folder / table, ""):
            if hashlib.sha256(row.recording.encode()).digest()[0] >= 20:
                jobs.append((folder / audio / f"{row.recording}.flac", row.recording, (row.end or 10.0) - row.start))
    seconds = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        done = work()
        seconds[name] = round(time.perf_counter() - begin, 1)
        print(f"{name} {seconds[name]} s", flush=True)
        return done

    with ProcessPoolExecutor() as pool:
        step("synthesise", lambda: list(pool.map(synthesise, jobs, chunksize=64)))
    run = [sys.executable, "-m", "beatline"]
    store = folder / "run/store"
    begin_memory, ended = [0.0], threading.Event()

    def prepare() -> None:
        command = [*run, "prepare", "as20k", "--data.audioset", str(folder), "--out", str(folder / "run"), "--train.workers", "2"]
        with subprocess.Popen(command) as process:

            def watch() -> None:
                while not ended.wait(0.2):
                    begin_memory[0] = max(begin_memory[0], tree_memory(process.pid))

            watcher = threading.Thread(target=watch)
            watcher.start()
            assert process.wait() == 0
            ended.set()
            watcher.join()

    step("prepare", prepare)
    step("prepare_again", lambda: subprocess.run([*run, "prepare", "as20k", "--data.audioset", str(folder), "--out", str(folder / "run")], check=True))
    step("verify", lambda: subprocess.run([*run, "verify", str(store)], check=True))
    opened = step("open", lambda: Store.open(store))
    ledger = [json.loads(line) for line in (store / "ledger.jsonl").read_text().splitlines()]
    ok = sum(line["status"] == "ok" for line in ledger)
    assert ok == len(opened.ids) == len(jobs) and len(ledger) == opened.summary["inputs"]
    return {"what": "AudioSet-20K whole, stand-in audio", "inputs": len(ledger), "ok": ok, "rejected": opened.summary["rejected"], "hours": round(opened.summary["hours"], 1),
            "store_gb": round(sum(p.stat().st_size for p in store.iterdir()) / 1e9, 2), "memory_mb": round(begin_memory[0]), "seconds": seconds}  # fmt: skip


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--audioset", type=Path, metavar="CSVDIR")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="beatline-prepare-", dir=options.folder) as folder:
        result = audioset(Path(folder), options.audioset) if options.audioset else speed(Path(folder), options.clips, options.rounds)
    result |= {"cores": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()}
    for name, value in result.items():
        print(f"{name:32}{value:.3g}" if isinstance(value, float) else f"{name:32}{value}")
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
