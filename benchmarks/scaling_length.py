"""What `beatline tag` costs against a recording's length and against the number of files, as a program:
seconds and peak memory.

./bench.sh scaling_length        Long audio shall be linear in its length and flat in memory: 30 minutes
                                 against one minute, the start taken off.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import audio_files
import harness
import models
import programs

LENGTHS = (1, 10, 60, 300, 1800)
COUNTS = (1, 10, 50, 200)
LINEAR, FLAT = 1.25, 1.25


WATCHED = """
import sys, harness
from beatline.cli import main
code = main(sys.argv[1:])
print("peak", harness.resident("VmHWM"))
sys.exit(code)
"""


def tag(files: list[Path], model: Path) -> tuple[float, float]:
    """Seconds and peak memory in MB of one `beatline tag`; the memory is that of the program itself, not of
    children it may start.
    """
    printed: list[str] = []

    def work() -> None:
        printed.append(
            programs.run(
                sys.executable,
                "-c",
                WATCHED,
                "tag",
                *files,
                "--model",
                model,
                "--format",
                "jsonl",
                env={"PYTHONPATH": str(harness.HERE)},
            )
        )

    took = harness.seconds(work)
    return took, float(printed[0].splitlines()[-1].split()[1])


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """The two curves, and what they say."""
    with harness.scratch() as name:
        folder = Path(name)
        exported = models.write_export(models.write_models(folder, options.smoke).own, folder / "export")
        lengths, counts = ((1, 4, 8), (1, 4)) if options.smoke else (LENGTHS, COUNTS)
        tag([audio_files.write_long(folder, 1)], exported)  # warm-up
        curve = {length: tag([audio_files.write_long(folder, length)], exported) for length in lengths}
        for length, (took, peak) in curve.items():
            yield harness.state(
                f"scaling_length/{length}-s", f"one recording of {length} s", took, "s", peak_MB=peak
            )
        short, middle, long = lengths[0], lengths[len(lengths) // 2], lengths[-1]
        start = curve[short][0]
        slope = [(curve[length][0] - start) / (length - short) for length in (middle, long)]
        what = f"cost of a second of audio at {long} s over that at {middle} s"
        yield harness.state(
            "scaling_length/linear",
            what,
            slope[1] / slope[0],
            "x",
            harness.at_most(LINEAR),
            seconds_per_second=slope,
        )
        what = f"peak memory at {long} s over that at {middle} s"
        yield harness.state(
            "scaling_length/flat", what, curve[long][1] / curve[middle][1], "x", harness.at_most(FLAT)
        )
        files = audio_files.write_mixed(folder / "mixed", counts[-1])
        for count in counts:
            took, peak = tag(files[:count], exported)
            yield harness.state(
                f"scaling_length/{count}-files",
                f"{count} mixed files",
                took,
                "s",
                peak_MB=peak,
                files_per_s=count / took,
            )


if __name__ == "__main__":
    harness.main(rows, __doc__)
