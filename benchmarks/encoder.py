"""Encoder and head in float32, waveforms of 10 s to logits: beatline's chosen engine, and plain PyTorch,
against openbeats with the same weights.

./bench.sh encoder        Further rows stand beside ESPnet's classification model and AVEX's BEATs (the same
                          weights), and AST of transformers (same size, random weights).
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import harness
import models
import numpy as np
import peers

from beatline.tag import tagger

BATCHES = {1: 1.3, 8: 1.6, 32: 1.6}
"""Clips, and the goal of plain PyTorch."""
CHOSEN = 1.6
EXACT = 1e-5

Peer = Callable[[np.ndarray], np.ndarray]


def waveforms(clips: int, smoke: bool) -> np.ndarray:
    """What every side is given."""
    return models.waveforms(clips, 1 if smoke else models.SECONDS)


def peer_work(peer: str, model: str, clips: int, smoke: bool) -> Callable[[], object]:
    """A peer's pass, for a process of its own."""
    made: dict[str, Callable[[], Peer]] = {
        "openbeats": lambda: peers.openbeats(Path(model)),
        "espnet": lambda: peers.espnet(Path(model)),
        "avex": lambda: peers.avex(Path(model)),
        "ast": lambda: peers.ast(smoke),
    }
    return partial(made[peer](), waveforms(clips, smoke))


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """A row for each engine and batch, and AST's."""
    with harness.scratch() as folder:
        written = models.write_models(Path(folder), options.smoke)
        peer = peers.openbeats(written.release)
        chosen, plain = (
            tagger.load(models.write_export(written.own, Path(folder, "export"))).engine,
            tagger.load(written.own, engine="torch").engine,
        )
        differences: dict[str, float] = {"chosen": 0.0, "torch": 0.0}
        for clips, goal in BATCHES.items():
            clips_now = waveforms(clips, options.smoke)
            with harness.Apart(
                "encoder:peer_work",
                harness.PLAIN,
                peer="openbeats",
                model=str(written.release),
                clips=clips,
                smoke=options.smoke,
            ) as theirs:
                for name, ours, wanted in (("chosen", chosen, CHOSEN), ("torch", plain, goal)):
                    difference = float(
                        np.abs(ours.scores(clips_now) - 1 / (1 + np.exp(-peer(clips_now)))).max()
                    )
                    differences[name] = max(difference, differences[name])
                    what = (
                        f"batch {clips}, "
                        f"{f'engine auto ({ours.name})' if name == 'chosen' else 'plain PyTorch'}, against "
                        f"openbeats"
                    )
                    yield harness.compare(
                        f"encoder/{name}-{clips}",
                        what,
                        partial(ours.scores, clips_now),
                        theirs,
                        options.pairs,
                        harness.at_least(wanted),
                    )
        for name, difference in differences.items():
            yield harness.state(
                f"encoder/exact-{name}",
                f"largest difference of a score from openbeats, "
                f"{'engine auto' if name == 'chosen' else 'plain PyTorch'}",
                difference,
                "",
                harness.at_most(EXACT),
            )
        others = {
            "espnet": ("ESPnet's classification model", written.espnet, "espnet2"),
            "avex": ("AVEX's BEATs", written.release, "avex"),
            "ast": ("AST of transformers", written.espnet, "transformers"),
        }
        work = partial(chosen.scores, waveforms(8, options.smoke))
        for name, (called, model, package) in others.items():
            if peers.available(package):
                with harness.Apart(
                    "encoder:peer_work",
                    harness.PLAIN,
                    peer=name,
                    model=str(model),
                    clips=8,
                    smoke=options.smoke,
                ) as theirs:
                    yield harness.compare(
                        f"encoder/{name}-8",
                        f"batch 8, engine auto ({chosen.name}), against {called}",
                        work,
                        theirs,
                        options.pairs,
                    )


if __name__ == "__main__":
    harness.main(rows, __doc__)
