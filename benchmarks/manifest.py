"""How long and how much memory a manifest of AudioSet takes: `python benchmarks/manifest.py [--rows 2041789] [--missing 0.1] [--splits CSV]`.

Synthesises a copy of AudioSet in a temporary folder: the three segment CSVs with their official numbers of rows (unbalanced: `--rows`) and an empty file per clip in the layout
of the unbalanced parts, a share of them left out. Then reads the manifest in a process of its own, and prints seconds and peak memory. With `--splits`, measures on an
official segment CSV how close a clean split comes to its share, label by label.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from beatline.labels import audioset

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
PARTS = 41  # folders of the unbalanced set
CHILD = """
import resource, sys, time
from pathlib import Path
from beatline import manifest
from beatline.config import DataConfig
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin, cpu = time.perf_counter(), time.process_time()
found = manifest.read(DataConfig(audioset=Path(sys.argv[1]), audioset_train=tuple(sys.argv[2].split(",")), validation=sys.argv[3]))
seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
import json
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"inputs": found.inputs, "clips": len(found.clips), "rejected": len(found.rejected), "val": len(found.splits["val"]), "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "peak_mb": peak // 1024, "before_mb": before // 1024}))
"""


def synthesise(root: Path, rows: int, missing: float) -> None:
    """A copy of AudioSet with empty files."""
    draw = random.Random(0)
    mids = audioset().mids
    weights = [1 / (rank + 1) for rank in range(len(mids))]  # labels are about as unequal as this
    for table, count in (("balanced_train", 22_160), ("eval", 20_371), ("unbalanced_train", rows)):
        parts = PARTS if table == "unbalanced_train" else 1
        folders = [root / "audios" / (f"{table}_segments_part{part:02d}" if parts > 1 else f"{table}_segments") for part in range(parts)]
        for folder in folders:
            folder.mkdir(parents=True)
        labels = draw.choices(mids, weights, k=3 * count)
        with (root / f"{table}_segments.csv").open("w") as csv:
            csv.write(f"# Segments csv\n# num_ytids={count}, num_segs={count}\n# YTID, start_seconds, end_seconds, positive_labels\n")
            for number in range(count):
                recording = "".join(draw.choices(LETTERS, k=11))
                start = 10.0 * draw.randrange(30)
                some = dict.fromkeys(labels[3 * number : 3 * number + draw.randint(1, 3)])
                csv.write(f'{recording}, {start:.3f}, {start + 10:.3f}, "{",".join(some)}"\n'.replace("\\\n", "\n"))
                if draw.random() >= missing:
                    (folders[number % parts] / f"Y{recording}.wav").touch()


def measure(root: Path, tables: str, validation: str) -> None:
    out = subprocess.run([sys.executable, "-c", CHILD, str(root), tables, validation], check=True, stdout=subprocess.PIPE, text=True).stdout
    print(tables, validation, json.loads(out), flush=True)


def split_quality(path: Path, share: float) -> None:
    """Prints how far each label's share of a clean split is from the share asked for."""
    from beatline.manifest import Clip, carve
    from beatline.manifest.audioset import segments

    rows = [row for row in segments(path, "x") if row.problem is None]
    clips = [Clip(row.id, row.recording, row.path, tuple(row.labels)) for row in rows]
    begin = time.perf_counter()
    kept, taken = carve(clips, range(len(clips)), share, seed=0)
    total, val = Counter(mid for clip in clips for mid in clip.labels), Counter(mid for i in taken for mid in clips[i].labels)
    off = sorted(((val[mid] / count - share, count, mid) for mid, count in total.items()), key=lambda item: abs(item[0]))
    print(f"{path.name}: {len(taken)} of {len(clips)} clips ({len(taken) / len(clips):.4f}, asked {share}), {len(total)} labels, {time.perf_counter() - begin:.2f} s")
    print(f"  labels without a validation clip: {sum(val[mid] == 0 for mid in total)}; largest count of labels in val {max(val.values())}, smallest {min(val[mid] for mid in total)}")
    for name, place in (("median", len(off) // 2), ("95 %", int(0.95 * len(off))), ("largest", len(off) - 1)):
        print(f"  {name} distance of a label's share: {off[place][0]:+.4f} (label with {off[place][1]} clips)")
    again = carve(list(reversed(clips)), range(len(clips)), share, seed=0)[1]
    print(f"  the same clips from the rows in reverse: { {clips[i].id for i in taken} == {clips[len(clips) - 1 - i].id for i in again} }")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2_041_789)
    parser.add_argument("--missing", type=float, default=0.1)
    parser.add_argument("--splits", type=Path)
    arguments = parser.parse_args()
    if arguments.splits:
        for share in (0.05, 0.1, 0.2):
            split_quality(arguments.splits, share)
    else:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            synthesise(Path(folder), arguments.rows, arguments.missing)
            print(f"made in {time.perf_counter() - begin:.0f} s", flush=True)
            measure(Path(folder), "balanced", "inside-eval")
            measure(Path(folder), "balanced,unbalanced", "inside-eval")
            measure(Path(folder), "balanced,unbalanced", "clean")
