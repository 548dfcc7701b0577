"""Mutated sound files of every form through the child processes: each is decoded or refused with a known
code, in time and within bounds.

python benchmarks/fuzz_decode.py 50000 [--seed 0] [--workers 2] [--keep FOLDER] [--json FILE]     (some 15 ms
    a file on one core; prints text, then one line of JSON)

Mutation `number` is a pure function of the seed and the number. A file whose decoder crashed or took too long
is kept in FOLDER. Ends with status 1 if a job took
10 s, a code is unknown, a result is empty or not int16, or a child held more than 256 MiB. A crash is counted
and costs its job only.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from beatline.audio.pool import Decoders, Job
from beatline.audio.samples import Decoded
from beatline.core.errors import EXIT_CODES, INPUT
from tests.helpers.sounds import CONTAINED, PLAIN, chord, contained, plain

LONGEST_WAIT = 10.0
MOST_BYTES = 256 << 20
EXTREMES = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
    b"\0\0\0\x80",
    b"\0\0\0\1",
    b"\1\0\0\0",
)


def originals() -> list[bytes]:
    """A short file of each form."""
    files = [
        plain(form, subtype, 22_050 if subtype != "OPUS" else 24_000, chord(22_050, 2, 0.5))
        for form, subtype in PLAIN
    ]
    return files + [
        contained(container, codec, rate, chord(rate, channels, 0.5))
        for container, codec, rate, channels, _ in CONTAINED
    ]


def mutated(files: list[bytes], seed: int, number: int) -> bytes:
    """One of the files with some to many changes; half of them near its beginning, where the structure is."""
    rng = np.random.default_rng([seed, number])
    content = bytearray(files[rng.integers(len(files))])
    for _ in range(int(rng.geometric(0.3))):
        reach = min(len(content), 400 if rng.random() < 0.5 else len(content))
        place = int(rng.integers(max(1, reach)))
        length = int(rng.geometric(0.02))
        match rng.integers(8):
            case 0 | 1:
                content[place : place + 1] = rng.bytes(1)
            case 2:
                content[place : place + 4] = EXTREMES[rng.integers(len(EXTREMES))]
            case 3:
                content[place : place + length] = rng.bytes(length)
            case 4:
                content[place : place + length] = b""
            case 5:
                content[place:place] = content[place : place + length] * int(rng.integers(1, 20))
            case 6:
                del content[max(place, 16) :]
            case 7:
                other = files[rng.integers(len(files))]
                content[place:] = other[min(place, len(other) - 1) :]
    return bytes(content)


def main() -> int:
    """Prints how many were decoded, how many refused with which code, the longest time and the largest
    child.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    files, outcomes, wrong = originals(), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:

        def jobs() -> Iterator[Job]:
            for number in range(options.count):
                path = Path(folder) / f"{number}.wav"
                path.write_bytes(mutated(files, options.seed, number))
                yield Job(path)

        started = time.monotonic()
        with Decoders(options.workers, max_wait=LONGEST_WAIT) as decoders:
            for number, found in enumerate(decoders.map(jobs())):
                code = "decoded" if isinstance(found, Decoded) else found.code
                outcomes[code] += 1
                if isinstance(found, Decoded):
                    good = found.samples.dtype == np.int16 and len(found.samples) > 0
                else:
                    good = EXIT_CODES[code] == INPUT and code != "decode-timeout" and "\n" not in str(found)
                if not good:
                    wrong.append(f"{number}: {found}")
                path = Path(folder) / f"{number}.wav"
                if code in ("decoder-crashed", "decode-timeout"):
                    print(f"mutation {number} of seed {options.seed}: {found}", flush=True)
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        (options.keep / f"{options.seed}-{number}").write_bytes(path.read_bytes())
                path.unlink()
        seconds = time.monotonic() - started
    largest = (
        resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    )  # over all children that have ended
    if largest > MOST_BYTES:
        wrong.append(f"a child held {largest >> 20} MiB")
    result = {
        "files": options.count,
        "seed": options.seed,
        "forms": len(files),
        "outcomes": dict(outcomes.most_common()),
        "largest_child_mib": largest >> 20,
        "seconds": round(seconds, 1),
        "wrong": wrong,
    }
    print(
        f"{options.count} mutations of {len(files)} forms in {seconds:.0f} s; largest child {largest >> 20} "
        f"MiB; {', '.join(f'{code} {count}' for code, count in outcomes.most_common())}"
    )
    for line in wrong:
        print(line)
    line = json.dumps(result)
    print(line)
    if options.json:
        options.json.write_text(line + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
