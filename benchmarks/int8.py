"""`--precision int8` and `bfloat16`: how fast they are against float32 openbeats, how far scores are from
float32's, and what that does to mAP.

./bench.sh int8        The mAP is that of the tiny model that `./run.sh` trains on the embedded real sound
                       (trained here when runs/bench has none).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import harness
import models
import numpy as np
import peers

from beatline import load_config, recipe
from beatline.data.store import Store
from beatline.evaluate import ranking
from beatline.model.engines.base import Precision
from beatline.tag import tagger

FASTER = 2.2
POINTS = 0.5
SCORES = 2e-3
TRAINED = harness.ROOT / "runs/bench/mini"


def scores_of(model: Path, store: Store, precision: Precision, engine: str = "auto") -> np.ndarray:
    """Scores of the store's test clips."""
    chosen = tagger.load(model, engine, precision).engine
    clips = [store.samples(int(i)) for i in store.splits["test"]]
    return np.concatenate([chosen.outputs([clip]).scores for clip in clips])


def speed(options: harness.Options) -> Iterator[harness.Row]:
    """Scores of random base-size weights beside float32's, then what this machine takes for int8, and
    onnxruntime's where that is another, at three batches.
    """
    with harness.scratch() as folder:
        written = models.write_models(Path(folder), options.smoke)
        exported = models.write_export(written.own, Path(folder, "export"))
        peer, exact, reduced = (
            peers.openbeats(written.release),
            tagger.load(exported).engine,
            tagger.load(exported, engine="onnx", precision="int8").engine,
        )
        chosen = tagger.load(exported, precision="int8").engine
        waveforms = models.waveforms(32, 1 if options.smoke else models.SECONDS)
        difference = np.abs(reduced.scores(waveforms) - exact.scores(waveforms))
        yield harness.state(
            "int8/scores-random",
            "mean absolute difference of a score from float32, random base-size weights",
            difference.mean(),
            "",
            largest=float(difference.max()),
        )
        engines = [(chosen, "chosen", harness.at_least(FASTER))] + (
            [(reduced, "int8", None)] if reduced.name != chosen.name else []
        )
        for engine, precision, goal in engines:
            for clips in (1, 8, 32):
                waveforms = models.waveforms(clips, 1 if options.smoke else models.SECONDS)
                what = (
                    f"batch {clips}, {'--precision int8' if engine is chosen else 'int8'} "
                    f"({engine.name}), against openbeats in float32"
                )
                yield harness.compare(
                    f"int8/{precision}-{clips}",
                    what,
                    partial(engine.scores, waveforms),
                    partial(peer, waveforms),
                    options.pairs,
                    goal,
                )


def exactness() -> Iterator[harness.Row]:
    """What reduced weights do to the scores and the mAP of a model trained on mini-audioset."""
    settings = load_config("mini", ["--out", str(TRAINED)])
    for stage in ("prepare", "train"):
        recipe.STAGES[stage](settings)
    store = Store.open(settings.store_folder)
    targets = store.targets(store.splits["test"]) > 0.5
    with harness.scratch() as folder:
        exported = models.write_export(TRAINED / "model", Path(folder, "export"))
        full = scores_of(exported, store, "float32")
        others = {
            "int8": scores_of(exported, store, "int8", "onnx"),
            "bfloat16": scores_of(exported, store, "bfloat16"),
            "bfloat16 in PyTorch": scores_of(TRAINED / "model", store, "bfloat16"),
        }
    exact = 100 * float(np.nanmean(ranking.average_precision(full, targets)))
    for name, scores in others.items():
        row, difference, found = (
            name.replace(" ", "-"),
            np.abs(scores - full),
            100 * float(np.nanmean(ranking.average_precision(scores, targets))),
        )
        what = f"{name}: mean absolute difference of a score from float32, model trained on mini-audioset"
        yield harness.state(
            f"int8/scores-{row}",
            what,
            difference.mean(),
            "",
            harness.at_most(SCORES),
            largest=float(difference.max()),
        )
        what = f"{name}: difference of mAP on the {len(targets)} test clips of mini-audioset"
        yield harness.state(
            f"int8/mAP-{row}",
            what,
            abs(found - exact),
            "points",
            harness.at_most(POINTS),
            float32_mAP=exact,
            its_mAP=found,
        )


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Difference of scores and of mAP, then speed."""
    if not options.smoke:
        yield from exactness()
    yield from speed(options)


if __name__ == "__main__":
    harness.main(rows, __doc__)
