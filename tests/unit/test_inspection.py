"""What `inspect` says of a store is true, for stores that are well, poor, odd and damaged."""

import dataclasses
import json
import shlex
import subprocess
import sys
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from beatline.audio.media import decode
from beatline.cli import main
from beatline.config import DataConfig
from beatline.core import artefact
from beatline.data import inspection, label_noise, manifest, measurements
from beatline.data.inspection import inspect, open_store
from beatline.data.inspection_page import console, page
from beatline.data.prepare import prepare
from beatline.data.store import Store
from tests.helpers.reports import Page
from tests.helpers.stores import copy_of, flip, refused

KINDS = ("speech", "bird", "train", "guitar", "water", "sawing", "thunder", "flute")
EVIL = "<script>alert(1)</script>"


def embedded(name: str) -> np.ndarray:
    """A clip of the embedded set that is not for test."""
    folder = Path(str(files("beatline"))) / "assets/mini-audioset/audio"
    (path,) = (*folder.glob(f"train_{name}.ogg"), *folder.glob(f"val_{name}.ogg"))
    return decode(path).samples / 32_768


def store_of(folder: Path, rows: list[str], keep: int | None = None) -> Path:
    """Prepares a store from the rows of a CSV beside which the audio lies, or from its first clips only."""
    (folder / "clips.csv").write_text("\n".join(["file,labels,split", *rows]) + "\n")
    table = manifest.read(DataConfig(csv=folder / "clips.csv", validation="given"))
    if keep is not None:
        splits = {name: tuple(i for i in some if i < keep) for name, some in table.splits.items()}
        table = dataclasses.replace(table, clips=table.clips[:keep], splits=splits, inputs=keep)
    prepare(table, folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """24 good clips among them one silent, two half empty and a copy across splits; three that are
    missing.
    """
    data = tmp_path_factory.mktemp("data")
    rows = []
    for i in range(20):
        rate = 16_000 if i % 2 else 44_100
        sound = embedded(f"{KINDS[i % 8]}_0{i // 8}")
        soundfile.write(
            data / f"{i}.wav", np.repeat(sound[:, None], 1 + i % 2, axis=1) if i % 3 else sound, rate
        )
        rows.append(
            f"{i}.wav,{KINDS[i % 8]}{';loud' if i < 5 else ''},"
            f"{'train' if i < 12 else 'val' if i < 14 else 'test'}"
        )
    soundfile.write(data / "silent.wav", np.zeros(16_000), 16_000)
    for name, share in (("half", 0.75), ("most", 0.9)):
        sound = 0.1 * np.random.default_rng(int(100 * share)).standard_normal(64_000)
        sound[int(len(sound) * (1 - share)) :] = 0
        soundfile.write(data / f"{name}.wav", sound, 16_000)
    soundfile.write(data / f"{EVIL.replace('/', '')}.wav", 0.3 * embedded("bird_00")[800:], 16_000)
    (data / "page.wav").write_bytes(b"<html></html>")
    rows += [
        "silent.wav,rare,train",
        "half.wav,rare,train",
        "most.wav,rare,test",
        f"{EVIL.replace('/', '')}.wav,bird,test",
        "page.wav,gone,train",
        "no.wav,gone;rare,train",
        "x.wav,,test",
    ]
    return store_of(data, rows)


@pytest.fixture(scope="module")
def found(folder) -> dict[str, Any]:
    return inspect(open_store(folder), {"bird": (10, 9), "loud": (10, 5), "speech": (0, 0)})


def test_counts_are_those_of_the_store(folder, found):
    store = Store.open(folder)
    assert (
        found["inputs"] == 27
        and found["clips"] == len(store.ids) == 24
        and found["content"] == store.about["content"]
    )
    assert found["hours"] == pytest.approx(store.lengths.sum() / 16_000 / 3600)
    assert {name: split["clips"] for name, split in found["splits"].items()} == {
        "train": 14,
        "val": 2,
        "test": 8,
    }
    for name, clips in store.splits.items():
        targets = store.targets(clips)
        assert found["splits"][name]["labels"] == targets.any(axis=0).sum() and found["splits"][name][
            "labels_per_clip"
        ] == pytest.approx(targets.sum() / len(clips))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_is_missing_is_named_by_reason_and_label(found):
    missing = found["missing"]
    assert {row["code"]: row["clips"] for row in missing["reasons"]} == {
        "not-audio": 1,
        "missing-file": 1,
        "no-label": 1,
    } and missing["clips"] == 3
    assert all(len(row["examples"]) == 1 for row in missing["reasons"]) and any(
        "page.wav" in row["examples"][0] for row in missing["reasons"]
    )
    first, second = found["labels"][:2]
    assert (first["name"], first["lost_share"], first["present"]) == ("gone", 1.0, 0) and (
        second["name"],
        second["lost"],
        second["lost_share"],
    ) == ("rare", 1, 0.25)
    assert [row["lost_share"] for row in found["labels"]] == sorted(
        (row["lost_share"] for row in found["labels"]), reverse=True
    )


def test_levels_and_formats_are_counted(found):
    formats = found["formats"]
    assert [(row["hertz"], row["clips"]) for row in formats["rate_in"]] == [(16_000, 14), (44_100, 10)]
    assert sum(row["clips"] for row in formats["channels_in"]) == 24 and {
        row["channels"] for row in formats["channels_in"]
    } == {1, 2}
    for key in ("seconds", "peak_db", "rms_db"):
        assert (
            sum(formats[key]["clips"]) == 24 and len(formats[key]["edges"]) == len(formats[key]["clips"]) + 1
        )
    assert (
        formats["peak_db"]["quantiles"]["0"] == inspection.LOWEST_DB
        and formats["seconds"]["quantiles"]["100"] == 4
    )


def test_silent_and_half_empty_clips_are_named(found):
    silence = found["silence"]
    assert (
        silence["silent"] == ["silent.wav"]
        and silence["quiet_below_db"] == -60
        and silence["frame_seconds"] == 0.02
    )
    empty = {row["clip"]: row["quiet"] for row in silence["half_empty"]}
    assert empty["most.wav"] >= 0.9 and empty["half.wav"] >= 0.75 and "silent.wav" not in empty
    assert list(empty.values()) == sorted(empty.values(), reverse=True) and min(empty.values()) >= 0.5


def test_a_copy_across_splits_is_found(found):
    copy = f"{EVIL.replace('/', '')}.wav"
    across = [row for row in found["duplicates"]["pairs"] if row["across"]]
    assert ["1.wav", copy] in [row["clips"] for row in across] and found["duplicates"]["across"] == len(
        across
    )
    assert found["duplicates"]["between"]["test and train"] >= 1
    assert found["duplicates"]["without_fingerprint"] == 1  # the silent one
    assert any({"1.wav", copy} <= set(group) for group in found["duplicates"]["groups"])


def test_labels_that_go_together_are_counted_as_by_hand(folder, found):
    store = Store.open(folder)
    targets = store.targets(np.arange(len(store.ids)))
    expected = {}
    for a, b in combinations(range(len(store.labels)), 2):
        if both := int((targets[:, a] * targets[:, b]).sum()):
            expected[store.labels.names[a], store.labels.names[b]] = (
                both,
                both * 24 / (targets[:, a].sum() * targets[:, b].sum()),
            )
    pairs = found["together"]
    assert {
        tuple(row["labels"]): (row["clips"], pytest.approx(row["lift"])) for row in pairs["by_count"]
    } == expected
    assert pairs["by_lift"] == []  # none on five clips
    assert pairs["labels_per_clip"] == pytest.approx(targets.sum() / 24)


def test_doubt_leaves_duplicates_out_and_states_chance(folder, found, monkeypatch):
    doubt = found["doubt"]
    assert doubt["compared"] == 24 and {row["name"] for row in doubt["labels"]} == {*KINDS, "loud", "rare"}
    bird = next(row for row in doubt["labels"] if row["name"] == "bird")
    assert bird["chance"] == pytest.approx(bird["clips"] / 24) and 0 <= bird["agreement"] <= 1
    assert doubt["rated"] == {
        "labels": 2,
        "wrong_share": pytest.approx((0.1 * bird["clips"] + 0.5 * 5) / (bird["clips"] + 5)),
    }
    monkeypatch.setattr(label_noise, "MOST_CLIPS", 10)
    assert inspect(open_store(folder))["doubt"]["compared"] == 10


def test_progress_counts_clips_and_threads_change_nothing(folder, found, monkeypatch):
    done = []
    monkeypatch.setattr(measurements, "WORKERS", 3)
    again = inspect(open_store(folder), {"bird": (10, 9), "loud": (10, 5), "speech": (0, 0)}, done.append)
    assert sum(done) == 24 and again == found


# --- to look at


def test_the_page_is_whole_and_asks_nobody(folder, found):
    content = page(found, open_store(folder).samples_of)
    parsed = Page(content)
    assert len(parsed.all("section")) == 8 and len(parsed.all("audio")) >= 2 and len(parsed.all("svg")) == 3
    sources = [attrs.get(name, "") for _, attrs in parsed.tags for name in ("src", "href", "xlink:href")]
    assert all(source.startswith(("data:", "#")) for source in sources if source)
    assert "<script>alert" not in content and "&lt;script&gt;alert(1)" in content
    words = " ".join(parsed.words)
    for expected in (
        "not-audio",
        "44100 Hz",
        "silent.wav",
        "Near-duplicates",
        "It is not a rate of errors",
        "% right, rated",
    ):
        assert expected in words
    assert len(Page(page(found)).all("audio")) == 0


def test_the_console_shows_each_part_and_obeys_nothing(found):
    text = console(found)
    for expected in (
        "24 of 27 inputs",
        "not-audio",
        "gone",
        "44100 Hz 10",
        "1 silent",
        "near-duplicate",
        "test and train",
        "people rated 2 of these labels again: 32.",
    ):
        assert expected in text
    bad = json.loads(json.dumps(found).replace("silent.wav", "a\\u001b[31m\\nb\\udcff.wav"))
    text = console(bad)
    assert "\\x1b[31m\\nb\\udcff.wav" in text and "\x1b" not in text
    text.encode()
    page(bad).encode()


# --- odd stores


def odd_stores(data: Path) -> dict[str, list[str]]:
    rng = np.random.default_rng(0)
    for i in range(4):
        soundfile.write(data / f"n{i}.wav", 0.1 * rng.standard_normal(16_000), 16_000)
        soundfile.write(data / f"z{i}.wav", np.zeros(16_000), 16_000)
    soundfile.write(data / "tiny.wav", 0.1 * np.ones(1700), 16_000)
    return {
        "no val": ["n0.wav,a,train", "n1.wav,b,train", "n2.wav,a;b,test"],
        "one clip": ["n0.wav,a,train", "n1.wav,b,test"],
        "one tiny clip": ["tiny.wav,a,train", "n1.wav,b,test"],
        "no clip": ["n0.wav,a,train", "n1.wav,b,test"],
        "all silent": [f"z{i}.wav,{'ab'[i % 2]},{'train' if i < 2 else 'test'}" for i in range(4)],
        "one label": [f"n{i}.wav,a,{'train' if i < 2 else 'test'}" for i in range(4)],
    }


@pytest.mark.parametrize(
    "kind", ["no val", "one clip", "one tiny clip", "no clip", "all silent", "one label"]
)
def test_odd_stores_are_inspected(tmp_path, kind):
    keep = 0 if kind == "no clip" else 1 if kind.startswith("one") and kind.endswith("clip") else None
    store = open_store(store_of(tmp_path, odd_stores(tmp_path)[kind], keep))
    found = inspect(store)
    assert keep is None or found["clips"] == keep
    json.dumps(found, allow_nan=False)
    console(found)
    Page(page(found, store.samples_of))
    if kind == "all silent":
        assert (
            len(found["silence"]["silent"]) == 4
            and found["duplicates"]["pairs"] == []
            and found["duplicates"]["without_fingerprint"] == 4
        )
    if kind == "one label":
        assert found["together"]["by_count"] == [] and found["doubt"]["labels"][0]["agreement"] == 1


# --- what is no store, or no longer


def test_what_is_no_store_is_said_to_be_none(tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music/song.txt").write_text("la")
    with artefact.publish(tmp_path / "scores", {"kind": "predictions"}) as partial:
        (partial / "x").write_text("1")
    assert "no such folder" in refused("missing-file", open_store, tmp_path / "nothing")
    for name in ("music", "scores"):
        message = refused("missing-file", open_store, tmp_path / name)
        assert "not a store" in message and "delete" not in message
    refused("missing-file", open_store, tmp_path / "music/song.txt")


def test_damage_is_one_line(folder, tmp_path, capsys):
    for number, name in enumerate(("contents.json", "clips.csv", "index.npy", "shard-00000.i16")):
        store = copy_of(folder, tmp_path / str(number))
        flip(store / name, 8000 if name.endswith(".i16") else 80)
        assert main(["inspect", str(store)]) == 4
        captured = capsys.readouterr()
        assert captured.out == "" and len(captured.err.splitlines()) == 1 and name in captured.err


def test_the_program(folder, tmp_path, capsys):
    quality = tmp_path / "qa.csv"
    quality.write_text("label_id,num_rated,num_true\nbird,10,9\n")
    assert (
        main(
            [
                "inspect",
                str(folder),
                "--json",
                "--html",
                str(tmp_path / "new/page.html"),
                "--quality",
                str(quality),
            ]
        )
        == 0
    )
    captured = capsys.readouterr()
    assert json.loads(captured.out)["doubt"]["rated"]["labels"] == 1 and "page.html" in captured.err
    Page((tmp_path / "new/page.html").read_text())
    assert main(["inspect", str(folder), "--html", str(tmp_path / "two.html")]) == 0
    assert "two.html" in capsys.readouterr().out
    for arguments, code in (
        ([], 2),
        ([str(folder), "x"], 2),
        ([str(folder), "--html"], 2),
        ([str(folder), "--html", str(tmp_path)], 5),
        ([str(folder), "--quality", "no.csv"], 3),
        (["no"], 3),
    ):
        assert main(["inspect", *arguments]) == code
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_reader_that_has_seen_enough_is_no_error(folder):
    program = f"{shlex.quote(sys.executable)} -m beatline inspect {shlex.quote(str(folder))} --json"
    done = subprocess.run(
        ["bash", "-c", f"{program} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert done.stdout == "141\n" and done.stderr == ""


def test_the_page_never_goes_into_the_store(folder, capsys):
    assert main(["inspect", str(folder), "--html", str(folder / "page.html")]) == 5
    assert "stay as it is" in capsys.readouterr().err
    Store.open(folder)
