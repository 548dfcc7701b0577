"""Data sets by name: the publisher's own layout gives the official splits."""

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatline.config import DataConfig
from beatline.core.errors import UserError
from beatline.data import manifest
from beatline.data.manifest import Manifest, sets
from beatline.data.manifest.sets import esc50 as esc50_set
from beatline.data.manifest.sets.speech_commands_v1 import KEYWORDS, KS1_TEST
from beatline.data.prepare import prepare
from beatline.data.store import Store


def put(path: Path, seconds: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(round(seconds * 8000), np.float32), 8000, format="WAV")
    path.write_bytes(stream.getvalue())
    return path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(name: str, root: Path, **data: object) -> Manifest:
    found = manifest.read(DataConfig(dataset=name, root=root, **data))
    assert found.inputs == len(found.clips) + len(found.rejected)
    assert all(clip.path.exists() for clip in found.clips)
    return found


def ids(found: Manifest, split: str) -> list[str]:
    return [found.clips[i].id for i in found.splits[split]]


def refused(code: str, **data: object) -> str:
    with pytest.raises(UserError) as caught:
        manifest.read(DataConfig(**data))
    assert caught.value.code == code, caught.value
    return str(caught.value)


# --- folds


@pytest.fixture
def esc50(tmp_path):
    rows = [
        (f"{fold}-{source}-A-{target}.wav", fold, target, category, source)
        for fold in range(1, 6)
        for source, (target, category) in enumerate(
            [(36, "vacuum_cleaner"), (0, "dog"), (10, "rain")], fold * 100
        )
    ]
    write(
        tmp_path / "meta/esc50.csv",
        "filename,fold,target,category,esc10,src_file,take\n"
        + "".join(
            f"{file},{fold},{target},{category},True,{source},A\n"
            for file, fold, target, category, source in rows
        ),
    )
    for file, *_ in rows:
        put(tmp_path / "audio" / file)
    return tmp_path


def test_esc50_holds_out_a_fold(esc50):
    for fold in range(1, 6):
        found = read("esc50", esc50, fold=fold)
        assert (
            len(ids(found, "train")) == 12
            and ids(found, "test")
            == [f"{fold}-{fold}00-A-36.wav", f"{fold}-{fold}01-A-0.wav", f"{fold}-{fold}02-A-10.wav"]
            and ids(found, "val") == []
        )
        assert found.labels.mids == ("dog", "rain", "vacuum_cleaner") and found.clips[0].recording == "100"
    assert found.notices == ("ESC-50: 15 of 2000 published clips are here",)
    assert len(ids(read("esc50", esc50, fold=1, validation="clean", validation_fraction=0.25), "val")) == 3


def test_esc50_with_missing_files_and_bad_rows(esc50):
    (esc50 / "audio/1-100-A-36.wav").unlink()
    with (esc50 / "meta/esc50.csv").open("a") as file:
        file.write(
            "../../etc/passwd,2,0,dog,True,9,A\n/etc/passwd,2,0,dog,True,9,A\nx.wav,6,0,dog,True,9,A\ny.wav\n"
        )
    found = read("esc50", esc50, fold=1)
    assert [(r.input, r.code) for r in found.rejected] == [
        ("1-100-A-36.wav", "missing-file"),
        ("../../etc/passwd", "unsafe-path"),
        ("/etc/passwd", "unsafe-path"),
        ("x.wav", "bad-row"),
        ("y.wav", "bad-row"),
    ]
    assert found.notices == ("ESC-50: 14 of 2000 published clips are here",)


def test_a_name_that_is_too_long_for_the_disk_costs_its_row(esc50):
    name = "x" * 300 + ".wav"
    with (esc50 / "meta/esc50.csv").open("a") as table:
        table.write(f"{name},1,0,dog,True,999,A\n")
    assert [(r.input, r.code) for r in read("esc50", esc50, fold=1).rejected] == [(name, "missing-file")]


def test_a_full_copy_gives_no_notice(esc50, monkeypatch):
    monkeypatch.setattr(esc50_set, "DATA_SET", replace(esc50_set.DATA_SET, clips=15))
    assert read("esc50", esc50, fold=1).notices == ()


def test_what_a_data_set_by_name_needs(esc50):
    assert "1 to 5" in refused("bad-config", dataset="esc50", root=esc50)
    assert "1 to 5" in refused("bad-config", dataset="esc50", root=esc50, fold=6)
    assert "no folds" in refused("bad-config", dataset="fsd50k", root=esc50, fold=1)
    assert "data.root" in refused("bad-config", dataset="esc50", fold=1)
    assert "esc50.csv" in refused("missing-file", dataset="esc50", root=esc50 / "audio", fold=1)
    assert "did you mean esc50?" in refused("bad-config", dataset="esc5", root=esc50)
    refused("bad-config", root=esc50)
    refused("bad-config", dataset="esc50", root=esc50, fold=1, csv=esc50)
    (esc50 / "meta/esc50.csv").write_text("a,b\n")
    assert "no column filename" in refused("bad-table", dataset="esc50", root=esc50, fold=1)


def test_urbansound8k_holds_out_a_fold(tmp_path):
    lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold in range(1, 11):
        for number, name in ((3, "dog_bark"), (0, "air_conditioner")):
            lines.append(f"{fold}0-{number}-0-0.wav,{fold}{number},0.0,1.0,1,{fold},{number},{name}")
            put(tmp_path / f"audio/fold{fold}/{fold}0-{number}-0-0.wav")
    lines.append("a.wav,1,0,1,1,../..,3,dog_bark")
    write(tmp_path / "metadata/UrbanSound8K.csv", "\n".join(lines))
    found = read("urbansound8k", tmp_path, fold=10)
    assert ids(found, "test") == ["100-3-0-0.wav", "100-0-0-0.wav"] and len(ids(found, "train")) == 18
    assert found.labels.mids == ("air_conditioner", "dog_bark") and [r.code for r in found.rejected] == [
        "bad-row"
    ]
    (tmp_path / "audio").rename(tmp_path / "elsewhere")
    for fold in range(1, 11):  # as Kaggle packs it: folds beside the table
        (tmp_path / f"elsewhere/fold{fold}").rename(tmp_path / f"fold{fold}")
    assert len(read("urbansound8k", tmp_path, fold=1).clips) == 20


def test_a_recording_in_two_folds_is_an_error(esc50):
    path = esc50 / "meta/esc50.csv"
    path.write_text(path.read_text().replace(",200,", ",100,"))
    assert "recording 100" in refused("split-overlap", dataset="esc50", root=esc50, fold=1)


# --- fixed splits


def test_fsd50k_has_its_vocabulary_and_its_splits(tmp_path):
    truth = tmp_path / "FSD50K.ground_truth"
    write(truth / "vocabulary.csv", "0,Bark,/m/05tny_\n1,Dog,/m/0bt9lr\n2,Rain,/m/06mb1\n")
    write(
        truth / "dev.csv",
        'fname,labels,mids,split\n64760,"Bark,Dog","/m/05tny_,/m/0bt9lr",train\n16399,Rain,/m/06mb1,val\n1,Rain,/m/06mb1,nowhere\n../2,Rain,/m/06mb1,train\n3,Rain,/m/none,train\n4,Rain,/m/06mb1,train\n',
    )
    write(truth / "eval.csv", 'fname,labels,mids\n37199,"Dog","/m/0bt9lr"\n')
    for name in ("dev_audio/64760", "dev_audio/16399", "dev_audio/3", "eval_audio/37199"):
        put(tmp_path / f"FSD50K.{name}.wav")
    found = read("fsd50k", tmp_path)
    assert {split: ids(found, split) for split in found.splits} == {
        "train": ["64760"],
        "val": ["16399"],
        "test": ["37199"],
    }
    assert (
        found.labels.mids == ("/m/05tny_", "/m/0bt9lr", "/m/06mb1")
        and found.labels.names == ("Bark", "Dog", "Rain")
        and found.clips[0].labels == ("/m/05tny_", "/m/0bt9lr")
    )
    assert [(r.input, r.code) for r in found.rejected] == [
        ("1", "bad-row"),
        ("../2", "unsafe-path"),
        ("3", "unknown-label"),
        ("4", "missing-file"),
    ]
    assert found.notices == ("FSD50K: 4 of 51197 published clips are here",)


@pytest.fixture
def commands(tmp_path):
    root = tmp_path / "v"
    for word in ("yes", "no", "bed", "marvin"):
        for speaker in ("aaaa", "bbbb", "cccc"):
            put(root / word / f"{speaker}_nohash_0.wav")
    write(
        root / "validation_list.txt",
        "".join(f"{word}/bbbb_nohash_0.wav\n" for word in ("yes", "no", "bed", "marvin")),
    )
    write(
        root / "testing_list.txt",
        "".join(f"{word}/cccc_nohash_0.wav\n" for word in ("yes", "no", "bed", "marvin", "cat"))
        + "../x/y.wav\n",
    )
    for noise, seconds in (("a", 2.5), ("b", 3.0), ("c", 1.2), ("d", 0.5)):
        put(root / f"_background_noise_/{noise}.wav", seconds)
    write(root / "_background_noise_/README.md", "x")
    return root


def test_speech_commands_v2_is_ks2_with_every_word_a_class(commands):
    found = read("speech-commands-v2", commands)
    assert {split: len(ids(found, split)) for split in found.splits} == {"train": 4, "val": 4, "test": 4}
    assert found.labels.mids == ("bed", "cat", "marvin", "no", "yes") and [
        (r.input, r.code) for r in found.rejected
    ] == [("cat/cccc_nohash_0.wav", "missing-file")]
    assert "12 of 105829" in found.notices[0]


def test_speech_commands_v1_is_ks1_with_unknown_words_and_silence(commands):
    found = read("speech-commands-v1", commands)
    assert found.labels.mids == (*KEYWORDS, "_silence_", "_unknown_") and len(found.labels) == 12
    counts = {split: Counter(found.clips[i].labels[0] for i in some) for split, some in found.splits.items()}
    assert counts == {
        "train": {"yes": 1, "no": 1, "_unknown_": 2, "_silence_": 1},
        "val": {"yes": 1, "no": 1, "_unknown_": 2, "_silence_": 2},
        "test": {"yes": 1, "no": 1, "_unknown_": 2, "_silence_": 3},
    }
    silence = [clip for clip in found.clips if clip.labels == ("_silence_",)]
    assert [(clip.recording, clip.start, clip.end) for clip in silence[:2]] == [
        ("_background_noise_/a.wav", 0.0, 1.0),
        ("_background_noise_/a.wav", 1.0, 2.0),
    ]


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_the_official_test_set_of_ks1_is_used_where_it_is(commands, place):
    official = (commands if place == "inside" else commands.parent) / KS1_TEST
    for label in ("yes", "no", "_silence_", "_unknown_"):
        put(official / label / "x.wav")
    found = read("speech-commands-v1", commands)
    assert ids(found, "test") == [f"test/{label}/x.wav" for label in ("_silence_", "_unknown_", "no", "yes")]
    assert (
        not any("cccc" in clip.id for clip in found.clips)
        and Counter(found.clips[i].labels[0] for i in found.splits["train"])["_silence_"] == 4
    )
    assert "8 of 64727" in found.notices[0]


def test_vggsound_finds_its_clips_in_any_layout(tmp_path):
    lines = [
        "---g-f_I2yQ,1,people marching,test",
        "--0PQM4-hqg,30,waterfall burbling,train",
        "--56QUhyDQM,185,playing tennis,train",
        '-0jeONf82dE,21,"pigeon, dove cooing",test',
        "--0PQM4-hqg,90,playing tennis,train",
        "-0jeONf82dE,99,playing tennis,train",
        "short,1,x,train",
        "--7777777-7,1,x,dev",
        "--8888888-8,5,playing tennis,train",
    ]
    write(tmp_path / "data/vggsound.csv", "\n".join(lines) + "\n")
    for name in ("---g-f_I2yQ_000001", "--0PQM4-hqg_000030", "--0PQM4-hqg_000090"):
        put(tmp_path / f"video/{name}.wav")
    put(tmp_path / "whole/--56QUhyDQM.wav", 200.0)
    put(tmp_path / "whole/-0jeONf82dE.wav", 10.0)
    found = read("vggsound", tmp_path)
    assert ids(found, "train") == ["--0PQM4-hqg_30", "--56QUhyDQM_185", "--0PQM4-hqg_90"] and ids(
        found, "test"
    ) == ["---g-f_I2yQ_1", "-0jeONf82dE_21"]
    assert [(clip.start, clip.end) for clip in found.clips] == [
        (0.0, None),
        (0.0, None),
        (185.0, 195.0),
        (0.0, None),
        (0.0, None),
    ]
    assert found.clips[3].labels == ("pigeon, dove cooing",)
    assert [(r.input, r.code) for r in found.rejected] == [
        ("-0jeONf82dE_99", "split-overlap"),
        ("vggsound.csv line 7", "bad-row"),
        ("vggsound.csv line 8", "bad-row"),
        ("--8888888-8_5", "missing-file"),
    ]
    assert found.notices[0].startswith("VGGSound: 9 of 199176")
    (tmp_path / "data/vggsound.csv").unlink()
    assert "vggsound.csv" in refused("missing-file", dataset="vggsound", root=tmp_path)


# --- a new one


TOY = '''
"""A data set that beatline does not know: `list.txt` with a file, a label and a split on each line."""

from beatline.core.labels import LabelSet
from beatline.data.manifest.named import DataSet, Found, plain_file
from beatline.data.manifest.rows import Row


def read(root, fold):
    lines = [line.split() for line in (root / "list.txt").read_text().splitlines()]
    rows = []
    for name, label, split in lines:
        path, problem = plain_file(root, name)
        rows.append(Row(name, path, name, [label], (split,), problem=problem))
    return Found(rows=rows, labels=LabelSet.from_names(sorted({label for _, label, _ in lines})))


DATA_SET = DataSet(title="Toy sounds", clips=3, read=read)
'''


def test_the_folder_is_the_registry():
    assert sets.names() == (
        "esc50",
        "fsd50k",
        "speech-commands-v1",
        "speech-commands-v2",
        "urbansound8k",
        "vggsound",
    )


def test_a_new_data_set_is_one_file(tmp_path, monkeypatch):
    write(tmp_path / "more/toy_sounds.py", TOY)
    monkeypatch.setattr(sets, "__path__", [*sets.__path__, str(tmp_path / "more")])
    write(tmp_path / "copy/list.txt", "a.wav Dog train\nb.wav Cat test\n../c.wav Cat test\n")
    for name in "ab":
        put(tmp_path / f"copy/{name}.wav", 1.0)
    found = read("toy-sounds", tmp_path / "copy")
    assert "toy-sounds" in sets.names() and "did you mean toy-sounds?" in refused(
        "bad-config", dataset="toy-sound", root=tmp_path
    )
    assert ids(found, "train") == ["a.wav"] and found.labels.names == ("Cat", "Dog")
    assert [(r.input, r.code) for r in found.rejected] == [("../c.wav", "unsafe-path")]
    assert found.notices == ("Toy sounds: 2 of 3 published clips are here",)
    summary = prepare(found, tmp_path / "store")
    assert (summary["ok"], summary["rejected"]) == (2, {"unsafe-path": 1})
    assert Store.open(tmp_path / "store").ids[0] == "a.wav"
