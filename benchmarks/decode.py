"""Decoding through child processes against the decoder's own speed: 300 clips of 10 s, FLAC 48 kHz, mp3, wav
and ogg in equal parts.

./bench.sh decode        some three minutes on two cores

Each round times, in turn, a bare loop of `sndfile.decode` in one process, `Decoders(1).map` and
`Decoders(2).map` over the same files, the start of the children included.
"""

from collections.abc import Iterator
from pathlib import Path

import harness
import numpy as np
import soundfile

from beatline.audio.decoders import sndfile
from beatline.audio.pool import Decoders, Job

FORMS = (
    ("flac", 48_000, "PCM_16"),
    ("mp3", 44_100, None),
    ("wav", 44_100, "PCM_16"),
    ("ogg", 44_100, "VORBIS"),
)
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
            soundfile.write(
                folder / f"first.{form}",
                tones[:, None] + 0.05 * rng.standard_normal((len(seconds), 2)),
                rate,
                subtype=subtype,
            )
            made[key] = (folder / f"first.{form}").read_bytes()
        paths.append(folder / f"{number:04d}.{form}")
        paths[-1].write_bytes(made[key])
    return paths


def bare(paths: list[Path]) -> int:
    """Decodes everything here, one after another."""
    return sum(len(sndfile.decode(path).samples) for path in paths)


def through(paths: list[Path], workers: int) -> int:
    """Decodes everything in children."""
    with Decoders(workers) as decoders:
        return sum(len(found.samples) for found in decoders.map(Job(path) for path in paths))  # type: ignore[union-attr]


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """What one child costs and what the second brings."""
    clips = 24 if options.smoke else 300
    with harness.scratch() as folder:
        paths = make(Path(folder), clips)
        times = harness.interleave(
            {"bare": lambda: bare(paths), "one": lambda: through(paths, 1), "two": lambda: through(paths, 2)},
            options.pairs,
        )
    yield harness.ratio(
        "decode/one-child",
        "decoding in one bounded child process, as a part of the speed in this process",
        times["one"],
        times["bare"],
        harness.at_least(0.8),
        clips_a_second=clips / min(times["one"]),
    )
    yield harness.ratio(
        "decode/two-children",
        "two children, over one",
        times["two"],
        times["one"],
        harness.at_least(1.8),
        clips_a_second=clips / min(times["two"]),
    )


if __name__ == "__main__":
    harness.main(rows, __doc__)
