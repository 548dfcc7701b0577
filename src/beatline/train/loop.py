"""batches -> augment -> tagger -> loss -> optimiser step -> checkpoint: a straight loop.

In: a configuration and a store. Out: `<run>/model`, the fine-tuned tagger, and `<run>/train` with the log and
the checkpoints. The loop's state is a handful of integers; everything random is a function of these. So a
run killed anywhere and resumed ends with the same bits.
"""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from beatline.config import Config
from beatline.core import artefact
from beatline.core.console import progress, say
from beatline.core.errors import UserError
from beatline.core.threads import in_order
from beatline.data.store import Store
from beatline.model.cpu import give_back, keep_memory
from beatline.model.geometry import MELS, PATCH, SAMPLE_RATE
from beatline.model.tagger import Tagger
from beatline.settings import dump_yaml
from beatline.train import augment, objectives, parallel
from beatline.train.augmentation import generator
from beatline.train.batches import (
    Batch,
    Crop,
    augmented_fbank,
    epoch_batches,
    make_batch,
    steps_of_epochs,
    takes_crops,
)
from beatline.train.checkpoints import Checkpoints, Loop, take_added
from beatline.train.draws import NAMED, rule_of
from beatline.train.ema import Ema
from beatline.train.identity import check_identity, identity
from beatline.train.observers import JsonLines, Observer, TensorBoard
from beatline.train.optim import adamw, clip_gradients, learning_rate, set_rate
from beatline.train.parallel import Processes
from beatline.train.publishing import publish_model
from beatline.train.start import new_tagger, pick_device

LARGE = 2**25
"""Parameters; from there on a step takes seconds on a CPU, and memory is worth tidying between two steps."""


def dropped_layers(tagger: Tagger, seed: int, step: int) -> set[int]:
    """The layers that layerdrop skips in a step: the same in every process."""
    draws = generator(seed, step, "layerdrop").random(tagger.config.encoder_layers)
    return set(np.flatnonzero(draws < tagger.config.encoder_layerdrop).tolist())


class Trainer:
    """One training run in `<out>/train`; `run` trains to the end and publishes `<out>/model`.

    Args:
        init: Path of the checkpoint that `model.init` names; None where that is a path itself.
        processes: Which of several this is, see `parallel.process_group`.

    Raises:
        UserError: `bad-config`; see `load_checkpoint`.
    """

    def __init__(
        self, config: Config, store: Store, init: Path | None = None, processes: Processes = parallel.ALONE
    ):
        self.config = config
        self.store = store
        self.processes = processes
        self.folder = config.out / "train"
        self.device = pick_device(config.train.device)
        self.clips = store.splits["train"]
        self.validation = store.splits["val"]
        self.steps = steps_of_epochs(store, self.clips, config.train)
        self.total_steps = sum(self.steps)
        self.objective = objectives.named(config, store)
        self.augmentations = augment.named(config.augment)
        say(
            "train",
            f"{len(self.clips)} clips, {config.train.epochs} epochs, {self.total_steps} steps of "
            f"{config.train.batch} on {self.device} -> {config.out / 'model'}",
        )
        self.tagger = new_tagger(config, store.labels, init)
        self.objective.begin(self.tagger, is_new=config.model.init is None)
        take_added(self.tagger, init or config.model.init)
        self.tagger.to(self.device)
        self.ema = Ema(self.tagger, config.train.ema)
        self.is_large = sum(parameter.numel() for parameter in self.tagger.parameters()) > LARGE
        self.optimiser = adamw(self.tagger, config.optim)
        self.rule = NAMED
        self.identity = identity(config, store)
        self.checkpoints = Checkpoints(self.folder, config.train.average)
        self.log = JsonLines(self.folder / "log.jsonl")
        self.observers: list[Observer] = [self.log, TensorBoard(self.folder / "tensorboard")]
        self.loop = Loop()
        self.term = False  # this process was told to stop
        self.stop = False  # all agree to

    def run(self) -> None:
        """Trains from wherever the run stands to its end.

        Raises:
            UserError: `not-finite-loss` naming the clips; `run-differs`, `corrupt-artefact`, `disk-full`,
                `not-writable`.
            SystemExit: 143 after SIGTERM, with everything saved.
        """
        if not self.processes.is_first:
            self.observers = []
        self.resume()
        if self.device.type == "cpu" and not self.is_large:
            keep_memory()
        if self.processes.is_first:
            artefact.write_atomic(self.config.out / "config.yaml", dump_yaml(self.config))
        previous = signal.signal(signal.SIGTERM, self._on_term)
        try:
            for observer in self.observers:
                observer.begin(self.loop.step)
            self._epochs()
            if self.processes.is_first:
                self.publish_model()
            self._leave_if_told()
        finally:
            signal.signal(signal.SIGTERM, previous)
            for observer in self.observers:
                observer.end()

    def resume(self) -> None:
        """Continues from the newest checkpoint that is whole, or starts afresh.

        Raises:
            UserError: `run-differs`, `corrupt-artefact`.
        """
        saved = self.checkpoints.newest()
        if saved is not None:
            check_identity(self.config.out, saved.identity, self.identity)
            self.loop = saved.loop
            self.rule = rule_of(saved.identity)
            self.identity = identity(self.config, self.store, self.rule)
            saved.restore(self.tagger, self.optimiser, self.ema)
        parallel.wait()  # until all have read
        if self.processes.is_first:
            self.log.restore(saved.log if saved else None)
            self.checkpoints.drop_half_written()
            if saved is not None:
                self.checkpoints.drop_after(saved)
        if saved is not None:
            say("train", f"resuming at step {self.loop.step} of {self.total_steps}")

    def _on_term(self, *_: object) -> None:
        self.term = True

    def _leave_if_told(self) -> None:
        """Ends every process where any was told to stop; all come here, and wait for each other."""
        if parallel.sum_over_processes(torch.tensor(float(self.term), device=self.device)) > 0:
            raise SystemExit(143)

    def _tell(self, event: str, epoch: int, figures: dict[str, float]) -> None:
        for observer in self.observers:
            observer.hear(event, self.loop.step, epoch, figures)

    def _epochs(self) -> None:
        with progress("train", self.total_steps) as advance:
            advance(self.loop.step)
            while self.loop.epoch < self.config.train.epochs:
                started = time.monotonic()
                clips = 0
                losses = []
                for batches in self.steps_of_epoch():
                    loss, norm, rate = self.step(batches)
                    losses.append(loss)
                    # a process may get none of the last batch
                    clips += round(len(batches[0].ids) / batches[0].share) if batches else 0
                    self._tell("step", self.loop.epoch, {"loss": loss, "lr": rate, "grad_norm": norm})
                    advance(1, f"loss {loss:.4f}")
                    artefact.checkpoint_hook("step")
                    if self.loop.batch < self.steps[self.loop.epoch]:
                        self._between_steps()
                seconds = time.monotonic() - started
                self._end_epoch(float(np.mean(losses)) if losses else float("nan"), clips / seconds)
                self._leave_if_told()

    def _between_steps(self) -> None:
        """Saves where it is time to, and leaves where all agree to."""
        if self.processes.is_first and (self.stop or self.loop.step % self.config.train.save_every == 0):
            self.save()
        if self.stop:
            parallel.wait()
            raise SystemExit(143)

    def steps_of_epoch(self) -> Iterator[list[Batch]]:
        """The microsteps of each step that is left in this epoch, read ahead."""
        settings = self.config.train
        epoch = self.loop.epoch
        plan = epoch_batches(self.store, self.clips, settings, epoch)
        rank, world = self.processes
        shares = [
            slice(part * world + rank, None, world * settings.accumulate)
            for part in range(settings.accumulate)
        ]

        samples = round(settings.crop_seconds * SAMPLE_RATE) if takes_crops(settings, epoch) else 0
        crop = Crop(samples, self.objective.crop_hop)

        def make(number: int) -> list[Batch]:
            clips = plan[number]
            return [
                make_batch(
                    self.store,
                    clips,
                    share,
                    self.augmentations,
                    settings.seed,
                    epoch,
                    number,
                    self.rule,
                    crop,
                    again=settings.balance > 0,
                )
                for share in shares
                if len(clips[share])
            ]

        yield from in_order(range(self.loop.batch, len(plan)), make, settings.workers)

    def step(self, batches: list[Batch]) -> tuple[float, float, float]:
        """One optimiser step; the loss, the gradient norm before clipping and the learning rate."""
        skip = dropped_layers(self.tagger, self.config.train.seed, self.loop.step)
        rate = learning_rate(self.loop.step, self.config.optim, self.total_steps)
        set_rate(self.optimiser, rate)
        self.tagger.train()
        self.optimiser.zero_grad()
        if self.device.type == "cpu" and self.is_large:
            give_back()
        total = torch.zeros((), device=self.device)
        for part, batch in enumerate(batches):
            total += self._backward(batch, part, skip)
        if not batches:  # more processes than clips in the last batch: gradients of zero
            self._zero_gradients(skip)
        parallel.sum_gradients(self.tagger)
        # one process's SIGTERM stops all of them at the same step
        sums = parallel.sum_over_processes(
            torch.stack([total, torch.tensor(float(self.term), device=self.device)])
        )
        loss = float(sums[0])
        self.stop = bool(sums[1] > 0)
        norm = float(clip_gradients(self.tagger, self.config.optim.clip_norm))
        if not (np.isfinite(loss) and np.isfinite(norm)):
            raise self._not_finite(loss, norm)
        self.optimiser.step()
        self.loop.step += 1
        self.loop.batch += 1
        self.ema.update(self.loop.step)
        return loss, norm, rate

    def _backward(self, batch: Batch, part: int, skip: set[int]) -> torch.Tensor:
        """The loss of a microstep, a scalar; adds its gradients."""
        settings = self.config.train
        # dropout is PyTorch's own: seeded here, and only here, by where the loop stands
        seed = generator(settings.seed, self.loop.step, part, self.processes.rank, "dropout")
        torch.manual_seed(int(seed.integers(2**63)))
        fbank, is_padding = augmented_fbank(batch, self.tagger, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            outputs = self.objective.outputs(self.tagger, fbank, is_padding, skip)
        loss = self.objective.loss(outputs, batch) * (batch.share / len(batch.ids))
        loss.backward()
        return loss.detach()

    def _zero_gradients(self, skip: set[int]) -> None:
        fbank = torch.zeros(1, PATCH, MELS, device=self.device)
        (self.objective.outputs(self.tagger, fbank, None, skip).sum() * 0.0).backward()

    def _not_finite(self, loss: float, norm: float) -> UserError:
        """The error for a step whose loss or gradient is not finite. It names the clips of all processes,
        because mixup takes partners from the whole step.
        """
        plan = epoch_batches(self.store, self.clips, self.config.train, self.loop.epoch)
        ids = ", ".join(self.store.ids[i] for i in plan[self.loop.batch])
        return UserError(
            "not-finite-loss",
            f"training stopped at step {self.loop.step + 1}",
            f"loss {loss}, gradient norm {norm} on the clips {ids}",
            "look at these clips, or lower optim.lr; the last checkpoint is untouched",
        )

    def _end_epoch(self, train_loss: float, speed: float) -> None:
        """Validates, keeps the epoch's weights if the final model may need them, and saves."""
        epoch = self.loop.epoch
        settings = self.config.train
        self.loop.epoch, self.loop.batch = epoch + 1, 0
        is_last = epoch + 1 == settings.epochs
        due = len(self.validation) > 0 and ((epoch + 1) % settings.validate_every == 0 or is_last)
        text = f"epoch {epoch + 1} of {settings.epochs}: loss {train_loss:.4f}"
        if due:
            figures = self.validate()
            best = self.objective.best
            if figures[best] > self.loop.best:
                self.loop.best, self.loop.best_epoch = figures[best], epoch
            text += f", validation {best} {figures[best]:.3f} (best {self.loop.best:.3f})"
            self._tell("validation", epoch, figures)
        if len(self.validation) == 0:
            self.loop.best_epoch = epoch
        if self.processes.is_first:
            if epoch in self.checkpoints.epochs_needed(self.loop.epoch, self.loop.best_epoch):
                with self.ema.in_use():
                    self.checkpoints.save_epoch(epoch, self.tagger, self.store.labels)
            self.save()
            self._write_speed(epoch, speed)
        if due or is_last:
            say("train", f"{text}, {speed:.0f} clips/s")

    def _write_speed(self, epoch: int, speed: float) -> None:
        """Appends to `speed.jsonl` what is no function of the run, and so not in the log."""
        finished = time.strftime("%Y-%m-%dT%H:%M:%S")
        line = json.dumps({"epoch": epoch, "clips_per_second": round(speed, 2), "finished": finished})
        with (self.folder / "speed.jsonl").open("a") as file:
            file.write(line + "\n")

    def validate(self) -> dict[str, float]:
        """The objective's figures on the validation clips, of the running mean where there is one."""
        with self.ema.in_use():
            return self.objective.validate(self.tagger, self.validation, self.processes)

    def save(self) -> None:
        """Publishes a checkpoint of this step."""
        mark = self.log.mark()
        self.checkpoints.save(
            self.loop, self.tagger, self.optimiser, self.ema, self.store.labels, mark, self.identity
        )

    def publish_model(self) -> None:
        """Publishes `<out>/model`."""
        publish_model(
            self.config,
            self.store,
            self.tagger,
            self.checkpoints,
            self.loop,
            self.identity,
            self.objective.best,
        )
