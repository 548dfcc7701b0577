"""labelled audio in any form -> manifest: the table of clips.

In: a `DataConfig`. Out: a `Manifest`. It holds clips with their labels, and the splits as lists of clips.
Every input that cannot become a clip is there with its reason. Tables, listings of folders and archives, and
headers are read. What a clip's sound allows is decided where it is decoded, in `prepare`. The readers are
`lists`, `audioset` and `named`, whose data sets are a file each in `sets`; `rows`, `table` and `splits` serve
them all. Imports no torch.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from beatline.config import DataConfig
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.data.manifest.audioset import read_audioset
from beatline.data.manifest.lists import csv_rows, folder_rows, read_csv, read_folder, read_kaldi
from beatline.data.manifest.named import read_named
from beatline.data.manifest.rows import Clip, Event, Rejected, Rows
from beatline.data.manifest.splits import carve
from beatline.data.manifest.table import (
    SPLITS,
    Manifest,
    Sorted,
    labels_of,
    read_labels,
    read_text,
    sort_rows,
)

__all__ = [
    "SPLITS",
    "Clip",
    "Event",
    "Manifest",
    "Rejected",
    "carve",
    "read",
    "read_audioset",
    "read_csv",
    "read_folder",
    "read_kaldi",
    "read_labels",
    "read_listed",
    "read_named",
    "read_text",
]


def read(data: DataConfig, needed: Sequence[str] = ("train", "test")) -> Manifest:
    """The manifest of the configured data.

    Args:
        needed: Splits that must have a clip.

    Raises:
        UserError: `bad-config` without a source; `missing-file`, `not-a-file`, `bad-table`, `unknown-label`
            (a label table that does not fit any row), `split-overlap`, `no-clips`. Also `missing-package` (an
            archive whose reader is not installed).
    """
    with _uncollected():
        table = _read(data)
    for name in needed:
        if not table.splits[name]:
            raise UserError(
                "no-clips",
                f"cannot use {table.root}",
                f"no clips for {name}{_first(table.rejected)}",
                "check the data's layout, and beatline prepare --help",
            )
    return table


def _first(rejected: Sequence[Rejected]) -> str:
    return (
        f" ({len(rejected)} inputs rejected; the first, {rejected[0].input}: {rejected[0].reason})"
        if rejected
        else ""
    )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pauses the search for cycles. The millions of small objects made here have none, and the search takes a
    third of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(data: DataConfig) -> Manifest:
    if data.audioset is not None:
        return read_audioset(data.audioset, data)
    if data.dataset is not None:
        return read_named(data)
    if data.kaldi is not None:
        return read_kaldi(data.kaldi, data)
    if data.folder is not None:
        return read_folder(data.folder, data)
    if data.csv is not None:
        return read_csv(_table(data.csv), data)
    raise UserError(
        "bad-config",
        "setting data",
        "no data is named",
        "give data.audioset, data.dataset, data.kaldi, data.csv, data.folder",
    )


def _table(path: Path) -> Path:
    return Path(str(files("beatline") / "assets/mini-audioset/manifest.csv")) if str(path) == "mini" else path


def read_listed(source: Path) -> tuple[Sorted, LabelSet]:
    """The clips of a table (or `mini`) or of a folder for each class, with rejected inputs and label set.
    Scoring takes them, where no clip needs a split.

    Raises:
        UserError: `missing-file`, `not-a-file`, `bad-table`, `no-clips`; `split-overlap` where a clip is
            listed in two splits.
    """
    found, known = (
        folder_rows(source, DataConfig(folder=source))
        if source.is_dir()
        else csv_rows(_table(source), DataConfig(csv=source))
    )
    rows = Rows(found)
    labels = known or labels_of(rows)
    return sort_rows(rows, labels), labels
