"""A store holds every clip once, the same bytes however it came about, and notices when it is not what was
written.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatline import recipe
from beatline.audio.media import decode
from beatline.config import DataConfig
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.data import manifest, shards, store_tables
from beatline.data.prepare import prepare
from beatline.data.store import Store
from beatline.settings import load as load_config
from tests.helpers.stores import CLIPS, contents, copy_of, flip, refused, table

pytestmark = pytest.mark.usefixtures("small_shards")


def test_what_comes_out_is_what_decoding_gives(data, reference):
    opened, inputs = Store.open(reference), table(data)
    good = [clip for i, clip in enumerate(inputs.clips) if i not in (4, 8, 12)]
    assert list(opened.ids) == [clip.id for clip in good] and opened.labels == inputs.labels
    for i, clip in enumerate(good):
        expected = decode(clip.path).samples
        assert np.array_equal(opened.samples(i), expected) and opened.lengths[i] == len(expected)
        assert np.array_equal(opened.samples_of(clip.id), expected)
        assert opened.samples(i).dtype == np.int16
    targets = opened.targets(np.arange(len(good)))
    assert targets.dtype == np.float32
    assert [{opened.labels.mids[k] for k in np.flatnonzero(row)} for row in targets] == [
        set(clip.labels) for clip in good
    ]
    assert np.array_equal(opened.targets([5, 2]), targets[[5, 2]]) and opened.targets([]).shape == (0, 3)
    assert np.array_equal(
        opened.label_totals(np.array([5, 2])), targets[[5, 2]].sum(axis=0)
    ) and opened.label_totals(np.array([], int)).tolist() == [0, 0, 0]
    assert {name: [opened.ids[i] for i in some] for name, some in opened.splits.items()} == {
        name: [inputs.clips[i].id for i in some if i not in (4, 8, 12)]
        for name, some in inputs.splits.items()
    }
    assert all(some.dtype == np.int64 for some in [*opened.splits.values(), opened.lengths])


def test_a_clips_row_says_what_it_was(reference):
    opened = Store.open(reference)
    row = opened.clip(opened.ids.index("1.flac"))
    assert (row["rate_in"], row["channels_in"], row["splits"], row["source"], row["labels"]) == (
        "22050",
        "2",
        "train",
        "1.flac",
        "a;b",
    )
    samples = opened.samples_of("1.flac") / 32768
    assert float(row["peak"]) == pytest.approx(np.abs(samples).max(), abs=1e-6) and float(
        row["rms"]
    ) == pytest.approx(np.sqrt((samples**2).mean()), abs=1e-6)
    assert float(row["seconds"]) == len(samples) / 16_000


def test_the_ledger_has_one_line_per_input_and_the_summary_adds_up(data, reference):
    lines = [json.loads(line) for line in (reference / "ledger.jsonl").read_text().splitlines()]
    assert len(lines) == CLIPS + 1 and len({line["input"] for line in lines}) == CLIPS + 1
    assert {line["input"]: line["code"] for line in lines if line["status"] == "rejected"} == {
        "4.wav": "not-audio",
        "8.wav": "missing-file",
        "12.wav": "too-short",
        "x.wav": "no-label",
    }
    summary = Store.open(reference).summary
    assert summary["inputs"] == CLIPS + 1 == summary["ok"] + sum(summary["rejected"].values())
    assert summary["splits"] == {"train": 12, "val": 3, "test": 5} and summary["validation"].startswith(
        "as the data gives it"
    )
    assert summary["hours"] == pytest.approx(Store.open(reference).lengths.sum() / 16_000 / 3600)
    for row in summary["labels"]:
        assert row["expected"] == row["present"] + row["lost"]
    assert {row["mid"]: row["lost"] for row in summary["labels"]} == {"a": 2, "b": 2, "c": 1}


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_workers_changes_no_byte(data, reference, tmp_path, workers):
    done = []
    prepare(table(data), tmp_path / "store", workers, done.append)
    assert contents(tmp_path / "store") == contents(reference)
    assert sum(done) == CLIPS
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_a_whole_store_is_left_alone_and_a_stale_one_made_anew(data, reference, tmp_path, monkeypatch):
    folder = copy_of(reference, tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "Decoders", None)
        assert prepare(table(data), folder) == json.loads((folder / "summary.json").read_text())
    assert prepare(table(data, max_seconds=0.4), folder)["rejected"]["too-long"] > 1
    path, facts = data / "0.wav", (data / "0.wav").stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))  # a repaired file of the same size
    prepare(table(data), folder)
    assert artefact.read_contents(folder)["plan"] != artefact.read_contents(reference)["plan"]
    assert artefact.read_contents(folder)["content"] == artefact.read_contents(reference)["content"]
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert contents(copy_of(reference, tmp_path / "again")) == contents(reference)


def test_runs_share_a_whole_store_that_they_may_not_write(data, tmp_path, capsys):
    config = load_config(
        "mini",
        [
            "--data.csv",
            str(data / "clips.csv"),
            "--data.validation",
            "given",
            "--store",
            str(tmp_path / "shared/store"),
            "--out",
            str(tmp_path / "run"),
        ],
    )
    recipe.prepare(config)
    (tmp_path / "shared/.lock").unlink()
    recipe.prepare(config)
    assert os.listdir(tmp_path / "shared") == ["store"] and "is there already" in capsys.readouterr().out
    with artefact.FolderLock(tmp_path / "shared"):
        recipe.prepare(config)
        flip(tmp_path / "shared/store/shard-00000.i16", 7)
        refused("busy-folder", recipe.prepare, config)


def test_content_names_what_is_in_the_store(data, reference, tmp_path):
    rows = (data / "clips.csv").read_text()
    for i, changed in enumerate(
        (
            rows.replace("1.flac,a;b", "1.flac,a"),
            rows.replace("1.flac,a;b,train", "1.flac,a;b,test"),
            rows.replace("1.flac,a;b,train\n", ""),
        )
    ):
        assert changed != rows
        (data / f"other{i}.csv").write_text(changed)
        prepare(manifest.read(DataConfig(csv=data / f"other{i}.csv")), tmp_path / str(i))
        assert (
            artefact.read_contents(tmp_path / str(i))["content"]
            != artefact.read_contents(reference)["content"]
        )


# --- bounds


def test_bounds_hold_for_train_and_val_and_not_for_test(tmp_path):
    rows = ["file,labels,split"]
    for split in ("train", "val", "test"):
        for name, frames in (("short", 1599), ("least", 1600), ("most", 192_000), ("long", 192_001)):
            soundfile.write(tmp_path / f"{split}-{name}.wav", np.full(frames, 0.1), 16_000)
            rows.append(f"{split}-{name}.wav,x,{split}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    summary = prepare(table(tmp_path), tmp_path / "store")
    assert summary["rejected"] == {"too-long": 2, "too-short": 2} and summary["splits"] == {
        "train": 2,
        "val": 2,
        "test": 4,
    }


def test_a_clip_in_val_and_test_leaves_only_val(tmp_path):
    (tmp_path / "balance_wav").mkdir()
    (tmp_path / "eval_wav").mkdir()
    for i in range(30):
        soundfile.write(
            tmp_path / f"eval_wav/recording{i:02d}.wav", np.full(16_000 * 13 if i == 1 else 8000, 0.1), 16_000
        )
        soundfile.write(tmp_path / f"balance_wav/Recording{i:02d}.wav", np.full(8000, 0.1), 16_000)
    for name, letter in (("eval", "r"), ("balanced_train", "R")):
        (tmp_path / f"{name}_segments.csv").write_text(
            "".join(f'{letter}ecording{i:02d}, 20.0, 30.0, "/m/09x0r"\n' for i in range(30))
        )
    prepare(manifest.read(DataConfig(audioset=tmp_path, validation="inside-eval")), tmp_path / "store")
    opened = Store.open(tmp_path / "store")
    assert [opened.ids[i] for i in opened.splits["val"]] == ["as20k-eval-0", "as20k-eval-2"] and len(
        opened.splits["test"]
    ) == 30
    assert opened.clip(30)["splits"] == "val;test" and opened.clip(31)["splits"] == "test"
    assert '"note": "not in val: too long or too short"' in (tmp_path / "store/ledger.jsonl").read_text()


def test_a_split_of_which_nothing_is_left_is_an_error_that_says_where_to_look(data, tmp_path):
    (data / "bad.csv").write_text("file,labels,split\n0.wav,x,train\n4.wav,x,test\n8.wav,x,test\n")
    message = refused(
        "no-clips", prepare, manifest.read(DataConfig(csv=data / "bad.csv")), tmp_path / "store"
    )
    assert "split test" in message and "not-audio 1" in message and "missing-file 1" in message
    ledger = Path(message.split("see ")[1].split(" for each")[0])
    assert len(ledger.read_text().splitlines()) == 3 and not (tmp_path / "store").exists()


# --- damage


@pytest.mark.parametrize(
    "name", ["shard-00002.i16", "shard-00003.json", *store_tables.NAMES, "contents.json"]
)
def test_a_flipped_bit_anywhere_is_found_and_named(data, reference, tmp_path, name, capsys):
    folder = copy_of(reference, tmp_path / "store")
    content = bytearray((folder / name).read_bytes())
    for place in (0, len(content) // 2, len(content) - 1):
        content[place] ^= 4
        (folder / name).write_bytes(content)
        content[place] ^= 4
        assert name in refused("corrupt-artefact", Store.open, folder, full=True)
        if not name.startswith("shard-"):
            assert name in refused("corrupt-artefact", Store.open, folder)
    prepare(table(data), folder)
    assert contents(folder) == contents(reference)
    assert name in capsys.readouterr().out or name == "contents.json"


def test_a_flipped_bit_in_a_shard_is_found_when_the_clip_is_read(reference, tmp_path):
    folder = copy_of(reference, tmp_path / "store")
    path = folder / "shard-00001.i16"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    opened = Store.open(folder)
    broken = []
    for i in range(len(opened.ids)):
        try:
            opened.samples(i)
        except UserError as error:
            assert "shard-00001.i16" in str(error) and opened.ids[i] in str(error)
            broken.append(i)
    assert len(broken) == 1


def test_a_shard_cut_or_deleted_before_or_after_opening_is_found(reference, tmp_path):
    folder = copy_of(reference, tmp_path / "store")
    opened, last = Store.open(folder), len(Store.open(folder).ids) - 1
    path = sorted(folder.glob("*.i16"))[-1]
    os.truncate(path, path.stat().st_size - 2)
    assert "bytes instead of" in refused("corrupt-artefact", Store.open, folder)
    assert path.name in refused("corrupt-artefact", opened.samples, last)
    os.truncate(path, 0)
    assert path.name in refused("corrupt-artefact", opened.samples, last)
    path.unlink()
    assert path.name in refused("corrupt-artefact", opened.samples, last)


def test_many_threads_read_at_once(reference):
    opened = Store.open(reference)
    expected = [opened.samples(i) for i in range(len(opened.ids))]
    order = np.random.default_rng(0).integers(0, len(expected), 2000)
    with ThreadPoolExecutor(8) as pool:
        assert all(
            np.array_equal(a, expected[i])
            for i, a in zip(order, pool.map(lambda i: opened.samples(int(i)), order), strict=True)
        )


def test_a_folder_that_is_no_store_is_not_replaced(data, tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music/mine.txt").write_text("precious")
    refused("not-writable", prepare, table(data), tmp_path / "music")
    refused("not-writable", prepare, table(data), tmp_path / "music/mine.txt")
    refused("not-writable", prepare, table(data), tmp_path / "music/mine.txt/store")
    assert (tmp_path / "music/mine.txt").read_text() == "precious" and list(tmp_path.iterdir()) == [
        tmp_path / "music"
    ]
    (tmp_path / "empty").mkdir()
    prepare(table(data), tmp_path / "empty")


def test_a_full_disk_is_one_line_and_keeps_what_is_done(data, reference, tmp_path, monkeypatch):
    replaced, replace = [], Path.replace

    def full(self, target):
        if len(replaced) == 3:
            raise OSError(28, os.strerror(28))
        replaced.append(target.name)
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        assert "No space left" in refused("disk-full", prepare, table(data), tmp_path / "store", 2)
    done = []
    prepare(table(data), tmp_path / "store", 1, done.append)
    assert done[0] == 12 and contents(tmp_path / "store") == contents(reference)


def test_decoding_stays_a_few_clips_ahead(data, tmp_path, monkeypatch):
    """Jobs are handed out as results are taken, so memory does not grow with the number of clips."""
    out, most = [0], [0]

    class Counted(shards.Decoders):
        def submit(self, job):
            out[0] += 1
            most[0] = max(most[0], out[0])
            return super().submit(job)

    def taken(count):
        out[0] -= count

    monkeypatch.setattr(shards, "Decoders", Counted)
    prepare(table(data), tmp_path / "store", 2, taken)
    assert 1 < most[0] <= 4 * 2 + 2 < CLIPS


def test_a_shard_damaged_after_a_kill_is_made_again(data, reference, tmp_path, monkeypatch):
    def stop(name):
        if name == "files-written":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(artefact, "checkpoint_hook", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(table(data), tmp_path / "store")
    work = tmp_path / "store.partial"
    content = bytearray((work / "shard-00001.i16").read_bytes())
    content[3] ^= 1
    (work / "shard-00001.i16").write_bytes(content)
    (work / "shard-00003.json").write_text((work / "shard-00003.json").read_text().replace("crc", "CRC", 1))
    (work / "shard-00004.json").unlink()
    done = []
    prepare(table(data), tmp_path / "store", 1, done.append)
    assert done[0] == CLIPS - 12 and contents(tmp_path / "store") == contents(reference)
