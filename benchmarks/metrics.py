"""beatline's scorer against ESPnet's way (scikit-learn label by label: AP, AUC and both curves) on a table of
AudioSet's evaluation size, with ties.

./bench.sh metrics        Same scores to all: float32 and bool for ours, float64 for scikit-learn, as each
                          program holds them. Also memory beyond the inputs, the
bootstrap, and the exact modes of torchmetrics and torcheval (AP only, which is what ESPnet takes from it in
training).
"""

import warnings
from collections.abc import Iterator

import harness
import numpy as np
import peers
from sklearn import metrics as sk

from beatline.evaluate import bootstrap, metrics

CLIPS, LABELS = 20_123, 527  # the recipe's evaluation set
RESAMPLES = 1000
FASTER, EXACT, MEMORY, BOOTSTRAP = 5.0, 1e-12, 500.0, 120.0


def table(smoke: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scores rounded to four digits (so with ties) and targets: from 2 clips a label to 30 % of them, one
    label without any.
    """
    clips, labels = (200, 30) if smoke else (CLIPS, LABELS)
    rng = np.random.default_rng(0)
    rate = np.clip(rng.pareto(1.0, labels) * 0.001, 0.0003, 0.3)
    targets = rng.random((clips, labels)) < rate
    targets[:, 17] = False
    logits = rng.normal(-4, 1.5, (clips, labels)) + 2.5 * targets
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


def torchmetrics_way(scores: np.ndarray, targets: np.ndarray) -> None:
    """AP and AUC by torchmetrics, exact."""
    import torch
    from torchmetrics.functional.classification import multilabel_auroc, multilabel_average_precision

    arguments = torch.from_numpy(scores), torch.from_numpy(targets).long()
    multilabel_average_precision(*arguments, num_labels=scores.shape[1], average="none")
    multilabel_auroc(*arguments, num_labels=scores.shape[1], average="none")


def torcheval_way(scores: np.ndarray, targets: np.ndarray) -> None:
    """AP by torcheval."""
    import torch
    from torcheval.metrics.functional import multilabel_auprc

    multilabel_auprc(
        torch.from_numpy(scores), torch.from_numpy(targets).long(), num_labels=scores.shape[1], average=None
    )


OTHERS = {"torchmetrics": torchmetrics_way, "torcheval": torcheval_way}


def scoring(smoke: bool, way: str, resamples: int = 0) -> harness.Work:
    """One way of scoring the table, for a process whose memory is watched."""
    scores, targets = table(smoke)
    if way == "ours":
        return lambda: metrics.figures(scores, targets, resamples=resamples)
    work = OTHERS[way]
    work(scores[:100], targets[:100])  # what it imports is no memory of the work
    return lambda: work(scores, targets)


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Speed, exactness, memory and bootstrap."""
    scores, targets = table(options.smoke)
    theirs = scores.astype(np.float64), targets.astype(np.float64)

    def ours() -> metrics.Figures:
        return metrics.figures(scores, targets, resamples=0)

    size = f"{scores.shape[0]} x {scores.shape[1]} with ties"
    what = f"AP, AUC, d' and all other figures of {size}"
    yield harness.compare(
        "metrics/espnet",
        f"{what}, against ESPnet's way",
        ours,
        lambda: espnets_way(*theirs),
        options.pairs,
        harness.at_least(FASTER),
    )
    ap, auc = espnets_way(*theirs)
    found = ours()
    difference = max(np.abs(np.nan_to_num(found.ap) - ap).max(), np.abs(np.nan_to_num(found.auc) - auc).max())
    yield harness.state(
        "metrics/exact",
        "largest difference of an AP or AUC from scikit-learn",
        difference,
        "",
        harness.at_most(EXACT),
    )
    memory = harness.memory_of("metrics:scoring", smoke=options.smoke, way="ours", resamples=0)
    yield harness.state(
        "metrics/memory",
        f"memory beyond the inputs, {size}",
        memory.peak - memory.before,
        "MB",
        harness.below(MEMORY),
    )
    some = 3 * bootstrap.BOOTSTRAP_CHUNK
    memory = harness.memory_of("metrics:scoring", smoke=options.smoke, way="ours", resamples=some)
    yield harness.state(
        "metrics/memory-bootstrap",
        f"the same with bootstrap ({some} resamples, made in chunks)",
        memory.peak - memory.before,
        "MB",
        harness.below(MEMORY),
    )
    resamples = 10 if options.smoke else RESAMPLES
    took = harness.seconds(lambda: metrics.figures(scores, targets, resamples=resamples))
    yield harness.state(
        "metrics/bootstrap",
        f"{what}, with intervals from {resamples} resamples",
        took,
        "s",
        harness.below(BOOTSTRAP),
    )
    for name, way in OTHERS.items():
        if peers.available(name):
            memory = harness.memory_of("metrics:scoring", smoke=options.smoke, way=name)
            yield harness.compare(
                f"metrics/{name}",
                f"{what}, against {name}",
                ours,
                lambda way=way: way(scores, targets),
                options.pairs,
                its_memory_MB=memory.peak - memory.before,
            )


if __name__ == "__main__":
    harness.main(rows, __doc__)
