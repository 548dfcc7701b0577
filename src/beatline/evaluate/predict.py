"""engine + labelled clips of a store -> scores, for validation and for `beatline predict`.

In: an engine and clips. Out: scores `(clips, labels)` float32 in the clips' order. A clip is scored whole,
but a test clip longer than any that training takes is scored in windows.
"""

import math
from collections.abc import Callable

import numpy as np

from beatline.audio.samples import SAMPLE_RATE
from beatline.audio.windows import cut, merge
from beatline.core.threads import in_order
from beatline.data.store import Store
from beatline.evaluate.predictions import Predictions
from beatline.model.engines.base import Engine
from beatline.model.geometry import tiled_length

Advance = Callable[[int], object]


def score_clips(
    engine: Engine, store: Store, clips: np.ndarray, workers: int = 1, advance: Advance = lambda done: None
) -> np.ndarray:
    """Scores `(clips, labels)` float32 of clips of a store.

    Args:
        clips: Indices into the store.
        workers: Threads that read ahead.
        advance: Called with the number of clips just done.
    """
    scores = np.empty((len(clips), len(engine.labels)), np.float32)
    groups = engine.grouped(tiled_length(store.lengths[clips]))
    read = in_order(groups, lambda group: (group, [store.samples(int(clips[i])) for i in group]), workers)
    for group, windows in read:
        scores[group] = engine.outputs(windows).scores
        advance(len(group))
    return scores


def score_windows(
    engine: Engine, store: Store, clips: np.ndarray, window: int, advance: Advance = lambda done: None
) -> np.ndarray:
    """As `score_clips`, for clips too long for a pass: the mean over windows that overlap by half.

    The memory of a pass grows with the square of a clip's length.

    Args:
        window: Samples; longer clips are cut.
    """
    scores = np.empty((len(clips), len(engine.labels)), np.float32)
    for row, clip in zip(scores, clips, strict=True):
        windows = [samples for _, samples in cut([store.samples(int(clip))], window, window // 2)]
        row[:] = merge(engine.outputs(windows).scores, "mean")
        advance(1)
    return scores


def predict(
    engine: Engine,
    store: Store,
    split: str,
    longest: float = math.inf,
    workers: int = 1,
    advance: Advance = lambda done: None,
) -> Predictions:
    """Scores and targets of a split of a store.

    Args:
        engine: Its labels are the store's, in the store's order.
        longest: Seconds; longer clips are scored in windows of this length, see `score_windows`.
        workers, advance: As `score_clips`.
    """
    clips = store.splits[split]
    is_long = store.lengths[clips] > longest * SAMPLE_RATE
    scores = np.empty((len(clips), len(store.labels)), np.float32)
    scores[~is_long] = score_clips(engine, store, clips[~is_long], workers, advance)
    if is_long.any():
        scores[is_long] = score_windows(engine, store, clips[is_long], round(longest * SAMPLE_RATE), advance)
    return Predictions(tuple(store.ids[i] for i in clips), scores, store.targets(clips) > 0.5, store.labels)
