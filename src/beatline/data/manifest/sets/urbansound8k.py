"""UrbanSound8K: slices of at most four seconds, ten classes, ten folds. Source: Salamon et al. 2014."""

import os
from pathlib import Path

from beatline.data.manifest.named import (
    DataSet,
    Found,
    fold_problem,
    fold_split,
    labels_by_number,
    plain_file,
    table,
)
from beatline.data.manifest.rows import Row


def read(root: Path, fold: int) -> Found:
    """The slices of `metadata/UrbanSound8K.csv`; those of a Freesound recording are in the same fold."""
    cells = table(
        root,
        ("metadata/UrbanSound8K.csv", "UrbanSound8K.csv"),
        ("slice_file_name", "fsID", "fold", "classID", "class"),
    )
    rows = []
    for row in cells:
        problem = fold_problem(row["fold"], 10)
        path, unsafe = plain_file(
            root if problem else root / "audio" / f"fold{row['fold']}", row["slice_file_name"]
        )
        path = path if problem or os.path.exists(path) else root / path.relative_to(root / "audio")
        rows.append(
            Row(
                row["slice_file_name"],
                path,
                row["fsID"],
                [row["class"]],
                fold_split(row["fold"], fold),
                problem=unsafe or problem,
            )
        )
    labels = labels_by_number((row["classID"], row["class"]) for row in cells)
    return Found(rows=rows, labels=labels)


DATA_SET = DataSet(title="UrbanSound8K", clips=8732, folds=10, read=read)
