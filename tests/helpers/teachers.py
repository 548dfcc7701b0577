"""Small tables of teachers that know nothing."""

import json
from pathlib import Path

import numpy as np

from beatline.data.store import Store

PATCHES = 3
WIDTH = 5


def write_table(folder: Path, store: Store, **about: object) -> Path:
    """A table with a row for each clip of a store, in another order than the store's, with one label more.

    Args:
        about: What `teacher.json` says otherwise.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    facts = {
        "labels": ["another", *store.labels.mids],
        "patch_seconds": 0.32,
        "hop_seconds": 0.16,
        "width": WIDTH,
        "name": "toy",
        "source": "nowhere",
    } | about
    ids = list(reversed(list(store.ids)))
    patches = 1 if facts["patch_seconds"] is None else PATCHES
    (folder / "teacher.json").write_text(json.dumps(facts))
    (folder / "ids.txt").write_text("".join(f"{name}\n" for name in ids))
    shape = (len(ids), patches)
    np.save(folder / "scores.npy", rng.random((*shape, len(facts["labels"]))).astype(np.float16))
    np.save(folder / "embeddings.npy", rng.standard_normal((*shape, WIDTH)).astype(np.float16))
    return folder
