"""Any number of workers, any kill and any damage leave byte-identical stores; what is damaged is named, all
of it, and only that is decoded again.
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from beatline.cli import main
from beatline.core import artefact
from beatline.data import shards
from beatline.data.prepare import prepare
from beatline.data.repair import damage, repair
from tests.helpers.processes import children
from tests.helpers.stores import (
    CLIPS,
    SHARD_CLIPS,
    contents,
    copy_of,
    die_at,
    flip,
    in_child,
    refused,
    table,
    write_data,
)

pytestmark = pytest.mark.usefixtures("small_shards")
SHARDS = -(-CLIPS // SHARD_CLIPS)
SETTINGS = ("mini", "--data.validation", "given")
POINTS = 2 * SHARDS + 3  # two per shard, then files-written, sealed, renamed


def same(folder: Path, reference: Path) -> None:
    assert contents(folder) == contents(reference)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


# --- kills


@pytest.mark.slow
def test_killed_at_each_named_point_in_turn_it_ends_with_the_same_bytes(
    data, reference, tmp_path, monkeypatch
):
    passed = []
    with monkeypatch.context() as patch:
        patch.setattr(artefact, "checkpoint_hook", passed.append)
        prepare(table(data), tmp_path / "count")
        artefact.shutil.rmtree(tmp_path / "count")
    assert len(passed) == POINTS
    stale = table(data, max_seconds=0.4)  # so that there is something to replace
    prepare(stale, tmp_path / "store")
    kills = [1] + SHARDS * [2] + [1, 2, 3, 4]  # in each shard, then files-written, sealed, old-moved, renamed
    for number, point in enumerate(kills):

        def work(point=point, number=number):
            artefact.checkpoint_hook = die_at(point)
            prepare(table(data), tmp_path / "store", 1 + number % 4)

        assert in_child(work) == -signal.SIGKILL, number
        if (tmp_path / "store.partial/test.npy").exists():  # what a kill inside the last write leaves
            (tmp_path / "store.partial/contents.json.partial").write_text("{")
    assert in_child(lambda: prepare(table(data), tmp_path / "store")) == 0
    same(tmp_path / "store", reference)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(data, reference, tmp_path):
    rng, started = random.Random(5), time.monotonic()
    prepare(table(data), tmp_path / "store")
    seconds, hits = time.monotonic() - started, 0
    for attempt in range(12):
        if attempt % 4 == 0:
            artefact.shutil.rmtree(tmp_path / "store", ignore_errors=True)
        hits += (
            in_child(
                lambda: prepare(table(data), tmp_path / "store", rng.choice((1, 2, 4))),
                rng.uniform(0, seconds),
            )
            == -signal.SIGKILL
        )
        if attempt % 4 == 3:
            prepare(table(data), tmp_path / "store", 2)
            same(tmp_path / "store", reference)
    assert hits >= 4


def test_a_decoder_killed_from_outside_costs_no_clip(data, reference, tmp_path):
    """As the kernel does when memory is short: the file is not to blame, and is tried again."""
    done, killed = [], []

    def progress(count: int) -> None:
        done.append(count)
        if len(done) in (2, 11, 20):  # the only decoder is at work
            for child in children():
                os.kill(child, signal.SIGKILL)
                killed.append(child)

    prepare(table(data), tmp_path / "store", 1, progress)
    assert len(set(killed)) == 3
    same(tmp_path / "store", reference)


# --- damage


def harm(rng: random.Random, folder: Path) -> str:
    """Flips a bit of, cuts or deletes a file; its name."""
    there = [p for p in folder.iterdir() if p.stat().st_size]
    # in the order of earlier names, under which the seed never takes the list away with a table, which only
    # the list could name
    path = rng.choice(sorted(there, key=lambda p: p.name.replace("contents", "manifest")))
    how = rng.random()
    if how < 0.2:
        path.unlink()
    elif how < 0.3:
        os.truncate(path, rng.randrange(path.stat().st_size))
    else:
        flip(path, rng.randrange(8 * path.stat().st_size))
    return path.name


@pytest.mark.slow
def test_damage_at_random_places_is_named_and_only_that_is_made_again(data, reference, tmp_path):
    rng, folder, places = random.Random(11), tmp_path / "store", 0
    copy_of(reference, folder)
    while places < 50:
        names = {harm(rng, folder) for _ in range(rng.choice((1, 1, 2, 4, 7)))}
        places += len(names)
        found = {name for name, _ in damage(folder)}
        assert names <= found
        if "contents.json" not in names:
            assert names == found
        numbers = {shards.number_of(name) for name in names} - {None}
        done: list[int] = []
        mended = repair(table(data), folder, 2, done.append)
        assert set(mended) >= names
        assert sum(done) == CLIPS and len(done) - 1 == sum(
            min(SHARD_CLIPS, CLIPS - n * SHARD_CLIPS) for n in numbers
        )
        same(folder, reference)


@pytest.mark.parametrize("manifest", ["whole", "damaged", "gone"])
def test_prepare_mends_what_is_damaged_and_says_so(data, reference, tmp_path, capsys, manifest):
    folder = copy_of(reference, tmp_path / "store")
    flip(folder / "shard-00001.i16", 100)
    if manifest == "damaged":
        flip(folder / "contents.json", 100)
    elif manifest == "gone":
        (folder / "contents.json").unlink()
    done: list[int] = []
    prepare(table(data), folder, 1, done.append)
    same(folder, reference)
    assert (
        "shard-00001.i16 was damaged and is made again" in capsys.readouterr().out
        and len(done) == 1 + SHARD_CLIPS
    )


@pytest.mark.parametrize("harmed", ["shard-00001.i16", "clips.csv", "manifest.json"])
def test_a_store_of_an_earlier_version_is_left_alone_and_mended(data, reference, tmp_path, harmed):
    folder = copy_of(reference, tmp_path / "store")
    (folder / "contents.json").rename(folder / "manifest.json")
    before = contents(folder)
    prepare(table(data), folder)
    assert contents(folder) == before
    flip(folder / harmed, 100)
    prepare(table(data), folder)
    assert contents(folder) == before


@pytest.mark.slow
def test_a_repair_killed_anywhere_can_be_run_again(data, reference, tmp_path):
    for harmed in (
        ["shard-00001.i16", "shard-00003.json", "ids.txt", "index.npy"],
        ["shard-00000.i16", "contents.json", "clips.csv"],
    ):
        folder, point = copy_of(reference, tmp_path / "store"), 0
        for name in harmed:
            flip(folder / name, 1000)
        while True:
            point += 1

            def work(point=point, folder=folder):
                artefact.checkpoint_hook = die_at(point)
                repair(table(data), folder)

            if in_child(work) == 0:
                break
        assert point > 2
        same(folder, reference)
        artefact.shutil.rmtree(folder)


def test_sources_that_are_gone_but_not_needed_are_not_missed(tmp_path):
    """Only what is decoded again has to be there, and times of change do not matter, only bytes."""
    data = write_data(tmp_path / "data")
    prepare(table(data), tmp_path / "out/store")
    reference = copy_of(tmp_path / "out/store", tmp_path / "reference")
    for i in range(SHARD_CLIPS, CLIPS):
        for path in data.glob(f"{i}.*"):
            path.unlink()
    for path in data.iterdir():
        os.utime(path)
    flip(tmp_path / "out/store/shard-00000.i16", 77)
    (tmp_path / "out/store/train.npy").unlink()
    assert repair(table(data), tmp_path / "out/store") == ["shard-00000.i16", "train.npy"]
    same(tmp_path / "out/store", reference)


@pytest.mark.parametrize("layout", ["csv", "folder"])
def test_where_the_source_is_gone_it_says_so_in_one_line_and_leaves_the_store(tmp_path, capsys, layout):
    data = write_data(tmp_path / "data")
    settings = [*SETTINGS, "--data.csv", str(data / "clips.csv")]
    gone = data / "5.flac"
    if layout == "folder":  # a listing, in which what is gone shifts all that follows
        (data / "train/x").mkdir(parents=True)
        (data / "test/x").mkdir(parents=True)
        for i, path in enumerate(sorted(data.glob("*.*"))):
            path.rename(data / ("test" if i % 4 == 0 else "train") / "x" / path.name)
        settings = [*SETTINGS, "--data.csv", "null", "--data.folder", str(data)]
        gone = next(data.glob("*/x/5.flac"))
    folder = tmp_path / "out/store"
    assert main(["prepare", *settings, "--store", str(folder), "--out", str(tmp_path / "out")]) == 0
    clips = (folder / "ledger.jsonl").read_text().splitlines()
    place = next(i for i, line in enumerate(clips) if "5.flac" in line) // SHARD_CLIPS
    flip(folder / f"shard-{place:05d}.i16", 8)
    gone.unlink()
    before = contents(folder)
    capsys.readouterr()
    assert main(["verify", str(folder), "--repair", *settings]) == 4
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and "cannot repair" in error
        and (
            "missing-file" in error
            if layout == "csv"
            else "train/x/5.flac" in error or "test/x/5.flac" in error
        )
    )
    assert contents(folder) == before


def test_a_store_of_other_data_is_not_repaired_into_it(data, reference, tmp_path):
    other = write_data(tmp_path / "data")
    (other / "clips.csv").write_text((other / "clips.csv").read_text().replace("1.flac,a;b", "1.flac,a"))
    folder = copy_of(reference, tmp_path / "store")
    (folder / "clips.csv").unlink()
    before = contents(folder)
    assert "not what the store was made from" in refused("corrupt-artefact", repair, table(other), folder)
    (folder / "contents.json").write_text("{}")
    before["contents.json"] = b"{}"
    assert "not what it was made from" in refused("corrupt-artefact", repair, table(other), folder)
    assert contents(folder) == before


def test_a_strangers_file_is_named_and_never_deleted(data, reference, tmp_path, capsys):
    folder = copy_of(reference, tmp_path / "store")
    (folder / "notes.txt").write_text("mine")
    flip(folder / "contents.json", 8)
    assert "notes.txt" in refused("corrupt-artefact", repair, table(data), folder)
    (folder / "contents.json").write_bytes((reference / "contents.json").read_bytes())
    assert "notes.txt" in refused("corrupt-artefact", repair, table(data), folder)
    assert main(["verify", str(folder)]) == 4
    assert "notes.txt" in capsys.readouterr().out and (folder / "notes.txt").exists()


# --- the program


def test_verify_names_everything_and_repair_mends_it(data, reference, tmp_path, capsys):
    folder, settings = (
        copy_of(reference, tmp_path / "store"),
        [*SETTINGS, "--data.csv", str(data / "clips.csv")],
    )
    assert main(["verify", str(folder)]) == 0
    assert f"whole    {folder} (store)" in capsys.readouterr().out
    for name in ("shard-00002.i16", "shard-00005.json", "labels.csv"):
        flip(folder / name, 40)
    (folder / "val.npy").unlink()
    assert main(["verify", str(folder)]) == 4
    out, err = capsys.readouterr()
    assert [line.split()[1].rstrip(":") for line in out.splitlines()[1:]] == [
        str(folder / name) for name in ("labels.csv", "shard-00002.i16", "shard-00005.json", "val.npy")
    ]
    assert err.count("\n") == 1 and "and 3 more, named above" in err and "--repair" in err
    assert main(["verify", str(folder), "--repair", *settings]) == 0
    assert "mended" in capsys.readouterr().out and contents(folder) == contents(reference)
    assert main(["verify", str(folder), "--repair", *settings]) == 0


def test_verify_of_a_run_whose_prepare_was_killed(data, tmp_path, capsys, small_shards):
    def work():
        artefact.checkpoint_hook = die_at(3)
        prepare(table(data), tmp_path / "run/store")

    assert in_child(work) == -signal.SIGKILL
    assert main(["verify", str(tmp_path / "run")]) == 0
    assert f"unfinished {tmp_path}/run/store.partial" in capsys.readouterr().out
    with artefact.publish(tmp_path / "run/model", {"kind": "model"}) as partial:
        (partial / "weights").write_bytes(bytes(100))
    assert main(["verify", str(tmp_path / "run")]) == 0 and "whole    " in capsys.readouterr().out
    flip(tmp_path / "run/model/weights", 5)
    assert main(["verify", str(tmp_path / "run")]) == 4


def test_verify_takes_any_published_folder_and_those_below_one(tmp_path, capsys):
    for name in ("run/model", "run/train/checkpoints/step-1"):
        with artefact.publish(tmp_path / name, {"kind": "model"}) as partial:
            (partial / "weights").write_bytes(bytes(100))
            (partial / "labels").write_text("a")
    assert main(["verify", str(tmp_path / "run")]) == 0
    flip(tmp_path / "run/model/weights", 5)
    flip(tmp_path / "run/train/checkpoints/step-1/contents.json", 300)
    (tmp_path / "run/model/labels").unlink()
    assert main(["verify", str(tmp_path / "run")]) == 4
    out = capsys.readouterr().out
    assert "model/weights" in out and "model/labels" in out and "step-1/contents.json" in out
    assert (
        main(["verify", str(tmp_path / "run/model"), "--repair", "mini"]) == 4
    )  # only stores can be made again from their sources
    assert "only a store" in capsys.readouterr().err
    (tmp_path / "run/model/contents.json").unlink()
    (tmp_path / "run/store").mkdir()
    (tmp_path / "run/store/shard-00000.json").write_text("{}")
    assert (
        main(["verify", str(tmp_path / "run")]) == 4
        and "run/store/contents.json: no readable list of contents" in capsys.readouterr().out
    )
    assert main(["verify", str(tmp_path / "run/model")]) == 4
    assert main(["verify", str(tmp_path / "nothing")]) == 3
    assert main(["verify"]) == 0 and "assets/box (model)" in capsys.readouterr().out
