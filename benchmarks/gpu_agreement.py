"""bf16 against float32 on a GPU: the same 200 training steps twice, their loss curves, and the scores of the
two models after it.

OMP_NUM_THREADS=8 python benchmarks/gpu_agreement.py [--smoke]        Same clips, draws and dropout in both;
    the learning rate is at its peak from the start, which is harder on
bf16 than the recipe's warm-up.
"""

from collections.abc import Iterator
from pathlib import Path

import gpu_train
import harness
import models
import numpy as np
import train_step

from beatline.evaluate.predict import score_clips
from beatline.model.engines.pytorch import TorchEngine

STEPS, CLIPS = 200, 40
WITHIN, SCORES = 0.01, 0.01


def curve(
    folder: Path, store: models.Store, precision: str, clips: int, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Losses of the steps, and scores of the test clips after them, in that precision."""
    settings = ("--train.batch", str(clips), "--train.precision", precision, "--optim.warmup_steps", "0")
    ready = train_step.trainer(folder / "own", store, folder / precision, *settings)
    step = train_step.real_step(ready)
    losses = np.array([step()[0] for _ in range(steps)])
    engine = TorchEngine(ready.tagger, store.labels, ready.device, precision, bulk=True)
    return losses, score_clips(engine, store, store.splits["test"])


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Difference of the losses, and of the scores."""
    clips, steps, seconds = (4, 3, 1) if options.smoke else (CLIPS, STEPS, models.SECONDS)
    with harness.scratch() as name:
        folder = Path(name)
        models.write_models(folder, options.smoke)
        store = models.write_store(folder, 10 * clips, seconds, test=5 * clips)
        (full, full_scores), (half, half_scores) = (
            curve(folder, store, precision, clips, steps) for precision in ("float32", "bfloat16")
        )
        difference = np.abs(half - full) / full
        what = (
            f"largest relative difference of the loss over {steps} steps on {gpu_train.device().type}, "
            f"bf16 against float32"
        )
        yield harness.state(
            "gpu_agreement/loss",
            what,
            difference.max(),
            "",
            harness.at_most(WITHIN),
            mean=float(difference.mean()),
            first_loss=float(full[0]),
            last_loss=float(full[-1]),
        )
        gap = np.abs(half_scores - full_scores)
        yield harness.state(
            "gpu_agreement/scores",
            f"largest difference of a score of {len(gap)} clips after it",
            gap.max(),
            "",
            harness.at_most(SCORES),
            mean=float(gap.mean()),
        )


if __name__ == "__main__":
    harness.main(rows, __doc__)
