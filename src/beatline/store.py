"""manifest -> store: every clip decoded once, as int16 in shards, with random access by clip.

In: a `Manifest`. Out: a published folder: `shard-*.i16` (samples of up to 512 clips one after another, little-endian), `clips.csv`, `index.npy`,
`labels.csv`, `splits.json`, `ledger.jsonl`, `summary.json`. Shards are the unit of work: a killed preparation goes on with the shards that are
missing, and any number of threads writes the same bytes.
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beatline import artefact
from beatline.audio import RESAMPLER, decode
from beatline.errors import UserError
from beatline.fbank import SAMPLE_RATE
from beatline.labels import LabelSet
from beatline.limits import LIMITS
from beatline.manifest import Clip, Manifest, Rejected
from beatline.runlog import say

SHARD_CLIPS = 512
INDEX = np.dtype([("shard", "<i4"), ("offset", "<i8"), ("length", "<i8")])
CSV_COLUMNS = ("id", "recording", "source", "start", "end", "labels", "seconds", "rate", "channels", "peak", "rms")


# ------------------------------------------------------------------ prepare


def _decode_clip(clip: Clip, limits: tuple[float, float] | None) -> tuple[np.ndarray, dict[str, Any]] | Rejected:
    """A clip's samples and facts, or why there are none."""
    try:
        longest = LIMITS.max_clip_seconds if limits is None else min(limits[1], LIMITS.max_clip_seconds)
        decoded = decode(clip.path, clip.start, clip.end, max_seconds=longest)
        samples = decoded.samples
        seconds = len(samples) / SAMPLE_RATE
        if limits is not None and seconds < limits[0]:
            raise UserError("too-short", f"cannot use {clip.path}", f"{seconds:.3f} s, less than {limits[0]:g} s", "drop it or lower data.min_seconds")
    except UserError as error:
        return Rejected(clip.id, error.code, str(error), clip.labels)
    level = samples.astype(np.float32) / 32768
    facts: dict[str, Any] = {"seconds": round(seconds, 4), "rate": decoded.rate_in, "channels": decoded.channels_in}
    return samples, facts | {"peak": round(float(np.abs(level).max()), 5), "rms": round(float(np.sqrt(np.mean(level**2))), 6)}


def _write_shard(folder: Path, number: int, clips: list[Clip], limits: list[tuple[float, float] | None], pool: ThreadPoolExecutor, done: Callable[[int], None]) -> None:
    """Decodes a shard's clips and writes its samples, then its ledger with their SHA-256."""
    samples, lines = [], []
    for clip, result in zip(clips, pool.map(_decode_clip, clips, limits), strict=True):
        if isinstance(result, Rejected):
            lines.append({"input": clip.id, "status": "rejected", "code": result.code, "reason": result.reason, "labels": list(result.labels)})
        else:
            samples.append(result[0])
            lines.append({"input": clip.id, "status": "ok", "length": len(result[0]), **result[1]})
        done(1)
    data = folder / f"shard-{number:05d}.i16"
    content = np.concatenate(samples).astype("<i2").tobytes() if samples else b""
    artefact.write_atomic(data, content)
    artefact.checkpoint_hook("shard-written")
    artefact.write_atomic(data.with_suffix(".part.json"), json.dumps({"sha256": artefact.sha256_file(data), "lines": lines}))


def _shard_done(folder: Path, number: int) -> bool:
    """Whether a shard of an earlier, interrupted preparation is whole."""
    data = folder / f"shard-{number:05d}.i16"
    try:
        return json.loads(data.with_suffix(".part.json").read_text())["sha256"] == artefact.sha256_file(data)
    except (OSError, ValueError, KeyError):
        return False


def plan_hash(manifest: Manifest, limits: tuple[float, float]) -> str:
    """What the store will be made from: clips with the size and time of their files, labels, splits, limits."""

    def facts(path: Path) -> list[int]:
        try:
            found = os.stat(path)
            return [found.st_size, found.st_mtime_ns]
        except OSError:
            return []

    rows = [[c.id, c.recording, str(c.path), list(c.labels), c.start, c.end, facts(c.path)] for c in manifest.clips]
    rejected = [[r.input, r.code] for r in manifest.rejected]
    return artefact.hash_json([rows, rejected, manifest.labels.hash, manifest.splits, manifest.validation, list(limits), RESAMPLER, SHARD_CLIPS])


def prepare(manifest: Manifest, folder: Path, limits: tuple[float, float], workers: int = 1, progress: Callable[[int], None] = lambda count: None) -> dict[str, Any]:
    """Makes the store, or finds it made; returns its summary.

    Args:
        manifest: The clips.
        folder: The store's folder.
        limits: Shortest and longest training and validation clip, seconds; test clips are kept whatever their length.
        workers: Decoding threads.
        progress: Called with the number of clips just done.

    Raises:
        UserError: `no-clips`, `disk-full`, `not-writable`.
    """
    plan = plan_hash(manifest, limits)
    artefact.recover(folder)
    about = artefact.read_manifest(folder)
    if about is not None and about.get("plan") == plan:
        try:
            artefact.verify(folder)
            return json.loads((folder / "summary.json").read_text())
        except UserError as error:
            say("prepare", f"{error}; making it again")
    partial = folder.with_name(folder.name + ".partial")
    with artefact.disk_errors(folder):
        _start(partial, plan)
        bounded = {i for name in ("train", "val") for i in manifest.splits[name]} - set(manifest.splits["test"])
        shards = range(0, len(manifest.clips), SHARD_CLIPS)
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for number, begin in enumerate(shards):
                clips = manifest.clips[begin : begin + SHARD_CLIPS]
                if _shard_done(partial, number):
                    progress(len(clips))
                    continue
                _write_shard(partial, number, clips, [limits if begin + i in bounded else None for i in range(len(clips))], pool, progress)
        summary = _assemble(partial, manifest, len(shards))
        (partial / "plan").unlink()
        artefact.checkpoint_hook("content-written")
        artefact.seal(partial, {"kind": "store", "plan": plan, "labels_hash": manifest.labels.hash, "resampler": RESAMPLER})
        artefact.put_in_place(partial, folder)
    return summary


def _start(partial: Path, plan: str) -> None:
    """An empty working folder, or the one an interrupted preparation of the same plan left."""
    import shutil

    try:
        same = (partial / "plan").read_text() == plan
    except OSError:
        same = False
    if not same:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        artefact.write_atomic(partial / "plan", plan)


def _assemble(partial: Path, manifest: Manifest, shards: int) -> dict[str, Any]:
    """Joins the shards' ledgers into the store's tables; asserts that every input is accounted for."""
    ledger = [{"input": r.input, "status": "rejected", "code": r.code, "reason": r.reason, "labels": list(r.labels)} for r in manifest.rejected]
    index: list[tuple[int, int, int]] = []
    rows: list[list[Any]] = []
    kept: dict[int, int] = {}
    for number in range(shards):
        part = partial / f"shard-{number:05d}.part.json"
        offset = 0
        for place, line in enumerate(json.loads(part.read_text())["lines"]):
            clip_index = number * SHARD_CLIPS + place
            clip = manifest.clips[clip_index]
            if line["status"] == "ok":
                kept[clip_index] = len(rows)
                index.append((number, offset, line["length"]))
                offset += line["length"]
                facts = [line[name] for name in ("seconds", "rate", "channels", "peak", "rms")]
                rows.append([clip.id, clip.recording, str(clip.path), clip.start, "" if clip.end is None else clip.end, ";".join(clip.labels), *facts])
            ledger.append(line)
    accepted = sum(line["status"] == "ok" for line in ledger)
    refused = Counter(line["code"] for line in ledger if line["status"] == "rejected")
    assert manifest.inputs == accepted + refused.total() == len(ledger), (manifest.inputs, accepted, refused)
    splits = {name: [kept[i] for i in indices if i in kept] for name, indices in manifest.splits.items()}
    for name in ("train", "test"):
        if not splits[name]:
            raise UserError("no-clips", f"split {name}", f"every clip was rejected ({', '.join(f'{c} {n}' for c, n in refused.items())})", "see ledger.jsonl and check the audio")
    lost = Counter(mid for line in ledger if line["status"] == "rejected" for mid in line["labels"])
    present = Counter(mid for i in kept for mid in manifest.clips[i].labels)
    summary = {
        "inputs": manifest.inputs,
        "ok": accepted,
        "rejected": dict(refused),
        "splits": {name: len(indices) for name, indices in splits.items()},
        "hours": sum(length for *_, length in index) / SAMPLE_RATE / 3600,
        "validation": manifest.validation,
        "labels": [{"mid": label.mid, "name": label.name, "present": present[label.mid], "lost": lost[label.mid]} for label in manifest.labels.labels],
    }
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(rows)
    np.save(partial / "index.npy", np.array(index, INDEX), allow_pickle=False)
    texts = {
        "clips.csv": out.getvalue(),
        "labels.csv": manifest.labels.to_csv(),
        "splits.json": json.dumps(splits),
        "ledger.jsonl": "".join(json.dumps(line) + "\n" for line in ledger),
        "summary.json": json.dumps(summary, indent=1) + "\n",
    }
    for name, text in texts.items():
        (partial / name).write_text(text, encoding="utf-8")
    for number in range(shards):
        (partial / f"shard-{number:05d}.part.json").unlink()
    return summary


# ------------------------------------------------------------------ read


@dataclass(frozen=True)
class Store:
    """Prepared audio: `ids`, `lengths` in samples `(clips,)`, `splits` as clip indices, `labels`, `about` of its manifest and its `summary`."""

    folder: Path
    about: dict[str, Any]
    labels: LabelSet
    ids: tuple[str, ...]
    splits: dict[str, np.ndarray]
    summary: dict[str, Any]
    index: np.ndarray
    shards: tuple[np.ndarray, ...]
    label_lists: tuple[tuple[int, ...], ...]

    @staticmethod
    def open(folder: Path) -> "Store":
        """Opens a published store; its tables are verified in full, its samples by size (`beatline doctor` reads them all).

        Raises:
            UserError: `corrupt-artefact`.
        """
        about = artefact.verify(folder, lambda name: not name.endswith(".i16"))
        labels = LabelSet.from_csv((folder / "labels.csv").read_text(encoding="utf-8"), str(folder / "labels.csv"))
        rows = list(csv.DictReader(io.StringIO((folder / "clips.csv").read_text(encoding="utf-8"), newline="")))
        index = np.load(folder / "index.npy", allow_pickle=False)
        files = sorted(folder.glob("shard-*.i16"))
        shards = tuple(np.memmap(f, "<i2", "r") if f.stat().st_size else np.empty(0, "<i2") for f in files)
        return Store(
            folder=folder,
            about=about,
            labels=labels,
            ids=tuple(row["id"] for row in rows),
            splits={name: np.array(indices, np.int64) for name, indices in json.loads((folder / "splits.json").read_text()).items()},
            summary=json.loads((folder / "summary.json").read_text()),
            index=index,
            shards=shards,
            label_lists=tuple(tuple(labels.index_of_mid[mid] for mid in row["labels"].split(";")) for row in rows),
        )

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each clip, `(clips,)` int64."""
        return self.index["length"]

    def samples(self, clip: int) -> np.ndarray:
        """A clip's samples, int16 at 16 kHz, mapped from disk."""
        shard, offset, length = self.index[clip]
        return self.shards[shard][offset : offset + length]

    def samples_of(self, clip_id: str) -> np.ndarray:
        """The samples of the clip with that id."""
        return self.samples(self.ids.index(clip_id))

    def targets(self, clips: Iterable[int]) -> np.ndarray:
        """Multi-hot targets `(clips, labels)` float32."""
        clips = list(clips)
        targets = np.zeros((len(clips), len(self.labels)), np.float32)
        for row, clip in zip(targets, clips, strict=True):
            row[list(self.label_lists[clip])] = 1.0
        return targets
