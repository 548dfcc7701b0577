"""The share of communication in a training step: two processes under torchrun on this machine, gloo, the real
trainer.

./bench.sh communication        Each process times its steps and, inside them, the sum of gradients over both;
                                it waits for the other before that sum, so that waiting is
told apart from communicating. The same script with `--worker` is what torchrun starts.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import harness
import models
import programs
import torch.distributed
import train_step
from torch import nn

from beatline.data.store import Store
from beatline.train import parallel

CLIPS = 8  # of both processes together
PROCESSES = 2


def worker(folder: Path, steps: int) -> None:
    """One process: `steps` steps after one of warm-up; the first process writes seconds of step, waiting and
    communication.
    """
    records: list[list[float]] = []
    spent = {"wait": 0.0, "talk": 0.0}
    sum_gradients = parallel.sum_gradients

    def timed(model: nn.Module) -> None:
        begin = time.perf_counter()
        parallel.wait()
        ready = time.perf_counter()
        sum_gradients(model)
        spent.update(wait=ready - begin, talk=time.perf_counter() - ready)

    parallel.sum_gradients = timed
    ready = train_step.trainer(
        folder / "own",
        Store.open(folder / "store"),
        folder,
        "--train.batch",
        str(CLIPS),
        "--train.device",
        "cpu",
    )
    with parallel.process_group(ready.device) as (ready.rank, ready.world):
        step = train_step.real_step(ready)
        for _ in range(1 + steps):
            took = harness.seconds(step)
            records.append([took, spent["wait"], spent["talk"]])
        if torch.distributed.get_rank() == 0:
            (folder / "records.json").write_text(json.dumps(records[1:]))


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Share of communication, and of waiting."""
    with harness.scratch() as name:
        folder = Path(name)
        models.write_models(folder, options.smoke)
        models.write_store(folder, CLIPS, 1 if options.smoke else models.SECONDS)
        command = (
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(PROCESSES),
            __file__,
            "--worker",
            folder,
            str(options.pairs),
        )
        programs.run(*command, env={"OMP_NUM_THREADS": "1"})
        records = json.loads((folder / "records.json").read_text())
        size = 4e-6 * sum(p.numel() for p in models.random_tagger(options.smoke).parameters())
        what = (
            f"share of a step of {CLIPS} clips that {PROCESSES} gloo processes of one thread spend "
            f"summing gradients"
        )
        talk = [talk / step for step, _, talk in records]
        facts = {
            "gradients_MB": size,
            "step_s": sorted(r[0] for r in records)[len(records) // 2],
            "talk_s": sorted(r[2] for r in records)[len(records) // 2],
        }
        yield harness.summarise("communication/share", what, talk, "", **facts)
        yield harness.summarise(
            "communication/wait",
            "share of the step spent waiting for the other process",
            [wait / step for step, wait, _ in records],
            "",
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        harness.main(rows, __doc__)
