"""Tagging files end to end, decode to scores, as programs: `beatline tag` against ESPnet's inference program
and against `openbeats-infer`.

./bench.sh tagging        200 mixed files (wav 16 kHz, flac, mp3 and ogg 44.1 kHz, 2 to 10 s), one set of
                          random base-size weights. Each pair takes the next seventh of the
files, so every file counts once on each side; ESPnet's program is also given all of them at once, so that its
slow start counts once. Ours runs the folder that `beatline export` makes, which is not timed; nor is, in
ESPnet's favour, that its files are 16 kHz mono WAV beforehand.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import audio_files
import harness
import models
import numpy as np
import programs

FILES = 200
FASTER = 3.0


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """One row for each peer."""
    with harness.scratch() as name:
        folder = Path(name)
        written = models.write_models(folder, options.smoke)
        files = audio_files.write_mixed(folder / "mixed", 8 if options.smoke else FILES)
        prepared = {file.stem: file for file in audio_files.write_prepared(folder / "prepared", files)}
        pairs = models.chunks(files, options.pairs)
        exported = models.write_export(written.own, folder / "export")
        assert (
            len(programs.beatline_tag(files[:1], exported).splitlines()) == 1
        )  # the warm-up, and a look at what comes out
        peers = {
            "espnet": (
                "ESPnet's inference program",
                lambda some: programs.espnet_inference(
                    [prepared[f.stem] for f in some], written.espnet, folder / f"espnet-{some[0].stem}"
                ),
            ),
            "openbeats": (
                "openbeats-infer",
                lambda some: programs.openbeats_infer(some, written.release, folder),
            ),
        }
        for peer, (called, work) in peers.items():
            work(files[-1:])
            ours, theirs = [], []
            for some in pairs:
                ours.append(harness.seconds(partial(programs.beatline_tag, some, exported)))
                theirs.append(harness.seconds(partial(work, some)))
            what = f"{len(files)} mixed files in {len(pairs)} parts, against {called}"
            rate = {
                "ours_files_per_s": len(files) / sum(ours),
                "theirs_files_per_s": len(files) / sum(theirs),
            }
            yield harness.ratio(f"tagging/{peer}", what, ours, theirs, harness.at_least(FASTER), **rate)
            if peer == "espnet":  # the other starts anew for each file, which is how it is used
                starts = harness.interleave(
                    {
                        "ours": partial(programs.beatline_tag, files[:1], exported),
                        "theirs": partial(work, files[:1]),
                    },
                    options.pairs,
                )
                start = {side: float(np.median(some)) for side, some in starts.items()}
                less = [took - start["ours"] for took in ours], [took - start["theirs"] for took in theirs]
                yield harness.ratio(
                    f"tagging/{peer}-steady",
                    f"the same, each part less the time for one file ({start['ours']:.1f} s and "
                    f"{start['theirs']:.1f} s)",
                    *less,
                )
                whole = (
                    harness.seconds(partial(programs.beatline_tag, files, exported)),
                    harness.seconds(partial(work, files)),
                )
                yield harness.ratio(
                    f"tagging/{peer}-whole",
                    f"the {len(files)} files at once, one run of each program",
                    whole[:1],
                    whole[1:],
                )


if __name__ == "__main__":
    harness.main(rows, __doc__)
