"""The light installation: its size, the seconds from nothing to the first answer, and a cold start of a tag.

./bench.sh install      Installs this folder into a fresh environment, with the versions of constraints.txt,
                        and tags a file with the box. The packages come from pip's index and cache: their
                        download is in the seconds the first time only.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import audio_files
import harness
import models
import programs

MOST_MEGABYTES = 250
COLD_SECONDS = 0.7


def size_of(folder: Path) -> float:
    """MB of everything below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Seconds to the first answer, megabytes, seconds of a cold start."""
    alone = {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    with harness.scratch() as scratch:
        folder = Path(scratch, "venv")
        sound = audio_files.write_long(Path(scratch), models.SECONDS)
        program = folder / "bin/beatline"

        def tag() -> None:
            programs.run(program, "tag", sound, env=alone | {"HOME": scratch})

        begin = time.perf_counter()
        programs.run(sys.executable, "-m", "venv", folder)
        bare = size_of(folder)
        pip = (folder / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
        programs.run(*pip, "-c", "constraints.txt", ".", env=alone)
        installed = time.perf_counter()
        tag()
        answered = time.perf_counter()
        yield harness.state(
            "install/seconds",
            "from nothing to the answer: environment, `pip install .`, `beatline tag` of a 10 s file",
            answered - begin,
            "s",
            first_tag_s=round(answered - installed, 2),
        )
        yield harness.state(
            "install/size",
            "the fresh environment with beatline and all that it depends on",
            size_of(folder),
            "MB",
            harness.at_most(MOST_MEGABYTES),
            bare_environment_MB=round(bare, 1),
        )
        times = harness.interleave({"tag": tag}, options.pairs)["tag"]
        yield harness.summarise(
            "install/start",
            f"`beatline tag` of one 10 s file with the box, a new process each time ({os.cpu_count()} cores)",
            times,
            "s",
            harness.below(COLD_SECONDS),
        )


if __name__ == "__main__":
    harness.main(rows, __doc__)
