"""Inference on a GPU, base size, 10 s clips, bf16: from memory, and from the store through the one scorer.

OMP_NUM_THREADS=8 python benchmarks/gpu_infer.py [--smoke]        From memory: int16 clips on the host,
    copied, transformed and scored batch by batch. From the store: `score_clips`.
From files, mixed kinds, decoded in bounded children: what a task of the bulk job does with its GPU.
"""

from collections.abc import Iterator
from pathlib import Path

import audio_files
import gpu_train
import harness
import models
import numpy as np
import torch

from beatline.audio.pool import Job
from beatline.core.labels import audioset
from beatline.evaluate.predict import score_clips
from beatline.model.engines.pytorch import TorchEngine
from beatline.tag import batch_tagger as tables
from beatline.tag.tagger import AudioTagger
from beatline.train.batches import to_waveforms

CLIPS_PER_SECOND, OF_MEMORY = 4000.0, 0.8
CLIPS, BATCH = 8192, 128
FILES = 500  # of four kinds
UNIQUE = 1024  # clips made; the store holds these, and they are scored over and over


@torch.no_grad()
def from_memory(tagger: models.Tagger, samples: torch.Tensor, device: torch.device, batch: int) -> np.ndarray:
    """Scores of int16 clips on the host."""
    scores = []
    with torch.autocast(device.type, torch.bfloat16):
        for block in samples.split(batch):
            scores.append(tagger.score(tagger(to_waveforms(block, device)).float()))
    return torch.cat(scores).cpu().numpy()


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Clips per second from either."""
    clips, unique, batch, seconds = (8, 4, 2, 1) if options.smoke else (CLIPS, UNIQUE, BATCH, models.SECONDS)
    device = gpu_train.device()
    tagger = models.random_tagger(options.smoke).to(device)
    with harness.scratch() as folder:
        store = models.write_store(Path(folder), unique, seconds)
        indices = np.resize(store.splits["train"], clips)
        samples = torch.from_numpy(np.stack([store.samples(int(i)) for i in indices]))
        samples = samples.pin_memory() if device.type == "cuda" else samples
        paths = audio_files.write_mixed(
            Path(folder) / "files", 4 if options.smoke else FILES, seconds, seconds
        )
        jobs = [Job(path) for path in paths * (1 if options.smoke else 4)]
        engine = TorchEngine(tagger, audioset(), device, "bfloat16")
        bulk = TorchEngine(tagger, audioset(), device, "bfloat16", bulk=True)
        works = {
            "memory": lambda: from_memory(tagger, samples, device, batch),
            "store": lambda: score_clips(bulk, store, indices, workers=8),
            "files": lambda: sum(1 for _ in tables.tagged(AudioTagger(engine), jobs)),
        }
        difference = np.abs(works["memory"]() - works["store"]()).max()
        times = harness.interleave(
            {name: gpu_train.finished(work) for name, work in works.items()}, options.pairs
        )
        speeds = {
            name: [(len(jobs) if name == "files" else clips) / took for took in some]
            for name, some in times.items()
        }
        what = f"inference, bf16, clips of {seconds} s"
        yield harness.summarise(
            "gpu_infer/memory",
            f"{what}, from memory",
            speeds["memory"],
            "clips/s",
            harness.at_least(CLIPS_PER_SECOND),
        )
        shares = [a / b for a, b in zip(speeds["store"], speeds["memory"], strict=True)]
        yield harness.summarise(
            "gpu_infer/store",
            f"{what}: speed from the store over that from memory",
            shares,
            "",
            harness.at_least(OF_MEMORY),
            clips_per_s=float(np.median(speeds["store"])),
            largest_difference_of_a_score=float(difference),
        )
        shares = harness.profile(gpu_train.finished(works["memory"]))
        yield harness.state(
            "gpu_infer/profile",
            "where the time from memory goes: share of the longest kernel, then of each",
            max(shares.values()),
            "",
            **shares,
        )
        yield harness.summarise(
            "gpu_infer/files",
            f"bulk tagging, bf16: files of {seconds} s, decoding included, one GPU",
            speeds["files"],
            "files/s",
            decoders=max(1, engine.readers),
        )
        for layer in tagger.encoder.layers:
            layer.compile()
        try:
            works["memory"]()
        except Exception as error:
            print(f"left out: compiled: {type(error).__name__}: {str(error)[:500]}", flush=True)
            return
        compiled = harness.interleave({"memory": gpu_train.finished(works["memory"])}, options.pairs)[
            "memory"
        ]
        yield harness.summarise(
            "gpu_infer/compiled",
            f"{what}, from memory, each layer through torch.compile",
            [clips / took for took in compiled],
            "clips/s",
        )


if __name__ == "__main__":
    harness.main(rows, __doc__)
