"""Encoder and head in float32, waveforms of 10 s to logits: beatline's chosen engine, and plain PyTorch, against openbeats with the same weights.

./bench.sh encoder        A further row stands beside AST of transformers (same size, random weights).
"""

from collections.abc import Iterator
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
        if peers.available("transformers"):
            ast, waveforms = peers.ast(options.smoke), models.waveforms(8)
            yield harness.compare("encoder/ast-8", f"batch 8, engine auto ({chosen.name}), against AST of transformers", partial(chosen.scores, waveforms), partial(ast, waveforms), options.pairs)


if __name__ == "__main__":
    harness.main(rows, __doc__)
