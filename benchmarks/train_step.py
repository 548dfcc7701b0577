"""One training step in float32 on 8 clips of 10 s, every layer training: beatline's real step against
ESPnet's own trainer, recipe's augmentation in both.

./bench.sh train_step        Ours reads its batch from a store and augments it; ESPnet's batch is in memory
                             already. Each side is a process of its own. Peak memory of
either is that of a fresh process that does nothing but three steps.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import harness
import models
import numpy as np
import peers

from beatline import load_config
from beatline.data.store import Store
from beatline.train import loop as train
from beatline.train.batches import Batch

CLIPS = 8
FASTER, MEMORY = 1.5, 0.5


def trainer(model: Path, store: Store, folder: Path, *settings: str) -> train.Trainer:
    """A trainer of the `as20k` recipe that starts from `model`, ready to step; no layer is dropped, as in the
    peer.
    """
    given = [
        "--out",
        str(folder / "run"),
        "--model.init",
        str(model),
        "--model.layerdrop",
        "0.0",
        "--data.validation",
        "given",
        *settings,
    ]
    return train.Trainer(load_config("as20k", given), store)


def real_step(ready: train.Trainer) -> Callable[[], tuple[float, float, float]]:
    """The trainer's next step, batch and all; epochs follow one another without validation."""

    def batches() -> Iterator[list[Batch]]:
        while True:
            ready.loop.batch = 0
            yield from ready.steps_of_epoch()
            ready.loop.epoch += 1

    stream = batches()
    return lambda: ready.step(next(stream))


def our_step(folder: str, recompute: str = "false") -> Callable[[], object]:
    """Our step on the models and the store in `folder`, with layers kept or computed again."""
    return real_step(
        trainer(
            Path(folder, "own"),
            Store.open(Path(folder, "store")),
            Path(folder),
            "--train.batch",
            str(CLIPS),
            "--train.device",
            "cpu",
            "--train.recompute",
            recompute,
        )
    )


def espnet_step(folder: str) -> Callable[[], None]:
    """ESPnet's step on the same clips."""
    store = Store.open(Path(folder, "store"))
    clips = store.splits["train"][:CLIPS]
    waveforms = np.stack([store.samples(int(i)) for i in clips]).astype(np.float32) / 32768
    labels = [np.flatnonzero(row).tolist() for row in store.targets(clips)]
    return peers.espnet_step(
        peers.espnet_training_model(Path(folder, "espnet")), peers.espnet_batch(waveforms, labels)
    )


def avex_step(folder: str) -> Callable[[], None]:
    """AVEX's step on the same clips."""
    store = Store.open(Path(folder, "store"))
    clips = store.splits["train"][:CLIPS]
    waveforms = np.stack([store.samples(int(i)) for i in clips]).astype(np.float32) / 32768
    return peers.avex_step(Path(folder, "release.pt"), waveforms, store.targets(clips))


def three_steps(side: str, folder: str) -> Callable[[], None]:
    """What a process of its own does while its memory is watched."""
    step = espnet_step(folder) if side == "espnet" else our_step(folder, str(side == "recompute").lower())

    def work() -> None:
        for _ in range(3):
            step()

    return work


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Time and peak memory."""
    with harness.scratch() as folder:
        models.write_models(Path(folder), options.smoke)
        models.write_store(Path(folder), CLIPS, 1 if options.smoke else models.SECONDS)
        what = f"training step, float32, {CLIPS} clips of {models.SECONDS} s, all layers"
        with (
            harness.Apart("train_step:our_step", folder=folder) as ours,
            harness.Apart("train_step:espnet_step", harness.PLAIN, folder=folder) as theirs,
        ):
            yield harness.compare(
                "train_step/time",
                f"{what}, against ESPnet's",
                ours,
                theirs,
                options.pairs,
                harness.at_least(FASTER),
            )
        if peers.available("avex"):
            with (
                harness.Apart("train_step:our_step", folder=folder) as ours,
                harness.Apart("train_step:avex_step", harness.PLAIN, folder=folder) as theirs,
            ):
                yield harness.compare(
                    "train_step/avex",
                    f"{what}, ours with the recipe's augmentation, against AVEX's BEATs without",
                    ours,
                    theirs,
                    options.pairs,
                )
        sides = {"ours": {}, "recompute": {}, "espnet": harness.PLAIN}
        memory = {
            side: harness.memory_of("train_step:three_steps", settings, side=side, folder=folder).peak
            for side, settings in sides.items()
        }
        yield harness.state(
            "train_step/memory",
            f"{what}: peak memory with train.recompute as a share of ESPnet's",
            memory["recompute"] / memory["espnet"],
            "",
            harness.at_most(MEMORY),
            ours_MB=memory["recompute"],
            without_recompute_MB=memory["ours"],
            espnet_MB=memory["espnet"],
        )


if __name__ == "__main__":
    harness.main(rows, __doc__)
