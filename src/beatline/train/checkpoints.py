"""Where a run stands, on disk: saved, verified, found again, removed.

In: a loop's state, a tagger, an optimiser. Out: `<run>/train/checkpoints`, of which the last two are kept.
`<run>/train/epochs` has the weights of those epochs that the final model may need.
"""

import dataclasses
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from beatline.core import artefact
from beatline.core.console import say
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.model.checkpoints.own import WEIGHTS, load_tensors, save_tensors, write_model
from beatline.model.tagger import Tagger
from beatline.train.ema import Ema
from beatline.train.objective import ADDED, without_added
from beatline.train.optim import load_state_tensors, state_tensors

BESIDE = "objective.safetensors"  # of a checkpoint: what training has and the model has not
MEAN = "ema.safetensors"
KEPT = 2  # checkpoints: the last, and its predecessor should the last be damaged


@dataclasses.dataclass
class Loop:
    """Where the loop stands; written into every checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Steps done in this epoch."""
    best: float = -1.0
    """Highest value so far of the figure by which the objective judges an epoch."""
    best_epoch: int = -1


def take_added(tagger: Tagger, source: Path | None) -> None:
    """Gives a new tagger what an objective added to the checkpoint it starts from, where both have it."""
    if source is not None and hasattr(tagger, ADDED) and (source / BESIDE).exists():
        added = load_tensors(source / BESIDE)
        own = tagger.state_dict()
        if all(name in own and own[name].shape == tensor.shape for name, tensor in added.items()):
            tagger.load_state_dict(added, strict=False)


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint that is whole."""

    folder: Path
    loop: Loop
    log: dict[str, Any]
    """Mark of the training log, see `RunLog`."""
    identity: dict[str, Any]

    def restore(self, tagger: Tagger, optimiser: torch.optim.Optimizer, ema: Ema) -> None:
        """Puts weights, their running mean and the optimiser's state back."""
        added = load_tensors(self.folder / BESIDE) if hasattr(tagger, ADDED) else {}
        tagger.load_state_dict(load_tensors(self.folder / WEIGHTS) | added)
        if ema.mean:
            ema.load(load_tensors(self.folder / MEAN))
        load_state_tensors(optimiser, tagger, load_tensors(self.folder / "optimiser.safetensors"))


class Checkpoints:
    """The checkpoints and epochs of a run.

    Args:
        folder: `<run>/train`.
        average: `train.average`, on which it depends which epochs are needed.
    """

    def __init__(self, folder: Path, average: int):
        self.folder = folder
        self.average = average

    def of_step(self, step: int) -> Path:
        """Folder of a step's checkpoint."""
        return self.folder / "checkpoints" / f"step-{step:08d}"

    def of_epoch(self, epoch: int) -> Path:
        """Folder of an epoch's weights."""
        return self.folder / "epochs" / f"epoch-{epoch:04d}"

    def all(self) -> list[Path]:
        """Published checkpoints, oldest first."""
        return sorted(p for p in self.folder.glob("checkpoints/step-*") if p.name[5:].isdigit())

    def epochs_needed(self, epoch: int, best: int) -> set[int]:
        """Epochs whose weights the final model may need when `epoch` epochs are done, of which `best` is the
        best.
        """
        return {*range(max(0, epoch - self.average), epoch), best}

    def newest(self) -> Saved | None:
        """The newest whole checkpoint, each damaged checkpoint named; None where there is none at all.

        Raises:
            UserError: `corrupt-artefact` where all are damaged.
        """
        found = self.all()
        for path in reversed(found):
            try:
                about = artefact.verify(path)
            except UserError as error:
                say("train", f"{error}; using the checkpoint before it")
                continue
            state = json.loads((path / "loop.json").read_text())
            return Saved(path, Loop(**state["loop"]), state["log"], about["identity"])
        if found:
            raise UserError(
                "corrupt-artefact",
                f"cannot resume {self.folder}",
                f"none of its {len(found)} checkpoints is whole",
                "restore a checkpoint, or start a new run folder",
            )
        return None

    def save(
        self,
        loop: Loop,
        tagger: Tagger,
        optimiser: torch.optim.Optimizer,
        ema: Ema,
        labels: LabelSet,
        log: dict[str, Any],
        identity: dict[str, Any],
    ) -> None:
        """Publishes a checkpoint and drops checkpoints and epochs no longer needed."""
        about = {"kind": "checkpoint", "step": loop.step, "identity": identity}
        with artefact.publish(self.of_step(loop.step), about) as partial:
            state = tagger.state_dict()
            model = without_added(state)
            write_model(partial, model, tagger, labels, {"step": loop.step})
            artefact.checkpoint_hook("model-written")
            if len(model) < len(state):
                added = {name: tensor for name, tensor in state.items() if name not in model}
                save_tensors(partial / BESIDE, added)
            if ema.mean:
                save_tensors(partial / MEAN, ema.mean)
            save_tensors(partial / "optimiser.safetensors", state_tensors(optimiser, tagger))
            (partial / "loop.json").write_text(
                json.dumps({"loop": dataclasses.asdict(loop), "log": log}) + "\n"
            )
        self._drop_unneeded(loop)
        artefact.checkpoint_hook("saved")

    def save_epoch(self, epoch: int, tagger: Tagger, labels: LabelSet) -> None:
        """Publishes an epoch's weights, without what an objective added."""
        with artefact.publish(self.of_epoch(epoch), {"kind": "model", "epoch": epoch}) as partial:
            write_model(partial, without_added(tagger.state_dict()), tagger, labels, {"epoch": epoch})

    def mean_of_epochs(self, epochs: list[int]) -> dict[str, Tensor]:
        """The weights of these epochs, averaged.

        Raises:
            UserError: `corrupt-artefact`.
        """
        states = []
        for epoch in epochs:
            artefact.verify(self.of_epoch(epoch))
            states.append(load_tensors(self.of_epoch(epoch) / WEIGHTS))
        return {name: torch.stack([s[name].double() for s in states]).mean(0).float() for name in states[0]}

    def drop_half_written(self) -> None:
        """Removes what a kill left half-written."""
        for pattern in ("checkpoints/*.partial", "checkpoints/*.old", "epochs/*.partial", "epochs/*.old"):
            for rest in self.folder.glob(pattern):
                shutil.rmtree(rest, ignore_errors=True)

    def drop_after(self, saved: Saved) -> None:
        """Removes the checkpoints of later steps, which are damaged."""
        for path in self.all():
            if path.name > saved.folder.name:
                shutil.rmtree(path, ignore_errors=True)

    def _drop_unneeded(self, loop: Loop) -> None:
        for path in self.all()[:-KEPT]:
            shutil.rmtree(path, ignore_errors=True)
        needed = self.epochs_needed(loop.epoch, loop.best_epoch)
        for path in self.all():
            with suppress(OSError, ValueError, KeyError):  # a damaged checkpoint needs nothing
                there = json.loads((path / "loop.json").read_text())["loop"]
                needed |= self.epochs_needed(there["epoch"], there["best_epoch"])
        for path in self.folder.glob("epochs/epoch-*"):
            if not path.name.endswith(".partial") and int(path.name[6:]) not in needed:
                shutil.rmtree(path, ignore_errors=True)
