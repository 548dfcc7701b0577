"""rows -> manifest: which clips train, which choose the model, which are scored.

In: the rows of any form of data. Out: a `Manifest` whose splits share no recording and no file. The splits made here are pure functions of
the seed and the clips.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path

from beatline.config import DataConfig
from beatline.errors import UserError
from beatline.labels import LabelSet
from beatline.manifest.table import (
    SPLITS,
    Clip,
    Judge,
    Manifest,
    Row,
    Sorted,
    labels_of,
    overlap,
    read_text,
    sort_rows,
)


def assemble(rows: Sequence[Row], known: LabelSet | None, root: Path, data: DataConfig, notices: tuple[str, ...] = (), judge: Judge | None = None) -> Manifest:
    """The manifest of these rows; without a known label set, AudioSet's if it has every label, else the labels found.

    Args:
        judge: As for `sort_rows`.

    Raises:
        UserError: `split-overlap`, `bad-config`, `bad-table`; `no-clips` where a validation split was asked for and none can be made.
    """
    known = known or labels_of(rows)
    table = sort_rows(rows, known, judge)
    splits, val = _splits(table, data, {name for row in rows for name in (row.id, row.recording)} if data.validation_list else set())
    check_overlap(table.clips, splits, allow=("val", "test") if data.validation == "inside-eval" else None)
    return Manifest(
        clips=tuple(table.clips),
        splits=splits,
        rejected=tuple(table.rejected),
        labels=known,
        val=val,
        inputs=len(rows),
        root=root,
        min_seconds=data.min_seconds,
        max_seconds=data.max_seconds,
        notices=notices,
    )


def _splits(table: Sorted, data: DataConfig, known: set[str]) -> tuple[dict[str, tuple[int, ...]], str]:
    """Places of the clips of each split, and how validation was made."""
    given = {name: tuple(i for i, homes in enumerate(table.homes) if name in homes) for name in SPLITS}
    made = not any(given.values())
    if made:
        everything = tuple(range(len(table.clips)))
        given["train"], given["test"] = carve(table.clips, everything, data.test_fraction, data.split_seed)
    if data.validation_list is not None:
        return _listed_validation(given, table.clips, data.validation_list, known)
    if data.validation == "clean" and given["val"]:
        raise UserError("bad-config", "setting data.validation", "clean takes validation clips from train, but the data has its own", "set data.validation to given")
    if data.validation == "clean" or (made and data.validation == "given"):
        given["train"], given["val"] = carve(table.clips, given["train"], data.validation_fraction, data.split_seed)
        if given["train"] and not given["val"] and data.validation == "clean" and data.validation_fraction > 0:
            raise UserError("no-clips", "setting data.validation", "no clip can leave train without taking the last one of a label", "set data.validation to given, or give more clips")
        return given, f"taken from train (share {data.validation_fraction:g}, stratified by label, whole recordings, seed {data.split_seed}); disjoint from test"
    if data.validation == "inside-eval" and given["val"]:
        return given, "clips that are also test clips, as in ESPnet's recipe (the first tenth of AudioSet's eval list): selection on them leaks slightly"
    if data.validation == "inside-eval":
        raise UserError("bad-config", "setting data.validation", "inside-eval needs AudioSet or data with its own val split", "set data.validation to clean")
    return given, "as the data gives it; disjoint from test" if given["val"] else "none"


def _listed_validation(given: dict[str, tuple[int, ...]], clips: Sequence[Clip], path: Path, known: set[str]) -> tuple[dict[str, tuple[int, ...]], str]:
    """The splits with the clips in a list as validation; others of the data's own validation train, a listed test clip stays one, which is an overlap.

    Each line of the list is a clip's id, or a recording's, for all its clips; a listed input that was rejected is no error.
    """
    wanted = dict.fromkeys(line.strip() for line in read_text(path).splitlines() if line.strip() and not line.startswith("#"))
    unknown = next((name for name in wanted if name not in known), None)
    if unknown is not None:
        raise UserError("bad-table", f"cannot use {path}", f"{unknown} is no clip and no recording of this data", "list ids as they stand in the store's clips.csv, one a line")
    val = tuple(i for i, clip in enumerate(clips) if clip.id in wanted or clip.recording in wanted)
    if not val:
        raise UserError("no-clips", f"cannot use {path}", "none of its clips is there", "check the list, and the data's folder")
    chosen, train = set(val), sorted({*given["train"], *given["val"]})
    return given | {"val": val, "train": tuple(i for i in train if i not in chosen)}, f"the {len(val)} clips of {path.name} that are there; disjoint from test"


def carve(clips: Sequence[Clip], places: Sequence[int], share: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`places` as (kept, taken): about `share` of the recordings of every label taken, and at least one of every label kept.

    Recordings move whole, in the order of their rarest label, those of one label in the order of a hash of seed and name, so the result depends on
    nothing else. Each is taken where that brings its labels' shares, counted so far, nearer to the share wanted; rarer labels weigh more.
    On AudioSet's balanced CSV every label ends within one clip or 0.01 of its share. In the manner of iterative stratification (Sechidis et al. 2011), with
    running shares instead of its repeated search for the rarest label.
    """
    labels_of: dict[str, tuple[str, ...]] = {}
    for i in places:
        name, labels = clips[i].recording, clips[i].labels
        labels_of[name] = tuple(sorted({*labels_of[name], *labels})) if name in labels_of else labels
    total = Counter(label for labels in labels_of.values() for label in labels)
    rank = {label: place for place, label in enumerate(sorted(total, key=lambda label: (total[label], label)))}
    rarest = cache(lambda labels: min(map(rank.__getitem__, labels)).to_bytes(4))  # few combinations, many recordings
    order = sorted(labels_of, key=lambda name: rarest(labels_of[name]) + hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogateescape")).digest())
    kept, ahead = dict(total), dict.fromkeys(total, 0.0)  # ahead: taken so far beyond the share of those seen so far
    taken: set[str] = set()
    for name in order:
        labels = labels_of[name]
        change = 0.0  # of the squared distances
        for label in labels:
            change += (1 + 2 * ahead[label] - 2 * share) / total[label]
        if change < 0 and all(kept[label] > 1 for label in labels):
            taken.add(name)
            for label in labels:
                kept[label] -= 1
                ahead[label] += 1 - share
        else:
            for label in labels:
                ahead[label] -= share
    if share > 0 and not taken:
        taken.update(islice((recording for recording in order if all(kept[label] > 1 for label in labels_of[recording])), 1))
    return tuple(i for i in places if clips[i].recording not in taken), tuple(i for i in places if clips[i].recording in taken)


def check_overlap(clips: Sequence[Clip], splits: dict[str, tuple[int, ...]], allow: tuple[str, str] | None) -> None:
    """Raises `split-overlap` where two splits share a recording or a file, other than the pair that may."""
    file_of = _Files()
    for one, others in (("val", ["test"]), ("train", ["val", "test"])):
        home = {i: other for other in others if (one, other) != allow for i in splits[other]}
        recordings = {clips[i].recording: i for i in home}
        files = {file_of(clips[i]): i for i in home}
        shared = [("recording", i, recordings[clips[i].recording]) for i in splits[one] if clips[i].recording in recordings] if home else []
        shared += [("file", i, files[file]) for i in splits[one] if (file := file_of(clips[i])) in files] if home else []
        if shared:
            kind, i, k = shared[0]
            what = f"recording {clips[i].recording}" if kind == "recording" else f"file {file_of(clips[i])}"
            raise overlap(what, one, home[k], f"clips {clips[i].id} and {clips[k].id}; {len(shared)} such recordings or files")


class _Files:
    """What a clip's file is, whatever names lead to it; folders are looked at once, which for two million files is all that is affordable."""

    def __init__(self) -> None:
        self._seen = cache(lambda folder: (os.path.realpath(folder), _links(folder)))

    def __call__(self, clip: Clip) -> str:
        path = str(clip.path)
        folder, _, name = path.rpartition("/")
        real, links = self._seen(folder or ("/" if path.startswith("/") else "."))
        file = os.path.realpath(path) if name in links else f"{real}/{name}"
        return f"{file} ({clip.member})" if clip.member else file


def _links(folder: str) -> frozenset[str]:
    """Names of the symbolic links in a folder."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_symlink())
    except OSError:  # decoding its files will say why
        return frozenset()
