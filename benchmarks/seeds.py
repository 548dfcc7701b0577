"""The embedded set's result over several seeds, as the README states it: mean and spread of mAP beside chance
and the classical baseline.

python benchmarks/seeds.py [SEEDS] [--section.setting VALUE ...]     (default 5 seeds; runs in
    runs/mini-seed-*, resumable)
"""

import statistics
import sys
import time
from pathlib import Path

from beatline import load_config, recipe
from beatline.evaluate.score_folder import read_score


def main(arguments: list[str]) -> None:
    """Runs every seed up to its score and prints one line for each, then the mean, the sample standard
    deviation and the table row.
    """
    count = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else 5
    values, chance, baselines, seconds = [], 0.0, {}, []
    for seed in range(count):
        out = Path(f"runs/mini-seed-{seed}")
        settings = load_config(
            "mini",
            [*arguments, "--out", str(out), "--store", "runs/mini-seeds-store", "--train.seed", str(seed)],
        )
        started = time.monotonic()
        for stage in ("prepare", "train", "predict", "score"):
            recipe.STAGES[stage](settings)
        seconds.append(time.monotonic() - started)
        figures, baselines = read_score(out / "score")
        chance = figures.chance
        values.append(figures.mAP)
        print(f"seed {seed}: mAP {figures.mAP:.4f}, {seconds[-1]:.0f} s", flush=True)
    spread = statistics.stdev(values) if count > 1 else 0.0
    print(
        f"\nmAP over {count} seeds: {statistics.mean(values):.3f} +- {spread:.3f} (lowest "
        f"{min(values):.3f}, highest {max(values):.3f}); chance {chance:.3f}"
    )
    for name, value in baselines.items():
        print(f"{name}: {value:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
