"""How fast `beatline prepare` is against its own decoder and resampler, and how much memory it holds; and
AudioSet-20K whole, on stand-in audio.

./bench.sh prepare                      some twenty minutes on two cores
AUDIOSET=CSVDIR ./bench.sh prepare      also the 42 531 rows of the official CSVs in that folder, the sound of
                                        each synthesised from its id: some 15 minutes more, 20 GB

Clips of 10 s in equal parts of FLAC (48 kHz, 24 bit, stereo), MP3 and WAV (44.1 kHz stereo). A round times in
turn, on the same clips: `audio.decode` in a loop in one process and in two at once (the bare speed of this
machine's cores), then `prepare` with one worker and with two, its start and end included. Memory is the sum
over prepare's processes, sampled, of preparing a quarter of the clips and all of them.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import harness
import numpy as np
import soundfile

from beatline.audio.media import decode
from beatline.data.manifest.audioset import segments
from beatline.data.store import Store

FORMS = (("flac", 48_000, "PCM_24"), ("mp3", 44_100, None), ("wav", 44_100, "PCM_16"))
DIFFERENT = 8  # sounds of each form; the other files are links to them
PREPARE = (
    "import sys; from pathlib import Path; from beatline.data import manifest, prepare; "
    "from beatline.config import DataConfig; "
    "prepare.prepare(manifest.read(DataConfig(csv=Path(sys.argv[1]))), Path(sys.argv[2]), int(sys.argv[3]))"
)


def write_clips(folder: Path, count: int) -> Path:
    """Stereo clips of 10 s, chords over noise, and their table; its path."""
    rng = np.random.default_rng(0)
    for number in range(DIFFERENT):
        for form, rate, subtype in FORMS:
            seconds = np.arange(10 * rate) / rate
            tones = sum(0.1 * np.sin(2 * np.pi * hertz * seconds) for hertz in rng.uniform(100, 6000, 5))
            soundfile.write(
                folder / f"sound-{number}.{form}",
                tones[:, None] + 0.03 * rng.standard_normal((len(seconds), 2)),
                rate,
                subtype=subtype,
            )
    for number in range(count):
        form = FORMS[number % len(FORMS)][0]
        os.link(folder / f"sound-{number // len(FORMS) % DIFFERENT}.{form}", folder / f"{number:05d}.{form}")
    return write_table(folder, count)


def write_table(folder: Path, count: int) -> Path:
    """The table of the first clips."""
    rows = [
        f"{n:05d}.{FORMS[n % len(FORMS)][0]},x,{'test' if n % 10 == 9 else 'train'}" for n in range(count)
    ]
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
    """Clips a second of `prepare`, its start and its end included, and the most memory its processes held
    together, MB.
    """
    store = table.parent / "out/store"
    shutil.rmtree(store.parent, ignore_errors=True)
    begin = time.perf_counter()
    most = most_memory([sys.executable, "-c", PREPARE, str(table), str(store), str(workers)])
    seconds = time.perf_counter() - begin
    assert len(Store.open(store).ids) == clips
    return clips / seconds, most


def most_memory(command: list[str]) -> float:
    """Runs a command; the most memory it and the processes below it held together, MB."""
    with subprocess.Popen(command) as process, watched(process.pid) as most:
        assert process.wait() == 0, command
    return most[0]


@contextmanager
def watched(pid: int) -> Iterator[list[float]]:
    """Samples `tree_memory` until the block ends; the list holds the highest so far."""
    most, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            most[0] = max(most[0], tree_memory(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        ended.set()
        watcher.join()


def tree_memory(pid: int) -> float:
    """Resident memory of a process and those below it, MB."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        below = {
            int(child)
            for path in Path(f"/proc/{pid}/task").glob("*/children")
            for child in path.read_text().split()
        }
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGESIZE") / 1e6 + sum(map(tree_memory, below))


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Speed, scaling and memory; AudioSet-20K whole where its tables are at hand."""
    with harness.scratch() as folder:
        yield from speed(Path(folder), 60 if options.smoke else 2000, options.pairs)
    if "AUDIOSET" in os.environ:
        with harness.scratch() as folder:
            yield from audioset(Path(folder), Path(os.environ["AUDIOSET"]), 50 if options.smoke else 1)


def speed(folder: Path, clips: int, rounds: int) -> Iterator[harness.Row]:
    """All measurements on real formats."""
    table = write_clips(folder, clips)
    sample = [folder / line.split(",")[0] for line in table.read_text().splitlines()[1:]]
    half, quarter = write_table(folder, clips // 2), write_table(folder, clips // 4)
    found: list[dict[str, float]] = []
    for _ in range(rounds):
        row = {"bare_1": bare(sample[: clips // 4], 1), "prepare_1": prepared(half, clips // 2, 1)[0]}
        row |= {"bare_2": bare(sample[: clips // 2], 2)}
        row["prepare_2"], row["memory"] = prepared(table, clips, 2)
        row["memory_quarter"] = prepared(quarter, clips // 4, 2)[1]
        found.append(row)

    def quotients(quotient: Callable[[dict[str, float]], float]) -> list[float]:
        return [quotient(row) for row in found]

    for workers in (1, 2):
        fractions = quotients(lambda row, n=workers: row[f"prepare_{n}"] / row[f"bare_{n}"])  # type: ignore[misc]
        facts = {
            "prepare_clips_a_second": max(row[f"prepare_{workers}"] for row in found),
            "bare": max(row[f"bare_{workers}"] for row in found),
        }
        yield harness.summarise(
            f"prepare/of-bare-{workers}",
            f"prepare with {workers} worker(s), as a part of decoding and resampling alone in {workers} "
            f"process(es)",
            fractions,
            "",
            harness.at_least(0.8),
            **facts,
        )
    scaling = quotients(lambda row: row["prepare_2"] / row["prepare_1"] / (row["bare_2"] / row["bare_1"]))
    facts = {
        "two_over_one": max(quotients(lambda row: row["prepare_2"] / row["prepare_1"])),
        "bare_two_over_one": max(quotients(lambda row: row["bare_2"] / row["bare_1"])),
    }
    yield harness.summarise(
        "prepare/scaling",
        "gain of the second worker, as a part of what the second core gives decoding alone",
        scaling,
        "",
        harness.at_least(0.9),
        **facts,
    )
    quarter_mb = max(row["memory_quarter"] for row in found)
    yield harness.state(
        "prepare/memory",
        f"memory of all processes for {clips} clips",
        max(row["memory"] for row in found),
        "MB",
        harness.at_most(1000),
        of_a_quarter_of_them=quarter_mb,
    )


# --- AudioSet-20K, whole


def synthesise(job: tuple[Path, str, float]) -> None:
    """A clip whose sound is a function of its id: two tones and noise, 16 kHz FLAC."""
    path, name, seconds = job
    rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    time_axis = np.arange(round(seconds * 16_000), dtype=np.float32) / 16_000
    sound = sum(
        0.2 * np.sin(np.float32(2 * np.pi * hertz) * time_axis) for hertz in rng.uniform(80, 4000, 2)
    ) + 0.002 * rng.standard_normal(len(time_axis), np.float32)
    soundfile.write(path, sound, 16_000, compression_level=0.0)


def audioset(folder: Path, official: Path, every: int) -> Iterator[harness.Row]:
    """The whole pipeline on every so many rows of the official tables: stand-in audio (8 % of it missing, as
    in every copy), prepare, verify, inspect.
    """
    jobs, inputs = [], 0
    for table, audio in (("balanced_train_segments.csv", "balance_wav"), ("eval_segments.csv", "eval_wav")):
        lines = (official / table).read_text().splitlines()
        (folder / table).write_text("\n".join([*(lines[:3] if every == 1 else []), *lines[3::every]]) + "\n")
        (folder / audio).mkdir()
        for row in segments(folder / table, ""):
            inputs += 1
            if hashlib.sha256(row.recording.encode()).digest()[0] >= 20:
                jobs.append(
                    (folder / audio / f"{row.recording}.flac", row.recording, (row.end or 10.0) - row.start)
                )
    with ProcessPoolExecutor() as pool:
        list(pool.map(synthesise, jobs, chunksize=64))
    run = [sys.executable, "-m", "beatline"]
    store = folder / "run/store"
    of_the_run = [
        "as20k",
        "--data.audioset",
        str(folder),
        "--out",
        str(folder / "run"),
        "--train.workers",
        "2",
    ]
    for name, what, command in (
        ("prepare", "prepare", [*run, "prepare", *of_the_run]),
        ("again", "prepare once more, with nothing to do", [*run, "prepare", *of_the_run]),
        ("verify", "verify: every byte of the store read and compared", [*run, "verify", str(store)]),
        (
            "inspect",
            "inspect, with its page",
            [*run, "inspect", str(store), "--html", str(folder / "inspection.html")],
        ),
    ):
        begin = time.perf_counter()
        most = most_memory(command)
        yield harness.state(
            f"prepare/audioset-{name}",
            f"AudioSet-20K with stand-in audio, {inputs} rows: {what}",
            time.perf_counter() - begin,
            "s",
            memory_mb=round(most),
        )
    opened = Store.open(store)
    ledger = [json.loads(line) for line in (store / "ledger.jsonl").read_text().splitlines()]
    ok = sum(line["status"] == "ok" for line in ledger)
    assert ok == len(opened.ids) == len(jobs) and len(ledger) == opened.summary["inputs"]
    size = sum(path.stat().st_size for path in store.iterdir()) / 1e9
    yield harness.state(
        "prepare/audioset-size",
        f"its store of {ok} clips, {opened.summary['hours']:.1f} hours",
        size,
        "GB",
        inputs=len(ledger),
        accepted=ok,
        rejected=str(opened.summary["rejected"]),
    )


if __name__ == "__main__":
    harness.main(rows, __doc__)
