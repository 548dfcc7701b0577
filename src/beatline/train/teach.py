"""model -> a teacher's table: what a model says of the clips that train and validate another.

In: a model and a store. Out: a folder of the form that `train/teacher` reads, with a patch for each clip, the
whole of it. Clips are scored in pieces beside the folder; work that was stopped goes on after the last whole
piece.
"""

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from beatline.core import artefact
from beatline.core.console import is_whole, progress, say
from beatline.core.threads import in_order
from beatline.data.store import CODING, Store
from beatline.model.checkpoints.load import load_tagger
from beatline.model.checkpoints.loaded import LoadedTagger
from beatline.model.engines.base import Precision
from beatline.model.engines.pytorch import TorchEngine
from beatline.model.geometry import tiled_length
from beatline.train.teacher import ABOUT

PIECE = 500
"""Clips whose scores a kill may cost."""


def write_table(
    model: Path, store: Store, folder: Path, device: torch.device, precision: Precision, workers: int = 1
) -> None:
    """Publishes what a model says of a store's training and validation clips, unless it is there already.

    Args:
        workers: Threads that read ahead.

    Raises:
        UserError: As `load_tagger`; `corrupt-artefact` for a clip; `disk-full`, `not-writable`.
    """
    loaded = load_tagger(model)
    clips = np.unique(np.concatenate([store.splits["train"], store.splits["val"]]))
    made_from = artefact.hash_json([_hash_of(loaded), store.about["content"], str(precision), PIECE])
    if is_whole("teach", folder, "made_from", made_from):
        say("teach", f"{folder} is there already")
        return
    say("teach", f"{len(clips)} clips with {loaded.source} -> {folder}")
    engine = TorchEngine(loaded.tagger(), loaded.labels, device, precision, bulk=True)
    pieces = folder.with_name(f"{folder.name}.pieces") / made_from[:16]
    with progress("teach", len(clips)) as advance:
        for begin in range(0, len(clips), PIECE):
            path = pieces / f"{begin // PIECE:06d}.npz"
            if not path.exists():
                content = io.BytesIO()
                scores, embeddings = _said(engine, store, clips[begin : begin + PIECE], workers)
                np.savez(content, scores=scores, embeddings=embeddings)
                artefact.write_atomic(path, content.getvalue())
                artefact.checkpoint_hook("piece")
            advance(len(clips[begin : begin + PIECE]))
    _join(pieces, folder, [store.ids[i] for i in clips], loaded, made_from)
    shutil.rmtree(pieces.parent, ignore_errors=True)


def _said(engine: TorchEngine, store: Store, clips: np.ndarray, workers: int) -> list[np.ndarray]:
    """Scores and embeddings of clips, each `(clips, 1, ...)` float16."""
    groups = engine.grouped(tiled_length(store.lengths[clips]))
    parts = [
        engine.outputs(windows)
        for windows in in_order(groups, lambda group: [store.samples(int(clips[i])) for i in group], workers)
    ]
    back = np.argsort(np.concatenate(groups))
    return [
        np.concatenate([getattr(part, name) for part in parts])[back, None].astype(np.float16)
        for name in ("scores", "embeddings")
    ]


def _join(pieces: Path, folder: Path, ids: list[str], loaded: LoadedTagger, made_from: str) -> None:
    """Publishes the table of all pieces, in their order."""
    width = loaded.config.encoder_embed_dim
    about = {
        "labels": list(loaded.labels.mids),
        "patch_seconds": None,
        "hop_seconds": None,
        "width": width,
        "name": Path(loaded.source).name,
        "source": str(loaded.source),
    }
    with artefact.publish(folder, {"kind": "teacher", "made_from": made_from}) as partial:
        (partial / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        (partial / "ids.txt").write_text("".join(f"{clip}\n" for clip in ids), **CODING)
        for name, size in (("scores", len(loaded.labels)), ("embeddings", width)):
            table = open_memmap(partial / f"{name}.npy", "w+", np.float16, (len(ids), 1, size))
            for number, path in enumerate(sorted(pieces.glob("*.npz"))):
                with np.load(path, allow_pickle=False) as piece:
                    table[number * PIECE : number * PIECE + len(piece[name])] = piece[name]
            table.flush()


def _hash_of(loaded: LoadedTagger) -> str:
    """A hash of a model's weights and labels."""
    digest = hashlib.sha256(loaded.labels.hash.encode())
    for name, tensor in sorted(loaded.state.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
