"""VGGSound: clips of ten seconds from YouTube, built like AudioSet. Source: Chen et al. 2020."""

import csv
import io
from pathlib import Path

from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.data.manifest.audioset import is_recording
from beatline.data.manifest.named import DataSet, Found
from beatline.data.manifest.rows import Row
from beatline.data.manifest.sources import walk
from beatline.data.manifest.table import read_text


def read(root: Path, fold: int) -> Found:
    """The clips of `vggsound.csv`, with lines `ytid,start,label,split`; their audio is in any layout that
    `sources` knows.

    Clip ids are `<ytid>_<start>`. A train clip of a video that also has a test clip is left out.
    """
    tree = walk(root)
    path = tree.tables.get("vggsound.csv")
    if path is None:
        raise UserError(
            "missing-file",
            f"cannot find vggsound.csv in {root}",
            "the official table is not there",
            "put it there: it names every clip, its label and its split",
        )
    rows = []
    for number, cells in enumerate(csv.reader(io.StringIO(read_text(path), newline="")), 1):
        good = (
            len(cells) == 4
            and is_recording(cells[0])
            and cells[1].strip().isdigit()
            and cells[3].strip() in ("train", "test")
        )
        if good:
            start = float(cells[1])
            rows.append(
                Row(
                    f"{cells[0]}_{int(start)}",
                    recording=cells[0],
                    labels=[cells[2].strip()],
                    splits=(cells[3].strip(),),
                    start=start,
                    end=start + 10,
                )
            )
        elif cells:
            rows.append(
                Row(
                    f"{path.name} line {number}",
                    splits=("train",),
                    problem=("bad-row", "not of the form: ytid,start,label,train or test"),
                )
            )
    in_test = {row.recording for row in rows if row.problem is None and row.splits == ("test",)}
    for row in rows:
        if row.problem is None and row.splits == ("train",) and row.recording in in_test:
            row.problem = ("split-overlap", "another clip of its video is in test")
    labels = LabelSet.from_names(sorted({label for row in rows for label in row.labels}) or ["none"])
    return Found(rows=rows, labels=labels, tree=tree)


DATA_SET = DataSet(title="VGGSound", clips=199_176, read=read)
