"""The embedded set: a script makes its table, and nothing stands on two sides of its split."""

import csv
import importlib.util
import json
from itertools import combinations
from pathlib import Path
from types import ModuleType

import pytest

from beatline.cli import main

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "src/beatline/assets/mini-audioset/manifest.csv"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("split", ROOT / "recipes/mini/split.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_the_script_makes_of_all_clips(script):
    assert script.split(rows(ROOT / "recipes/mini/clips.csv")) == rows(TABLE)


def test_prepare_finds_nothing_on_two_sides(tmp_path, capsys):
    assert main(["prepare", "mini", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "429 clips (train 229, val 50, test 150)" in said and "share a value" not in said
    assert "leaks" not in json.loads((tmp_path / "store/summary.json").read_text()), said


def test_test_clips_are_those_of_before():
    before = [row for row in rows(ROOT / "recipes/mini/clips.csv") if row["split"] == "test"]
    now = [{name: row[name] for name in before[0]} for row in rows(TABLE) if row["split"] == "test"]
    assert len(now) == 150 and now == before


@pytest.mark.parametrize(("one", "other"), list(combinations(("train", "val", "test"), 2)))
def test_no_source_is_on_two_sides(script, one, other):
    def sounds(split: str) -> set[str]:
        sources = {name for row in rows(TABLE) if row["split"] == split for name in row["source"].split("|")}
        return sources | {script.NAME_OF.get(name, name) for name in sources}

    assert not sounds(one) & sounds(other)
