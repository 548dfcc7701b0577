"""rows -> manifest: which clips train, which choose the model, which are scored.

In: the rows of any form of data. Out: a `Manifest` whose splits share no recording and no file. The splits
made here are pure functions of the seed and the clips.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import compress, islice
from operator import not_
from pathlib import Path

from beatline.config import DataConfig
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.data.manifest.rows import Row, Rows
from beatline.data.manifest.table import (
    SPLITS,
    Judge,
    Manifest,
    Sorted,
    judge_of,
    labels_of,
    overlap,
    read_text,
    sort_rows,
)

NO_LABEL = ("",)
"""Clips without a label are divided as if they had a label of their own."""


def assemble(
    rows: Rows | Sequence[Row],
    known: LabelSet | None,
    root: Path,
    data: DataConfig,
    notices: tuple[str, ...] = (),
    judge: Judge | None = None,
    order: Sequence[int] | None = None,
) -> Manifest:
    """The manifest of these rows; without a known label set, AudioSet's if it has every label, else the
    labels found.

    Args:
        judge: As for `sort_rows`.
        order: As for `sort_rows`.

    Raises:
        UserError: `split-overlap`, `bad-config`, `bad-table`; `no-clips` where a validation split was asked
            for and none can be made.
    """
    rows = rows if isinstance(rows, Rows) else Rows(rows)
    known = known or labels_of(rows)
    table = sort_rows(rows, known, judge or judge_of(known, data.unlabelled), order)
    splits, val = _splits(table, data, rows)
    check_overlap(table, splits, allow=("val", "test") if data.validation == "inside-eval" else None)
    return Manifest(
        clips=table.clips,
        splits=splits,
        rejected=table.rejected,
        labels=known,
        val=val,
        inputs=len(rows),
        root=root,
        min_seconds=data.min_seconds,
        max_seconds=data.max_seconds,
        notices=notices,
    )


def _splits(table: Sorted, data: DataConfig, rows: Rows) -> tuple[dict[str, tuple[int, ...]], str]:
    """Indices of the clips of each split, and how validation was made."""
    given = {name: tuple(i for i, homes in enumerate(table.homes) if name in homes) for name in SPLITS}
    made = not any(given.values())
    if made:
        everything = tuple(range(len(table.clips)))
        given["train"], given["test"] = carve(
            table.recordings, table.labels, everything, data.test_fraction, data.split_seed
        )
    if data.validation_list is not None:
        return _listed_validation(
            given,
            table,
            data.validation_list,
            {name for index in range(len(rows)) for name in (rows.id(index), rows.recording(index))},
        )
    if data.validation == "clean" and given["val"]:
        raise UserError(
            "bad-config",
            "setting data.validation",
            "clean takes validation clips from train, but the data has its own",
            "set data.validation to given",
        )
    if data.validation == "clean" or (made and data.validation == "given"):
        given["train"], given["val"] = carve(
            table.recordings, table.labels, given["train"], data.validation_fraction, data.split_seed
        )
        if (
            given["train"]
            and not given["val"]
            and data.validation == "clean"
            and data.validation_fraction > 0
        ):
            raise UserError(
                "no-clips",
                "setting data.validation",
                "no clip can leave train without taking the last clip of a label",
                "set data.validation to given, or give more clips",
            )
        return (
            given,
            f"taken from train (share {data.validation_fraction:g}, stratified by label, whole recordings, "
            f"seed {data.split_seed}); disjoint from test",
        )
    if data.validation == "inside-eval" and given["val"]:
        return (
            given,
            "clips that are also test clips, as in ESPnet's recipe (the first tenth of AudioSet's eval "
            "list): selection on them leaks slightly",
        )
    if data.validation == "inside-eval":
        raise UserError(
            "bad-config",
            "setting data.validation",
            "inside-eval needs AudioSet or data with its own val split",
            "set data.validation to clean",
        )
    return given, "as the data gives it; disjoint from test" if given["val"] else "none"


def _listed_validation(
    given: dict[str, tuple[int, ...]], table: Sorted, path: Path, known: set[str]
) -> tuple[dict[str, tuple[int, ...]], str]:
    """The splits with the clips in a list as validation. Other clips of the data's own validation become
    train clips. A listed test clip stays a test clip, which is an overlap.

    Each line of the list is a clip's id, or a recording's, for all its clips. A listed input that was
    rejected is no error.
    """
    wanted = dict.fromkeys(
        line.strip() for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")
    )
    unknown = next((name for name in wanted if name not in known), None)
    if unknown is not None:
        raise UserError(
            "bad-table",
            f"cannot use {path}",
            f"{unknown} is no clip and no recording of this data",
            "list ids as they stand in the store's clips.csv, an id a line",
        )
    val = tuple(i for i, clip in enumerate(table.clips) if clip.id in wanted or clip.recording in wanted)
    if not val:
        raise UserError(
            "no-clips",
            f"cannot use {path}",
            "none of its clips is there",
            "check the list, and the data's folder",
        )
    chosen = set(val)
    train = sorted({*given["train"], *given["val"]})
    return given | {
        "val": val,
        "train": tuple(i for i in train if i not in chosen),
    }, f"the {len(val)} clips of {path.name} that are there; disjoint from test"


def carve(
    recordings: Sequence[str],
    labels: Sequence[tuple[str, ...]],
    indices: Sequence[int],
    share: float,
    seed: int,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`indices` as (kept, taken): about `share` of every label's recordings taken, at least one recording of
    every label kept.

    Recordings move whole, in the order of their rarest label. Recordings of the same rarest label move in the
    order of a hash of seed and name. A recording is taken where that brings its labels' shares, counted so
    far, nearer to the share wanted. Rarer labels weigh more. On AudioSet's balanced CSV every label ends
    within one clip or 0.01 of its share. In the manner of iterative stratification (Sechidis et al. 2011).
    Running shares replace its repeated search for the rarest label.
    """
    first: dict[str, int] = {}
    several: dict[str, tuple[str, ...]] = {}
    for i in indices:
        name = recordings[i]
        if first.setdefault(name, i) != i:
            several[name] = tuple(sorted({*several.get(name, labels[first[name]]), *labels[i]}))

    def labels_of(name: str) -> tuple[str, ...]:
        return several.get(name) or labels[first[name]] or NO_LABEL

    total = Counter(label for name in first for label in labels_of(name))
    rank = {
        label: index for index, label in enumerate(sorted(total, key=lambda label: (total[label], label)))
    }
    order = sorted(
        first,
        key=lambda name: (
            min(map(rank.__getitem__, labels_of(name))).to_bytes(4)
            + hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogateescape")).digest()
        ),
    )
    kept = dict(total)
    ahead = dict.fromkeys(total, 0.0)  # taken so far beyond the share of those seen so far
    taken: set[str] = set()
    for name in order:
        own = labels_of(name)
        change = 0.0  # of the squared distances
        for label in own:
            change += (1 + 2 * ahead[label] - 2 * share) / total[label]
        if change < 0 and all(kept[label] > 1 for label in own):
            taken.add(name)
            for label in own:
                kept[label] -= 1
                ahead[label] += 1 - share
        else:
            for label in own:
                ahead[label] -= share
    if share > 0 and not taken:
        taken.update(
            islice(
                (recording for recording in order if all(kept[label] > 1 for label in labels_of(recording))),
                1,
            )
        )
    leaves = [recordings[i] in taken for i in indices]
    return tuple(compress(indices, map(not_, leaves))), tuple(compress(indices, leaves))


def check_overlap(table: Sorted, splits: dict[str, tuple[int, ...]], allow: tuple[str, str] | None) -> None:
    """Raises `split-overlap` where two splits share a recording or a file, other than the pair that may."""
    real = _Files()
    for own, others in (("val", ["test"]), ("train", ["val", "test"])):
        home = {i: other for other in others if (own, other) != allow for i in splits[other]}
        recordings = {table.recordings[i]: i for i in home}
        files = {real(*table.files[i]): i for i in home}
        mine = splits[own] if home else ()
        shared = [
            ("recording", i, recordings[name]) for i in mine if (name := table.recordings[i]) in recordings
        ]
        shared += [("file", i, files[file]) for i in mine if (file := real(*table.files[i])) in files]
        if shared:
            kind, i, k = shared[0]
            clip, other = table.clips[i], table.clips[k]
            what = f"recording {clip.recording}" if kind == "recording" else f"file {real(*table.files[i])}"
            raise overlap(
                what, own, home[k], f"clips {clip.id} and {other.id}; {len(shared)} such recordings or files"
            )


class _Files:
    """What a clip's file is, whatever names lead to it. Folders are looked at once, which for two million
    files is all that is affordable.
    """

    def __init__(self) -> None:
        self._seen = cache(lambda folder: (os.path.realpath(folder), _links(folder)))

    def __call__(self, path: str, member: str) -> str:
        folder, _, name = path.rpartition("/")
        real, links = self._seen(folder or ("/" if path.startswith("/") else "."))
        file = os.path.realpath(path) if name in links else f"{real}/{name}"
        return f"{file} ({member})" if member else file


def _links(folder: str) -> frozenset[str]:
    """Names of the symbolic links in a folder."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_symlink())
    except OSError:  # decoding its files will say why
        return frozenset()
