"""`prepare` says what stands on both sides of a split, before anybody trains on it."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatline.cli import main
from beatline.config import DataConfig
from beatline.core import artefact
from beatline.data import leaks, manifest
from beatline.data.manifest.suspects import suspects
from beatline.data.prepare import prepare
from beatline.data.repair import repair
from beatline.data.store import Store

SPLIT = ["train"] * 8 + ["val"] * 2 + ["test"] * 2


def sound(seed: int, seconds: float = 3.0) -> np.ndarray:
    """Chirps at random times, of which no two clips have the same."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(16_000 * seconds)) / 16_000
    result = 1e-3 * rng.standard_normal(len(time))
    for begin in rng.uniform(0, seconds - 0.3, 14):
        part = (time >= begin) & (time < begin + rng.uniform(0.08, 0.3))
        result[part] += 0.2 * np.sin(2 * np.pi * rng.uniform(200, 4000) * time[part])
    return result


def write(folder: Path, head: str, cells: list[str], split: bool = True, twin: bool = False) -> Path:
    """A table of twelve clips with these cells in the column `head`; the first test clip may be the first
    train clip, softer and later.
    """
    folder.mkdir(exist_ok=True)
    for i in range(12):
        samples = 0.3 * sound(0)[1600:] if twin and i == 10 else sound(i)
        soundfile.write(folder / f"{i}.wav", samples, 16_000)
    column = [f"file,labels,{head}{',split' if split else ''}"]
    column += [f"{i}.wav,{'xy'[i % 2]},{cells[i]}{',' + SPLIT[i] if split else ''}" for i in range(12)]
    (folder / "clips.csv").write_text("\n".join(column) + "\n")
    return folder / "clips.csv"


def said(capsys, csv: Path, *more: str) -> str:
    """What `beatline prepare` prints."""
    out = csv.parent / "run"
    assert main(["prepare", "mini", "--data.csv", str(csv), "--out", str(out), *more]) == 0
    return capsys.readouterr().out


SHARED = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s0", "n0", "n1", "s3|n2"]


def test_a_column_that_looks_like_recordings_is_said_with_its_counts(tmp_path, capsys):
    shown = said(capsys, write(tmp_path / "d", "source", SHARED))
    assert (
        "column source looks like the recordings that clips come from, and 1 of 2 val and 1 of 2 test clips "
        "share a value with train" in shown
    )
    assert "figures come out too high" in shown and shown.count("rename it to recording") == 1
    assert "rename it to recording" in said(capsys, tmp_path / "d/clips.csv"), "of a store that is there too"


def test_its_remedy_for_a_table_with_splits_helps(tmp_path, capsys):
    csv = write(tmp_path / "d", "source", SHARED)
    assert "rename it to recording and mend or leave out the column split" in said(capsys, csv)
    csv = write(tmp_path / "d", "recording", SHARED, split=False)
    assert "rename" not in said(capsys, csv)


def test_its_remedy_for_a_table_without_splits_helps(tmp_path, capsys):
    cells = [f"s{i // 6}" for i in range(12)]
    shown = said(capsys, write(tmp_path / "d", "YouTube ID", cells, split=False))
    assert "column youtube id looks like" in shown and shown.rstrip().endswith("rename it to recording")
    assert "rename" not in said(capsys, write(tmp_path / "d", "recording", cells, split=False))


@pytest.mark.parametrize(
    ("head", "cells"),
    [
        ("source", [f"s{i}" for i in range(12)]),
        ("source", [""] * 12),
        ("licence", ["CC0"] * 12),
    ],
)
def test_columns_that_split_nothing_are_not_spoken_of(tmp_path, capsys, head, cells):
    assert "looks like" not in said(capsys, write(tmp_path / "d", head, cells))


def test_kinds_of_source_are_no_sources(tmp_path):
    lines = ["file,labels,source,split"]
    lines += [f"{i}.wav,x,{('youtube', 'freesound')[i % 2]},{SPLIT[i % 12]}" for i in range(60)]
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    assert manifest.read(DataConfig(csv=tmp_path / "clips.csv")).shared is None


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ("file labels split source licence classes", ["source"]),
        ("file origin parent_file original-name", ["origin", "parent_file", "original-name"]),
        ("youtube_id ytid freesound_id video_id recording_id", None),
        ("file labels fs fname start end id sourced resource videographer", []),
        ("file labels source recording", []),
    ],
)
def test_names_of_columns_that_may_be_recordings(columns, found):
    names = columns.split()
    assert suspects(names) == (names if found is None else found)


def test_the_same_sound_on_two_sides_is_said_and_kept_in_the_summary(tmp_path, capsys):
    csv = write(tmp_path / "d", "note", ["-"] * 12, twin=True)
    shown = said(capsys, csv)
    line = (
        "1 of 4 val and test clips sound like a train clip, the first 0.wav and 10.wav: figures come out too"
    )
    assert line in shown and f"`beatline inspect {tmp_path}/d/run/store`" in shown
    facts = json.loads((tmp_path / "d/run/store/summary.json").read_text())["leaks"]
    assert facts == {
        "near_duplicates": {"clips": 1, "of": 4, "first": ["0.wav", "10.wav"], "all_heard": True}
    }
    assert line in said(capsys, csv), "of a store that is there too"


def test_its_remedy_shows_the_pair(tmp_path, capsys):
    shown = said(capsys, write(tmp_path / "d", "note", ["-"] * 12, twin=True))
    command = shown[shown.index("`beatline inspect ") :].split("`")[1].split()
    assert main(command[1:]) == 0
    listed = capsys.readouterr().out
    assert "0.wav" in listed and "10.wav" in listed


def test_a_store_without_leaks_says_nothing_of_them(tmp_path, capsys):
    shown = said(capsys, write(tmp_path / "d", "note", ["-"] * 12))
    assert "sound like" not in shown and "looks like" not in shown
    assert "leaks" not in json.loads((tmp_path / "d/run/store/summary.json").read_text())


@pytest.fixture
def leaky(tmp_path) -> tuple[manifest.Manifest, Path]:
    csv = write(tmp_path / "d", "source", SHARED, twin=True)
    table = manifest.read(DataConfig(csv=csv))
    prepare(table, tmp_path / "store")
    return table, tmp_path / "store"


def test_a_large_store_is_heard_in_part(leaky, monkeypatch):
    clips = Store.open(leaky[1])
    heard = []
    samples = Store.samples
    monkeypatch.setattr(Store, "samples", lambda self, clip: heard.append(clip) or samples(self, clip))
    monkeypatch.setattr(leaks, "MOST_SECONDS", 18)
    found = leaks.near_duplicates(clips)
    assert set(heard) == {0, 2, 5, 8, 9, 10} and found["near_duplicates"]["all_heard"] is False
    assert leaks.lines(found, "store")[0].startswith("at least 1 of 4 val and test clips")


def test_a_damaged_summary_is_repaired_to_the_byte(leaky):
    table, store = leaky
    whole = (store / "summary.json").read_bytes()
    assert json.loads(whole)["leaks"].keys() == {"column", "near_duplicates"}
    (store / "summary.json").write_bytes(whole[:-9])
    assert repair(table, store) == ["summary.json"]
    assert (store / "summary.json").read_bytes() == whole


def test_the_summary_of_an_older_store_is_repaired_to_the_byte(leaky):
    table, store = leaky
    about = artefact.read_contents(store)
    summary = json.loads((store / "summary.json").read_text())
    del summary["leaks"]
    whole = json.dumps(summary, indent=1) + "\n"
    (store / "summary.json").write_text(whole)
    (store / "contents.json").unlink()
    artefact.seal(store, about)
    (store / "summary.json").write_text("{}")
    assert repair(table, store) == ["summary.json"] and (store / "summary.json").read_text() == whole
