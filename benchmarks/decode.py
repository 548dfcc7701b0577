"""Decoding through child processes against the decoder's own speed: 300 clips of 10 s, FLAC 48 kHz, mp3, wav and ogg in equal parts.

OMP_NUM_THREADS=1 python benchmarks/decode.py [--clips 300] [--rounds 3] [--json FILE]     (some two minutes on two cores; prints text, then one line of JSON)

Each round times, in turn, a bare loop of `audio.decode` in one process, `Decoders(1).map` and `Decoders(2).map` over the same files, the start of the children
included. The result is the median over the rounds of the quotients.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from beatline import audio
from beatline.children import Decoders, Job

FORMS = (("flac", 48_000, "PCM_16"), ("mp3", 44_100, None), ("wav", 44_100, "PCM_16"), ("ogg", 44_100, "VORBIS"))
DIFFERENT = 6  # sounds of each form; the other files are copies


def make(folder: Path, clips: int) -> list[Path]:
    """Stereo clips of 10 s: a chord over noise, so that no codec has it too easy."""
    rng = np.random.default_rng(0)
    paths, made = [], {}
    for number in range(clips):
        form, rate, subtype = FORMS[number % len(FORMS)]
        key = (form, number // len(FORMS) % DIFFERENT)
        if key not in made:
            seconds = np.arange(10 * rate) / rate
            tones = sum(0.1 * np.sin(2 * np.pi * hertz * seconds) for hertz in rng.uniform(100, 6000, 5))
            soundfile.write(folder / f"first.{form}", tones[:, None] + 0.05 * rng.standard_normal((len(seconds), 2)), rate, subtype=subtype)
            made[key] = (folder / f"first.{form}").read_bytes()
        paths.append(folder / f"{number:04d}.{form}")
        paths[-1].write_bytes(made[key])
    return paths


def seconds_of(work: Callable[[], int]) -> float:
    """Wall-clock time of one call, which must return a positive count of samples."""
    started = time.perf_counter()
    assert work() > 0
    return time.perf_counter() - started


def bare(paths: list[Path]) -> int:
    """Decodes everything here, one after another."""
    return sum(len(audio.decode(path).samples) for path in paths)


def through(paths: list[Path], workers: int) -> int:
    """Decodes everything in children."""
    with Decoders(workers) as decoders:
        return sum(len(found.samples) for found in decoders.map(Job(path) for path in paths))  # type: ignore[union-attr]


def main() -> None:
    """Prints seconds and quotients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = make(Path(folder), options.clips)
        bare(paths)  # into the page cache
        rounds = [[seconds_of(lambda: bare(paths)), seconds_of(lambda: through(paths, 1)), seconds_of(lambda: through(paths, 2))] for _ in range(options.rounds)]
    alone, one, two = (statistics.median(column) for column in zip(*rounds, strict=True))
    result = {
        "clips": options.clips,
        "seconds": {"bare": alone, "one child": one, "two children": two},
        "one_child_over_bare": statistics.median(a / b for a, b, _ in rounds),
        "two_children_over_one": statistics.median(b / c for _, b, c in rounds),
        "clips_per_second": options.clips / two,
        "machine": platform.processor() or platform.machine(),
    }
    print(f"bare loop {alone:.2f} s, one child {one:.2f} s, two children {two:.2f} s for {options.clips} clips")
    print(f"one child reaches {result['one_child_over_bare']:.2f} of the bare speed, two children {result['two_children_over_one']:.2f} of one")
    line = json.dumps(result)
    print(line)
    if options.json:
        options.json.write_text(line + "\n")


if __name__ == "__main__":
    main()
