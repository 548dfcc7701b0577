"""What is written, read back by each format's own rules."""

import csv
import io
import json
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet
from beatline.tag import formats
from beatline.tag.events import Event
from beatline.tag.formats import Choice
from beatline.tag.result import Refused, Result, ResultRow

LABELS = LabelSet(
    (
        Label("/m/0bt9lr", "Dog"),
        Label("/m/05zppz", "Male speech, man speaking"),
        Label("odd", 'tab\there "and" there'),
    )
)


def tagged(
    source="a b.wav", seconds=12.5, events=((0, 0.16, 1.28, 0.75), (1, 0.32, 12.5, 0.5), (2, 3.2, 4.0, 0.25))
):
    window_scores = np.array([[0.1, 0.9, 0.3], [0.5, 0.2, 0.3]], np.float32)
    found = tuple(Event(LABELS.labels[i], onset, offset, score) for i, onset, offset, score in events)
    return Result(
        source,
        LABELS,
        window_scores.mean(axis=0),
        np.zeros(4, np.float32),
        np.array([0.0, 2.5]),
        window_scores,
        seconds,
        window=10.0,
        events=found,
    )


def written(name, *results, **choice):
    return "".join(formats.TEXTS[name](iter(results), Choice(**choice)))


def test_the_best_labels_the_threshold_and_the_choice():
    result = tagged()
    assert [label.name for label, _ in result.top(2)] == ["Male speech, man speaking", "Dog"]
    assert [label.mid for label, _ in result.top(None, 0.3)] == [
        "/m/05zppz",
        "/m/0bt9lr",
        "odd",
    ]  # equal ones in label order
    assert [label.mid for label, _ in result.top(None, np.array([0.4, 0.1, 0.31]))] == ["/m/05zppz"]
    some = result.select([2, 0])
    assert (
        some.labels.mids == ("odd", "/m/0bt9lr")
        and some.scores.tolist() == result.scores[[2, 0]].tolist()
        and some.window_scores.shape == (2, 2)
    )
    assert [event.label.mid for event in some.events] == ["/m/0bt9lr", "odd"]
    assert result.ends.tolist() == [10.0, 12.5]


def test_rows_of_each_level():
    result = tagged()
    assert list(result.rows("clip", 1)) == [
        ResultRow("a b.wav", 0.0, 12.5, "/m/05zppz", "Male speech, man speaking", pytest.approx(0.55))
    ]
    assert [(row.onset, row.offset, row.mid) for row in result.rows("windows", 1)] == [
        (0.0, 10.0, "/m/05zppz"),
        (2.5, 12.5, "/m/0bt9lr"),
    ]
    assert [(row.onset, row.offset, row.score) for row in result.rows("events")] == [
        (0.16, 1.28, 0.75),
        (0.32, 12.5, 0.5),
        (3.2, 4.0, 0.25),
    ]


def test_a_data_frame_has_the_rows(monkeypatch):
    frame = tagged().to_dataframe("windows")
    assert list(frame.columns) == list(ResultRow._fields) and len(frame) == 6
    assert frame[frame.mid == "odd"].score.tolist() == pytest.approx([0.3, 0.3])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"beatline\[data\]") as caught:
        tagged().to_dataframe()
    assert caught.value.code == "missing-package"


def test_events_nobody_asked_for_are_said():
    quiet = Result("x", LABELS, np.zeros(3), np.zeros(4), np.zeros(1), np.zeros((1, 3)), 1.0)
    with pytest.raises(UserError, match="not asked for"):
        list(quiet.rows("events"))
    assert "events" not in quiet.to_dict()
    assert quiet.ends.tolist() == [1.0]


def test_json_lists_lines_and_windows():
    first, second = json.loads(
        written("json", tagged(), tagged("b.wav"), level="windows", count=1, threshold=0.2)
    )
    assert second == first | {"file": "b.wav"}
    assert first["windows"] == [
        {
            "onset": 0.0,
            "offset": 10.0,
            "tags": [{"mid": "/m/05zppz", "name": "Male speech, man speaking", "score": 0.9}],
        },
        {"onset": 2.5, "offset": 12.5, "tags": [{"mid": "/m/0bt9lr", "name": "Dog", "score": 0.5}]},
    ]
    assert first["events"][0] == {
        "onset": 0.16,
        "offset": 1.28,
        "mid": "/m/0bt9lr",
        "name": "Dog",
        "score": 0.75,
    }
    assert json.loads(written("json")) == []
    assert [
        json.loads(line)["file"] for line in written("jsonl", tagged(), tagged("b\n.wav")).splitlines()
    ] == ["a b.wav", "b\n.wav"]


def test_csv_is_read_back():
    rows = list(csv.DictReader(io.StringIO(written("csv", tagged('q"u,o.wav'), level="events"))))
    assert rows[1] == {
        "file": 'q"u,o.wav',
        "onset": "0.320",
        "offset": "12.500",
        "mid": "/m/05zppz",
        "name": "Male speech, man speaking",
        "score": "0.500000",
    }
    assert len(list(csv.DictReader(io.StringIO(written("csv", tagged(), tagged(), count=2))))) == 4


def test_audacity_is_read_back():
    """Audacity's manual: begin, end, text; tabs between; one line for each."""
    lines = [line.split("\t") for line in written("audacity", tagged(), level="events").splitlines()]
    assert [(float(begin), float(end), text) for begin, end, text in lines] == [
        (0.16, 1.28, "Dog"),
        (0.32, 12.5, "Male speech, man speaking"),
        (3.2, 4.0, 'tab\\there "and" there'),
    ]


def test_rttm_is_read_back():
    """RT-09, appendix A: type, file, channel, begin, duration, orthography, subtype, name, confidence,
    lookahead; white space between.
    """
    fields = [
        line.split() for line in written("rttm", tagged("some/fol der/a b.wav"), level="events").splitlines()
    ]
    assert all(len(row) == 10 for row in fields)
    assert fields[1] == [
        "SPEAKER",
        "a_b",
        "1",
        "0.320",
        "12.180",
        "<NA>",
        "<NA>",
        "Male_speech,_man_speaking",
        "0.500000",
        "<NA>",
    ]
    assert float(fields[0][3]) + float(fields[0][4]) == pytest.approx(1.28)


def test_raven_is_read_back():
    """Raven's manual: a heading, tabs, numbered selections, seconds and Hz; times count on from file to file,
    File Offset within one.
    """
    rows = list(
        csv.DictReader(
            io.StringIO(written("raven", tagged("a.wav"), tagged("b.wav"), level="events")),
            delimiter="\t",
            quoting=csv.QUOTE_NONE,
        )
    )
    assert [int(row["Selection"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert (
            row["View"] == "Spectrogram 1"
            and row["Channel"] == "1"
            and float(row["Low Freq (Hz)"]) == 0
            and float(row["High Freq (Hz)"]) == 8000
        )
    assert [float(row["Begin Time (s)"]) for row in rows] == [0.16, 0.32, 3.2, 12.66, 12.82, 15.7]
    assert [float(row["File Offset (s)"]) for row in rows] == [0.16, 0.32, 3.2] * 2
    assert (
        rows[3]["Begin Path"] == "b.wav"
        and float(rows[3]["End Time (s)"]) == pytest.approx(13.78)
        and rows[3]["Label"] == "Dog"
        and float(rows[3]["Score"]) == 0.75
    )


def test_dcase_is_read_back():
    """DCASE, task 4: filename, onset, offset, event_label; tabs and a heading."""
    import pandas

    frame = pandas.read_csv(
        io.StringIO(written("dcase", tagged("deep/a b.wav"), tagged("c.wav", events=()), level="events")),
        sep="\t",
    )
    assert list(frame.columns) == ["filename", "onset", "offset", "event_label"]
    assert (
        frame.filename.unique().tolist() == ["a b.wav"]
        and frame.onset.tolist() == [0.16, 0.32, 3.2]
        and frame.event_label[1] == "Male speech, man speaking"
    )


@pytest.mark.parametrize("name", formats.TEXTS)
def test_names_that_are_no_text_or_have_controls_cost_no_line(name):
    odd = b"caf\xe9\n\t\x1b[31m.wav".decode("utf-8", "surrogateescape")
    text = written(name, tagged(odd), level="events")
    text.encode()
    assert "\x1b" not in text
    lines = {"json": 3, "jsonl": 1, "audacity": 3, "rttm": 3}.get(name, 4)
    assert len(text.splitlines()) == lines


def test_parquet_is_read_back(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(formats, "ROWS_AT_ONCE", 4)
    out = tmp_path / "deep" / "all.parquet"
    formats.write([tagged(), tagged("b.wav")], "parquet", Choice("events"), out)
    read = pyarrow.read_table(out)
    assert read.column_names == list(ResultRow._fields) and pyarrow.ParquetFile(out).num_row_groups == 2
    assert read.to_pylist()[3] == {
        "file": "b.wav",
        "onset": 0.16,
        "offset": 1.28,
        "mid": "/m/0bt9lr",
        "name": "Dog",
        "score": 0.75,
    }
    formats.write([], "parquet", Choice("events"), out)
    assert pyarrow.read_table(out).num_rows == 0
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"beatline\[data\]"):
        formats.write([tagged()], "parquet", Choice(), out)
    assert [path.name for path in out.parent.iterdir()] == ["all.parquet"]


def test_a_file_is_whole_or_as_it_was(tmp_path, capsys):
    out = tmp_path / "all.jsonl"
    out.write_text("old")

    def cut():
        yield tagged()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        formats.write(cut(), "jsonl", Choice(), out)
    assert out.read_text() == "old" and list(tmp_path.iterdir()) == [out]
    error = UserError("broken-audio", "cannot use x", "broken", "leave it out")
    assert formats.write([Refused("x", error), tagged()], "jsonl", Choice(), out) is error
    assert json.loads(out.read_text())["file"] == "a b.wav"
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "sources", "out", "code"),
    [
        ("parquet", ["a"], None, "bad-usage"),
        ("audacity", ["a", "b"], None, "bad-usage"),
        ("rttm", ["x/a b.wav", "y/a_b.mp3"], None, "bad-usage"),
        ("dcase", ["x/a.wav", "y/a.wav"], None, "bad-usage"),
        ("jsonl", ["a"], "/dev/null", "not-writable"),
        ("jsonl", ["a"], ".", "not-writable"),
        ("raven", ["x/a.wav", "y/a.wav"], None, None),
        ("dcase", ["x/a.wav", "y/b.wav"], None, None),
        ("audacity", ["a"], "labels.txt", None),
    ],
)
def test_what_a_format_cannot_do_is_said_first(name, sources, out, code):
    path = None if out is None else formats.Path(out)
    if code is None:
        formats.check(name, sources, path)
        return
    with pytest.raises(UserError) as caught:
        formats.check(name, sources, path)
    assert caught.value.code == code


def test_a_notebook_shows_a_small_table_of_plain_text():
    shown = tagged("<b>x.wav")._repr_html_()
    for rows in ElementTree.fromstring(f"<div>{shown}</div>").iter("tbody"):
        assert 3 <= len(rows) <= 5
    assert (
        shown.index("Male speech") < shown.index(">Dog")
        and "<b>x" not in shown
        and "&lt;b&gt;x.wav, 12.5 s" in shown
        and "3 events" in shown
    )
    many = tagged(events=[(0, i, i + 0.5, 0.5) for i in range(50)])._repr_html_()
    assert "50 events, the first 20" in many and many.count("<tr>") == 1 + 3 + 1 + 20
    assert "events" not in replace(tagged(), events=None)._repr_html_()
