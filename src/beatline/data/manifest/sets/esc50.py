"""ESC-50: 2000 clips of five seconds, 50 classes, five folds. Source: Piczak 2015."""

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
    """The clips of `meta/esc50.csv`; those of a `src_file` are in the same fold."""
    cells = table(
        root, ("meta/esc50.csv", "esc50.csv"), ("filename", "fold", "target", "category", "src_file")
    )
    rows = []
    for row in cells:
        path, problem = plain_file(root / "audio", row["filename"])
        rows.append(
            Row(
                row["filename"],
                path,
                row["src_file"],
                [row["category"]],
                fold_split(row["fold"], fold),
                problem=problem or fold_problem(row["fold"], 5),
            )
        )
    labels = labels_by_number((row["target"], row["category"]) for row in cells)
    return Found(rows=rows, labels=labels)


DATA_SET = DataSet(title="ESC-50", clips=2000, folds=5, read=read)
