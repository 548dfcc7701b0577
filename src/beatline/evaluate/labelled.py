"""labelled clips + tagger -> what the model says of each: logits and embeddings, to learn from.

In: the validation clips of a run, a table, a folder for each class, or any data that `manifest` reads. Out:
`Labelled` clips, never test clips unless they are asked for; then `Heard`. Clips that cannot be used cost the
others nothing. Learning is `calibration`'s and `probe`'s, setting two models side by side `comparison`'s.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from beatline.audio import windows
from beatline.audio.pool import Decoders, Job
from beatline.audio.samples import SAMPLE_RATE
from beatline.config import DataConfig
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.core.threads import buffered
from beatline.data import manifest
from beatline.data.manifest.table import Clip, Rejected, shared
from beatline.data.store import Store
from beatline.settings import load as load_config
from beatline.tag.tagger import AudioTagger

AHEAD = 16  # clips decoded before the model needs them


@dataclass(frozen=True)
class Labelled:
    """Clips with their labels."""

    name: str
    ids: tuple[str, ...]
    recordings: tuple[str, ...]
    """The recording of each clip; clips of the same recording are not independent."""
    targets: np.ndarray = field(repr=False)
    """`(clips, labels)` bool."""
    labels: LabelSet = field(repr=False)
    splits: tuple[tuple[str, ...], ...] = field(repr=False)
    """The splits of each clip, as far as the data names them."""
    read: Callable[[Sequence[int]], Iterator[np.ndarray | UserError]] = field(repr=False)
    """The samples of the clips with these indices, int16 at 16 kHz, or why a clip has none."""
    rejected: tuple[Rejected, ...] = ()
    """Rows and files that became no clip."""

    def part(self, indices: Sequence[int]) -> "Labelled":
        """The clips with these indices, in this order."""
        own = [int(i) for i in indices]
        read = self.read
        return replace(
            self,
            ids=tuple(self.ids[i] for i in own),
            recordings=tuple(self.recordings[i] for i in own),
            splits=tuple(self.splits[i] for i in own),
            targets=self.targets[own],
            read=lambda wanted: read([own[i] for i in wanted]),
        )

    def samples_of(self, wanted: Iterable[str]) -> dict[str, np.ndarray]:
        """Samples by id, `(samples,)` int16 at 16 kHz, of the wanted clips that are known and can be read."""
        known = {clip_id: index for index, clip_id in enumerate(self.ids)}
        indices = [known[clip_id] for clip_id in wanted if clip_id in known]
        return {
            self.ids[index]: samples
            for index, samples in zip(indices, self.read(indices), strict=True)
            if not isinstance(samples, UserError)
        }

    @property
    def clips_hash(self) -> str:
        """SHA-256 of the sorted clip ids."""
        return hashlib.sha256("\n".join(sorted(self.ids)).encode("utf-8", "surrogateescape")).hexdigest()


def store_of(folder: Path) -> Path | None:
    """The store that a folder is, or that belongs to the run in it."""
    if artefact.contents_file(folder).exists():
        return folder
    folders = [folder / "store"] + (
        [load_config(folder / "config.yaml").store_folder] if (folder / "config.yaml").exists() else []
    )
    return next((found for found in folders if artefact.contents_file(found).exists()), None)


def of_store(name: str, store: Store, indices: np.ndarray, split: str) -> Labelled:
    """The clips of a store with these indices."""
    return Labelled(
        name,
        tuple(store.ids[int(i)] for i in indices),
        tuple(store.clip(int(i))["recording"] for i in indices),
        store.targets(indices) > 0.5,
        store.labels,
        ((split,),) * len(indices),
        lambda wanted: (store.samples(int(indices[i])) for i in wanted),
    )


def validation(run: Path) -> Labelled:
    """The validation clips of a run's store, without those that are test clips too.

    Raises:
        UserError: `missing-stage` where there is no store; `no-clips`; `corrupt-artefact`.
    """
    folder = store_of(run) if run.is_dir() else None
    if folder is None or folder == run:
        raise UserError(
            "missing-stage",
            f"no prepared audio of {run}",
            "it is no run folder with a store",
            "give a run, or labelled clips with --csv",
        )
    store = Store.open(folder)
    clips = np.setdiff1d(store.splits["val"], store.splits["test"])
    if len(clips) == 0:
        cause = (
            "its validation clips are test clips"
            if len(store.splits["val"])
            else "it has no validation clips"
        )
        raise UserError(
            "no-clips",
            f"cannot learn from {folder}",
            cause,
            "give labelled clips that are neither with --csv",
        )
    return of_store(str(folder), store, clips, "val")


def listed(source: Path) -> Labelled:
    """All clips of a table with columns `file,labels` or of a folder for each class; see
    `manifest.read_listed`.

    Raises:
        UserError: `missing-file`, `not-a-file`, `bad-table`, `no-clips`.
    """
    if not source.exists() and str(source) != "mini":
        raise UserError(
            "missing-file",
            f"cannot read {source}",
            "there is no such file or folder",
            "give a table with columns file,labels or a folder with a folder for each class",
        )
    found, labels = manifest.read_listed(source)
    if not found.clips:
        first = (
            f"; the first, {found.rejected[0].input}: {found.rejected[0].reason}" if found.rejected else ""
        )
        raise UserError(
            "no-clips",
            f"cannot use {source}",
            f"no row of it is a clip{first}",
            "check its columns file and labels",
        )
    return _labelled(str(source), found.clips, found.homes, labels, found.rejected)


def of_data(data: DataConfig) -> Labelled:
    """All clips of configured data, with the splits that the data names or makes. A test clip is no
    validation clip.

    Raises:
        UserError: As `manifest.read`, but a test split may be empty.
    """
    table = manifest.read(data, needed=("train",))
    homes: list[tuple[str, ...]] = [()] * len(table.clips)
    for name in ("val", "train", "test"):
        for i in table.splits[name]:
            homes[i] = (name,)
    name = next(
        str(source)
        for source in (data.audioset, data.kaldi, data.folder, data.csv, data.root)
        if source is not None
    )
    return _labelled(name, table.clips, homes, table.labels, table.rejected)


def _labelled(
    name: str,
    clips: Sequence[Clip],
    homes: Sequence[tuple[str, ...]],
    labels: LabelSet,
    rejected: Sequence[Rejected],
) -> Labelled:
    targets = np.zeros((len(clips), len(labels)), bool)
    for row, clip in zip(targets, clips, strict=True):
        row[[labels.index_of_mid[mid] for mid in clip.labels]] = True

    def read(indices: Sequence[int]) -> Iterator[np.ndarray | UserError]:
        jobs = (Job(clips[i].path, clips[i].member, clips[i].start, clips[i].end) for i in indices)
        with Decoders(max(1, (os.cpu_count() or 2) // 2)) as decoders:
            for result in decoders.map(jobs):
                yield result if isinstance(result, UserError) else result.samples

    return Labelled(
        name,
        tuple(clip.id for clip in clips),
        tuple(clip.recording for clip in clips),
        targets,
        labels,
        tuple(homes),
        read,
        tuple(rejected),
    )


def for_labels(clips: Labelled, labels: LabelSet) -> tuple[np.ndarray, np.ndarray]:
    """Targets `(clips, labels)` bool in a model's labels, matched by mid or by name; and which labels occur,
    `(labels,)` bool.
    """
    targets = np.zeros((len(clips.ids), len(labels)), bool)
    for k, truth in shared(labels, clips.labels):
        targets[:, k] = clips.targets[:, truth]
    return targets, np.asarray(targets.any(axis=0))


@dataclass(frozen=True)
class Heard:
    """What a model says of clips."""

    indices: np.ndarray
    """Indices of the clips that could be read, `(heard,)`."""
    logits: list[np.ndarray] = field(repr=False)
    """Of each of these clips `(windows, labels)` float32."""
    embeddings: np.ndarray = field(repr=False)
    """`(heard, width)` float32, each the mean over its windows."""
    refused: list[str]
    """The ids of the other clips, each with its reason."""


def hear(tagger: AudioTagger, clips: Labelled, advance: Callable[[], object] = lambda: None) -> Heard:
    """What a tagger's model says of each clip, in the tagger's windows.

    Args:
        advance: Called after each clip.

    Raises:
        UserError: `no-clips` where no clip can be read.
    """
    indices: list[int] = []
    logits: list[np.ndarray] = []
    embeddings: list[np.ndarray] = []
    refused: list[str] = []
    for index, samples in enumerate(buffered(clips.read(range(len(clips.ids))), AHEAD)):
        advance()
        if isinstance(samples, UserError):
            refused.append(f"{clips.ids[index]}: {samples.cause}")
            continue
        cut = windows.cut([samples], round(tagger.window * SAMPLE_RATE), round(tagger.hop * SAMPLE_RATE))
        outputs = tagger.engine.outputs([part for _, part in cut])
        indices.append(index)
        logits.append(outputs.logits)
        embeddings.append(outputs.embeddings.mean(axis=0))
    if not indices:
        raise UserError(
            "no-clips",
            f"cannot learn from {clips.name}",
            f"no clip can be read; the first, {refused[0]}",
            "check its files",
        )
    return Heard(np.array(indices), logits, np.stack(embeddings), refused)


def folds(recordings: Sequence[str], targets: np.ndarray, count: int) -> np.ndarray:
    """Which of `count` parts each clip belongs to, `(clips,)`. Recordings stay whole, labels are spread over
    the parts, and the order of the clips does not matter.

    With at least as many parts as recordings, each recording is a part of its own. Recordings are dealt out
    in the order of their rarest label. Each goes to the part with the least of its labels, then the fewest
    clips.
    """
    names, of = np.unique(np.array(list(recordings)), return_inverse=True)
    if count >= len(names):
        return of
    rows = np.zeros((len(names), targets.shape[1]), np.int64)
    np.add.at(rows, of, targets)
    totals = (rows > 0).sum(axis=0)
    rarity = [min(totals[row > 0], default=0) for row in rows]
    order = sorted(
        range(len(names)),
        key=lambda i: (rarity[i], hashlib.sha256(str(names[i]).encode("utf-8", "surrogateescape")).digest()),
    )
    held = np.zeros((count, targets.shape[1]), np.int64)
    sizes = np.zeros(count, np.int64)
    part = np.zeros(len(names), np.int64)
    for i in order:
        shares = (held[:, rows[i] > 0] / np.maximum(totals[rows[i] > 0], 1)).sum(axis=1)
        part[i] = min(range(count), key=lambda k: (shares[k], sizes[k], k))
        held[part[i]] += rows[i] > 0
        sizes[part[i]] += 1
    return part[of]
