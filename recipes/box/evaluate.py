"""how good a model is: `python recipes/box/evaluate.py MODEL --work DIR`.

In: a model folder. Out: figures on standard output: mAP on mini-audioset's test clips as it is, agreement
with the teacher on validation clips and on packages that it has not heard, what it says of silence, its
speed. Nothing is chosen by the first of these.
"""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import beatline
from beatline.data.store import Store
from beatline.evaluate import metrics, ranking
from beatline.evaluate.predict import score_clips
from beatline.train.teacher import TeacherTable

MINI = Path(beatline.__file__).parent / "assets/mini-audioset"
SILENCE = "/m/028v0c"
RARE = 200
"""A label that so many training clips or fewer have is rare."""


def mini(tagger: beatline.AudioTagger, split: str = "test") -> dict[str, float]:
    """mAP on a split of the embedded clips, of the labels that the model knows, with a bootstrap interval."""
    with (MINI / "classes.csv").open(newline="") as file:
        mids = [row["mid"] for row in csv.DictReader(file)]
    with (MINI / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    targets = np.array([[mid in row["labels"].split(";") for mid in mids] for row in rows])
    columns = [tagger.labels.index_of_mid[mid] for mid in mids]
    results = tagger([str(MINI / row["file"]) for row in rows])
    scores = np.stack([result.scores[columns] for result in results]).astype(np.float32)
    found = metrics.figures(scores, targets)
    low, high = found.intervals["mAP"]
    return {"mAP": found.mAP, "low": low, "high": high}


def against_teacher(tagger: beatline.AudioTagger, work: Path, split: str) -> dict[str, Any]:
    """Agreement with the teacher on a split: mAP of labels that a patch of three clips or more has above 0.5,
    of rare labels alone, correlation of scores, and how often the first label is the same.
    """
    store = Store.open(work / "store")
    table = TeacherTable(work / "corpus/teacher", store)
    clips = store.splits[split]
    scores = score_clips(tagger.engine, store, clips, 1)
    taught = table.scores(clips)
    targets = taught.max(1) > 0.5
    enough = targets.sum(0) >= 3
    precision = ranking.average_precision(scores[:, enough], targets[:, enough])
    rare = store.label_totals(store.splits["train"])[enough] <= RARE
    means = taught.mean(1)
    return {
        "mAP": ranking.mean_of_known(precision),
        "labels": int(enough.sum()),
        "rare mAP": ranking.mean_of_known(precision[rare]),
        "rare labels": int(rare.sum()),
        "correlation": float(np.corrcoef(scores.ravel(), means.ravel())[0, 1]),
        "same first label": float((scores.argmax(1) == means.argmax(1)).mean()),
        "by label": dict(
            zip(np.array(tagger.labels.names)[enough].tolist(), precision.tolist(), strict=True)
        ),
    }


def silence(tagger: beatline.AudioTagger) -> dict[str, float]:
    """The score of Silence, and the highest of any other label, in ten seconds of digital silence."""
    scores = tagger(np.zeros(160_000, np.int16), 16_000).scores
    index = tagger.labels.index_of_mid[SILENCE]
    return {"Silence": float(scores[index]), "highest other": float(np.delete(scores, index).max())}


def speed(tagger: beatline.AudioTagger) -> float:
    """Seconds for ten seconds of sound: the median of 15."""
    sound = (np.random.default_rng(0).standard_normal(160_000) * 3000).astype(np.int16)
    taken = []
    for _ in range(15):
        begin = time.perf_counter()
        tagger(sound, 16_000)
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))


def figures(tagger: beatline.AudioTagger, work: Path | None) -> dict[str, Any]:
    """All figures of a model; those beside the teacher's where the folder of `make.py` is given."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "mini-audioset test, as it is": mini(tagger),
        "silence": silence(tagger),
        "seconds for 10 s on a core": speed(tagger),
    }
    if work:
        found["validation"] = against_teacher(tagger, work, "val")
        found["unseen packages"] = against_teacher(tagger, work, "test")
        by_label = found["unseen packages"].pop("by label")
        found["validation"].pop("by label")
        found["weakest labels"] = sorted(by_label, key=by_label.__getitem__)[:8]
    return found


def main() -> None:
    """Prints the figures of a model."""
    parser = argparse.ArgumentParser(description="Measures a tagger for the box.")
    parser.add_argument("model")
    parser.add_argument("--work", type=Path, help="folder of make.py, for the figures beside the teacher's")
    given = parser.parse_args()
    tagger = beatline.load(given.model, engine="torch", threads=1)
    print(json.dumps(figures(tagger, given.work), indent=1))


if __name__ == "__main__":
    main()
