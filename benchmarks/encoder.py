"""Encoder and head in float32, waveforms of 10 s to logits: beatline's chosen engine, and plain PyTorch, against openbeats with the same weights.

./bench.sh encoder        Further rows stand beside ESPnet's classification model (the same weights) and AST of transformers (same size, random weights).
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import harness
import models
import numpy as np
import peers

from beatline import tag

BATCHES = {1: 1.3, 8: 1.6, 32: 1.6}
"""Clips, and the goal of plain PyTorch."""
CHOSEN = 1.6
EXACT = 1e-5

Peer = Callable[[np.ndarray], np.ndarray]


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """A row for each engine and batch, and AST's."""
    with harness.scratch() as folder:
        written = models.write_models(Path(folder), options.smoke)
        peer = peers.openbeats(written.release)
        chosen, plain = tag.load(models.write_export(written.own, Path(folder, "export"))).engine, tag.load(written.own, engine="torch").engine
        differences: dict[str, float] = {"chosen": 0.0, "torch": 0.0}
        for clips, goal in BATCHES.items():
            waveforms = models.waveforms(clips, 1 if options.smoke else models.SECONDS)
            for name, ours, wanted in (("chosen", chosen, CHOSEN), ("torch", plain, goal)):
                difference = float(np.abs(ours.scores(waveforms) - 1 / (1 + np.exp(-peer(waveforms)))).max())
                differences[name] = max(difference, differences[name])
                what = f"batch {clips}, {f'engine auto ({ours.name})' if name == 'chosen' else 'plain PyTorch'}, against openbeats"
                work = partial(ours.scores, waveforms), partial(peer, waveforms)
                yield harness.compare(f"encoder/{name}-{clips}", what, *work, options.pairs, harness.at_least(wanted))
        for name, difference in differences.items():
            yield harness.state(f"encoder/exact-{name}", f"largest difference of a score from openbeats, {'engine auto' if name == 'chosen' else 'plain PyTorch'}", difference, "", harness.at_most(EXACT))
        waveforms = models.waveforms(8, 1 if options.smoke else models.SECONDS)
        others: dict[str, tuple[str, Peer]] = {"espnet": ("ESPnet's classification model", peers.espnet(written.espnet))} if peers.available("espnet2") else {}
        if peers.available("transformers"):
            others["ast"] = "AST of transformers", peers.ast(options.smoke)
        for name, (called, other) in others.items():
            yield harness.compare(f"encoder/{name}-8", f"batch 8, engine auto ({chosen.name}), against {called}", partial(chosen.scores, waveforms), partial(other, waveforms), options.pairs)


if __name__ == "__main__":
    harness.main(rows, __doc__)
