"""A real Ray of two workers makes and verifies the same bytes, whichever worker is killed, in a folder and on
another file system.
"""

import os
from pathlib import Path

import pytest

from beatline.cli import main
from beatline.core import artefact
from beatline.data import ray as bulk
from tests.helpers import rays
from tests.helpers.stores import CLIPS, SHARD_CLIPS, contents, flip, refused, table

cluster, ftp = rays.cluster, rays.ftp  # the fixtures
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("small_shards"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.xdist_group("ray"),
]
SETTINGS = ("mini", "--data.validation", "given")


def test_ray_listens_on_loopback_only_and_reports_nothing(cluster):
    sockets = {
        os.readlink(link)
        for pid in cluster
        for link in Path(f"/proc/{pid}/fd").glob("*")
        if os.path.lexists(link)
    }
    cells = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    listening = {
        cell[1].split(":")[0] for cell in cells if f"socket:[{cell[9]}]" in sockets and cell[3] == "0A"
    }
    assert listening and listening <= {
        "0100007F",
        "0000000000000000FFFF00000100007F",
        "00000000000000000000000001000000",
    }
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_one_of_two_workers_killed_leaves_the_same_bytes(cluster, data, reference, tmp_path):
    done: list[int] = []
    with rays.assassin(b"_make_shard") as killed:
        bulk.prepare_store(table(data), str(tmp_path / "store"), 2, done.append)
    assert killed and sum(done) == CLIPS
    assert contents(tmp_path / "store") == contents(reference)
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_one_of_two_workers_killed_at_verifying_hides_nothing(cluster, tmp_path, monkeypatch):
    for number in range(6):
        (tmp_path / f"{number}").touch()
        os.truncate(tmp_path / f"{number}", 100 << 20)  # zeros that take no disk, and a moment to read
    artefact.seal(tmp_path, {"kind": "store"})
    with (tmp_path / "4").open("r+b") as file:
        file.write(b"x")
    monkeypatch.setattr(bulk, "HASHED_TOGETHER", 1)  # a task for each file
    with rays.assassin(b"hash_files") as killed:
        found = list(bulk.damage(str(tmp_path), 2))
    assert killed and found == [("4", artefact.CHANGED)]


def test_the_program_prepares_and_verifies_on_ray(cluster, data, reference, tmp_path, capsys):
    folder = tmp_path / "out/store"
    command = [
        "prepare",
        *SETTINGS,
        "--data.csv",
        str(data / "clips.csv"),
        "--out",
        str(tmp_path / "out"),
        "--engine",
        "ray",
    ]
    assert main(command) == 0
    assert contents(folder) == contents(reference)
    assert "rejected 4.wav: " in capsys.readouterr().out
    assert main([*command, "--data.strict", "true"]) == 3
    assert f"4 of 24 inputs: rejected, see {folder}/ledger.jsonl" in capsys.readouterr().err
    assert main(["verify", str(folder), "--engine", "ray"]) == 0
    flip(folder / "shard-00001.i16", 9)
    flip(folder / "clips.csv", 90)
    (folder / "shard-00003.json").unlink()
    (folder / "stranger").write_text("x")
    capsys.readouterr()
    assert main(["verify", str(folder), "--engine", "ray"]) == 4
    out = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0].rsplit("/", 1)[1] for line in out] == [
        "clips.csv",
        "shard-00001.i16",
        "shard-00003.json",
        "stranger",
    ]


def test_files_and_store_on_another_file_system(cluster, data, reference, tmp_path, ftp):
    folder, address = ftp
    for path in data.iterdir():
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / path.name).write_bytes(path.read_bytes())
    here = tmp_path / "tables"  # the table is here, the audio there
    here.mkdir()
    (here / "clips.csv").write_bytes((data / "clips.csv").read_bytes())
    settings = {"address": f"{address}/store", "workers": 2, "source": f"{address}/data"}
    bulk.prepare_store(table(here), **settings)
    made, expected = contents(folder / "store"), contents(reference)
    assert made.keys() == expected.keys() and not list(folder.rglob("*.partial"))
    for name in expected:  # the plan differs, as other files were read
        assert made[name] == expected[name] or (name.endswith(".json") and name != "summary.json"), name
    assert list(bulk.damage(settings["address"], 2)) == []
    for name in ("shard-00002.i16", "ids.txt"):
        flip(folder / "store" / name, 33)
    (folder / "store/shard-00004.json").unlink()
    assert {name for name, _ in bulk.damage(settings["address"], 2)} == {
        "shard-00002.i16",
        "ids.txt",
        "shard-00004.json",
    }
    for name in (
        "shard-00002.i16",
        "contents.json",
    ):  # what is damaged and the manifest removed, it goes on from there
        (folder / "store" / name).unlink()
    done: list[int] = []
    bulk.prepare_store(table(here), progress=done.append, **settings)
    assert done == [CLIPS - 2 * SHARD_CLIPS, SHARD_CLIPS, SHARD_CLIPS] and contents(folder / "store") == made
    assert "a store of other data" in refused(
        "not-writable", bulk.prepare_store, table(here, max_seconds=1.0), **settings
    )
