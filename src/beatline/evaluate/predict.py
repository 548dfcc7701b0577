"""tagger + clips -> scores: the one way to compute a score, for validation, for `beatline predict` and for
files.

In: a tagger and clips. Out: scores `(clips, labels)` float32 in the clips' order. Clips are batched by
length, so that little is padded; under `padding: exact` a score does not depend on its batch beyond float
rounding. A clip is scored whole, but a test clip longer than any that training takes is scored in windows.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from beatline.audio.windows import cut, merge, tiled_length
from beatline.core.threads import in_order
from beatline.data.clips import read_clips, to_waveforms
from beatline.data.store import Store
from beatline.evaluate.predictions import Predictions
from beatline.model.fbank import SAMPLE_RATE
from beatline.model.tagger import Tagger

BATCH_SECONDS = {
    "cpu": 20,
    "cuda": 640,
}  # padded audio in one forward: what fits a CPU's cache, or keeps a GPU busy


def length_batches(lengths: np.ndarray, seconds: float) -> list[np.ndarray]:
    """Positions grouped by length, longest first, each group at most `seconds` of padded audio (or one
    clip).
    """
    order = np.argsort(-lengths, kind="stable")
    groups, begin = [], 0
    while begin < len(order):
        size = max(1, int(seconds * SAMPLE_RATE // lengths[order[begin]]))
        groups.append(order[begin : begin + size])
        begin += size
    return groups


def score_clips(
    tagger: Tagger,
    store: Store,
    clips: np.ndarray,
    device: torch.device,
    precision: str = "float32",
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Scores `(clips, labels)` float32 of clips of a store.

    Args:
        clips: Indices into the store.
        precision: `float32` or `bfloat16` autocast.
        progress: Called with the number of clips just done.
    """
    lengths = tiled_length(store.lengths[clips])
    return _scores(
        tagger,
        lengths,
        lambda group: read_clips(store, clips[group], int(lengths[group].max())),
        device,
        precision,
        workers,
        progress,
    )


def score_windows(
    tagger: Tagger,
    store: Store,
    clips: np.ndarray,
    window: int,
    device: torch.device,
    precision: str,
    workers: int,
    progress: Callable[[int], None],
) -> np.ndarray:
    """As `score_clips`, of clips too long for one pass, whose memory grows with the square of their length:
    the mean over windows that overlap by half, as `tag` does.

    Args:
        window: Samples; what is longer is cut.
    """
    rows = [np.empty((0, tagger.head.out_features), np.float32)]
    for clip in clips:
        some = np.stack([samples for _, samples in cut([store.samples(int(clip))], window, window // 2)])
        scores = _scores(
            tagger,
            np.full(len(some), some.shape[1]),
            lambda group, some=some: torch.from_numpy(some[group]),  # type: ignore[misc]
            device,
            precision,
            workers,
        )
        rows.append(merge(scores, "mean")[None])
        progress(1)
    return np.concatenate(rows)


@torch.no_grad()  # not inference_mode: what the model caches (position buckets) must serve training too
def _scores(
    tagger: Tagger,
    lengths: np.ndarray,
    read: Callable[[np.ndarray], torch.Tensor],
    device: torch.device,
    precision: str,
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Scores of sounds of these lengths, which `read` gives padded by their positions, `(positions, samples)`
    int16.
    """
    scores = np.empty((len(lengths), tagger.head.out_features), np.float32)
    was_training = tagger.training
    tagger.eval()
    for group, samples in in_order(
        length_batches(lengths, BATCH_SECONDS[device.type]), lambda group: (group, read(group)), workers
    ):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = tagger(to_waveforms(samples, device), torch.from_numpy(lengths[group]).to(device))
        scores[group] = tagger.score(logits.float()).cpu().numpy()
        progress(len(group))
    tagger.train(was_training)
    return scores


def predict(
    tagger: Tagger,
    store: Store,
    split: str,
    device: torch.device,
    longest: float = math.inf,
    precision: str = "float32",
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> Predictions:
    """Scores and targets of a split of a store.

    Args:
        longest: Seconds; longer clips are scored in windows of it, see `score_windows`.
        precision: As in `score_clips`, and so `progress`.
    """
    clips = store.splits[split]
    is_long = store.lengths[clips] > longest * SAMPLE_RATE
    scores = np.empty((len(clips), len(store.labels)), np.float32)
    scores[~is_long] = score_clips(tagger, store, clips[~is_long], device, precision, workers, progress)
    if is_long.any():
        scores[is_long] = score_windows(
            tagger, store, clips[is_long], round(longest * SAMPLE_RATE), device, precision, workers, progress
        )
    return Predictions(tuple(store.ids[i] for i in clips), scores, store.targets(clips) > 0.5, store.labels)
