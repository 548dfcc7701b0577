"""a package's sound files -> clips of 4 s.

In: an unpacked package. Out: `<name>.<split>.wav`, its clips of a split end to end; `<name>.csv`, a
row for each clip; `<name>.npz`, the prints of its recordings. Long files are cut. Short takes stand alone,
and once more repeated and among neighbours of their folder. Speech is packed. Whatever is drawn is a function
of the package and the file.
"""

import csv
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import licences
import numpy as np
import soundfile
from sound import RATE, SAMPLES, faded, finished, print_of, read, rms
from unpack import AUDIO

from beatline.train.augmentation import generator

SPEECH = re.compile(r"asterisk|/voices?/|/speech/|prompt|/alphabet", re.I)
SPLITS = ("train", "alone", "val")
"""Of clips; `alone` are for training too, and in no composition."""

COLUMNS = ("clip", "split", "licence", "recordings")
VALIDATION = 20
"""Of so many families of recordings, those whose names differ by a number, one is for validation."""


@dataclass
class Take:
    """A sounding file."""

    name: str
    samples: np.ndarray
    licence: str


@dataclass
class Cut:
    """The clips of a package while they are made."""

    clips: list[np.ndarray] = field(default_factory=list)
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(
        self, samples: np.ndarray, rng: np.random.Generator, split: str, names: list[str], lic: str
    ) -> None:
        self.clips.append(finished(samples, rng))
        self.rows.append((split, lic, "|".join(dict.fromkeys(names))))


def split_of(package: str, name: str) -> str:
    """`val` for a twentieth of the families of recordings, else `train`."""
    family = re.sub(r"[\d_\-. ]*\.\w+$", "", name)
    digest = hashlib.blake2b(f"{package}/{family}".encode(), digest_size=4).digest()
    return "val" if int.from_bytes(digest, "little") % VALIDATION == 0 else "train"


def file_name(name: str) -> str:
    """A file's name without folder; of an entry of OpenSFX its number alone, as mini-audioset names it."""
    return re.sub(r"^(\d\d) .*\.wav$", r"\1.wav", os.path.basename(name))


def free_files(package: str, folder: Path, fixed: str, only: str) -> Iterator[tuple[str, str, str]]:
    """Name, licence and author of every sound file that is freely licensed, each content once.

    Args:
        fixed: Licence of all files, where the package has no machine-readable copyright file; else empty.
        only: A regular expression that names must match; empty for all.
    """
    stanzas = licences.read(folder)
    seen = set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.name.lower().endswith(AUDIO) or path.name.startswith("._") or not path.is_file():
            continue
        if only and not re.search(only, name):
            continue
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest in seen or path.is_symlink():
            continue
        seen.add(digest)
        stanza = None if fixed else licences.of_file(stanzas, name)
        licence = fixed or (stanza.licence if stanza else "")
        if licence and licences.is_free(licence):
            yield name, licence, stanza.author if stanza else ""


def cut(package: str, folder: Path, files: list[tuple[str, str, str]], out: Path, left_out: set[str]) -> None:
    """Writes a package's clips; does nothing where they are there.

    Args:
        left_out: Names of files, without their folder, that no clip may hold.
    """
    if Path(f"{out}.csv").exists():
        return
    made = Cut()
    prints: dict[str, np.ndarray] = {}
    short: dict[tuple[str, str], list[Take]] = {}
    for name, licence, _ in files:
        if file_name(name) in left_out:
            prints[name] = print_of(_sound_of(folder / name))
            continue
        samples = _sound_of(folder / name)
        if len(samples) < RATE // 25 or np.abs(samples).max() < 1e-3:
            continue
        prints[name] = print_of(samples)
        split = split_of(package, name)
        if len(samples) < 0.8 * SAMPLES:
            short.setdefault((os.path.dirname(name), split), []).append(Take(name, samples, licence))
            continue
        rng = generator("cut", package, name)
        loud = rms(samples)
        for begin in range(0, max(1, len(samples) - int(0.6 * SAMPLES)), SAMPLES):
            part = samples[begin : begin + SAMPLES]
            if rms(part) > 0.1 * loud:
                made.add(faded(part), rng, split, [name], licence)
    for (place, split), takes in short.items():
        if SPEECH.search(f"{package}/{place}/"):
            _packed(made, package, place, split, takes)
        else:
            _alone_and_among_neighbours(made, package, place, split, takes)
    write(out, made.clips, made.rows, prints)


def write(
    out: Path,
    clips: list[np.ndarray],
    rows: list[tuple[str, str, str]],
    prints: dict[str, np.ndarray],
) -> None:
    """Writes the files of a package, a WAV for each split and the table last: where it is, all are whole."""
    for split in SPLITS:
        own = [clip for clip, row in zip(clips, rows, strict=True) if row[0] == split]
        if own:
            soundfile.write(f"{out}.{split}.wav", np.concatenate(own), RATE, subtype="PCM_16", format="WAV")
    np.savez(
        f"{out}.npz",
        names=np.array(list(prints), dtype=str),
        prints=np.stack(list(prints.values())).astype(np.float16)
        if prints
        else np.zeros((0, 62, 28), np.float16),
    )
    part = Path(f"{out}.csv.part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((f"{out.name}-{index:05d}", *row) for index, row in enumerate(rows))
    part.rename(f"{out}.csv")


def _sound_of(path: Path) -> np.ndarray:
    try:
        return read(path)
    except (soundfile.LibsndfileError, ValueError, RuntimeError):
        return np.zeros(0, np.float32)


def _packed(made: Cut, package: str, place: str, split: str, takes: list[Take]) -> None:
    """Speech: takes in a random order, as many as a clip holds, each once."""
    order = list(generator("pack", package, place, split).permutation(len(takes)))
    while order:
        rng = generator("packed", package, place, split, len(order))
        clip = np.zeros(SAMPLES, np.float32)
        at = int(rng.uniform(0, 0.15) * SAMPLES)
        used: list[Take] = []
        while order:
            take = takes[order[-1]]
            if used and at + len(take.samples) > SAMPLES:
                break
            count = min(len(take.samples), SAMPLES - at)
            clip[at : at + count] += faded(take.samples)[:count]
            used.append(take)
            at += count + int(rng.uniform(0.03, 0.5) * RATE)
            order.pop()
            if at >= SAMPLES:
                break
        made.add(clip, rng, split, [take.name for take in used], _licence(used))


def _alone_and_among_neighbours(made: Cut, package: str, place: str, split: str, takes: list[Take]) -> None:
    for take in takes:
        rng = generator("short", package, take.name)
        clip = np.zeros(SAMPLES, np.float32)
        at = int(rng.integers(max(1, SAMPLES - len(take.samples))))
        clip[at : at + len(take.samples)] += faded(take.samples)
        made.add(clip, rng, split, [take.name], take.licence)
        if len(take.samples) >= 0.5 * SAMPLES:
            continue
        clip = np.zeros(SAMPLES, np.float32)
        at = int(rng.uniform(0, 0.2) * SAMPLES)
        used = []
        current = take
        while at < SAMPLES and len(used) < 6:
            count = min(len(current.samples), SAMPLES - at)
            clip[at : at + count] += faded(current.samples)[:count] * rng.uniform(0.6, 1)
            used.append(current)
            at += len(current.samples) + int(rng.uniform(0.02, 0.7) * RATE)
            if rng.random() < 0.4:
                current = takes[int(rng.integers(len(takes)))]
        made.add(clip, rng, split, [each.name for each in used], _licence(used))


def _licence(takes: list[Take]) -> str:
    return "; ".join(dict.fromkeys(take.licence for take in takes))
