"""How long a cold start takes: `beatline --help`, and `beatline tag` of one 10 s file with a base-size model,
from its checkpoint and from its export.

./bench.sh start        The floor for tag is a program that reads the weights and runs one forward pass in
                        bare PyTorch (`bare_forward.py`); both read from a warm page cache.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import audio_files
import harness
import models
import numpy as np
import programs

HELP_SECONDS = 0.3
OVER_FLOOR = 1.5


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Seconds of --help; tag over its floor."""
    times = harness.interleave(
        {"help": lambda: programs.run(sys.executable, "-m", "beatline", "--help")}, options.pairs
    )["help"]
    yield harness.summarise("start/help", "`beatline --help`", times, "s", harness.below(HELP_SECONDS))
    with harness.scratch() as folder:
        written = models.write_models(Path(folder), options.smoke)
        wav = audio_files.write_long(Path(folder), models.SECONDS)
        exported = models.write_export(written.own, Path(folder, "export"))
        empty = {"XDG_CACHE_HOME": str(Path(folder, "cache"))}  # no export of an earlier run is found there
        works = {
            "checkpoint": lambda: programs.beatline_tag([wav], written.own, env=empty),
            "export": lambda: programs.beatline_tag([wav], exported, env=empty),
            "floor": lambda: programs.run(sys.executable, harness.HERE / "bare_forward.py", written.own, wav),
        }
        times = harness.interleave(works, options.pairs)
        for kind in ("checkpoint", "export"):
            what = (
                f"`beatline tag` of one file with the {kind}, over loading the weights plus one forward "
                f"pass in bare PyTorch"
            )
            ratios = [tag / floor for tag, floor in zip(times[kind], times["floor"], strict=True)]
            medians = {f"{name}_s": float(np.median(times[name])) for name in (kind, "floor")}
            yield harness.summarise(
                f"start/{kind}", what, ratios, "x", harness.at_most(OVER_FLOOR), **medians
            )


if __name__ == "__main__":
    harness.main(rows, __doc__)
