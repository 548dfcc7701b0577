"""labelled clips + a frozen encoder -> a head fitted to them: a tagger like any other.

In: clips with their labels. Out: a published folder with the model, and the predictions and score of test
clips. `probe_heads` fits the head and chooses its strength; test clips have no part in either.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beatline.audio import windows
from beatline.audio.samples import SAMPLE_RATE
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.data.manifest.table import as_text
from beatline.evaluate import metrics
from beatline.evaluate.labelled import Labelled
from beatline.evaluate.metrics import Figures
from beatline.evaluate.predictions import Predictions
from beatline.model.checkpoints import own
from beatline.model.checkpoints.load import load_checkpoint
from beatline.model.checkpoints.loaded import Loaded
from beatline.model.engines import base, pytorch
from beatline.model.engines.graphs import is_export
from beatline.model.heads import Task
from beatline.tag.calibration import model_hash
from beatline.tag.result import Refused
from beatline.tag.tagger import AudioTagger
from beatline.train.probe_heads import Chosen, Examples, Head, Kind, choose, fit, logits


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What `learn` has made."""

    kind: Kind
    task: Task
    labels: LabelSet
    chosen: Chosen
    clips: dict[str, int]
    """Clips that were used, by split."""
    refused: tuple[str, ...]
    """Inputs that could not be used, each with its reason."""
    dropped: tuple[str, ...]
    """Labels that no train clip has."""
    single: int
    """Labels that have only a single train recording."""
    test: Figures | None
    """On the test clips, where there are test clips."""
    cross_validated: Figures | None
    """On the train clips where there are no test clips. A clip is scored by a head that has not seen it;
    the strength was chosen on these clips too.
    """


def learn(
    source: Path | str,
    clips: Labelled,
    folder: Path,
    kind: Kind,
    task: Task | None = None,
    device: str = "auto",
    advance: Callable[[], object] = lambda: None,
) -> Learned:
    """Fits a head to labelled clips on a checkpoint's frozen encoder, and publishes `model` in a folder.

    Test clips add `predictions` and `score`.

    Args:
        source: A path that `load_checkpoint` reads; the model may lack a head.
        clips: The split train is learned from, val chooses, test is scored; without splits all clips are
            learned from.
        task: As `Tagger`; None is single-label where every clip has a single label, else multi-label.
        advance: Called after each clip.

    Raises:
        UserError: `not-writable` for a folder that is there; `no-clips` where fewer than two labels have
            train clips that can be read; `bad-config` for a clip with several labels in a single-label task;
            `bad-usage` for an export; as `load_checkpoint`.
    """
    artefact.refuse_existing(folder)
    path = Path(source)
    if is_export(path):
        raise UserError(
            "bad-usage",
            f"cannot learn on {path}",
            "it is an export, whose encoder has no other head",
            "give the checkpoint that it was made of",
        )
    loaded = load_checkpoint(path)
    task = _task(clips, task)
    _check_labels(clips, range(len(clips.ids)))
    with _published(folder) as partial:
        tagger = AudioTagger(pytorch.load_checkpoint(path, device=device, head=False))
        heard, refused = _hear(tagger, clips, advance)
        splits = {
            name: np.array([i for i in heard if (clips.splits[i] or ("train",))[0] == name], np.int64)
            for name in ("train", "val", "test")
        }
        _check_labels(clips, splits["train"])
        columns = np.flatnonzero(clips.targets[splits["train"]].any(axis=0))
        labels = clips.labels.select(columns)
        train, validation = (_examples(clips, heard, splits[name], columns) for name in ("train", "val"))
        chosen = choose(kind, train, validation, task)
        (head,) = fit(kind, train, [chosen.strength], task)
        test = (
            _predictions(clips, heard, splits["test"], columns, labels, head, task, tagger)
            if len(splits["test"])
            else None
        )
        learned = Learned(
            kind=kind,
            task=task,
            labels=labels,
            chosen=chosen,
            clips={name: len(indices) for name, indices in splits.items()},
            refused=tuple(f"{name}: {error.cause}" for name, error in refused),
            dropped=tuple(
                clips.labels.names[k] for k in np.flatnonzero(clips.targets.any(axis=0)) if k not in columns
            ),
            single=_single(train),
            test=metrics.figures(test.scores, test.targets, clips_hash=test.clips_hash) if test else None,
            cross_validated=_figures(train, chosen, task)
            if test is None and chosen.held_out is not None
            else None,
        )
        tagger_made = loaded.with_head(head, labels, task).tagger()
        own.save(
            partial / "model",
            tagger_made,
            labels,
            {
                "probe": _about(
                    Path(source).name, path, loaded, learned, clips.part(splits["train"].tolist()).clips_hash
                )
            },
        )
        if test is not None and learned.test is not None:
            made_from = artefact.sha256_file(artefact.contents_file(partial / "model"))
            test.save(partial / "predictions", {"kind": "predictions", "made_from": made_from})
            with artefact.publish(partial / "score", {"kind": "score", "made_from": made_from}) as part:
                (part / "figures.json").write_text(
                    json.dumps({"figures": learned.test.to_dict(), "baselines": {}}, indent=1) + "\n"
                )
                (part / "labels.csv").write_text(
                    metrics.label_table(learned.test, labels, train.targets.sum(axis=0))
                )
        _write_ledger(partial / "ledger.jsonl", clips, refused)
    return learned


def _task(clips: Labelled, wanted: Task | None) -> Task:
    several = np.flatnonzero(clips.targets.sum(axis=1) > 1)
    if wanted == "single-label" and len(several):
        raise UserError(
            "bad-config",
            "a single-label head",
            f"{len(several)} clips have several labels, the first is {clips.ids[several[0]]}",
            "leave --task out, or give each clip one label",
        )
    return wanted or ("multi-label" if len(several) else "single-label")


def _check_labels(clips: Labelled, indices: Iterable[int]) -> None:
    """Refuses what no head can tell apart."""
    train = [i for i in indices if clips.splits[i] in ((), ("train",))]
    present = np.flatnonzero(clips.targets[train].any(axis=0))
    if len(present) < 2:
        cause = (
            f"all train clips have the same label {clips.labels.names[present[0]]}"
            if len(present)
            else "no train clip can be used"
        )
        raise UserError(
            "no-clips", f"cannot learn from {clips.name}", cause, "give clips of at least two labels"
        )


def _hear(
    tagger: AudioTagger, clips: Labelled, advance: Callable[[], object]
) -> tuple[dict[int, np.ndarray], list[tuple[str, UserError]]]:
    """Embeddings of each clip's windows, by index, `(windows, width)`; and the clips that cannot be read."""
    indices = []
    refused = []

    def sources() -> Iterator[tuple[np.ndarray, int]]:
        for index, samples in enumerate(clips.read(range(len(clips.ids)))):
            if isinstance(samples, UserError):
                refused.append((clips.ids[index], samples))
                continue
            indices.append(index)
            yield samples, SAMPLE_RATE

    heard = []
    parts = []
    for part in tagger.embeddings(sources(), "window"):
        if isinstance(part, Refused):  # samples that were decoded have nothing left to refuse
            raise part.error
        parts.append(part.rows)
        if part.seconds is not None:
            heard.append(np.concatenate(parts))
            parts = []
            advance()
    return dict(zip(indices, heard, strict=True)), refused


def _examples(
    clips: Labelled, heard: dict[int, np.ndarray], indices: np.ndarray, columns: np.ndarray
) -> Examples:
    """An example for each clip, however many windows it has, with the embedding of `AudioTagger.embed`."""
    rows = [(heard[i].astype(np.float64).sum(axis=0) / len(heard[i])).astype(np.float32) for i in indices]
    width = next(iter(heard.values())).shape[1]
    return Examples(
        np.stack(rows) if rows else np.empty((0, width), np.float32),
        clips.targets[indices][:, columns],
        tuple(clips.recordings[i] for i in indices),
    )


def _predictions(
    clips: Labelled,
    heard: dict[int, np.ndarray],
    indices: np.ndarray,
    columns: np.ndarray,
    labels: LabelSet,
    head: Head,
    task: Task,
    tagger: AudioTagger,
) -> Predictions:
    """What the tagger will say of clips: of each window for itself, then merged."""
    scores = [windows.merge(base.score(logits(head, heard[i], task), task), tagger.merge) for i in indices]
    return Predictions(
        tuple(clips.ids[i] for i in indices), np.stack(scores), clips.targets[indices][:, columns], labels
    )


def _figures(train: Examples, chosen: Chosen, task: Task) -> Figures:
    assert chosen.held_out is not None
    return metrics.figures(base.score(chosen.held_out, task), train.targets)


def _single(train: Examples) -> int:
    """Labels that have only a single recording."""
    return sum(len({train.recordings[i] for i in np.flatnonzero(column)}) == 1 for column in train.targets.T)


def _about(name: str, path: Path, loaded: Loaded, learned: Learned, clips_hash: str) -> dict[str, Any]:
    """What the model's folder says of its head."""
    return {
        "head": learned.kind,
        "strength": learned.chosen.strength,
        "chosen": learned.chosen.how,
        "clips": learned.clips,
        "clips_hash": clips_hash,
        "encoder": name,
        "encoder_hash": model_hash(path),
        "encoder_family": loaded.family,
    }


def _write_ledger(path: Path, clips: Labelled, refused: list[tuple[str, UserError]]) -> None:
    """A line for each input."""
    bad = dict(refused)
    with path.open("w") as file:
        for name in clips.ids:
            status = (
                {"status": "rejected", "code": bad[name].code, "reason": as_text(bad[name].cause)}
                if name in bad
                else {"status": "ok"}
            )
            file.write(json.dumps({"input": name, **status}) + "\n")
        for rejection in clips.rejected:
            file.write(
                json.dumps(
                    {
                        "input": rejection.input,
                        "status": "rejected",
                        "code": rejection.code,
                        "reason": rejection.reason,
                    }
                )
                + "\n"
            )


@contextmanager
def _published(folder: Path) -> Iterator[Path]:
    """A folder of folders that are each sealed, at their name when all are there."""
    partial = artefact.beside(folder, ".partial")
    with artefact.disk_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        artefact.replace_folder(partial, folder)
