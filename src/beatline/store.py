"""manifest -> store: every clip decoded once, with random access ever after.

In: a `Manifest`. Out: a published folder: shards of raw little-endian int16 at 16 kHz, plain `.npy` arrays that say where each clip lies and
which labels it has, tables for people, and `ledger.jsonl` with one line per input. Its bytes depend on the inputs only, not on the number of
workers nor on how often preparing was killed: shards are made in `<folder>.partial`, survive there, and only missing ones are made again.
On opening, sizes and all small files are checked; a clip's checksum each time it is read. Imports no torch.
"""

import csv
import io
import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from beatline import artefact
from beatline.ahead import in_order
from beatline.audio import DECODER, FULL_SCALE, RESAMPLER, SAMPLE_RATE, decode
from beatline.errors import UserError
from beatline.labels import LabelSet
from beatline.limits import LIMITS
from beatline.manifest import SPLITS, Clip, Manifest
from beatline.runlog import is_whole

FORMAT = 1
SHARD_CLIPS = 512

Row = dict[str, Any]
"""What became of one clip: `length` (samples) and measurements, or `code` and `reason`."""


# --- prepare


def prepare(manifest: Manifest, folder: Path, workers: int = 1, progress: Callable[[int], Any] = lambda count: None) -> dict[str, Any]:
    """The summary of the store in `folder`, which is made, completed, or left alone where it is whole and of these inputs.

    Train and val clips outside the manifest's bounds of length are rejected; a test clip only where it exceeds the limits. Holds a few
    clips in memory at a time.

    Args:
        workers: Threads that decode, at least 1; the decoder and the resampler release the interpreter's lock.
        progress: Called with the number of clips done since the last call.

    Raises:
        UserError: `no-clips` where nothing is left of a split; `disk-full`; `not-writable`, also where `folder` is something else than a store.
    """
    artefact.recover(folder)
    plan, work = _plan(manifest), folder.with_name(folder.name + ".partial")
    if is_whole("prepare", folder, "plan", plan):
        shutil.rmtree(work, ignore_errors=True)  # left where a kill came between the last two lines below
        progress(len(manifest.clips))
        return json.loads((folder / "summary.json").read_text())
    if folder.exists() and not (folder / artefact.MANIFEST).exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError("not-writable", f"cannot write {folder}", "something that is not a store has this name", "choose another name, or move it away")
    with artefact.disk_errors(folder):
        if not (work / "plan").exists() or (work / "plan").read_text() != plan:
            shutil.rmtree(work, ignore_errors=True)
            artefact.write_atomic(work / "plan", plan)
        (work / "store").mkdir(exist_ok=True)
        shards = _make_shards(manifest, work, workers, progress)
        summary = _write_tables(manifest, shards, work / "store")
        artefact.seal(work / "store", {"kind": "store", "plan": plan, "content": _content(work / "store", shards), "decoder": DECODER, "resampler": RESAMPLER})
        artefact.put_in_place(work / "store", folder)
        shutil.rmtree(work, ignore_errors=True)
    return summary


def _plan(manifest: Manifest) -> str:
    """A hash of everything the store is a function of; a file counts by size and time of change, so that a repaired one is read again."""

    def state(path: Path) -> list[int]:
        try:
            found = path.stat()
            return [found.st_size, found.st_mtime_ns]
        except (OSError, ValueError):  # decoding it will say why
            return []

    bounds = [manifest.min_seconds, manifest.max_seconds, LIMITS.max_clip_seconds, LIMITS.max_channels, LIMITS.min_sample_rate, LIMITS.max_sample_rate]
    clips = [[c.id, c.recording, _source(c, manifest), c.labels, c.start, c.end, state(c.path)] for c in manifest.clips]
    rejected = [[r.input, r.code, r.reason, r.labels, r.split] for r in manifest.rejected]
    return artefact.hash_json([FORMAT, SHARD_CLIPS, DECODER, RESAMPLER, bounds, clips, rejected, manifest.splits, manifest.val, manifest.labels.to_csv()])


def _source(clip: Clip, manifest: Manifest) -> str:
    """The clip's file as the store names it: relative to the data's folder where it is below that."""
    return clip.path.relative_to(manifest.root).as_posix() if clip.path.is_relative_to(manifest.root) else str(clip.path)


def _content(store: Path, shards: Sequence[dict[str, Any]]) -> str:
    """A hash of what training sees: audio, ids, labels and splits; not of where and when the files were found."""
    names = ("ids.json", "splits.json", "labels.csv", "index.npy", "label_starts.npy", "label_places.npy")
    return artefact.hash_json([[shard["sha256"] for shard in shards], *(artefact.sha256_file(store / name) for name in names)])


# --- shards: the slow part; each is whole, with the facts about its clips, or is made again


def _make_shards(manifest: Manifest, work: Path, workers: int, progress: Callable[[int], Any]) -> list[dict[str, Any]]:
    """The facts of every shard in order, after making those that are missing: `sha256` and one of `rows` per clip."""
    groups = [range(i, min(i + SHARD_CLIPS, len(manifest.clips))) for i in range(0, len(manifest.clips), SHARD_CLIPS)]
    shards = {number: found for number in range(len(groups)) if (found := _read_shard(work, number)) is not None}
    progress(sum(len(shard["rows"]) for shard in shards.values()))
    missing = [number for number in range(len(groups)) if number not in shards]
    in_test = set(manifest.splits["test"])
    jobs = ((manifest, i, i in in_test) for number in missing for i in groups[number])
    results = in_order(jobs, lambda job: _decode_clip(*job), workers)
    for number in missing:
        shards[number] = _write_shard(work, number, islice(results, len(groups[number])), progress)
    return [shards[number] for number in range(len(groups))]


def _decode_clip(manifest: Manifest, place: int, in_test: bool) -> tuple[np.ndarray, Row]:
    """A clip's samples and facts; no samples and the reason where it is rejected."""
    clip, nothing = manifest.clips[place], np.empty(0, np.int16)
    try:
        decoded = decode(clip.path, clip.start, clip.end, LIMITS.max_clip_seconds if in_test else manifest.max_seconds)
    except UserError as error:
        return nothing, {"code": error.code, "reason": error.cause}
    samples = decoded.samples
    if not in_test and len(samples) < manifest.min_seconds * SAMPLE_RATE:
        return nothing, {"code": "too-short", "reason": f"{len(samples) / SAMPLE_RATE:.3f} s is less than {manifest.min_seconds:g} s"}
    levels = samples.astype(np.float64) / FULL_SCALE
    return samples, {
        "length": len(samples),
        "crc": zlib.crc32(samples.astype("<i2").tobytes()),
        "rate_in": decoded.rate_in,
        "channels_in": decoded.channels_in,
        "peak": round(float(np.abs(levels).max()), 6),
        "rms": round(float(np.sqrt(np.mean(levels**2))), 6),
        "note": decoded.note,
    }


def _write_shard(work: Path, number: int, results: Iterable[tuple[np.ndarray, Row]], progress: Callable[[int], Any]) -> dict[str, Any]:
    final, rows = work / "store" / _shard_name(number), []
    partial = work / f"shard-{number:05d}.partial"
    with partial.open("wb") as file:
        for samples, row in results:
            file.write(samples.astype("<i2").tobytes())
            rows.append(row)
            progress(1)
    artefact.checkpoint_hook("shard-filled")
    partial.replace(final)
    shard = {"sha256": artefact.sha256_file(final), "rows": rows}
    artefact.write_atomic(work / f"rows-{number:05d}.json", json.dumps(shard | {"self": artefact.hash_json(shard)}))
    artefact.checkpoint_hook("shard-written")
    return shard


def _read_shard(work: Path, number: int) -> dict[str, Any] | None:
    """The facts of a shard that an earlier call made, or None where it, or its facts, are not whole."""
    try:
        shard = json.loads((work / f"rows-{number:05d}.json").read_text())
        whole = shard.pop("self") == artefact.hash_json(shard) and shard["sha256"] == artefact.sha256_file(work / "store" / _shard_name(number))
    except (OSError, ValueError, KeyError):
        return None
    return shard if whole else None


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.i16"


# --- tables: quick, written anew each time from the shards' facts


def _write_tables(manifest: Manifest, shards: Sequence[dict[str, Any]], store: Path) -> dict[str, Any]:
    """Writes everything but the shards, and returns the summary."""
    rows: list[Row] = [row for shard in shards for row in shard["rows"]]
    good = [i for i, row in enumerate(rows) if "code" not in row]
    for leftover in store.iterdir():  # of a call that was killed below
        if not leftover.name.endswith(".i16"):
            leftover.unlink()
    splits, notes = _final_splits(manifest, rows, good)
    _write_ledger(manifest, rows, notes, store)
    for name in SPLITS:
        if manifest.splits[name] and not splits[name]:
            reasons = Counter(rows[i].get("code", "too long or too short for val") for i in manifest.splits[name])
            causes = ", ".join(f"{code} {count}" for code, count in reasons.most_common())
            raise UserError("no-clips", f"no clip of split {name} can be used", causes, f"see {store / 'ledger.jsonl'} for each, mend the inputs and run again")
    _write_index(manifest, rows, good, store)
    _write_clips(manifest, rows, good, splits, store)
    (store / "splits.json").write_text(json.dumps(splits) + "\n")
    (store / "ids.json").write_text(json.dumps([manifest.clips[i].id for i in good]) + "\n")
    (store / "labels.csv").write_text(manifest.labels.to_csv(), encoding="utf-8", newline="")
    summary = _summary(manifest, rows, good, splits)
    (store / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _final_splits(manifest: Manifest, rows: Sequence[Row], good: Sequence[int]) -> tuple[dict[str, list[int]], dict[int, str]]:
    """The splits as places among the good clips, and a note for each clip that is good for test but not for val."""
    place = {i: k for k, i in enumerate(good)}
    splits = {name: [place[i] for i in manifest.splits[name] if i in place] for name in SPLITS}
    shortest, longest = manifest.min_seconds * SAMPLE_RATE, manifest.max_seconds * SAMPLE_RATE
    unfit = [k for k in splits["val"] if not shortest <= rows[good[k]]["length"] <= longest]
    splits["val"] = [k for k in splits["val"] if k not in set(unfit)]
    return splits, {good[k]: "not in val: too long or too short" for k in unfit}


def _write_ledger(manifest: Manifest, rows: Sequence[Row], notes: dict[int, str], store: Path) -> None:
    """One line per input; a clip's own problem first, then inputs that never became clips."""
    lines: list[dict[str, str]] = []
    for i, (clip, row) in enumerate(zip(manifest.clips, rows, strict=True)):
        note = "; ".join(filter(None, (row.get("note"), notes.get(i))))
        status = {"status": "rejected", "code": row["code"], "reason": row["reason"]} if "code" in row else {"status": "ok"}
        lines.append({"input": clip.id, **status, **({"note": note} if note else {})})
    lines += [{"input": r.input, "status": "rejected", "code": r.code, "reason": r.reason} for r in manifest.rejected]
    accepted = sum(line["status"] == "ok" for line in lines)
    assert len(lines) == manifest.inputs == accepted + sum(line["status"] == "rejected" for line in lines), "an input is not accounted for"
    (store / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_index(manifest: Manifest, rows: Sequence[Row], good: Sequence[int], store: Path) -> None:
    """`index.npy`: shard, first sample within it, samples and CRC-32 of each clip; its labels are `label_places[label_starts[i]:label_starts[i + 1]]`."""
    lengths = np.array([rows[i]["length"] for i in good], np.int64)
    shard = np.array(good, np.int64) // SHARD_CLIPS
    before = np.cumsum(lengths) - lengths
    begin = before - before[np.searchsorted(shard, shard)]  # samples of earlier shards do not count
    np.save(store / "index.npy", np.stack([shard, begin, lengths, np.array([rows[i]["crc"] for i in good], np.int64)], axis=1))
    places = [[manifest.labels.index_of_mid[mid] for mid in manifest.clips[i].labels] for i in good]
    np.save(store / "label_starts.npy", np.cumsum([0, *map(len, places)], dtype=np.int64))
    np.save(store / "label_places.npy", np.array([k for some in places for k in some], np.int32))


def _write_clips(manifest: Manifest, rows: Sequence[Row], good: Sequence[int], splits: dict[str, list[int]], store: Path) -> None:
    members = {name: set(some) for name, some in splits.items()}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "recording", "splits", "seconds", "labels", "source", "start", "end", "rate_in", "channels_in", "peak", "rms"])
    for k, i in enumerate(good):
        clip, row = manifest.clips[i], rows[i]
        of = ";".join(name for name in SPLITS if k in members[name])
        end = "" if clip.end is None else clip.end
        measured = [row["rate_in"], row["channels_in"], row["peak"], row["rms"]]
        writer.writerow([clip.id, clip.recording, of, row["length"] / SAMPLE_RATE, ";".join(clip.labels), _source(clip, manifest), clip.start, end, *measured])
    (store / "clips.csv").write_bytes(os.fsencode(out.getvalue()))


def _summary(manifest: Manifest, rows: Sequence[Row], good: Sequence[int], splits: dict[str, list[int]]) -> dict[str, Any]:
    present = Counter(mid for i in good for mid in manifest.clips[i].labels)
    lost = Counter(mid for clip, row in zip(manifest.clips, rows, strict=True) if "code" in row for mid in clip.labels)
    lost += Counter(mid for r in manifest.rejected for mid in r.labels)
    codes = Counter([row["code"] for row in rows if "code" in row] + [r.code for r in manifest.rejected])

    def hours(clips: Iterable[int]) -> float:
        return sum(rows[i]["length"] for i in clips) / SAMPLE_RATE / 3600

    return {
        "inputs": manifest.inputs,
        "ok": len(good),
        "rejected": dict(sorted(codes.items())),
        "splits": {name: len(some) for name, some in splits.items()},
        "hours": hours(good),
        "hours_by_split": {name: hours(good[k] for k in some) for name, some in splits.items()},
        "validation": manifest.val,
        "labels": [{"mid": x.mid, "name": x.name, "expected": present[x.mid] + lost[x.mid], "present": present[x.mid], "lost": lost[x.mid]} for x in manifest.labels.labels],
    }


# --- reader


class Store:
    """A store opened for reading, by any number of threads."""

    labels: LabelSet
    """In the order of the targets."""
    ids: list[str]
    """Clip ids, in the manifest's order; their places are the indices used everywhere."""
    splits: dict[str, np.ndarray]
    """Indices of `train`, `val` and `test`, int64; val may be empty."""
    lengths: np.ndarray
    """Samples of each clip, int64."""
    summary: dict[str, Any]
    """Counts, hours, reasons of rejection, and what each label lost."""
    about: dict[str, Any]
    """Facts of the folder's manifest; `content` identifies what a model sees."""

    @staticmethod
    def open(folder: Path, full: bool = False) -> "Store":
        """The store in a folder.

        Args:
            full: Also hash the shards (some seconds for 7 GB); otherwise their sizes are checked here and each clip's checksum when it is read.

        Raises:
            UserError: `corrupt-artefact`, naming the file.
        """
        return Store(folder, artefact.verify(folder, select=lambda name: full or not name.endswith(".i16")))

    def __init__(self, folder: Path, about: dict[str, Any]):
        self.folder, self.about = folder, about
        self.labels = LabelSet.from_csv((folder / "labels.csv").read_text(encoding="utf-8"), str(folder / "labels.csv"))
        self.ids = json.loads((folder / "ids.json").read_text())
        self.splits = {name: np.array(some, np.int64) for name, some in json.loads((folder / "splits.json").read_text()).items()}
        self.summary = json.loads((folder / "summary.json").read_text())
        self._index = np.load(folder / "index.npy")
        self._label_starts = np.load(folder / "label_starts.npy")
        self._label_places = np.load(folder / "label_places.npy")
        self.lengths = np.ascontiguousarray(self._index[:, 2])

    def samples(self, index: int) -> np.ndarray:
        """A clip's 16 kHz samples, `(samples,)` int16, read anew from the file.

        Raises:
            UserError: `corrupt-artefact` where they are not what was written.
        """
        shard, begin, length, crc = self._index[index].tolist()
        path = self.folder / _shard_name(shard)
        # read, not mapped: a mapped file that is cut later kills the process
        samples = np.fromfile(path, "<i2", length, offset=2 * begin) if path.exists() else np.empty(0, "<i2")
        if zlib.crc32(samples.data) != crc:
            raise UserError("corrupt-artefact", f"cannot use {path}", f"clip {self.ids[index]} is not what was written", f"delete {self.folder} and prepare again")
        return samples.astype(np.int16, copy=False)

    def samples_of(self, clip_id: str) -> np.ndarray:
        """As `samples`, by clip id."""
        return self.samples(self._place[clip_id])

    def targets(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The clips' labels, multi-hot `(clips, labels)` float32."""
        targets = np.zeros((len(indices), len(self.labels)), np.float32)
        for row, index in zip(targets, indices, strict=True):
            row[self._label_places[self._label_starts[index] : self._label_starts[index + 1]]] = 1.0
        return targets

    def clip(self, index: int) -> dict[str, str]:
        """A clip's row of `clips.csv`: recording, splits, source, rate, channels, peak, rms."""
        return self._rows[index]

    @cached_property
    def _rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(os.fsdecode((self.folder / "clips.csv").read_bytes()), newline="")))

    @cached_property
    def _place(self) -> dict[str, int]:
        return {clip_id: place for place, clip_id in enumerate(self.ids)}
