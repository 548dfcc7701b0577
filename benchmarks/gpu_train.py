"""The `as20k` training step on a GPU, base size, 40 clips of 10 s, bf16: the real trainer with its loader,
augmentation and log.

OMP_NUM_THREADS=8 python benchmarks/gpu_train.py [--smoke]        In turn: our steps, and ESPnet's own step on
    the same card where espnet can be imported (its clips are in
memory already; float32, because its model turns autocast off). Also: the bf16 matrix-product rate of the
encoder's shapes, the share of it reached, peak memory of both, the filter bank's share of a step, and our
step with each layer through torch.compile, which is to become the way where it is the faster one. On a CPU
only `--smoke` makes sense.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import flops
import harness
import models
import numpy as np
import peers
import torch
import train_step

from beatline.core.console import RunLog
from beatline.data.store import Store
from beatline.train.batches import to_waveforms

CLIPS = 40
CLIPS_PER_SECOND, SHARE, FASTER, MEMORY_GB, FBANK_SHARE = 1000.0, 0.4, 6.0, 8.0, 0.02
STORE_CLIPS = 2000
STEPS = 50  # of ours in each pair: long enough for the reader ahead to be in its steady state


def device() -> torch.device:
    """The GPU, or the CPU for a smoke run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronise() -> None:
    """Waits for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def finished(work: Callable[[], object]) -> Callable[[], None]:
    """The work, and then the GPU's end of it."""

    def whole() -> None:
        work()
        synchronise()

    return whole


def peak_gb(work: Callable[[], object]) -> float:
    """The most GPU memory that PyTorch held during the work, GB; on a CPU the most that this process ever
    held.
    """
    if not torch.cuda.is_available():
        work()
        return harness.resident("VmHWM") / 1000
    torch.cuda.reset_peak_memory_stats()
    finished(work)()
    return torch.cuda.max_memory_allocated() / 1e9


def held_gb() -> float:
    """GPU memory that tensors hold now, GB; on a CPU nothing is counted."""
    return torch.cuda.memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0


def product_rate(rows_of_a_layer: int, config: models.EncoderConfig, rounds: int) -> float:
    """bf16 operations per second of the layers' own products, by themselves, forward shapes."""
    sizes = list(flops.layer_products(config, rows_of_a_layer))
    operands = [
        (
            torch.randn(m, k, device=device(), dtype=torch.bfloat16),
            torch.randn(n, k, device=device(), dtype=torch.bfloat16),
        )
        for m, k, n in sizes
    ]

    def work() -> None:
        for _ in range(config.encoder_layers):
            for a, b in operands:
                torch.nn.functional.linear(a, b)

    times = harness.interleave({"products": finished(work)}, rounds)["products"]
    return 2.0 * config.encoder_layers * sum(m * k * n for m, k, n in sizes) / float(np.median(times))


def logged(ready: train_step.train.Trainer, folder: Path) -> Callable[[], None]:
    """The trainer's next step with what its loop writes about it."""
    from torch.utils.tensorboard import SummaryWriter

    folder.mkdir(parents=True, exist_ok=True)
    log, board = RunLog(folder / "log.jsonl", None), SummaryWriter(str(folder / "tensorboard"))
    step = train_step.real_step(ready)

    def work() -> None:
        loss, norm, rate = step()
        log.write("step", step=ready.loop.step, epoch=ready.loop.epoch, loss=loss, lr=rate, grad_norm=norm)
        for name, value in (("loss", loss), ("lr", rate), ("grad_norm", norm)):
            board.add_scalar(f"train/{name}", value, ready.loop.step)

    return work


def times_over(step: Callable[[], None], steps: int) -> Callable[[], None]:
    """So many steps, one after the other."""

    def work() -> None:
        for _ in range(steps):
            step()

    return work


def espnet(folder: Path, store: Store, clips: int) -> Callable[[], None]:
    """ESPnet's step on the card."""
    some = store.splits["train"][:clips]
    waveforms = np.stack([store.samples(int(i)) for i in some]).astype(np.float32) / 32768
    labels = [np.flatnonzero(row).tolist() for row in store.targets(some)]
    model = peers.espnet_training_model(folder / "espnet").to(device())
    return peers.espnet_step(model, peers.espnet_batch(waveforms, labels, device().type))


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Speed, share of the card's rate, memory, filter bank, and ESPnet's step."""
    clips, steps, seconds = (4, 2, 1) if options.smoke else (CLIPS, STEPS, models.SECONDS)
    config = models.architecture(options.smoke)
    with harness.scratch() as name:
        folder = Path(name)
        models.write_models(folder, options.smoke)
        store = models.write_store(folder, 3 * clips if options.smoke else STORE_CLIPS, seconds)
        settings = (
            "--train.batch",
            str(clips),
            "--train.precision",
            "bfloat16",
            "--train.workers",
            "2" if options.smoke else "8",
        )
        trainers: dict[str, train_step.train.Trainer] = {}
        memory: dict[str, float] = {}

        def own(name: str) -> Callable[[], None]:
            trainers[name] = train_step.trainer(
                folder / "own",
                store,
                folder / name,
                *settings,
                "--train.compile",
                str(name == "compiled").lower(),
            )
            return times_over(logged(trainers[name], folder / name), steps)

        def measured(name: str) -> bool:
            """Makes a side and measures its memory; a side other than ours that does not run here is left
            out, and the reason said.
            """
            beside = held_gb()
            try:
                work = finished(espnet(folder, store, clips) if name == "espnet" else own(name))
                memory[name] = peak_gb(work) - beside
            except Exception as error:
                if name == "ours":
                    raise
                print(f"left out: {name}: {type(error).__name__}: {str(error)[:500]}", flush=True)
                return False
            works[name] = work
            return True

        works: dict[str, Callable[[], None]] = {}
        measured("ours")
        samples = torch.from_numpy(np.stack([store.samples(int(i)) for i in store.splits["train"][:clips]]))
        waveforms = to_waveforms(samples, device())
        works["fbank"] = finished(lambda: trainers["ours"].tagger.fbank(waveforms))
        times = harness.interleave(works, options.pairs)
        speeds = [steps * clips / took for took in times["ours"]]
        what = f"training step, bf16, {clips} clips of {seconds} s, loader, augmentation and log included"
        yield harness.summarise(
            "gpu_train/speed",
            what,
            speeds,
            "clips/s",
            harness.at_least(CLIPS_PER_SECOND),
            hours_for_78000_steps=78_000 * clips / float(np.median(speeds)) / 3600,
        )
        rate = product_rate(clips * flops.token_count(config, seconds), config, options.pairs)
        reached = [
            flops.operations(config, clips, seconds, training=True) * steps / took / rate
            for took in times["ours"]
        ]
        yield harness.summarise(
            "gpu_train/share",
            "share of the measured bf16 rate of the layers' own products",
            reached,
            "",
            harness.at_least(SHARE),
            products_TFLOPS=rate / 1e12,
        )
        yield harness.state(
            "gpu_train/memory",
            f"peak GPU memory at {clips} clips",
            memory["ours"],
            "GB",
            harness.at_most(MEMORY_GB),
        )
        share = [steps * fbank / took for fbank, took in zip(times["fbank"], times["ours"], strict=True)]
        yield harness.summarise(
            "gpu_train/filter-bank", "filter bank's share of a step", share, "", harness.below(FBANK_SHARE)
        )
        del works["fbank"]
        shares = harness.profile(works["ours"])
        yield harness.state(
            "gpu_train/profile",
            "where the time of the steps goes: share of the longest kernel, then of each",
            max(shares.values()),
            "",
            **shares,
        )
        if measured("compiled"):
            times = harness.interleave(works, options.pairs)
            yield harness.ratio(
                "gpu_train/compiled",
                f"{what}: each layer through torch.compile, over as it is",
                times["compiled"],
                times["ours"],
                GB=memory["compiled"],
            )
            del works["compiled"], trainers["compiled"]
        if peers.available("espnet2", "humanfriendly", "torcheval") and measured("espnet"):
            times = harness.interleave(works, options.pairs)
            per_step = [took / steps for took in times["ours"]]
            yield harness.ratio(
                "gpu_train/espnet",
                f"{what}, against ESPnet's step in float32 from memory",
                per_step,
                times["espnet"],
                harness.at_least(FASTER),
                GB=memory["ours"],
                espnet_GB=memory["espnet"],
            )


if __name__ == "__main__":
    harness.main(rows, __doc__)
