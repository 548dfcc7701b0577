"""tagger + clips -> scores: the one way to compute a score, for validation, for `beatline predict` and for files.

In: a tagger and clips. Out: scores `(clips, labels)` float32 in the clips' order. Clips are batched by length, so that little is padded;
under `padding: exact` a score does not depend on its batch beyond float rounding.
"""

from collections.abc import Callable

import numpy as np
import torch

from beatline.ahead import in_order
from beatline.batches import read_clips, to_waveforms
from beatline.fbank import SAMPLE_RATE
from beatline.model.tagger import Tagger
from beatline.predictions import Predictions
from beatline.store import Store
from beatline.windows import tiled_length

BATCH_SECONDS = {"cpu": 20, "cuda": 640}  # padded audio in one forward: what fits a CPU's cache, or keeps a GPU busy


def length_batches(lengths: np.ndarray, seconds: float) -> list[np.ndarray]:
    """Positions grouped by length, longest first, each group at most `seconds` of padded audio (or one clip)."""
    order = np.argsort(-lengths, kind="stable")
    groups, begin = [], 0
    while begin < len(order):
        size = max(1, int(seconds * SAMPLE_RATE // lengths[order[begin]]))
        groups.append(order[begin : begin + size])
        begin += size
    return groups


@torch.no_grad()  # not inference_mode: what the model caches (position buckets) must serve training too
def score_clips(
    tagger: Tagger, store: Store, clips: np.ndarray, device: torch.device, precision: str = "float32", workers: int = 1, progress: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Scores `(clips, labels)` float32 of clips of a store.

    Args:
        clips: Indices into the store.
        precision: `float32` or `bfloat16` autocast.
        progress: Called with the number of clips just done.
    """
    lengths = tiled_length(store.lengths[clips])
    scores = np.empty((len(clips), tagger.head.out_features), np.float32)
    was_training = tagger.training
    tagger.eval()

    def read(group: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
        return group, read_clips(store, clips[group], int(lengths[group].max()))

    for group, samples in in_order(length_batches(lengths, BATCH_SECONDS[device.type]), read, workers):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = tagger(to_waveforms(samples, device), torch.from_numpy(lengths[group]).to(device))
        scores[group] = tagger.score(logits.float()).cpu().numpy()
        progress(len(group))
    tagger.train(was_training)
    return scores


def predict(tagger: Tagger, store: Store, split: str, device: torch.device, **options) -> Predictions:
    """Scores and targets of a split of a store; `options` as in `score_clips`."""
    clips = store.splits[split]
    scores = score_clips(tagger, store, clips, device, **options)
    return Predictions(tuple(store.ids[i] for i in clips), scores, store.targets(clips) > 0.5, store.labels)
