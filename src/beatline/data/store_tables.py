"""manifest + what became of its clips -> the tables of a store.

In: a `Manifest` and a row of facts for each of its clips, in order. Out: the files beside the shards. By the
arrays a reader finds a clip's samples and labels. Tables are for people, and `ledger.jsonl` has a line per
input. The pass over the clips holds numbers and the ids only. Imports no torch.
"""

import csv
import io
import json
from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from beatline.audio.samples import SAMPLE_RATE
from beatline.core.errors import UserError
from beatline.data import shards
from beatline.data.manifest import SPLITS, Clip, Manifest
from beatline.data.store import CODING

ARRAYS = (
    "index.npy",
    "label_starts.npy",
    "label_places.npy",
    "id_starts.npy",
    "row_starts.npy",
    *(f"{name}.npy" for name in SPLITS),
)
TEXTS = ("ids.txt", "clips.csv", "events.csv", "ledger.jsonl", "labels.csv", "summary.json")
NAMES = (*ARRAYS, *TEXTS)
CONTENT = (
    "ids.txt",
    *(f"{name}.npy" for name in SPLITS),
    "labels.csv",
    "index.npy",
    "label_starts.npy",
    "label_places.npy",
)
"""What training sees; not of where and when the files were found."""

_VAL = 1 << SPLITS.index("val")
COLUMNS = [
    "id",
    "recording",
    "splits",
    "seconds",
    "labels",
    "source",
    "start",
    "end",
    "rate_in",
    "channels_in",
    "peak",
    "rms",
    "quiet",
    "clipped",
]


def source(clip: Clip, manifest: Manifest) -> str:
    """The clip's file as the store names it: relative to the data's folder where it is below that. The member
    of an archive follows after `::`.
    """
    path = (
        clip.path.relative_to(manifest.root).as_posix()
        if clip.path.is_relative_to(manifest.root)
        else str(clip.path)
    )
    return f"{path}::{clip.member}" if clip.member else path


def write(manifest: Manifest, rows: Iterable[shards.Outcome], folder: Path) -> dict[str, Any]:
    """Writes all tables of a store, and returns its summary.

    Raises:
        UserError: `no-clips` where nothing is left of a split.
    """
    home = np.zeros(len(manifest.clips), np.uint8)  # which splits a clip is in, a bit for each
    for bit, name in enumerate(SPLITS):
        home[list(manifest.splits[name])] |= 1 << bit
    made = _write_rows(manifest, rows, home, folder)
    splits = _final_splits(manifest, made)
    for name in SPLITS:
        if manifest.splits[name] and not len(splits[name]):
            codes = Counter(made.code.get(i, "too long or too short for val") for i in manifest.splits[name])
            causes = ", ".join(f"{code} {count}" for code, count in codes.most_common())
            raise UserError(
                "no-clips",
                f"no clip of split {name} can be used",
                causes,
                f"see {folder / 'ledger.jsonl'} for each, mend the inputs and run again",
            )
        np.save(folder / f"{name}.npy", splits[name])
    lengths = _write_index(made, folder)
    (folder / "labels.csv").write_text(manifest.labels.to_csv(), encoding="utf-8", newline="")
    summary = _summary(manifest, made, splits, lengths)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


class _Made:
    """What a pass over the clips leaves: indices of good clips, and codes of the others by manifest index."""

    def __init__(self) -> None:
        self.index, self.length, self.crc = array("q"), array("q"), array("q")
        self.label_starts, self.label_places = array("q", [0]), array("i")
        self.id_starts, self.row_starts = array("q", [0]), array("q")
        self.code: dict[int, str] = {}
        self.lost: Counter[str] = Counter()


def _write_rows(manifest: Manifest, rows: Iterable[shards.Outcome], home: np.ndarray, folder: Path) -> _Made:
    """Writes everything that has a line for each clip."""
    made = _Made()
    names = [
        ";".join(name for bit, name in enumerate(SPLITS) if bits >> bit & 1)
        for bits in range(1 << len(SPLITS))
    ]
    with (
        (folder / "ids.txt").open("wb") as ids,
        (folder / "clips.csv").open("wb") as clips,
        (folder / "events.csv").open("wb") as events,
        (folder / "ledger.jsonl").open("w") as ledger,
    ):
        clips.write(_line(COLUMNS))
        events.write(_line(["id", "start", "end", "mid"]))
        for index, (clip, row) in enumerate(zip(manifest.clips, rows, strict=True)):
            splits = int(home[index])
            _write_line(ledger, clip.id, row, row.get("note", ""), _unfit(manifest, row, splits))
            if "code" in row:
                made.code[index] = row["code"]
                made.lost.update(clip.labels)
                continue
            made.index.append(index)
            made.length.append(row["length"])
            made.crc.append(row["crc"])
            made.label_places.extend(manifest.labels.index_of_mid[mid] for mid in clip.labels)
            made.label_starts.append(len(made.label_places))
            ids.write(clip.id.encode(**CODING) + b"\n")
            made.id_starts.append(ids.tell())
            made.row_starts.append(clips.tell())
            of = names[splits & ~_VAL] if _unfit(manifest, row, splits) else names[splits]
            end = "" if clip.end is None else clip.end
            measured = [row[name] for name in ("rate_in", "channels_in", "peak", "rms", "quiet", "clipped")]
            clips.write(
                _line(
                    [
                        clip.id,
                        clip.recording,
                        of,
                        row["length"] / SAMPLE_RATE,
                        ";".join(clip.labels),
                        source(clip, manifest),
                        clip.start,
                        end,
                        *measured,
                    ]
                )
            )
            events.write(b"".join(_line([clip.id, *event]) for event in clip.events))
        made.row_starts.append(clips.tell())
        for rejected in manifest.rejected:
            _write_line(ledger, rejected.input, {"code": rejected.code, "reason": rejected.reason})
            made.lost.update(rejected.labels)
    assert len(made.index) + len(made.code) + len(manifest.rejected) == manifest.inputs, (
        "an input is not accounted for"
    )
    return made


def _line(cells: list[Any]) -> bytes:
    """Cells as a line of CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue().encode(**CODING)


def _unfit(manifest: Manifest, row: shards.Outcome, splits: int) -> str:
    """Why a good clip leaves val: a clip of test as well may be of any length there."""
    fits = (
        "code" in row
        or not splits & _VAL
        or manifest.min_seconds * SAMPLE_RATE <= row["length"] <= manifest.max_seconds * SAMPLE_RATE
    )
    return "" if fits else "not in val: too long or too short"


def _write_line(ledger: TextIO, name: str, row: shards.Outcome, *notes: str) -> None:
    status = (
        {"status": "rejected", "code": row["code"], "reason": row["reason"]}
        if "code" in row
        else {"status": "ok"}
    )
    note = "; ".join(filter(None, notes))
    ledger.write(json.dumps({"input": name, **status, **({"note": note} if note else {})}) + "\n")


def _final_splits(manifest: Manifest, made: _Made) -> dict[str, np.ndarray]:
    """The splits as indices among the good clips, in the manifest's order."""
    good, lengths = np.array(made.index, np.int64), np.array(made.length, np.int64)
    index = np.full(len(manifest.clips), -1, np.int64)
    index[good] = np.arange(len(good))
    splits = {name: index[np.array(manifest.splits[name], np.int64)] for name in SPLITS}
    splits = {name: chosen[chosen >= 0] for name, chosen in splits.items()}
    of_val = lengths[splits["val"]]
    splits["val"] = splits["val"][
        (of_val >= manifest.min_seconds * SAMPLE_RATE) & (of_val <= manifest.max_seconds * SAMPLE_RATE)
    ]
    return splits


def _write_index(made: _Made, folder: Path) -> np.ndarray:
    """`index.npy`: shard, first sample within it, samples and CRC-32 of each clip; its labels are
    `label_places[label_starts[i]:label_starts[i + 1]]`.
    """
    shard = np.array(made.index, np.int64) // shards.SHARD_CLIPS
    lengths = np.array(made.length, np.int64)
    before = np.cumsum(lengths) - lengths
    begin = before - before[np.searchsorted(shard, shard)]  # samples of earlier shards do not count
    np.save(folder / "index.npy", np.stack([shard, begin, lengths, np.array(made.crc, np.int64)], axis=1))
    for name in ("label_starts", "id_starts", "row_starts"):
        np.save(folder / f"{name}.npy", np.array(getattr(made, name), np.int64))
    np.save(folder / "label_places.npy", np.array(made.label_places, np.int32))
    return lengths


def _summary(
    manifest: Manifest, made: _Made, splits: dict[str, np.ndarray], lengths: np.ndarray
) -> dict[str, Any]:
    present = np.bincount(np.array(made.label_places, np.int64), minlength=len(manifest.labels)).tolist()
    codes = Counter([*made.code.values(), *(r.code for r in manifest.rejected)])

    def hours(chosen: np.ndarray) -> float:
        return int(chosen.sum()) / SAMPLE_RATE / 3600

    return {
        "inputs": manifest.inputs,
        "ok": len(lengths),
        "rejected": dict(sorted(codes.items())),
        "splits": {name: len(chosen) for name, chosen in splits.items()},
        "hours": hours(lengths),
        "hours_by_split": {name: hours(lengths[chosen]) for name, chosen in splits.items()},
        "validation": manifest.val,
        "labels": [
            {
                "mid": x.mid,
                "name": x.name,
                "expected": count + made.lost[x.mid],
                "present": count,
                "lost": made.lost[x.mid],
            }
            for x, count in zip(manifest.labels.labels, present, strict=True)
        ],
    }
