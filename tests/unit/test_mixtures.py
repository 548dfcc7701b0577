"""A clip may be made of several recordings: whatever shares any of them stays on one side of every split."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatline.config import DataConfig
from beatline.core.errors import UserError
from beatline.data import inspection, manifest
from beatline.data.manifest.recordings import groups_of, names_of
from beatline.data.prepare import prepare
from beatline.data.store import Store
from beatline.evaluate import labelled

HEAD = "file,labels,recording"


def read(folder: Path, lines: list[str], **data: object) -> manifest.Manifest:
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return manifest.read(DataConfig(csv=folder / "clips.csv", **data))


def sides(found: manifest.Manifest) -> list[set[str]]:
    """The recordings of each split."""
    return [
        {name for i in clips for name in names_of(found.clips[i].recording, str(found.clips[i].path))}
        for clips in found.splits.values()
    ]


@pytest.mark.parametrize(
    ("recording", "file", "names"),
    [
        ("a", "x.wav", ("a",)),
        ("a|b", "x.wav", ("a", "b")),
        (" a | b||a ", "x.wav", ("a", "b")),
        ("a|", "x.wav", ("a",)),
        ("|", "x.wav", ("|",)),
        ("take|1.wav", "/data/take|1.wav", ("take|1.wav",)),
    ],
)
def test_recordings_are_joined_by_bars_and_a_files_own_name_is_one(recording, file, names):
    assert names_of(recording, file) == names


def test_clips_that_a_mixture_links_are_a_group():
    groups = groups_of([["d"], ["b", "c"], ["a"], ["c", "a"], ["e", "d"], ["f"]])
    assert groups == ["d", "a", "a", "a", "d", "f"]


def test_the_order_of_clips_changes_no_group():
    clips = [[f"r{i * 7 % 20}", f"r{i * 11 % 20}"] for i in range(12)]
    groups, again = groups_of(clips), groups_of(clips[::-1])[::-1]
    assert groups == again and 1 < len(set(groups)) < 12
    shared = [(i, k) for i, k in combinations(range(12), 2) if set(clips[i]) & set(clips[k])]
    assert shared and all(groups[i] == groups[k] for i, k in shared)


def test_a_split_made_here_cuts_no_mixture_from_its_parts(tmp_path):
    lines = [HEAD] + [f"c{i}.wav,x,r{i // 2}" for i in range(40)]
    lines += [f"m{i}.wav,x,r{i}|r{i + 1}" for i in range(0, 20, 4)]
    found = read(tmp_path, lines, validation="clean")
    train, val, test = sides(found)
    assert all((train, val, test)) and not train & val and not train & test and not val & test


def test_the_clips_of_a_mixture_in_two_splits_are_an_error_that_names_the_recording(tmp_path):
    lines = [f"{HEAD},split", "a.wav,x,r1|r2,train", "b.wav,x,r3|r2,val", "c.wav,x,r4,test"]
    with pytest.raises(UserError, match=r"recording r2 is in train and in val.*a\.wav and b\.wav; 1 such"):
        read(tmp_path, lines)


def test_mixtures_of_other_recordings_may_stand_in_two_splits(tmp_path):
    lines = [f"{HEAD},split", "a.wav,x,r1|r2,train", "b.wav,x,r3|r4,val", "c.wav,x,r5,test"]
    assert [len(clips) for clips in read(tmp_path, lines).splits.values()] == [1, 1, 1]


def test_a_bar_in_the_name_of_a_file_joins_nothing(tmp_path):
    lines = ["file,labels,split", "song | left.wav,x,train", "song | right.wav,x,test"]
    assert [len(clips) for clips in read(tmp_path, lines).splits.values()] == [1, 0, 1]


def test_a_validation_list_names_a_recording_for_all_clips_it_is_in(tmp_path):
    lines = [
        f"{HEAD},split",
        "a.wav,x,r1|r2,train",
        "b.wav,x,r3,train",
        "c.wav,x,r4,test",
        "d.wav,x,r2,train",
    ]
    (tmp_path / "val.txt").write_text("r2\n")
    found = read(tmp_path, lines, validation_list=tmp_path / "val.txt")
    assert [found.clips[i].id for i in found.splits["val"]] == ["a.wav", "d.wav"]


@pytest.fixture
def store(tmp_path) -> Store:
    rng = np.random.default_rng(0)
    lines = [f"{HEAD},split"]
    for i, recording in enumerate(["r0", "r1", "r0|r1", "r2", "r3", "r4", "r5"]):
        soundfile.write(tmp_path / f"c{i}.wav", 0.1 * rng.standard_normal(4000), 16_000)
        lines.append(f"c{i}.wav,{'x' if i % 2 else 'y'},{recording},{'test' if i > 4 else 'train'}")
    prepare(read(tmp_path, lines), tmp_path / "store")
    return Store.open(tmp_path / "store")


def test_what_is_learned_from_a_store_holds_out_whole_groups(store):
    clips = labelled.of_store("store", store, store.splits["train"], "train")
    assert store.clip(2)["recording"] == "r0|r1"
    assert clips.recordings == ("r0", "r0", "r0", "r2", "r3")
    parts = labelled.folds(clips.recordings, clips.targets, 3)
    assert len(set(parts[:3])) == 1 and len(set(parts)) == 3


def test_an_inspection_counts_no_part_of_a_mixture_as_its_neighbour(store, monkeypatch):
    told = []
    agreement = inspection.label_noise.agreement
    monkeypatch.setattr(
        inspection.label_noise, "agreement", lambda *given: told.append(given[2]) or agreement(*given)
    )
    inspection.inspect(store)
    together = told[0].tolist()
    assert together[0] == together[1] == together[2] and len(set(together)) == 5
