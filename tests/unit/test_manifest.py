"""Every form of data becomes the same kind of table, and every input is accounted for."""

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from beatline.audio import media
from beatline.config import DataConfig
from beatline.core.errors import UserError
from beatline.core.labels import audioset
from beatline.data import manifest
from beatline.data.manifest import Clip, Manifest, carve

# Excerpts of the official AudioSet CSVs (CC BY 4.0), header lines with their own counts.
TRAIN = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=4, num_segs=4, num_unique_labels=5, num_positive_labels=6
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
--ZhevVpy1s, 50.000, 60.000, "/m/012xff"
--aE2O5G5WE, 0.000, 10.000, "/m/03fwl,/m/04rlf,/m/09x0r"
--aO5cdqSAg, 30.000, 40.000, "/t/dd00003,/t/dd00005"
"""
EVAL = "# a comment\n# num_ytids=29, num_segs=29\n# another\n" + "".join(
    f'{"-" * 4}eval{i:03d}, 0.000, 10.000, "/m/068hy,/m/07q6cd_"\n' for i in range(29)
)


def check(table: Manifest) -> Manifest:
    """What must hold of every manifest."""
    assert table.inputs == len(table.clips) + len(table.rejected)
    assert len({clip.id for clip in table.clips}) == len(table.clips)
    assert all(clip.labels and set(clip.labels) <= set(table.labels.mids) for clip in table.clips)
    assert set(table.splits) == {"train", "val", "test"}
    train, val, test = (set(table.splits[name]) for name in ("train", "val", "test"))
    assert not train & (val | test) and train | val | test == set(range(len(table.clips)))
    assert list(table.splits["train"]) == sorted(train)
    return table


def columns(clips: list[Clip]) -> tuple[list[str], list[tuple[str, ...]]]:
    return [clip.recording for clip in clips], [clip.labels for clip in clips]


def ids(table: Manifest, split: str) -> list[str]:
    return [table.clips[i].id for i in table.splits[split]]


def codes(table: Manifest) -> dict[str, str]:
    return {r.input: r.code for r in table.rejected}


def refused(code: str, **data: object) -> str:
    with pytest.raises(UserError) as caught:
        manifest.read(DataConfig(**data))
    assert caught.value.code == code, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def table(tmp_path: Path, text: str, **data: object) -> Manifest:
    (tmp_path / "clips.csv").write_text(text, newline="")
    return check(manifest.read(DataConfig(csv=tmp_path / "clips.csv", **data)))


# --- AudioSet


@pytest.fixture
def audioset_folder(tmp_path):
    (tmp_path / "balanced_train_segments.csv").write_text(TRAIN)
    (tmp_path / "eval_segments.csv").write_text(EVAL)
    for folder, names in (
        (
            "balance_wav",
            ["--PJHxphWEs.wav", "--aE2O5G5WE.flac", "--aO5cdqSAg.mp3", "--aO5cdqSAg.wav", "other.txt"],
        ),
        ("eval_wav", [f"----eval{i:03d}.wav" for i in range(29) if i != 1]),
    ):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    return tmp_path


def test_audioset_ids_count_csv_rows_from_zero_with_gaps_where_audio_is_missing(audioset_folder):
    found = check(manifest.read(DataConfig(audioset=audioset_folder, validation="inside-eval")))
    assert ids(found, "train") == ["as20k-train-0", "as20k-train-2", "as20k-train-3"]
    assert [found.clips[i].path.name for i in found.splits["train"]] == [
        "--PJHxphWEs.wav",
        "--aE2O5G5WE.flac",
        "--aO5cdqSAg.wav",
    ]
    assert found.clips[0] == Clip(
        "as20k-train-0",
        "--PJHxphWEs",
        audioset_folder / "balance_wav/--PJHxphWEs.wav",
        ("/m/09x0r", "/t/dd00088"),
    )
    assert found.labels is audioset() and found.inputs == 33
    assert codes(found) == {"as20k-train-1": "missing-file", "as20k-eval-1": "missing-file"}
    assert found.rejected[0].labels == ("/m/012xff",) and found.rejected[0].split == "train"


def test_validation_inside_eval_is_the_first_tenth_of_the_csv_not_of_the_audio(audioset_folder):
    found = check(manifest.read(DataConfig(audioset=audioset_folder, validation="inside-eval")))
    assert ids(found, "val") == ["as20k-eval-0"]  # rows 0 and 1, of which 1 has no audio
    assert len(ids(found, "test")) == 28 and "as20k-eval-0" in ids(found, "test") and "leaks" in found.val


def test_audioset_with_a_clean_validation(audioset_folder):
    assert "last clip of a label" in refused("no-clips", audioset=audioset_folder, validation="clean")
    path = audioset_folder / "balanced_train_segments.csv"
    path.write_text(path.read_text().replace("/m/09x0r,/t/dd00088", "/m/09x0r"))
    found = check(
        manifest.read(DataConfig(audioset=audioset_folder, validation="clean", validation_fraction=0.3))
    )
    assert (
        len(ids(found, "val")) == 1
        and ids(found, "val")[0].startswith("as20k-train-")
        and "disjoint" in found.val
    )
    none = check(manifest.read(DataConfig(audioset=audioset_folder)))
    assert ids(none, "val") == [] and none.val == "none"


def test_segment_csvs_elsewhere_and_audio_nowhere(audioset_folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    assert "the audio of none is below it; put it there as it is" in refused(
        "no-clips", audioset=empty, audioset_csv=audioset_folder
    )
    (empty / "x.tar").write_bytes(b"nothing")
    assert "below it (x.tar: it " in refused("no-clips", audioset=empty, audioset_csv=audioset_folder)
    (empty / "x.tar").unlink()
    assert "balanced_train_segments.csv" in refused("missing-file", audioset=empty)


def test_a_segment_csv_cut_short_is_noticed(audioset_folder):
    path = audioset_folder / "eval_segments.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-5]))
    assert "states 29 clips, it has 24" in refused("bad-table", audioset=audioset_folder)


def test_bad_segment_rows_are_rejected_one_by_one_and_shift_no_number(audioset_folder):
    bad = [
        'short, 0.0, 10.0, "/m/09x0r"',
        '../../etc/p, 0.0, 10.0, "/m/09x0r"',
        '--PJHxphWEs, 10.0, 0.0, "/m/09x0r"',
        '--PJHxphWEs, nan, inf, "/m/09x0r"',
        "--PJHxphWEs, 0.0",
        '--PJHxphWEs, 0.0, 10.0, "/m/09x0r',
        ",",
        '--PJHxphWEs, 0.0, 10.0, "/m/nothing"',
        '--aE2O5G5WE, 0.000, 10.000, ""',
    ]
    good = '--aE2O5G5WE, 0.000, 10.000, "/m/09x0r"'
    (audioset_folder / "balanced_train_segments.csv").write_text(
        "\ufeff" + "\r\n".join([*bad, good]) + "\r\n"
    )
    found = check(manifest.read(DataConfig(audioset=audioset_folder)))
    assert ids(found, "train") == [
        "as20k-train-5",
        "as20k-train-9",
    ]  # an unclosed quote is the row's own business
    assert {i: found for i, found in codes(found).items() if "train" in i} == {
        f"as20k-train-{i}": code
        for i, code in zip(
            [0, 1, 2, 3, 4, 6, 7, 8], ["bad-row"] * 6 + ["unknown-label", "no-label"], strict=True
        )
    }


def test_a_recording_in_train_and_eval_is_an_error(audioset_folder):
    path = audioset_folder / "eval_segments.csv"
    path.write_text(path.read_text().replace("----eval007", "--PJHxphWEs"))
    (audioset_folder / "eval_wav/--PJHxphWEs.wav").touch()
    assert "recording --PJHxphWEs" in refused("split-overlap", audioset=audioset_folder)


# --- CSV


def test_a_csv_with_splits(tmp_path):
    found = table(
        tmp_path,
        "file,labels,split,extra\na.wav,x;y,train,1\nsub/b.wav,y,valid,2\n/abs/c.wav, y ; x ,eval,3\n",
    )
    assert found.labels.mids == ("x", "y")
    assert found.clips[0] == Clip("a.wav", "a.wav", tmp_path / "a.wav", ("x", "y"))
    assert found.clips[2].path == Path("/abs/c.wav") and found.clips[2].labels == ("y", "x")
    assert {name: ids(found, name) for name in found.splits} == {
        "train": ["a.wav"],
        "val": ["sub/b.wav"],
        "test": ["/abs/c.wav"],
    }
    assert found.val == "as the data gives it; disjoint from test" and found.root == tmp_path


def test_byte_order_mark_crlf_quotes_and_blank_lines_are_fine(tmp_path):
    found = table(
        tmp_path,
        '\ufeffFile, Labels ,Split\r\n"a, b.wav","Male speech, man '
        'speaking;Dog",train\r\n\r\nb.wav,Dog,test\r\n',
    )
    assert found.clips[0].id == "a, b.wav" and found.labels is audioset()
    assert found.clips[0].labels == ("/m/05zppz", "/m/0bt9lr")


def test_the_label_table_given_beside_audioset_or_found(tmp_path):
    rows = "file,labels,split\na.wav,/m/09x0r;Dog,train\nb.wav,Dog,test\n"
    assert table(tmp_path, rows).labels is audioset()
    assert table(tmp_path, rows.replace("Dog", "Dog of mine")).labels.mids == ("/m/09x0r", "Dog of mine")
    (tmp_path / "classes.csv").write_text("mid,display_name\nd,Dog\n/m/09x0r,Talk\n")
    assert table(tmp_path, rows).labels.mids == ("d", "/m/09x0r")
    assert table(tmp_path, rows).clips[0].labels == ("/m/09x0r", "d")
    (tmp_path / "other.csv").write_text("index,mid,display_name\n0,d,Dog\n")
    found = table(tmp_path, rows + "c.wav,Dog,train\n", labels=tmp_path / "other.csv")
    assert (
        found.rejected[0].code == "unknown-label"
        and "'/m/09x0r'" in found.rejected[0].reason
        and found.rejected[0].labels == ("d",)
    )


def test_bad_rows_are_rejected_and_the_rest_stays(tmp_path):
    found = table(
        tmp_path,
        "file,labels,split,id,start,end\na.wav,x,train,1,,\nb.wav,x,test,2,0.5,1.5\n"  # good
        "c.wav,x,train,1,,\n,x,train,,,\nd.wav,,train,3,,\nd.wav,;,train,4,,\ne.wav,x,nowhere,5,,\nf.wav,x,,6,,\n"
        "g.wav,x,train,7,2,1\ng.wav,x,train,8,-1,1\ng.wav,x,train,9,nan,\ng.wav,x,train,10,0,inf\ng.wav,x,train,11,one,\ng.wav,x,train,12,1e999,\n"
        "h.wav,x\ni.wav,x,train,13,,,,\nnul\0.wav,x,train,14,,\n",
    )
    assert [clip.id for clip in found.clips] == ["1", "2"] and (found.clips[1].start, found.clips[1].end) == (
        0.5,
        1.5,
    )
    assert [(r.input, r.code) for r in found.rejected] == [
        ("1", "duplicate-id"),
        ("clips.csv line 5", "bad-row"),
        ("3", "no-label"),
        ("4", "no-label"),
        ("5", "bad-row"),
        ("6", "bad-row"),
        *((str(i), "bad-row") for i in range(7, 13)),
        ("clips.csv line 16", "bad-row"),
        ("clips.csv line 17", "bad-row"),
        ("14", "bad-row"),
    ]


def test_a_table_reaches_nothing_above_its_folder_but_what_it_names_in_full(tmp_path):
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (inside / "link").symlink_to(tmp_path / "out")
    (inside / "cache.wav").symlink_to(tmp_path / "out/blob")
    rows = [
        "../a.wav",
        "sub/../../a.wav",
        "link/../a.wav",
        "sub/../a.wav",
        "link/a.wav",
        "cache.wav",
        str(tmp_path / "a.wav"),
        "..",
        "....wav",
        "a..b.wav",
    ]
    found = table(inside, "file,labels\n" + "".join(f"{row},x\n" for row in rows))
    assert codes(found) == {
        "../a.wav": "unsafe-path",
        "sub/../../a.wav": "unsafe-path",
        "link/../a.wav": "unsafe-path",
        "..": "unsafe-path",
    }
    scp = "".join(f"u{i} {row}\n" for i, row in enumerate(rows))
    folder = kaldi(
        tmp_path / "k",
        train=(scp, "".join(f"u{i} x\n" for i in range(len(rows)))),
        test=("t t.wav\n", "t x\n"),
    )
    found = check(manifest.read(DataConfig(kaldi=folder)))
    assert {name for name, code in codes(found).items() if code == "unsafe-path"} >= {"u0", "u1", "u7"}


def test_excerpts_of_one_file_are_clips_of_one_recording(tmp_path):
    rows = (
        "file,labels,split,start,end\n"
        "a.wav,x,train,0,1\na.wav,x,train,1,2\n./a.wav,x,train,2,\nb.wav,x,test,,\n"
    )
    found = table(tmp_path, rows)
    assert [clip.id for clip in found.clips] == ["a.wav@0-1", "a.wav@1-2", "./a.wav@2-", "b.wav"]
    assert {clip.recording for clip in found.clips} == {"a.wav", "b.wav"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.wav,x,test,r2", "a.wav"),
        ("./sub/../a.wav,x,test,r2", "a.wav"),
        ("link.wav,x,test,r2", "a.wav"),
        ("linked/a.wav,x,test,r2", "a.wav"),
        ("b.wav,x,test,r1", "recording r1"),
        ("b.wav,x,val,r1", "recording r1"),
    ],
)
def test_one_recording_or_file_on_two_sides_is_an_error(tmp_path, row, words):
    (tmp_path / "a.wav").touch()
    (tmp_path / "link.wav").symlink_to(tmp_path / "a.wav")
    (tmp_path / "linked").symlink_to(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "clips.csv").write_text(
        f"file,labels,split,recording\na.wav,x,train,r1\n{row}\nz.wav,x,test,r9\n"
    )
    assert words in refused("split-overlap", csv=tmp_path / "clips.csv")


def test_val_inside_test_only_under_the_recipes_rule(tmp_path):
    rows = "file,labels,split,id\na.wav,x,train,1\nb.wav,x,val,2\nb.wav,x,test,3\n"
    (tmp_path / "clips.csv").write_text(rows)
    refused("split-overlap", csv=tmp_path / "clips.csv")
    assert ids(table(tmp_path, rows, validation="inside-eval"), "val") == ["2"]
    (tmp_path / "clips.csv").write_text(rows.replace("val", "train"))
    refused("bad-config", csv=tmp_path / "clips.csv", validation="inside-eval")
    (tmp_path / "clips.csv").write_text(rows)
    refused("bad-config", csv=tmp_path / "clips.csv", validation="clean")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "bad-table"),
        (b"a,b\n1,2\n", "bad-table"),
        (b"file\nx.wav\n", "bad-table"),
        (b"file,labels\n", "no-clips"),
        (b"file,labels,split\na.wav,x,train\n", "no-clips"),
        (b"file,labels\n\xff\xfe.wav,x\n", "bad-table"),
        ("file,labels\na.wav,x\n".encode("utf-16"), "bad-table"),
        (b'file,labels\n"a.wav,x\n', "bad-table"),
        (b"file,labels\n" + b"x" * 200_000, "bad-table"),
    ],
)
def test_tables_that_are_none(tmp_path, content, code):
    (tmp_path / "clips.csv").write_bytes(content)
    assert str(tmp_path) in refused(code, csv=tmp_path / "clips.csv")


def test_tables_that_are_no_files(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    refused("not-a-file", csv=tmp_path / "fifo")
    refused("not-a-file", csv=tmp_path)
    refused("missing-file", csv=tmp_path / "none.csv")
    refused("bad-config")
    monkeypatch.setattr(manifest.table, "LIMITS", type(manifest.table.LIMITS)(max_table_bytes=10))
    (tmp_path / "clips.csv").write_text("file,labels\n")
    assert "larger than 10 bytes" in refused("bad-table", csv=tmp_path / "clips.csv")


def test_the_embedded_data_set():
    found = check(manifest.read(DataConfig(csv=Path("mini"))))
    assert {name: len(clips) for name, clips in found.splits.items()} == {
        "train": 229,
        "val": 50,
        "test": 150,
    }
    assert found.inputs == 429 and not found.rejected and len(found.labels) == 25
    assert all(clip.path.is_file() for clip in found.clips)
    labels = {
        name: {label for i in clips for label in found.clips[i].labels}
        for name, clips in found.splits.items()
    }
    assert len(labels["train"]) == len(labels["test"]) == 25 and len(labels["val"]) == 20


# --- splits made here


def test_data_without_splits_gets_stratified_ones_that_no_order_changes(tmp_path):
    lines = [f"r{i // 2}_{i % 2}.wav,{'common' if i % 10 else 'rare'},r{i // 2}" for i in range(200)]
    head = "file,labels,recording\n"
    found = table(tmp_path, head + "\n".join(lines) + "\n", test_fraction=0.2, validation_fraction=0.1)
    sizes = {name: len(some) for name, some in found.splits.items()}
    assert sizes["test"] == pytest.approx(40, abs=6) and sizes["val"] == pytest.approx(16, abs=4)
    for name, least in (("train", 10), ("val", 1), ("test", 3)):
        assert Counter(label for i in found.splits[name] for label in found.clips[i].labels)["rare"] >= least
    again = table(
        tmp_path, head + "\n".join(reversed(lines)) + "\n", test_fraction=0.2, validation_fraction=0.1
    )
    assert {name: set(ids(again, name)) for name in again.splits} == {
        name: set(ids(found, name)) for name in found.splits
    }
    other = table(
        tmp_path, head + "\n".join(lines) + "\n", test_fraction=0.2, validation_fraction=0.1, split_seed=1
    )
    assert set(ids(other, "test")) != set(ids(found, "test"))


def test_carving_keeps_at_least_one_recording_of_every_label():
    clips = [Clip(str(i), f"r{i}", Path(), tuple({f"l{i % 30}", f"l{(i * 7) % 30}"})) for i in range(90)]
    clips += [Clip("only", "r-only", Path(), ("once",))]
    for share in (0.0, 0.05, 0.3, 0.7, 0.99, 1.0):
        kept, taken = carve(*columns(clips), range(len(clips)), share, seed=3)
        assert sorted(kept + taken) == list(range(len(clips)))
        assert {label for i in kept for label in clips[i].labels} == {
            label for clip in clips for label in clip.labels
        }
        assert 90 in kept
        assert len(taken) == pytest.approx(share * len(clips), abs=0.1 * len(clips)) or share > 0.6
        assert bool(taken) == (share > 0)


def test_every_label_of_a_clean_split_is_within_a_clip_or_two_of_its_share():
    draw = random.Random(0)
    mids = audioset().mids
    weights = [1 / (rank + 1) for rank in range(len(mids))]  # about as unequal as AudioSet's
    clips = [
        Clip(
            str(i),
            f"r{i}",
            Path(),
            tuple({*draw.choices(mids, weights, k=draw.randint(1, 4)), mids[i % 527]}),
        )
        for i in range(4000)
    ]
    total = Counter(mid for clip in clips for mid in clip.labels)
    for share in (0.1, 0.3):
        taken = carve(*columns(clips), range(len(clips)), share, seed=0)[1]
        val = Counter(mid for i in taken for mid in clips[i].labels)
        assert all(
            abs(val[mid] - share * count) < 2 or abs(val[mid] / count - share) < 0.01
            for mid, count in total.items()
        )
        assert len(taken) == pytest.approx(share * len(clips), rel=0.1)
        mixed = draw.sample(range(len(clips)), len(clips))
        assert {clips[i].id for i in carve(*columns(clips), mixed, share, seed=0)[1]} == {
            clips[i].id for i in taken
        }


def test_carving_moves_whole_recordings():
    clips = [Clip(str(i), f"r{i % 13}", Path(), ("a", "b") if i % 3 else ("a",)) for i in range(100)]
    kept, taken = carve(*columns(clips), range(100), 0.3, seed=0)
    assert taken and not {clips[i].recording for i in kept} & {clips[i].recording for i in taken}


# --- Kaldi


def kaldi(tmp_path: Path, **splits: tuple[str, str]) -> Path:
    for name, (scp, text) in splits.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "wav.scp").write_text(scp)
        (tmp_path / name / "text").write_text(text)
    return tmp_path


def test_kaldi_folders(tmp_path):
    folder = kaldi(
        tmp_path,
        train=(
            "u1 wav/a b.wav\nu2 /abs/b.wav\nu3 sox x.wav -t wav - |\nu4 d.wav\nu5\n",
            "u1 Speech Male_speech,_man_speaking\nu2 Dog\nu3 Dog\nu6 Dog\n",
        ),
        dev=("v1 v.wav\nu1 w.wav\n", "v1 Dog\nu1 Dog\n"),
        eval=("t1 t.wav\n", "t1 Speech\n"),
    )
    (folder / "wav").mkdir()
    (folder / "wav/a b.wav").touch()
    found = check(manifest.read(DataConfig(kaldi=folder)))
    assert {name: ids(found, name) for name in found.splits} == {
        "train": ["u1", "u2"],
        "val": ["v1"],
        "test": ["t1"],
    }
    assert (
        found.clips[0].path == folder / "wav/a b.wav"
        and found.clips[0].labels == ("/m/09x0r", "/m/05zppz")
        and found.labels is audioset()
    )
    assert [(r.input, r.code) for r in found.rejected] == [
        ("u3", "bad-row"),
        ("u4", "no-label"),
        ("u5", "bad-row"),
        ("u6", "missing-file"),
        ("u1", "duplicate-id"),
    ]
    assert "command" in found.rejected[0].reason


def test_a_name_that_is_too_long_for_the_disk_costs_its_row(tmp_path):
    name = "x" * 300 + ".wav"
    folder = kaldi(
        tmp_path / "k", train=(f"u1 a.wav\nu2 {name}\n", "u1 Dog\nu2 Dog\n"), test=("t1 t.wav\n", "t1 Dog\n")
    )
    listed = manifest.read(DataConfig(kaldi=folder))
    csv = table(
        tmp_path,
        f"file,labels,split\n{name},a,train\n../{tmp_path.name}/"
        f"{name},a,train\na.wav,a,train\nb.wav,a,test\n",
    )
    for clip in (listed.clips[1], csv.clips[0], csv.clips[1]):
        with pytest.raises(UserError) as caught:
            media.decode(clip.path)
        assert caught.value.code == "missing-file"
    assert "cannot find" in refused("missing-file", audioset=tmp_path, audioset_train=(name,))


def test_a_kaldi_folder_without_tables(tmp_path):
    assert "wav.scp" in refused("missing-file", kaldi=tmp_path)
    refused("missing-file", kaldi=tmp_path / "none")
    kaldi(tmp_path, train=("u a.wav\n", "u x\n"))
    assert "no clips for test" in refused("no-clips", kaldi=tmp_path)


# --- folder per class


def test_a_folder_per_class(tmp_path):
    for name in ("dog", "cat"):
        (tmp_path / name).mkdir()
        for i in range(20):
            (tmp_path / name / f"{i:02d}.wav").touch()
    (tmp_path / "dog/.DS_Store").touch()
    (tmp_path / "README").touch()
    found = check(manifest.read(DataConfig(folder=tmp_path)))
    assert found.labels.mids == ("cat", "dog") and found.inputs == 40 and found.clips[0].id == "cat/00.wav"
    for name, count in (("test", 4), ("val", 2), ("train", 14)):
        assert Counter(found.clips[i].labels[0] for i in found.splits[name]) == {"cat": count, "dog": count}


def test_a_folder_with_splits_and_any_bytes_in_names(tmp_path):
    for split in ("Train", "validation", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a/x.wav").touch()
    (tmp_path / "Train/a").joinpath(os.fsdecode(b"caf\xe9.wav")).touch()
    found = check(manifest.read(DataConfig(folder=tmp_path)))
    assert {name: ids(found, name) for name in found.splits} == {
        "train": ["Train/a/caf\\xe9.wav", "Train/a/x.wav"],
        "val": ["validation/a/x.wav"],
        "test": ["test/a/x.wav"],
    }
    assert found.clips[0].path.exists()


def test_a_folder_without_classes(tmp_path):
    (tmp_path / "a.wav").touch()
    refused("no-clips", folder=tmp_path)
    refused("missing-file", folder=tmp_path / "none")
