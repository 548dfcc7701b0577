"""Data sets by name, from a local copy as its publisher packs it -> a manifest with the official splits.

In: `data.dataset`, the folder `data.root`, and `data.fold` where the protocol has folds. Out: a `Manifest`,
with a notice where the copy has not as many clips as were published. Sources: the data sets' own tables and
papers, named at each reader.
"""

import csv
import io
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from beatline.audio import archives, durations
from beatline.config import DataConfig
from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet
from beatline.data.manifest.audioset import is_recording, locate
from beatline.data.manifest.rows import Row, Rows
from beatline.data.manifest.sources import walk
from beatline.data.manifest.splits import assemble
from beatline.data.manifest.table import Manifest, as_text, listed, read_labels, read_text

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
SILENCE, UNKNOWN = "_silence_", "_unknown_"
NOISE = "_background_noise_"
KS1_TEST = "speech_commands_test_set_v0.01"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set as it was published."""

    title: str
    clips: int
    """Rows or files of the full set."""
    folds: int = 0
    """Folds of the official protocol; 0 where it has none."""


PUBLISHED = {
    "esc50": Published(title="ESC-50", clips=2000, folds=5),
    "fsd50k": Published(title="FSD50K", clips=51_197),
    "urbansound8k": Published(title="UrbanSound8K", clips=8732, folds=10),
    "speech-commands-v1": Published(title="Speech Commands V1", clips=64_727),
    "speech-commands-v2": Published(title="Speech Commands V2", clips=105_829),
    "vggsound": Published(title="VGGSound", clips=199_176),
}


def read_named(data: DataConfig) -> Manifest:
    """The manifest of `data.dataset` in `data.root`.

    Raises:
        UserError: as `manifest.read`; `bad-config` without a root, without a fold where there are folds, or
            with one where there are none.
    """
    assert data.dataset is not None
    published, root = PUBLISHED[data.dataset], data.root
    if root is None:
        raise UserError(
            "bad-config",
            "setting data.root",
            f"{published.title} needs the folder of its local copy",
            "give it: data.root",
        )
    if published.folds and not 1 <= (data.fold or 0) <= published.folds:
        raise UserError(
            "bad-config",
            "setting data.fold",
            f"{published.title} is scored in {published.folds} folds",
            f"name the fold to hold out, 1 to {published.folds}, and average over all",
        )
    if data.fold is not None and not published.folds:
        raise UserError("bad-config", "setting data.fold", f"{published.title} has no folds", "leave it out")
    if data.dataset == "vggsound":
        return _vggsound(root, data)
    rows, labels = READERS[data.dataset](root, data.fold or 0)
    for row in rows:
        if row.problem is None and not os.path.exists(
            row.path
        ):  # not Path.exists, which fails where a name is too long
            row.problem = ("missing-file", f"no {as_text(str(row.path.relative_to(root)))}")
    return assemble(
        rows, read_labels(data.labels) if data.labels else labels, root, data, _notices(published, rows)
    )


def _notices(published: Published, rows: Iterable[Row]) -> tuple[str, ...]:
    """What the copy lacks; silence of Speech Commands is cut from noise and does not count."""
    found = sum(
        row.problem is None and row.labels != [SILENCE] and KS1_TEST not in row.path.parts for row in rows
    )
    return (
        (f"{published.title}: {found} of {published.clips} published clips are here",)
        if found != published.clips
        else ()
    )


def _table(root: Path, names: Iterable[str], columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of the first of these tables that is there.

    Raises:
        UserError: `missing-file`, `bad-table`.
    """
    path = next((root / name for name in names if (root / name).exists()), root / next(iter(names)))
    table = csv.DictReader(io.StringIO(read_text(path), newline=""))
    missing = [name for name in columns if name not in (table.fieldnames or ())]
    if missing:
        raise UserError(
            "bad-table", f"cannot use {path}", f"no column {missing[0]}", "get the data set's own table again"
        )
    return [{name: row.get(name) or "" for name in columns} for row in table]


def _file(folder: Path, name: str) -> tuple[Path, tuple[str, str] | None]:
    """A file that a table names, which must be a plain name."""
    return (
        (folder / name, None)
        if name and Path(name).name == name and "\0" not in name
        else (folder, ("unsafe-path", f"{name!r} is not a file's name"))
    )


def _esc50(root: Path, fold: int) -> tuple[list[Row], LabelSet]:
    """Source: Piczak 2015, `meta/esc50.csv`; clips of one `src_file` are in one fold."""
    cells = _table(
        root, ("meta/esc50.csv", "esc50.csv"), ("filename", "fold", "target", "category", "src_file")
    )
    rows = []
    for row in cells:
        path, problem = _file(root / "audio", row["filename"])
        rows.append(
            Row(
                row["filename"],
                path,
                row["src_file"],
                [row["category"]],
                _home(row["fold"], fold),
                problem=problem or _fold_problem(row["fold"], 5),
            )
        )
    return rows, _by_number((row["target"], row["category"]) for row in cells)


def _urbansound8k(root: Path, fold: int) -> tuple[list[Row], LabelSet]:
    """Source: Salamon et al. 2014, `metadata/UrbanSound8K.csv`; slices of one Freesound recording are in one
    fold.
    """
    cells = _table(
        root,
        ("metadata/UrbanSound8K.csv", "UrbanSound8K.csv"),
        ("slice_file_name", "fsID", "fold", "classID", "class"),
    )
    rows = []
    for row in cells:
        problem = _fold_problem(row["fold"], 10)
        path, unsafe = _file(
            root if problem else root / "audio" / f"fold{row['fold']}", row["slice_file_name"]
        )
        path = path if problem or os.path.exists(path) else root / path.relative_to(root / "audio")
        rows.append(
            Row(
                row["slice_file_name"],
                path,
                row["fsID"],
                [row["class"]],
                _home(row["fold"], fold),
                problem=unsafe or problem,
            )
        )
    return rows, _by_number((row["classID"], row["class"]) for row in cells)


def _home(fold: str, held_out: int) -> tuple[str]:
    return ("test",) if fold == str(held_out) else ("train",)


def _fold_problem(fold: str, folds: int) -> tuple[str, str] | None:
    return (
        None if fold in map(str, range(1, folds + 1)) else ("bad-row", f"fold {fold!r} is not 1 to {folds}")
    )


def _by_number(pairs: Iterable[tuple[str, str]]) -> LabelSet:
    """Labels in the order of the data set's own numbers."""
    numbered = {name: int(number) if number.isdigit() else math.inf for number, name in pairs if name}
    return LabelSet.from_names(sorted(numbered, key=lambda name: (numbered[name], name)) or ["none"])


def _fsd50k(root: Path, fold: int) -> tuple[list[Row], LabelSet]:
    """Source: Fonseca et al. 2020, `FSD50K.ground_truth`; labels in the vocabulary's order with their
    AudioSet mids.
    """
    truth = root / "FSD50K.ground_truth"
    vocabulary = [
        cells
        for cells in csv.reader(io.StringIO(read_text(truth / "vocabulary.csv"), newline=""))
        if len(cells) == 3
    ]
    if not vocabulary:
        raise UserError(
            "bad-table",
            f"cannot use {truth / 'vocabulary.csv'}",
            "no rows of number, name, mid",
            "get the data set's own table again",
        )
    rows = []
    for name, folder, split in (
        ("dev.csv", "FSD50K.dev_audio", ""),
        ("eval.csv", "FSD50K.eval_audio", "test"),
    ):
        for row in _table(truth, (name,), ("fname", "labels", "mids", *(() if split else ("split",)))):
            path, problem = _file(root / folder, f"{row['fname']}.wav")
            home = split or row["split"]
            if home not in ("train", "val", "test"):
                problem = ("bad-row", f"unknown split {home!r}")
            rows.append(
                Row(
                    row["fname"],
                    path,
                    row["fname"],
                    [mid for mid in row["mids"].split(",") if mid],
                    (home,) if problem is None else ("train",),
                    problem=problem,
                )
            )
    return rows, LabelSet(tuple(Label(mid, name) for _, name, mid in vocabulary))


def _speech_commands_v2(root: Path, fold: int) -> tuple[list[Row], LabelSet]:
    """KS2: every word its own class, 35 in the full set. Source: Warden 2018, `validation_list.txt` and
    `testing_list.txt`.
    """
    files = _spoken(root)
    rows = [Row(name, path, name, [name.split("/")[0]], (split,)) for name, path, split in files]
    return rows, LabelSet.from_names(sorted({name.split("/")[0] for name, _, _ in files}) or ["none"])


def _speech_commands_v1(root: Path, fold: int) -> tuple[list[Row], LabelSet]:
    """KS1: ten keywords, unknown words, silence. Source: SUPERB's keyword spotting.

    Where the official test set of 12 classes lies in or beside the folder, it is the test split, else the
    clips of the testing list. Silence is the background noise cut into seconds; its recordings stay whole:
    the first by name is for validation, the second, without the official test set, for test.
    """
    official = next((folder for folder in (root / KS1_TEST, root.parent / KS1_TEST) if folder.is_dir()), None)
    rows = [
        Row(name, path, name, [word if word in KEYWORDS else UNKNOWN], (split,))
        for name, path, split in _spoken(root)
        if (word := name.split("/")[0]) and not (official and split == "test")
    ]
    for place, path in (
        enumerate(path for path in listed(root / NOISE) if path.suffix == ".wav")
        if (root / NOISE).is_dir()
        else ()
    ):
        split = "val" if place == 0 else "test" if place == 1 and official is None else "train"
        for second in range(int(_seconds(path))):
            rows.append(
                Row(
                    f"{NOISE}/{as_text(path.name)}@{second}",
                    path,
                    f"{NOISE}/{as_text(path.name)}",
                    [SILENCE],
                    (split,),
                    start=float(second),
                    end=second + 1.0,
                )
            )
    for folder in listed(official) if official else ():
        rows += [
            Row(
                f"test/{folder.name}/{as_text(path.name)}",
                path,
                f"test/{folder.name}/{as_text(path.name)}",
                [folder.name],
                ("test",),
            )
            for path in (listed(folder) if folder.is_dir() else ())
            if path.suffix == ".wav"
        ]
    return rows, LabelSet.from_names((*KEYWORDS, SILENCE, UNKNOWN))


def _spoken(root: Path) -> list[tuple[str, Path, str]]:
    """`<word>/<file>`, path and split of every spoken file, and of every listed one that is not there."""
    homes = {
        line.strip(): split
        for split, name in (("val", "validation_list.txt"), ("test", "testing_list.txt"))
        for line in read_text(root / name).splitlines()
        if line.strip()
    }
    found: dict[str, Path] = {}
    for word in listed(root):
        if word.is_dir() and word.name not in (NOISE, KS1_TEST):
            found |= {
                f"{as_text(word.name)}/{as_text(path.name)}": path
                for path in listed(word)
                if path.suffix == ".wav"
            }
    absent = [
        name
        for name in homes
        if name not in found
        and len(Path(name).parts) == 2
        and ".." not in Path(name).parts
        and not Path(name).is_absolute()
    ]
    return [(name, path, homes.get(name, "train")) for name, path in found.items()] + [
        (name, root / name, homes[name]) for name in absent
    ]


def _seconds(path: Path) -> float:
    try:
        with archives.opened(path) as (read_at, size):
            return durations.seconds(read_at, size) or 0.0
    except (UserError, OSError):  # decoding it would say why; without a length it gives no silence
        return 0.0


def _vggsound(root: Path, data: DataConfig) -> Manifest:
    """The manifest of VGGSound: `vggsound.csv` with lines `ytid,start,label,split`, and audio of its clips of
    10 s in any layout that `sources` knows.

    Source: Chen et al. 2020. Clip ids are `<ytid>_<start>`. A train clip of a video that also has a test clip
    is left out.
    """
    tree = walk(root)
    path = tree.tables.get("vggsound.csv")
    if path is None:
        raise UserError(
            "missing-file",
            f"cannot find vggsound.csv in {root}",
            "the official table is not there",
            "put it there: it names every clip, its label and its split",
        )
    rows = []
    for number, cells in enumerate(csv.reader(io.StringIO(read_text(path), newline="")), 1):
        good = (
            len(cells) == 4
            and is_recording(cells[0])
            and cells[1].strip().isdigit()
            and cells[3].strip() in ("train", "test")
        )
        if good:
            start = float(cells[1])
            rows.append(
                Row(
                    f"{cells[0]}_{int(start)}",
                    recording=cells[0],
                    labels=[cells[2].strip()],
                    splits=(cells[3].strip(),),
                    start=start,
                    end=start + 10,
                )
            )
        elif cells:
            rows.append(
                Row(
                    f"{path.name} line {number}",
                    splits=("train",),
                    problem=("bad-row", "not of the form: ytid,start,label,train or test"),
                )
            )
    in_test = {row.recording for row in rows if row.problem is None and row.splits == ("test",)}
    for row in rows:
        if row.problem is None and row.splits == ("train",) and row.recording in in_test:
            row.problem = ("split-overlap", "another clip of its video is in test")
    known = (
        read_labels(data.labels)
        if data.labels
        else LabelSet.from_names(sorted({label for row in rows for label in row.labels}) or ["none"])
    )
    published = PUBLISHED["vggsound"]
    notices = (
        (f"{published.title}: {len(rows)} of {published.clips} published clips are in the table",)
        if len(rows) != published.clips
        else ()
    )
    return locate(Rows(rows), known, root, tree, data, notices)


READERS: dict[str, Callable[[Path, int], tuple[list[Row], LabelSet]]] = {
    "esc50": _esc50,
    "fsd50k": _fsd50k,
    "urbansound8k": _urbansound8k,
    "speech-commands-v1": _speech_commands_v1,
    "speech-commands-v2": _speech_commands_v2,
}
