"""recordings -> a table of whose they are, which ships with the weights.

In: the corpus's manifest, and licence and author of each free file. Out: `attribution.csv`, a row for all
files of a folder that have the same author and licence, since ten thousand rows would outweigh the weights.
"""

import csv
import os
from collections.abc import Iterable
from pathlib import Path

OURS = ("beatline", "", "CC0-1.0", "beatline's maintainers")
COLUMNS = ("package", "version", "licence", "author", "folder", "files")


def write(out: Path, recordings: Iterable[str], whose: dict[str, tuple[str, str, str, str]]) -> int:
    """Writes the table of the recordings that were used; returns how many rows it has.

    Args:
        whose: Package, version, licence and author of each recording.

    Raises:
        SystemExit: for a recording of which these are not known.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(set(recordings)):
        if name not in whose:
            raise SystemExit(
                f"make.py: {name} has no licence and author: delete clips/ of its package, and run again"
            )
        folder, file = os.path.split(name)
        groups.setdefault((*whose[name], folder), []).append(file)
    part = out.with_name(f".{out.name}.part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*group, "|".join(files)) for group, files in sorted(groups.items()))
    part.rename(out)
    return len(groups)
