"""Rows held as columns are the rows that went in, in little memory."""

import random
import tracemalloc
from array import array
from pathlib import Path

import pytest

from beatline.data.manifest.rows import NAMED, Clip, Row, Rows, View

ROWS = [
    Row("a", Path("x/a.wav"), "ra", ("/m/1", "/m/2"), ("train",), 1.5, 2.5),
    Row("ü\udcff", Path("/top.wav"), "", (), (), member="12:ü\ud800"),
    Row("c", problem=("bad-row", "why")),
    Row("", Path("here.flac"), "rc", ("/m/2",), ("test", "val"), events=((0.0, 1.0, "/m/2"),)),
    Row("e", Path("x/\udc80.wav"), labels=("/m/2", "/m/2")),
]


def test_rows_come_out_as_they_went_in():
    rows = Rows(ROWS)
    assert len(rows) == 5 and [rows.row(i) for i in range(5)] == ROWS
    assert (
        sorted(rows.all_labels()) == ["/m/1", "/m/2"]
        and rows.any_splits()
        and not Rows(ROWS[1:3]).any_splits()
    )
    assert rows.clip(3, ("m",)) == Clip(
        "", "rc", Path("here.flac"), ("m",), 0.0, None, "", ((0.0, 1.0, "/m/2"),)
    )
    assert [rows.file(i) for i in range(5)] == [
        ("x/a.wav", ""),
        ("/top.wav", "12:ü\ud800"),
        (".", ""),
        ("here.flac", ""),
        ("x/\udc80.wav", ""),
    ]


def test_what_is_learned_later():
    rows = Rows(ROWS)
    rows.refuse(0, ("missing-file", f"no audio of {NAMED}"))
    rows.uncut(0)
    assert (
        rows.problem(0) == ("missing-file", "no audio of ra")
        and (rows.row(0).start, rows.row(0).end) == (0.0, None)
        and rows.problem(1) is None
    )
    rows.files.append("far/b.tar", "7")
    rows.found(2, len(rows.files) - 1)
    assert (
        (rows.row(2).path, rows.row(2).member) == (Path("far/b.tar"), "7")
        and rows.files.container(len(rows.files) - 1) == "far/b.tar"
        and rows.files.container(0) == "x/"
    )


def test_a_view_is_a_sequence():
    view = View(array("q", [4, 2, 0]), str)
    assert (
        list(view) == ["4", "2", "0"] == [view[0], view[1], view[-1]]
        and view[1:] == ("2", "0")
        and len(view) == 3
    )
    assert view == ("4", "2", "0") and view != ["4", "2"] and view != ["4", "2", "1"] and view != 3
    with pytest.raises(IndexError):
        view[3]


def test_a_row_takes_little_memory():
    draw, count = random.Random(0), 20_000
    mids = [f"/m/{i:05d}" for i in range(527)]

    paths = [
        Path(f"/data/part{i:02d}/Y0123456789a.wav") for i in range(41)
    ]  # few, because pathlib keeps what it has seen

    def made():
        for i in range(count):
            name = f"{draw.getrandbits(66):011x}"[:11]
            yield Row(
                f"unbalanced_train-{i}", paths[i % 41], name, draw.choices(mids, k=3), ("train",), 30.0, 40.0
            )

    tracemalloc.start()
    rows = Rows(made())
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == count and held / count < 180
