"""How long and how much memory the manifest of all of AudioSet takes, and how close a clean split comes to
its share.

./bench.sh manifest        Synthesises a copy of AudioSet in a temporary folder: the segment CSVs with their
                           official numbers of rows, and an empty file per clip in
the layout of the unbalanced parts, a tenth of them left out. Each manifest is read in a process of its own.
Where the variable AUDIOSET names a folder with the official balanced_train_segments.csv, the clean split is
measured on that, else on the synthetic one.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import harness

from beatline.config import DataConfig
from beatline.core.labels import audioset
from beatline.data import manifest
from beatline.data.manifest.audioset import segments

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
TABLES = {"balanced_train": 22_160, "eval": 20_371, "unbalanced_train": 2_041_789}
PARTS = 41  # folders of the unbalanced set
MISSING = 0.1
SECONDS, MEGABYTES = 60, 1000


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Seconds and memory of AS-20K, AS-2M, and AS-2M with a clean split; distance of labels from their
    share.
    """
    with harness.scratch() as name:
        folder = Path(name)
        tables = {table: count // 100 if options.smoke else count for table, count in TABLES.items()}
        synthesise(folder, tables)
        for name, what, train, validation in (
            (
                "as20k",
                "AS-20K: balanced and eval, beside the files of all the rest",
                "balanced",
                "inside-eval",
            ),
            ("as2m", "AS-2M: balanced, unbalanced and eval", "balanced,unbalanced", "inside-eval"),
            ("as2m-clean", "AS-2M with a clean validation split", "balanced,unbalanced", "clean"),
        ):
            found = in_own_process(folder, train, validation)
            facts = {key: found[key] for key in ("inputs", "clips", "rejected", "processor_seconds")}
            yield harness.state(
                f"manifest/{name}",
                f"seconds for {what}",
                found["seconds"],
                "s",
                harness.at_most(SECONDS),
                **facts,
            )
            yield harness.state(
                f"manifest/{name}-memory",
                f"peak memory for {what}",
                found["megabytes"],
                "MB",
                harness.at_most(MEGABYTES),
            )
        official = Path(os.environ.get("AUDIOSET", folder), "balanced_train_segments.csv")
        yield from split_quality(official)


def synthesise(folder: Path, tables: dict[str, int]) -> None:
    """A copy of AudioSet with empty files."""
    draw = random.Random(0)
    mids = audioset().mids
    weights = [1 / (rank + 1) for rank in range(len(mids))]  # labels are about as unequal as this
    for table, count in tables.items():
        parts = PARTS if table == "unbalanced_train" else 1
        folders = [
            folder / "audios" / (f"{table}_segments_part{part:02d}" if parts > 1 else f"{table}_segments")
            for part in range(parts)
        ]
        for part in folders:
            part.mkdir(parents=True)
        labels = draw.choices(mids, weights, k=3 * count)
        with (folder / f"{table}_segments.csv").open("w") as csv:
            csv.write(
                f"# Segments csv\n# num_ytids={count}, num_segs={count}\n# YTID, start_seconds, "
                f"end_seconds, positive_labels\n"
            )
            for number in range(count):
                recording = "".join(draw.choices(LETTERS, k=11))
                start = 10.0 * draw.randrange(30)
                some = {mids[number % len(mids)], *labels[3 * number : 3 * number + draw.randint(0, 3)]}
                csv.write(f'{recording}, {start:.3f}, {start + 10:.3f}, "{",".join(sorted(some))}"\n')
                if draw.random() >= MISSING:
                    (folders[number % parts] / f"Y{recording}.wav").touch()


def in_own_process(folder: Path, train: str, validation: str) -> dict[str, float]:
    """What reading the manifest takes."""
    done = subprocess.run(
        [sys.executable, __file__, "--read", str(folder), train, validation],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def read(folder: str, train: str, validation: str) -> None:
    """Reads a manifest and prints what it took."""
    begin, processor = time.perf_counter(), time.process_time()
    found = manifest.read(
        DataConfig(audioset=Path(folder), audioset_train=tuple(train.split(",")), validation=validation)
    )  # type: ignore[arg-type]
    took = {
        "seconds": time.perf_counter() - begin,
        "processor_seconds": time.process_time() - processor,
        "megabytes": harness.resident("VmHWM"),
    }
    print(
        json.dumps(
            took | {"inputs": found.inputs, "clips": len(found.clips), "rejected": len(found.rejected)}
        )
    )


def split_quality(path: Path) -> Iterator[harness.Row]:
    """How far each label's share of a clean split of a segment CSV is from the share asked for, in clips and
    as a share.
    """
    clips = [row for row in segments(path, "x") if row.problem is None]
    recordings, labels = [row.recording for row in clips], [tuple(row.labels) for row in clips]
    total = Counter(mid for some in labels for mid in some)
    for share in (0.05, 0.1, 0.2):
        taken = manifest.carve(recordings, labels, range(len(clips)), share, seed=0)[1]
        val = Counter(mid for i in taken for mid in labels[i])
        off = {mid: abs(val[mid] / count - share) for mid, count in total.items()}
        rarest = min(total.values())
        facts = {
            "clips": len(clips),
            "labels": len(total),
            "rarest_label_has": rarest,
            "taken": len(taken) / len(clips),
            "95_percent_of_labels_within": sorted(off.values())[int(0.95 * len(off))],
            "labels_without_a_clip": sum(val[mid] == 0 for mid in total),
        }
        yield harness.state(
            f"manifest/split-{share}",
            f"largest distance of a label's share from {share} ({path.name}); one clip of the rarest label "
            f"is {1 / rarest:.4f}",
            max(off.values()),
            "",
            harness.at_most(1.5 / rarest),
            **facts,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        read(*sys.argv[2:])
    else:
        harness.main(rows, __doc__)
