"""Mutated sound files of every form through the library: each is tagged with finite scores in [0, 1] or
refused with a known code, in time and within bounds.

python benchmarks/fuzz_tag.py 50000 [--seed 0] [--guarded] [--workers 1] [--keep FOLDER] [--json FILE [--slice
    5000]]     (some 10 ms a file on one core; prints text, then a line of JSON)

`AudioTagger.tag` runs in a program of its own that names each file before it touches it, so that a crash of a
decoder library is seen and names its file; with --guarded the files are decoded in bounded children, as bulk
tagging does. Mutation `number` is a pure function of the seed and the number. Ends with status 1 if the
program crashed, a file took 10 s, a code is unknown, a score is not finite or not in [0, 1], or the program
held more than 512 MiB. With --slice it tries so many of those that FILE does not tell of yet and adds to it:
a machine that others use is theirs between two slices.
"""

import argparse
import json
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fuzz_decode
import harness
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from beatline.core.errors import EXIT_CODES, INPUT

LONGEST_WAIT = 10.0
MOST_BYTES = 512 << 20
PART = 1000  # files that one program takes, one after the other


def main() -> int:
    """Prints how many were tagged, how many refused with which code, the longest time and the largest
    program.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guarded", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--slice", type=int)
    parser.add_argument("--program", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        tag_files(Path(options.program), options.guarded)
        return 0
    before = json.loads(options.json.read_text()) if options.slice and options.json.exists() else {}
    begin = before.get("files", 0)
    end = min(options.count, begin + options.slice) if options.slice else options.count
    result = tried_all(begin, end, options)
    if before:
        result = added(before, result)
    print(
        f"{result['files']} mutations in {result['seconds']:.0f} s; slowest "
        f"{result['slowest']['seconds']:.2f} s; largest program {result['largest_program_mib']} MiB; "
        f"{', '.join(f'{code} {count}' for code, count in result['outcomes'].items())}"
    )
    return harness.conclude(result, options.json)


def tried_all(begin: int, end: int, options: argparse.Namespace) -> dict[str, Any]:
    """What became of the mutations from `begin` to before `end`."""
    started, found = time.monotonic(), []
    with ThreadPoolExecutor(options.workers) as pool:
        for part in pool.map(
            lambda first: tried(first, min(first + PART, end), options), range(begin, end, PART)
        ):
            found += part
    wrong = [f"{one['number']}: {one['outcome']} {one.get('words', '')}" for one in found if one["wrong"]]
    if len(found) != end - begin:
        wrong.append(f"{len(found)} outcomes of {end - begin} files")
    largest, slowest = max(one.get("bytes", 0) for one in found), max(found, key=lambda one: one["seconds"])
    if largest > MOST_BYTES:
        wrong.append(f"a program held {largest >> 20} MiB")
    return {
        "files": end,
        "seed": options.seed,
        "guarded": options.guarded,
        "outcomes": dict(Counter(one["outcome"] for one in found).most_common()),
        "slowest": {"number": slowest["number"], "seconds": slowest["seconds"]},
        "largest_program_mib": largest >> 20,
        "largest_child_mib": max(one.get("child_bytes", 0) for one in found) >> 20,
        "seconds": round(time.monotonic() - started, 1),
        "wrong": wrong[:50],
        "where": harness.place(),
    }


def added(before: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Both slices as one."""
    same = [
        (one["seed"], one["guarded"], one["where"]["commit"], one["where"]["device"])
        for one in (before, result)
    ]
    if same[0] != same[1]:
        raise SystemExit(f"the file tells of other mutations or another program: {same[0]} and {same[1]}")
    return result | {
        "outcomes": dict((Counter(before["outcomes"]) + Counter(result["outcomes"])).most_common()),
        "slowest": max(before["slowest"], result["slowest"], key=lambda one: one["seconds"]),
        "largest_program_mib": max(before["largest_program_mib"], result["largest_program_mib"]),
        "largest_child_mib": max(before["largest_child_mib"], result["largest_child_mib"]),
        "seconds": round(before["seconds"] + result["seconds"], 1),
        "wrong": [*before["wrong"], *result["wrong"]][:50],
    }


def tried(begin: int, end: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What became of some mutations; those that end the program are followed by the rest in another one."""
    originals, outcomes = fuzz_decode.originals(), []
    with tempfile.TemporaryDirectory() as name:
        while begin < end:
            for number in range(begin, end):
                (Path(name) / f"{number:08d}.wav").write_bytes(
                    fuzz_decode.mutated(originals, options.seed, number)
                )
            some = watched(Path(name), options)
            outcomes += some
            begin += len(some)
            if some[-1]["outcome"] in ("crashed", "hung") and options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                number = some[-1]["number"]
                (options.keep / f"{options.seed}-{number}").write_bytes(
                    fuzz_decode.mutated(originals, options.seed, number)
                )
            for path in Path(name).iterdir():
                path.unlink()
    return outcomes


def watched(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What a program says of the files in a folder, up to the one that ended it."""
    outcomes: list[dict[str, Any]] = []
    command = [
        sys.executable,
        __file__,
        "0",
        "--program",
        str(folder),
        *(["--guarded"] if options.guarded else []),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        assert program.stdout is not None
        number, patience = -1, 120.0  # it is still starting
        while select.select([program.stdout], [], [], patience)[0] and (line := program.stdout.readline()):
            said = json.loads(line)
            number, patience = said["number"], 3 * LONGEST_WAIT
            if "outcome" in said:
                outcomes.append(said)
        program.kill()
        ended = program.wait()
    if ended != 0 and number >= 0 and (not outcomes or outcomes[-1]["number"] != number):
        outcomes.append(
            {
                "number": number,
                "outcome": "hung" if ended == -9 else "crashed",
                "seconds": 0.0,
                "wrong": True,
                "words": f"status {ended}",
            }
        )
    if not outcomes:
        raise RuntimeError(f"the program ended with {ended} before its first file")
    return outcomes


def tag_files(folder: Path, guarded: bool) -> None:
    """In the program: names each file of the folder and says what became of it."""
    import torch

    from beatline.audio import media
    from beatline.audio.pool import Decoders, Job
    from beatline.model.engines.pytorch import TorchEngine
    from beatline.tag.tagger import AudioTagger, Refused
    from tests.helpers.models import LABELS, make_tagger
    from tests.helpers.processes import children, most_memory

    torch.set_num_threads(1)
    tagger = AudioTagger(TorchEngine(make_tagger(), LABELS))
    with Decoders(1, max_wait=LONGEST_WAIT) as decoders:
        for path in sorted(folder.iterdir()):
            number = int(path.stem)
            print(json.dumps({"number": number}), flush=True)
            begun = time.monotonic()
            (result,) = (
                tagger.tag([Job(path)], read=decoders.blocks)
                if guarded
                else tagger.tag([path], read=media.blocks)
            )
            said = {
                "number": number,
                "seconds": round(time.monotonic() - begun, 3),
                "bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            }
            said["child_bytes"] = max(map(most_memory, children()), default=0)
            if isinstance(result, Refused):
                code = result.error.code
                said |= {
                    "outcome": code,
                    "words": str(result.error),
                    "wrong": EXIT_CODES[code] != INPUT
                    or code in ("decode-timeout", "decoder-crashed")
                    or "\n" in str(result.error),
                }
            else:
                scores = np.concatenate([result.scores, result.window_scores.ravel()])
                said |= {
                    "outcome": "tagged",
                    "wrong": not bool(
                        np.isfinite(scores).all()
                        and (scores >= 0).all()
                        and (scores <= 1).all()
                        and np.isfinite(result.embedding).all()
                    ),
                }
            said["wrong"] |= said["seconds"] >= LONGEST_WAIT
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    sys.exit(main())
