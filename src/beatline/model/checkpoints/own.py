"""beatline's own model folders: `model.safetensors`, `config.json`, `labels.csv`, and the list of the three.

In: a tagger with its labels, or a folder. Out: a folder that is whole, or a `LoadedTagger`. The only owner of
safetensors, also for the tensors of a training run.
"""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from beatline.config import EncoderConfig, to_dict
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.model.checkpoints.loaded import LoadedTagger, bad_checkpoint
from beatline.model.tagger import Tagger

WEIGHTS = "model.safetensors"
ABOUT = "config.json"
LABELS = "labels.csv"


def save(folder: Path, tagger: Tagger, labels: LabelSet, about: dict[str, Any]) -> None:
    """Publishes a tagger as a model folder; `about` is JSON that says how it was made.

    Raises:
        UserError: `disk-full` or `not-writable`.
    """
    with artefact.publish(folder, {"kind": "model", "labels_hash": labels.hash}) as partial:
        write_model(partial, tagger.state_dict(), tagger, labels, about)


def write_model(
    folder: Path, state: dict[str, Tensor], tagger: Tagger, labels: LabelSet, about: dict[str, Any]
) -> None:
    """Writes a model's three files into a folder that is being published.

    Args:
        state: The weights, which may be others than those of `tagger`, such as averaged weights.
        tagger: The settings.
    """
    facts = {
        "encoder": to_dict(tagger.config),
        "task": tagger.task,
        "padding": tagger.padding,
        "labels_hash": labels.hash,
        "about": about,
    }
    head = tagger.head.settings()
    if head["name"] == "neighbours":
        facts["examples"] = head["examples"]  # as it was before heads had names
    elif head["name"] != "linear":
        facts["head"] = head
    save_tensors(folder / WEIGHTS, state)
    (folder / ABOUT).write_text(json.dumps(facts, indent=1) + "\n")
    (folder / LABELS).write_text(labels.to_csv(), encoding="utf-8")


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes tensors as safetensors.

    Raises:
        UserError: `disk-full` or `not-writable`.
    """
    with artefact.disk_errors(path):
        path.write_bytes(
            safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
        )


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file by name, on the CPU, in memory of their own.

    Mapped memory would change with the file, and kill the process where the file is cut.

    Raises:
        UserError: `corrupt-artefact`.
    """
    try:
        return {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            "corrupt-artefact", f"cannot read {path}", str(error), "restore the file or make it again"
        ) from error


def layout(path: Path) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Where the tensors of a file that `save_tensors` wrote lie in it: shape, offset and length in bytes."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    return {
        name: (tuple(facts["shape"]), 8 + size + facts["data_offsets"][0], _length(facts["data_offsets"]))
        for name, facts in header.items()
        if name != "__metadata__"
    }


def _length(offsets: list[int]) -> int:
    return offsets[1] - offsets[0]


def model_folder(path: Path) -> Path | None:
    """The model folder that `path` means: itself, a run folder's `model`, or the folder around the weights.

    None where `path` means no model folder.
    """
    around = [path.parent] if path.name == WEIGHTS else []
    for folder in (path, path / "model", *around):
        if artefact.contents_file(folder).exists() and (folder / ABOUT).exists():
            return folder
    return None


def read(folder: Path) -> LoadedTagger:
    """The model in a folder of ours, every file checked against the folder's list.

    Raises:
        UserError: `corrupt-artefact`, `bad-table`, `bad-checkpoint`; `label-mismatch` where `labels.csv` is
            of another model.
    """
    artefact.verify(folder)
    labels = LabelSet.from_csv((folder / LABELS).read_text(encoding="utf-8"), str(folder / LABELS))
    try:
        facts = json.loads((folder / ABOUT).read_text())
        config = EncoderConfig(**facts["encoder"])
        task = facts["task"]
        padding = facts["padding"]
        about = facts["about"]
        labels_hash = facts["labels_hash"]
        head = facts.get("head")
    except (KeyError, TypeError, ValueError) as error:
        raise bad_checkpoint(
            folder,
            f"its {ABOUT} is not of the form that beatline writes ({type(error).__name__}: {error})",
            "get the folder again from where it comes from",
        ) from error
    if labels.hash != labels_hash:
        raise UserError(
            "label-mismatch",
            f"cannot load {folder}",
            "labels.csv is not the table the model was trained with",
            "restore the folder",
        )
    return LoadedTagger(
        source=folder,
        family="beatline",
        config=config,
        state={name: tensor.float() for name, tensor in load_tensors(folder / WEIGHTS).items()},
        padding=padding,
        about=about,
        labels=labels,
        task=task,
        head=head,
    )
