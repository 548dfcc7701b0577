"""CSV -> manifest: which clips there are, their labels and splits, from any of four forms of data.

In: a `DataConfig`. Out: a `Manifest` of clips and of rejected rows. Only tables and file names are read here; audio is left to `store`. A clip
is in a split by index, so that the recipe's validation clips can be test clips too.
"""

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np

from beatline.config import DataConfig
from beatline.errors import UserError
from beatline.labels import Label, LabelSet, audioset, espnet_token
from beatline.limits import LIMITS

AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".w64", ".rf64", ".au", ".caf")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test", "eval": "test"}
YTID = re.compile(r"[A-Za-z0-9_-]{11}")


@dataclass(frozen=True, slots=True)
class Clip:
    """A labelled excerpt of a recording; `labels` are mids, `home` is the split it was listed in, `start` and `end` are seconds."""

    id: str
    recording: str
    path: Path
    labels: tuple[str, ...]
    home: str
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """An input that gave no clip: which, why (a code of `errors`), and the labels lost with it."""

    input: str
    code: str
    reason: str
    labels: tuple[str, ...] = ()


@dataclass
class Manifest:
    """All clips of a data set; `splits` lists indices into `clips`, `validation` says in words how that split came about."""

    labels: LabelSet
    clips: list[Clip] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    splits: dict[str, list[int]] = field(default_factory=dict)
    validation: str = "as the data gives it"
    inputs: int = 0


def read(config: DataConfig) -> Manifest:
    """The manifest of the configured data.

    Raises:
        UserError: `bad-config` without a source; `missing-file`, `bad-table`, `no-clips`, `split-overlap`.
    """
    if config.audioset is not None:
        manifest = _read_audioset(config.audioset, config.audioset_csv or config.audioset, config)
    elif config.kaldi is not None:
        manifest = _read_kaldi(config.kaldi, config)
    elif config.csv is not None:
        embedded = Path(str(files("beatline") / "data/mini-audioset/manifest.csv"))
        manifest = _read_csv(embedded if config.csv == Path("mini") else config.csv, config)
    elif config.folder is not None:
        manifest = _read_folder(config.folder, config)
    else:
        raise UserError("bad-config", "setting data", "no source of clips", "give one of --data.audioset, --data.csv, --data.kaldi, --data.folder")
    _drop_duplicates(manifest)
    _make_splits(manifest, config)
    _check_splits(manifest)
    return manifest


# ------------------------------------------------------------------ tables


def _text(path: Path) -> str:
    """A table's text; a byte-order mark is dropped."""
    try:
        if path.stat().st_size > LIMITS.max_table_bytes:
            raise UserError("bad-table", f"cannot read {path}", "it is larger than any table should be", "check the path")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError("missing-file", f"cannot read {path}", error.strerror or str(error), "check the path") from error
    except UnicodeDecodeError as error:
        raise UserError("bad-table", f"cannot read {path}", "it is not UTF-8 text", "save it as UTF-8") from error


def _label_set(config: DataConfig, beside: Path, used: Iterable[str]) -> LabelSet:
    """The label table: given, beside the data, AudioSet's labels that occur, or the names found."""
    if config.labels is not None:
        return LabelSet.from_csv(_text(config.labels), str(config.labels))
    if (beside / "classes.csv").is_file():
        return LabelSet.from_csv(_text(beside / "classes.csv"), str(beside / "classes.csv"))
    found = sorted(set(used))
    if not found:
        raise UserError("no-clips", f"cannot use {beside}", "no labelled clip in it", "check the path and the layout")
    by_name = _by_any_name(audioset())
    if all(name in by_name for name in found):
        mids = {by_name[name] for name in found}
        return LabelSet(tuple(label for label in audioset().labels if label.mid in mids))
    return LabelSet(tuple(Label(name, name) for name in found))


def _by_any_name(labels: LabelSet) -> dict[str, str]:
    """Mid of each mid, display name and name with underscores."""
    return {name: label.mid for label in labels.labels for name in (espnet_token(label.name), label.name, label.mid)}


def _split_name(name: str, where: str) -> str:
    if name.lower() not in SPLIT_NAMES:
        raise UserError("bad-table", where, f"split {name!r} is none of {', '.join(SPLIT_NAMES)}", "correct it")
    return SPLIT_NAMES[name.lower()]


def _add(manifest: Manifest, row: str, clip: Clip | None, names: Sequence[str], mids: dict[str, str], refused: tuple[str, str] | None = None) -> None:
    """Enters one input: as a clip with its labels as mids, or as rejected."""
    manifest.inputs += 1
    known = tuple(dict.fromkeys(mids[name] for name in names if name in mids))
    unknown = [name for name in names if name not in mids]
    if refused is None and unknown:
        refused = ("unknown-label", f"label {unknown[0]!r} is not in the label table")
    if refused is None and not known:
        refused = ("no-label", "it has no label")
    if refused is not None or clip is None:
        manifest.rejected.append(Rejected(row, *(refused or ("bad-row", "unreadable")), known))
    else:
        manifest.clips.append(Clip(clip.id, clip.recording, clip.path, known, clip.home, clip.start, clip.end))


# ------------------------------------------------------------------ forms of data


def _segments(path: Path) -> Iterator[tuple[int, list[str] | None]]:
    """Row numbers and fields of an AudioSet segment CSV; None for a row that is not `ytid, start, end, "mids"`.

    Raises:
        UserError: `bad-table` where the counts in its second comment line are not met.
    """
    lines = _text(path).splitlines()
    stated = next((int(m[1]) for line in lines[:3] if line.startswith("#") and (m := re.search(r"num_segs=(\d+)", line))), None)
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    if stated is not None and stated != len(rows):
        raise UserError("bad-table", f"cannot use {path}", f"it says {stated} segments and has {len(rows)}", "download it again")
    for number, fields in enumerate(csv.reader(rows, skipinitialspace=True)):
        try:
            good = len(fields) == 4 and YTID.fullmatch(fields[0]) and 0 <= float(fields[1]) < float(fields[2])
        except ValueError:
            good = False
        yield number, fields if good else None


def _audio_by_stem(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in AUDIO} if folder.is_dir() else {}


def _read_audioset(root: Path, tables: Path, config: DataConfig) -> Manifest:
    """ESPnet's layout: `balance_wav/<ytid>.*` for train, `eval_wav/<ytid>.*` for eval; ids number the CSV's rows, missing audio leaves gaps."""
    labels = LabelSet.from_csv(_text(config.labels), str(config.labels)) if config.labels else audioset()
    manifest, mids = Manifest(labels), _by_any_name(labels)
    rows_of_eval = 0
    for name, table, folder, home in (("train", "balanced_train_segments.csv", "balance_wav", "train"), ("eval", "eval_segments.csv", "eval_wav", "test")):
        found = _audio_by_stem(root / folder)
        if not found:
            raise UserError("missing-file", f"no audio in {root / folder}", "the folder is missing or has no audio file", "give --data.audioset a folder with balance_wav and eval_wav")
        for number, fields in _segments(tables / table):
            row = f"{table} row {number}"
            rows_of_eval += home == "test"
            if fields is None:
                _add(manifest, row, None, (), mids, ("bad-row", 'not `ytid, start, end, "mid,mid"`'))
                continue
            ytid, names = fields[0], [mid.strip() for mid in fields[3].split(",")]
            path = found.get(ytid)
            clip = Clip(f"as20k-{name}-{number}", ytid, path, (), home) if path else None
            _add(manifest, row, clip, names, mids, None if path else ("missing-file", f"no {ytid} in {folder}"))
    if config.validation == "inside-eval":
        first_tenth = {f"as20k-eval-{number}" for number in range(rows_of_eval // 10)}
        manifest.splits["val"] = [i for i, clip in enumerate(manifest.clips) if clip.id in first_tenth]
        manifest.validation = f"the first tenth of the eval table ({rows_of_eval // 10} rows), which is also in the test clips, as in the recipe"
    return manifest


def _read_csv(path: Path, config: DataConfig) -> Manifest:
    """A table `file,labels[,split,id,recording,start,end]`; labels are mids or names joined by `;`, files relative to the table."""
    rows = list(csv.DictReader(io.StringIO(_text(path), newline="")))
    if not rows or not {"file", "labels"} <= set(rows[0]):
        raise UserError("bad-table", f"cannot use {path}", "no rows, or no columns file and labels", "give a CSV with the header file,labels,split")
    listed = [[name.strip() for name in (row["labels"] or "").split(";") if name.strip()] for row in rows]
    labels = _label_set(config, path.parent, (name for names in listed for name in names))
    manifest, mids = Manifest(labels), _by_any_name(labels)
    for number, (row, names) in enumerate(zip(rows, listed, strict=True), 2):
        where = f"{path.name} line {number}"
        home = _split_name(row["split"], where) if row.get("split") else "unsplit"
        try:
            start, end = float(row.get("start") or 0), float(row["end"]) if row.get("end") else None
            refused = None if start >= 0 and (end is None or end > start) else ("bad-row", f"start {start} and end {end} are no interval")
        except ValueError:
            start, end, refused = 0.0, None, ("bad-row", "start or end is no number")
        if not row["file"]:
            refused = ("bad-row", "no file name")
        audio = path.parent / (row["file"] or "")
        clip = Clip(row.get("id") or row["file"], row.get("recording") or row["file"], audio, (), home, start, end)
        _add(manifest, row["file"] or where, clip, names, mids, refused)
    return manifest


def _read_kaldi(root: Path, config: DataConfig) -> Manifest:
    """Folders `train`, `val`, `test` with `wav.scp` (`<id> <path>`) and `text` (`<id> <label> ...`); commands in `wav.scp` are never run."""
    folders = [(folder, SPLIT_NAMES[folder.name]) for folder in sorted(root.iterdir()) if folder.name in SPLIT_NAMES and (folder / "wav.scp").is_file()] if root.is_dir() else []
    if not folders:
        raise UserError("missing-file", f"no wav.scp below {root}", "it has no train, val or test folder with one", "check the path")
    tables = []
    for folder, home in folders:
        scp, text = ({line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1:] for line in _text(folder / name).splitlines() if line.strip()} for name in ("wav.scp", "text"))
        tables.append((folder, home, scp, text))
    labels = _label_set(config, root, (name for *_, text in tables for rest in text.values() for name in " ".join(rest).split()))
    manifest, mids = Manifest(labels), _by_any_name(labels)
    for folder, home, scp, text in tables:
        for name in scp.keys() | text.keys() if scp.keys() != text.keys() else scp:
            value = "".join(scp.get(name, []))
            names = "".join(text.get(name, [])).split()
            refused = None
            if name not in scp or not value:
                refused = ("bad-row", f"no path in {folder.name}/wav.scp")
            elif name not in text:
                refused = ("no-label", f"not in {folder.name}/text")
            elif value.rstrip().endswith("|"):
                refused = ("bad-row", "wav.scp holds a command; beatline reads files only")
            _add(manifest, name, Clip(name, name, root / value.strip(), (), home), names, mids, refused)
    return manifest


def _read_folder(root: Path, config: DataConfig) -> Manifest:
    """A folder per class, or such folders per split."""
    if not root.is_dir():
        raise UserError("missing-file", f"cannot use {root}", "no such folder", "check the path")
    splits = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and folder.name.lower() in SPLIT_NAMES]
    classes = [(folder, SPLIT_NAMES[split.name.lower()]) for split in splits for folder in sorted(split.iterdir()) if folder.is_dir()]
    classes = classes or [(folder, "unsplit") for folder in sorted(root.iterdir()) if folder.is_dir()]
    found = [(path, folder.name, home) for folder, home in classes for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    labels = _label_set(config, root, (name for _, name, _ in found))
    manifest, mids = Manifest(labels), _by_any_name(labels)
    for path, name, home in found:
        relative = path.relative_to(root).as_posix()
        _add(manifest, relative, Clip(relative, relative, path, (), home), [name], mids)
    return manifest


# ------------------------------------------------------------------ splits


def _drop_duplicates(manifest: Manifest) -> None:
    """Keeps the first clip of each id; the others are rejected."""
    seen: set[str] = set()
    kept: list[Clip] = []
    moved: dict[int, int] = {}
    for index, clip in enumerate(manifest.clips):
        if clip.id in seen:
            manifest.rejected.append(Rejected(clip.id, "duplicate-id", "a clip of this id was listed before", clip.labels))
            continue
        seen.add(clip.id)
        moved[index] = len(kept)
        kept.append(clip)
    manifest.clips = kept
    manifest.splits = {name: [moved[i] for i in indices if i in moved] for name, indices in manifest.splits.items()}


def stratified(clips: Sequence[Clip], candidates: Sequence[int], fraction: float, seed: int) -> list[int]:
    """A share of the clips in which every label has about its share too; whole recordings, a function of the seed and the clips' ids.

    Greedy (iterative stratification): the rarest label first, a recording goes where the label is still wanted; each label's last clip stays.
    """
    by_recording = defaultdict(list)
    for index in candidates:
        by_recording[clips[index].recording].append(index)
    counts = Counter(mid for index in candidates for mid in clips[index].labels)
    wanted = {mid: fraction * count for mid, count in counts.items()}
    left = dict(counts)
    names = sorted(by_recording)
    order = [names[i] for i in np.random.Generator(np.random.Philox(seed)).permutation(len(names))]
    by_label = defaultdict(list)
    for name in order:
        for mid in {mid for index in by_recording[name] for mid in clips[index].labels}:
            by_label[mid].append(name)
    chosen: set[str] = set()
    for mid in sorted(counts, key=lambda mid: (counts[mid], mid)):
        for name in by_label[mid]:
            if wanted[mid] < 0.5:
                break
            loss = Counter(m for index in by_recording[name] for m in clips[index].labels)
            if name in chosen or any(left[m] <= n for m, n in loss.items()):
                continue
            chosen.add(name)
            for m, n in loss.items():
                wanted[m] -= n
                left[m] -= n
    return sorted(index for name in chosen for index in by_recording[name])


def _make_splits(manifest: Manifest, config: DataConfig) -> None:
    """Fills `splits`: what the data says, then the test and validation shares it leaves to us."""
    homes = defaultdict(list)
    for index, clip in enumerate(manifest.clips):
        homes[clip.home].append(index)
    train, unsplit = homes["train"], homes.pop("unsplit", [])
    if unsplit:
        held = stratified(manifest.clips, unsplit, config.test_fraction, config.split_seed)
        homes["test"] += held
        train = sorted(set(unsplit) - set(held) | set(train))
    validation = manifest.splits.get("val") or homes["val"]
    if config.validation == "clean" and not validation:
        validation = stratified(manifest.clips, train, config.validation_fraction, config.split_seed + 1)
        train = sorted(set(train) - set(validation))
        manifest.validation = f"{len(validation)} clips taken out of train, stratified by label, whole recordings"
    manifest.splits = {"train": train, "val": validation, "test": homes["test"]}
    for name in ("train", "test"):
        if not manifest.splits[name]:
            raise UserError("no-clips", f"split {name}", f"no clip is left in it ({len(manifest.rejected)} inputs were rejected)", "check the data and the split column")


def _check_splits(manifest: Manifest) -> None:
    """No recording is both learnt from and scored on.

    Raises:
        UserError: `split-overlap`, naming the recording.
    """
    clips, splits = manifest.clips, manifest.splits
    for a, b in (("train", "test"), ("train", "val"), *((("val", "test"),) if "also in the test" not in manifest.validation else ())):
        for key in (lambda clip: clip.recording, lambda clip: (clip.path.resolve(), clip.start)):
            both = {key(clips[i]) for i in splits[a]} & {key(clips[i]) for i in splits[b]}
            if both:
                shown = sorted(map(str, both))[0]
                raise UserError("split-overlap", f"splits {a} and {b}", f"{len(both)} recordings are in both, the first is {shown}", "list every recording on one side only")
