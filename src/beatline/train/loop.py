"""batches -> augment -> tagger -> loss -> optimiser step -> checkpoint: one straight loop.

In: a configuration and a store. Out: `<run>/model`, the fine-tuned tagger, and `<run>/train` with the log and
the checkpoints. The loop's state is a handful of integers; everything random is a function of them, so a run
killed anywhere and resumed ends with the same bits.
"""

import dataclasses
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from beatline.config import Config, to_dict
from beatline.core import artefact
from beatline.core.console import RunLog, progress, say
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.core.threads import in_order
from beatline.data.store import Store
from beatline.evaluate import metrics
from beatline.evaluate.predict import score_clips
from beatline.model import cpu as products
from beatline.model import memory
from beatline.model.checkpoints.load import load_checkpoint
from beatline.model.checkpoints.own import WEIGHTS, load_tensors, save_tensors, write_model
from beatline.model.engines.pytorch import TorchEngine
from beatline.model.tagger import Tagger, initialise_tagger
from beatline.settings import dump_yaml
from beatline.train import parallel
from beatline.train.augment import generator
from beatline.train.batches import Batch, augmented_fbank, epoch_batches, make_batch
from beatline.train.optim import adamw, clip_gradients, learning_rate, load_state_tensors, state_tensors

CHECKPOINTS_KEPT = 2  # the last, and the one before it should the last be damaged
LARGE = (
    2**25
)  # parameters: from there on a step takes seconds on a CPU, and memory is worth tidying between two of them


def pick_device(name: str) -> torch.device:
    """The device that `train.device` names."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "bad-config",
            "setting train.device",
            "there is no GPU that PyTorch can use",
            "set it to cpu or auto",
        )
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if place >= torch.cuda.device_count():
        raise UserError(
            "bad-config",
            "setting train.device",
            f"process {place} of this machine finds {torch.cuda.device_count()} GPUs",
            "start as many processes as there are GPUs: torchrun --nproc-per-node",
        )
    products.keep_gpu_exact()
    return torch.device("cuda", place)


def new_tagger(config: Config, labels: LabelSet, init: Path | None = None) -> Tagger:
    """The tagger that training starts from: random, or a checkpoint's encoder with its head where the labels
    agree.

    Args:
        init: Where the checkpoint that `model.init` names is; None where that is a path itself.

    Raises:
        UserError: See `load_checkpoint`.
    """
    settings = config.model
    loaded = load_checkpoint(init or settings.init) if settings.init else None
    architecture = settings.apply(loaded.config if loaded else settings.encoder)
    with torch.device("meta"):
        tagger = Tagger(architecture, len(labels), settings.task, settings.padding, settings.gradient_decay)
    tagger.to_empty(device="cpu")
    random = torch.Generator().manual_seed(config.train.seed)
    initialise_tagger(tagger, random, encoder_too=loaded is None)
    if loaded is not None:
        state = loaded.state
        if loaded.labels is None or loaded.labels.hash != labels.hash:
            state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
        tagger.load_state_dict(state, strict=False)
        head = "with its head" if "head.weight" in state else "with a new head"
        say("train", f"starting from {loaded.source} ({loaded.family}) {head}")
    if config.train.compile:
        os.environ.setdefault(
            "TORCHINDUCTOR_DETERMINISTIC", "1"
        )  # or it chooses kernels by their speed of the moment, and a resumed run may have other bits
        for layer in tagger.encoder.layers:
            layer.compile()
    return tagger


def loss_sum(logits: Tensor, targets: Tensor, task: str) -> Tensor:
    """The loss of each clip, summed: binary cross-entropy (mean over labels) or cross-entropy with soft
    targets.
    """
    if task == "multi-label":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1).sum()
    return F.cross_entropy(logits, targets, reduction="sum")


def dropped_layers(tagger: Tagger, seed: int, step: int) -> set[int]:
    """The layers that layerdrop skips in a step: the same in every process."""
    drops = (
        generator(seed, step, "layerdrop").random(tagger.config.encoder_layers)
        < tagger.config.encoder_layerdrop
    )
    return set(np.flatnonzero(drops).tolist())


@dataclasses.dataclass
class Loop:
    """Where the loop stands; written into every checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Steps done in this epoch."""
    best: float = -1.0
    """Highest validation mAP so far."""
    best_epoch: int = -1


class Trainer:
    """One training run in `<out>/train`; `run` trains to the end and publishes `<out>/model`."""

    def __init__(self, config: Config, store: Store, init: Path | None = None):
        self.config, self.store, self.init = config, store, init
        self.folder = config.out / "train"
        self.device = pick_device(config.train.device)
        self.clips = store.splits["train"]
        self.validation = store.splits["val"]
        if config.model.task == "single-label":
            _check_one_label(store, np.concatenate([self.clips, self.validation]))
        self.steps_per_epoch = len(epoch_batches(store, self.clips, config.train, 0))
        self.total_steps = self.steps_per_epoch * config.train.epochs
        self.loop = Loop()
        self.term = False  # this process was told to stop
        self.stop = False  # all agree to

    # ------------------------------------------------------------ files

    def identity(self) -> dict[str, Any]:
        """What a run may not change when it is resumed."""
        settings = to_dict(self.config)
        train = {
            name: value
            for name, value in settings["train"].items()
            if name not in ("workers", "device", "save_every")
        }
        return {
            "model": settings["model"],
            "augment": settings["augment"],
            "optim": settings["optim"],
            "train": train,
            "store": self.store.about["content"],
        }

    def save(self) -> None:
        """Publishes a checkpoint of this step and drops those no longer needed."""
        mark = self.log.mark()
        identity = self.identity()
        about = {"kind": "checkpoint", "step": self.loop.step, "identity": identity}
        with artefact.publish(self.checkpoint_folder(self.loop.step), about) as partial:
            write_model(
                partial, self.tagger.state_dict(), self.tagger, self.store.labels, {"step": self.loop.step}
            )
            artefact.checkpoint_hook("model-written")
            save_tensors(partial / "optimiser.safetensors", state_tensors(self.optimiser, self.tagger))
            (partial / "loop.json").write_text(
                json.dumps({"loop": dataclasses.asdict(self.loop), "log": mark}) + "\n"
            )
        for path in self.checkpoints()[:-CHECKPOINTS_KEPT]:
            shutil.rmtree(path, ignore_errors=True)
        needed = self.epochs_needed()
        for path in self.checkpoints():
            with suppress(OSError, ValueError, KeyError):  # a damaged one needs nothing
                there = json.loads((path / "loop.json").read_text())["loop"]
                needed |= self.epochs_needed(there["epoch"], there["best_epoch"])
        for path in self.folder.glob("epochs/epoch-*"):
            if not path.name.endswith(".partial") and int(path.name[6:]) not in needed:
                shutil.rmtree(path, ignore_errors=True)
        artefact.checkpoint_hook("saved")

    def checkpoint_folder(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step:08d}"

    def epoch_folder(self, epoch: int) -> Path:
        return self.folder / "epochs" / f"epoch-{epoch:04d}"

    def checkpoints(self) -> list[Path]:
        """Published checkpoints, oldest first."""
        return sorted(p for p in self.folder.glob("checkpoints/step-*") if p.name[5:].isdigit())

    def epochs_needed(self, epoch: int | None = None, best: int | None = None) -> set[int]:
        """Epochs whose weights the final model may need, from where the loop stands, or from where it has so
        many epochs behind it, of which this is the best.
        """
        epoch, best = (
            self.loop.epoch if epoch is None else epoch,
            self.loop.best_epoch if best is None else best,
        )
        return {*range(max(0, epoch - self.config.train.average), epoch), best}

    def resume(self) -> None:
        """Continues from the newest checkpoint that is whole, or starts afresh."""
        found = self.checkpoints()
        if self.rank == 0:  # what a kill left half-written
            for pattern in ("checkpoints/*.partial", "checkpoints/*.old", "epochs/*.partial", "epochs/*.old"):
                for rest in self.folder.glob(pattern):
                    shutil.rmtree(rest, ignore_errors=True)
        for path in reversed(found):
            try:
                about = artefact.verify(path)
            except UserError as error:
                say("train", f"{error}; using the checkpoint before it")
                continue
            check_identity(self.config.out, about["identity"], self.identity())
            state = json.loads((path / "loop.json").read_text())
            self.loop = Loop(**state["loop"])
            self.tagger.load_state_dict(load_tensors(path / WEIGHTS))
            load_state_tensors(self.optimiser, self.tagger, load_tensors(path / "optimiser.safetensors"))
            self.log = RunLog(self.folder / "log.jsonl", state["log"])
            for later in found[found.index(path) + 1 :]:
                if self.rank == 0:
                    shutil.rmtree(later, ignore_errors=True)
            say("train", f"resuming at step {self.loop.step} of {self.total_steps}")
            return
        if found:
            raise UserError(
                "corrupt-artefact",
                f"cannot resume {self.folder}",
                f"none of its {len(found)} checkpoints is whole",
                "restore one, or start a new run folder",
            )
        self.log = RunLog(self.folder / "log.jsonl", None)

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        """Trains from wherever the run stands to its end.

        Raises:
            UserError: `not-finite-loss` naming the clips; `run-differs`, `corrupt-artefact`, `disk-full`,
                `not-writable`.
            SystemExit: 143 after SIGTERM, with everything saved.
        """
        with parallel.process_group(self.device) as (self.rank, self.world):
            self.tagger = new_tagger(self.config, self.store.labels, self.init).to(self.device)
            self.optimiser = adamw(self.tagger, self.config.optim)
            self.resume()
            if self.rank == 0:
                artefact.write_atomic(self.config.out / "config.yaml", dump_yaml(self.config))
            previous = signal.signal(signal.SIGTERM, self._on_term)
            try:
                self._epochs()
                if self.rank == 0:
                    self.publish_model()
                self._leave_if_told()
            finally:
                signal.signal(signal.SIGTERM, previous)
                self.log.close()

    def _on_term(self, *_: object) -> None:
        self.term = True

    def _leave_if_told(self) -> None:
        """Ends every process where one was told to stop; all of them come here, and wait for one another."""
        if parallel.sum_over_processes(torch.tensor(float(self.term), device=self.device)) > 0:
            raise SystemExit(143)

    def _epochs(self) -> None:
        board = self._tensorboard() if self.rank == 0 else None
        with progress("train", self.total_steps) as advance:
            advance(self.loop.step)
            while self.loop.epoch < self.config.train.epochs:
                started, clips = time.monotonic(), 0
                losses = []
                for batches in self._steps_of_epoch():
                    loss, norm, rate = self.step(batches)
                    losses.append(loss)
                    clips += (
                        round(len(batches[0].ids) / batches[0].share) if batches else 0
                    )  # a process may get none of the last batch
                    if self.rank == 0:
                        self.log.write(
                            "step",
                            step=self.loop.step,
                            epoch=self.loop.epoch,
                            loss=loss,
                            lr=rate,
                            grad_norm=norm,
                        )
                        if board is not None:
                            for name, value in (("loss", loss), ("lr", rate), ("grad_norm", norm)):
                                board.add_scalar(f"train/{name}", value, self.loop.step)
                    advance(1, f"loss {loss:.4f}")
                    artefact.checkpoint_hook("step")
                    at_end = self.loop.batch == self.steps_per_epoch
                    if (
                        self.rank == 0
                        and not at_end
                        and (self.stop or self.loop.step % self.config.train.save_every == 0)
                    ):
                        self.save()
                    if self.stop and not at_end:
                        parallel.wait()
                        raise SystemExit(143)
                seconds = time.monotonic() - started
                self._end_epoch(board, float(np.mean(losses)) if losses else float("nan"), clips / seconds)
                self._leave_if_told()
        if board is not None:
            board.close()

    def _steps_of_epoch(self) -> Iterator[list[Batch]]:
        """The microsteps of each step that is left in this epoch, read ahead."""
        settings, epoch = self.config.train, self.loop.epoch
        plan = epoch_batches(self.store, self.clips, settings, epoch)
        shares = self.world * settings.accumulate

        def make(number: int) -> list[Batch]:
            clips = plan[number]
            mine = [slice(part * self.world + self.rank, None, shares) for part in range(settings.accumulate)]
            return [
                make_batch(self.store, clips, share, self.config.augment, settings.seed, epoch, number)
                for share in mine
                if len(clips[share])
            ]

        yield from in_order(range(self.loop.batch, len(plan)), make, settings.workers)

    def step(self, batches: list[Batch]) -> tuple[float, float, float]:
        """One optimiser step; the loss, the gradient norm before clipping and the learning rate."""
        settings = self.config.train
        skip = dropped_layers(self.tagger, settings.seed, self.loop.step)
        rate = learning_rate(self.loop.step, self.config.optim, self.total_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.tagger.train()
        self.optimiser.zero_grad()
        if (
            self.device.type == "cpu"
            and sum(parameter.numel() for parameter in self.tagger.parameters()) > LARGE
        ):
            memory.give_back()
        total = torch.zeros((), device=self.device)
        for part, batch in enumerate(batches):
            # dropout is PyTorch's own: seeded here, and only here, by where the loop stands
            torch.manual_seed(
                int(generator(settings.seed, self.loop.step, part, self.rank, "dropout").integers(2**63))
            )
            fbank, is_padding = augmented_fbank(batch, self.tagger, self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                logits = self.tagger.from_fbank(fbank, is_padding, skip)
            loss = loss_sum(logits, batch.targets.to(self.device), self.tagger.task) * (
                batch.share / len(batch.ids)
            )
            loss.backward()
            total += loss.detach()
        if not batches:  # more processes than clips in the last batch: gradients of zero
            self._zero_gradients(skip)
        parallel.sum_gradients(self.tagger)
        # one process's SIGTERM stops all of them at the same step
        sums = parallel.sum_over_processes(
            torch.stack([total, torch.tensor(float(self.term), device=self.device)])
        )
        loss_value, self.stop = float(sums[0]), bool(sums[1] > 0)
        norm = float(clip_gradients(self.tagger, self.config.optim.clip_norm))
        if not (np.isfinite(loss_value) and np.isfinite(norm)):
            plan = epoch_batches(self.store, self.clips, settings, self.loop.epoch)
            ids = ", ".join(
                self.store.ids[i] for i in plan[self.loop.batch]
            )  # of all processes: mixup takes partners from the whole step
            raise UserError(
                "not-finite-loss",
                f"training stopped at step {self.loop.step + 1}",
                f"loss {loss_value}, gradient norm {norm} on the clips {ids}",
                "look at these clips, or lower optim.lr; the last checkpoint is untouched",
            )
        self.optimiser.step()
        self.loop.step += 1
        self.loop.batch += 1
        return loss_value, norm, rate

    def _zero_gradients(self, skip: set[int]) -> None:
        fbank = torch.zeros(1, self.tagger.config.input_patch_size, 128, device=self.device)
        (self.tagger.from_fbank(fbank, None, skip).sum() * 0.0).backward()

    def _end_epoch(self, board: Any, train_loss: float, speed: float) -> None:
        """Validates, keeps the epoch's weights if the final model may need them, and saves."""
        epoch, settings = self.loop.epoch, self.config.train
        self.loop.epoch, self.loop.batch = epoch + 1, 0
        due = len(self.validation) > 0 and (
            (epoch + 1) % settings.validate_every == 0 or epoch + 1 == settings.epochs
        )
        text = ""
        if due:
            figures = self.validate()
            if figures["mAP"] > self.loop.best:
                self.loop.best, self.loop.best_epoch = figures["mAP"], epoch
            text = f", validation mAP {figures['mAP']:.3f} (best {self.loop.best:.3f})"
            if self.rank == 0:
                self.log.write("validation", step=self.loop.step, epoch=epoch, **figures)
                if board is not None:
                    for name, value in figures.items():
                        board.add_scalar(f"validation/{name}", value, self.loop.step)
        if len(self.validation) == 0:
            self.loop.best_epoch = epoch
        if self.rank == 0:
            if epoch in self.epochs_needed():
                with artefact.publish(self.epoch_folder(epoch), {"kind": "model", "epoch": epoch}) as partial:
                    write_model(
                        partial, self.tagger.state_dict(), self.tagger, self.store.labels, {"epoch": epoch}
                    )
            self.save()
            with (self.folder / "speed.jsonl").open("a") as file:
                file.write(
                    json.dumps(
                        {
                            "epoch": epoch,
                            "clips_per_second": round(speed, 2),
                            "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
                        }
                    )
                    + "\n"
                )
            if due or epoch + 1 == settings.epochs:
                say(
                    "train",
                    f"epoch {epoch + 1} of {settings.epochs}: loss {train_loss:.4f}{text}, {speed:.0f} "
                    f"clips/s",
                )

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """mAP, mean AUC and loss on the validation clips, each process scoring a share."""
        mine = slice(self.rank, None, self.world)
        scores = torch.zeros(len(self.validation), len(self.store.labels), device=self.device)
        engine = TorchEngine(
            self.tagger, self.store.labels, self.device, self.config.train.precision, bulk=True
        )
        local = score_clips(engine, self.store, self.validation[mine], self.config.train.workers)
        scores[mine] = torch.from_numpy(local).to(self.device)
        gathered = parallel.sum_over_processes(scores).cpu().numpy()
        targets = self.store.targets(self.validation)
        ap, auc = metrics.average_precision(gathered, targets > 0.5), metrics.roc_auc(gathered, targets > 0.5)
        clipped = np.clip(gathered.astype(np.float64), 1e-12, 1 - 1e-12)
        nats = (
            -(targets * np.log(clipped) + (1 - targets) * np.log(1 - clipped)).mean()
            if self.tagger.task == "multi-label"
            else -(targets * np.log(clipped)).sum(1).mean()
        )
        return {"mAP": mean_of_known(ap), "mean_auc": mean_of_known(auc), "loss": float(nats)}

    def publish_model(self) -> None:
        """Averages the last epochs, or takes the best, and publishes `<out>/model`."""
        average = self.config.train.average
        epochs = (
            list(range(max(0, self.loop.epoch - average), self.loop.epoch))
            if average
            else [self.loop.best_epoch]
        )
        states = []
        for epoch in epochs:
            artefact.verify(self.epoch_folder(epoch))
            states.append(load_tensors(self.epoch_folder(epoch) / WEIGHTS))
        state = {name: torch.stack([s[name].double() for s in states]).mean(0).float() for name in states[0]}
        chosen = (
            f"mean of epochs {epochs[0] + 1} to {epochs[-1] + 1}"
            if average
            else f"epoch {epochs[0] + 1}, the best on validation"
            if len(self.validation)
            else "the last epoch"
        )
        about = {
            "config": to_dict(self.config),
            "chosen": chosen,
            "steps": self.loop.step,
            "best_validation_mAP": self.loop.best,
        }
        run_files = {
            name: artefact.facts_of(self.config.out / name) for name in ("config.yaml", "train/log.jsonl")
        }  # these have no manifest of their own
        facts = {
            "kind": "model",
            "labels_hash": self.store.labels.hash,
            "identity": self.identity(),
            "run_files": run_files,
        }
        with artefact.publish(self.config.out / "model", facts) as partial:
            write_model(partial, state, self.tagger, self.store.labels, about)
        say("train", f"{self.config.out / 'model'}: {chosen}")

    def _tensorboard(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.loop.step + 1)


def _check_one_label(store: Store, clips: np.ndarray) -> None:
    """Raises `bad-config` for a clip of several labels, of which a softmax could never give more than one its
    due.
    """
    several = clips[store.label_counts(clips) > 1]
    if len(several):
        cause = (
            f"single-label, but {len(several)} clips of train and val have several labels, the first is "
            f"{store.ids[int(several[0])]}"
        )
        raise UserError(
            "bad-config", "setting model.task", cause, "set it to multi-label, or give each clip one label"
        )


def mean_of_known(values: np.ndarray) -> float:
    """Mean over labels that have a figure, 0 where none has."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def check_identity(out: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """A resumed run is the same run.

    Raises:
        UserError: `run-differs`, naming the first setting that changed.
    """

    def changes(a: Any, b: Any, name: str) -> Iterator[str]:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in sorted(a.keys() | b.keys()):
                yield from changes(a.get(key), b.get(key), f"{name}.{key}" if name else key)
        elif a != b:
            yield f"{name} is {b}, was {a}"

    for change in changes(then, now, ""):
        raise UserError(
            "run-differs",
            f"cannot continue the run in {out}",
            change,
            "give the old setting, or another folder with --out",
        )
