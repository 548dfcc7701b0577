"""A model in ESPnet's own hands: `beatline pack --form espnet`, then ESPnet's `unpack` and its inference
class, as docs/hub.md has it.

./bench.sh espnet_zip       random base-size weights, 20 of the embedded test clips, one by one
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import harness
import models
import numpy as np
import peers

import beatline
from beatline import cli
from beatline.audio.media import decode
from beatline.audio.samples import to_waveform

CLIPS = harness.ROOT / "src/beatline/assets/mini-audioset/audio"
CLOSE = 1e-5


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """The largest difference of a score."""
    if not peers.available("espnet2", "librosa"):
        return
    from espnet2.bin.cls_inference import Classification
    from espnet2.main_funcs.pack_funcs import unpack

    with harness.scratch() as name:
        folder = Path(name)
        own = models.write_models(folder, options.smoke).own
        if cli.main(["pack", str(own), str(folder / "model.zip"), "--form", "espnet"]):
            sys.exit("beatline pack failed")
        theirs, ours = Classification(**unpack(folder / "model.zip", folder / "unpacked")), beatline.load(own)
        clips = sorted(CLIPS.glob("test_*.ogg"))[:: 75 if options.smoke else 7][:20]
        worst, apart = 0.0, np.inf
        for clip in clips:
            scores = ours(clip).scores
            worst = max(
                worst, float(np.abs(theirs(to_waveform(decode(clip).samples))[1].numpy() - scores).max())
            )
            apart = min(apart, float(np.ptp(scores)))
        what = (
            f"largest difference of a score, ESPnet's `Classification(**unpack(zip))` against beatline, "
            f"{len(clips)} real clips, {len(scores)} labels"
        )
        yield harness.state(
            "espnet_zip/scores", what, worst, "", harness.at_most(CLOSE), least_range_of_a_clip=apart
        )


if __name__ == "__main__":
    harness.main(rows, __doc__)
