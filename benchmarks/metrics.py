"""beatline's scorer against ESPnet's way (scikit-learn label by label: AP, AUC and both curves) on a table of AudioSet's evaluation size, with ties.

OMP_NUM_THREADS=1 python benchmarks/metrics.py [--pairs 7] [--json FILE]     (some 75 seconds on two cores; prints text, then one line of JSON)

Both are timed in turn in one process, ours first, on the same scores: float32 and bool for ours, float64 for theirs, as each program holds them.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
from sklearn import metrics as sk

from beatline import metrics

CLIPS, LABELS = 20_123, 527  # the recipe's evaluation set
RESAMPLES = 1000


def table() -> tuple[np.ndarray, np.ndarray]:
    """Scores rounded to four digits (so with ties) and targets: from 2 clips a label to 30 % of them, one label without any."""
    rng = np.random.default_rng(0)
    rate = np.clip(rng.pareto(1.0, LABELS) * 0.001, 0.0003, 0.3)
    targets = rng.random((CLIPS, LABELS)) < rate
    targets[:, 17] = False
    logits = rng.normal(-4, 1.5, (CLIPS, LABELS)) + 2.5 * targets
    return np.round(1 / (1 + np.exp(-logits)), 4).astype(np.float32), targets


def espnets_way(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AP and AUC per label; both curves are computed too, as there, and dropped."""
    ap, auc = np.zeros(scores.shape[1]), np.zeros(scores.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label without positives
        for k in range(scores.shape[1]):
            truth, score = targets[:, k], scores[:, k]
            ap[k] = sk.average_precision_score(truth, score)
            auc[k] = sk.roc_auc_score(truth, score) if truth.any() else 0.0
            sk.precision_recall_curve(truth, score)
            sk.roc_curve(truth, score)
    return ap, auc


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def megabytes(work: Callable[[], object]) -> float:
    """Most memory that `work` holds at once beyond its inputs."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    """Checks that both agree, times them in pairs, and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    scores, targets = table()
    theirs = scores.astype(np.float64), targets.astype(np.float64)

    ours = metrics.figures(scores, targets, resamples=0)  # the warm-up of both
    ap, auc = espnets_way(*theirs)
    difference = max(np.abs(np.nan_to_num(ours.ap) - ap).max(), np.abs(np.nan_to_num(ours.auc) - auc).max())
    assert difference <= 1e-12, difference

    pairs = [(seconds(lambda: metrics.figures(scores, targets, resamples=0)), seconds(lambda: espnets_way(*theirs))) for _ in range(options.pairs)]
    ratios = [b / a for a, b in pairs]
    result = {
        "what": f"AP, AUC and all other figures of {CLIPS} x {LABELS}, with ties, without intervals",
        "ours_s": statistics.median(a for a, _ in pairs),
        "espnets_way_s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
        "pairs": len(pairs),
        "largest_difference": difference,
        "bootstrap_s": seconds(lambda: metrics.figures(scores, targets, resamples=RESAMPLES)),
        "bootstrap_resamples": RESAMPLES,
        "memory_mb": megabytes(lambda: metrics.figures(scores, targets, resamples=0)),
        "memory_with_bootstrap_mb": megabytes(lambda: metrics.figures(scores, targets, resamples=3 * metrics.BOOTSTRAP_CHUNK)),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "commit": subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False).stdout.strip(),
    }
    print(f"{result['what']}: {result['ours_s']:.2f} s against {result['espnets_way_s']:.2f} s")
    print(f"median ratio {result['ratio']:.1f}x, from {min(ratios):.1f}x to {max(ratios):.1f}x over {len(pairs)} pairs; largest difference of an AP or AUC {difference:.1e}")
    print(f"with {RESAMPLES} bootstrap resamples {result['bootstrap_s']:.1f} s")
    print(f"memory beyond the inputs {result['memory_mb']:.0f} MB, with bootstrap {result['memory_with_bootstrap_mb']:.0f} MB")
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
