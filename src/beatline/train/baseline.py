"""store -> scores: a classical baseline, so that a score has something to stand beside.

Features are the mean and deviation over time of log-mel energies and of their frame-to-frame change,
standardised. A regularised logistic regression for each label follows. In: a store and clip indices. Out:
scores as `predict` gives them.
"""

import numpy as np
import torch

from beatline.data.store import Store
from beatline.model.fbank import log_mel
from beatline.model.geometry import tiled_length
from beatline.train import logistic
from beatline.train.batches import read_clips, to_waveforms

PENALTY = (
    1e-3  # weight of the squared coefficients; chosen once on the embedded train clips by cross-validation
)


def statistics(store: Store, clips: np.ndarray) -> torch.Tensor:
    """Features of each clip, `(clips, 512)` float64."""
    rows = []
    for index in clips:
        width = int(tiled_length(store.lengths[[index]])[0])
        energies = log_mel(to_waveforms(read_clips(store, np.array([index]), width), torch.device("cpu")))[
            0
        ].double()
        change = energies.diff(dim=0)
        rows.append(torch.cat([energies.mean(0), energies.std(0), change.mean(0), change.std(0)]))
    return torch.stack(rows)


def baseline_scores(store: Store, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Scores `(test clips, labels)` of logistic regressions fitted on the train clips."""
    features, targets = statistics(store, train), torch.from_numpy(store.targets(train)).double()
    mean, std = features.mean(0), features.std(0) + 1e-9
    inputs = (features - mean) / std
    weight, bias = logistic.fit(inputs, targets, PENALTY)
    return (((statistics(store, test) - mean) / std) @ weight + bias).sigmoid().numpy()
