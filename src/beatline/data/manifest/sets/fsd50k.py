"""FSD50K: Freesound clips with AudioSet labels, official splits. Source: Fonseca et al. 2020."""

import csv
import io
from pathlib import Path

from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet
from beatline.data.manifest.named import DataSet, Found, plain_file, table
from beatline.data.manifest.rows import Row
from beatline.data.manifest.table import read_text


def read(root: Path, fold: int) -> Found:
    """The clips of `FSD50K.ground_truth`; labels in the vocabulary's order with their AudioSet mids."""
    truth = root / "FSD50K.ground_truth"
    vocabulary = [
        cells
        for cells in csv.reader(io.StringIO(read_text(truth / "vocabulary.csv"), newline=""))
        if len(cells) == 3
    ]
    if not vocabulary:
        raise UserError(
            "bad-table",
            f"cannot use {truth / 'vocabulary.csv'}",
            "no rows of number, name, mid",
            "get the data set's own table again",
        )
    rows = []
    for name, folder, split in (
        ("dev.csv", "FSD50K.dev_audio", ""),
        ("eval.csv", "FSD50K.eval_audio", "test"),
    ):
        for row in table(truth, (name,), ("fname", "labels", "mids", *(() if split else ("split",)))):
            path, problem = plain_file(root / folder, f"{row['fname']}.wav")
            home = split or row["split"]
            if home not in ("train", "val", "test"):
                problem = ("bad-row", f"unknown split {home!r}")
            rows.append(
                Row(
                    row["fname"],
                    path,
                    row["fname"],
                    [mid for mid in row["mids"].split(",") if mid],
                    (home,) if problem is None else ("train",),
                    problem=problem,
                )
            )
    return Found(rows=rows, labels=LabelSet(tuple(Label(mid, name) for _, name, mid in vocabulary)))


DATA_SET = DataSet(title="FSD50K", clips=51_197, read=read)
