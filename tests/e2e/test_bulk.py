"""A real Ray of two workers makes and verifies the same bytes, whichever worker is killed, in a folder and on another file system."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from beatline import bulk
from beatline.cli import main
from tests.stores import CLIPS, SHARD_CLIPS, contents, flip, refused, table

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_shards"), pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.xdist_group("ray")]
SETTINGS = ("mini", "--data.validation", "given")


def processes(selected: Callable[[bytes], bool]) -> list[int]:
    """Processes by command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [int(path.parent.name)] if selected(path.read_bytes()) else []
        except OSError:  # it ended
            continue
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Ray as `bulk` starts it, kept for all tests of this file; in the end nothing of it is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # where Ray writes its token
        patch.delenv("RAY_ADDRESS", raising=False)
        before = set(processes(lambda line: b"ray" in line))
        with bulk._ray(2):
            mine = set(processes(lambda line: b"ray" in line)) - before
            yield mine
    deadline = time.monotonic() + 20
    while left := [pid for pid in mine if Path(f"/proc/{pid}").exists() and b"Z" not in Path(f"/proc/{pid}/stat").read_bytes().split()[2:3]]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.fixture
def ftp(tmp_path):
    """A real server of another file system; its folder, and its address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on Python 3.11 it stands on a module that 3.12 lacks
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.servers import ThreadedFTPServer
    folder = tmp_path / "ftp"
    folder.mkdir()
    authorizer = DummyAuthorizer()
    authorizer.add_user("user", "word", str(folder), perm="elradfmwMT")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    with ThreadedFTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"handle_exit": False})
        thread.start()
        yield folder, f"ftp://user:word@127.0.0.1:{server.address[1]}"
        server.close_all()
        thread.join()


def test_ray_listens_on_loopback_only_and_reports_nothing(cluster):
    sockets = {os.readlink(link) for pid in cluster for link in Path(f"/proc/{pid}/fd").glob("*") if os.path.lexists(link)}
    cells = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    listening = {cell[1].split(":")[0] for cell in cells if f"socket:[{cell[9]}]" in sockets and cell[3] == "0A"}
    assert listening and listening <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_one_of_two_workers_killed_leaves_the_same_bytes(cluster, data, reference, tmp_path):
    killed: list[int] = []
    ended = threading.Event()

    def assassin() -> None:
        while not killed and not ended.is_set():
            for worker in processes(lambda line: line.startswith(b"ray::Map(_make_shard)")):
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=assassin)
    thread.start()
    done: list[int] = []
    try:
        bulk.prepare_store(table(data), str(tmp_path / "store"), 2, done.append)
    finally:
        ended.set()
        thread.join()
    assert killed and sum(done) == CLIPS
    assert contents(tmp_path / "store") == contents(reference)
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_the_program_prepares_and_verifies_on_ray(cluster, data, reference, tmp_path, capsys):
    folder = tmp_path / "out/store"
    command = ["prepare", *SETTINGS, "--data.csv", str(data / "clips.csv"), "--out", str(tmp_path / "out"), "--engine", "ray"]
    assert main(command) == 0
    assert contents(folder) == contents(reference)
    assert main(["verify", str(folder), "--engine", "ray"]) == 0
    flip(folder / "shard-00001.i16", 9)
    flip(folder / "clips.csv", 90)
    (folder / "shard-00003.json").unlink()
    (folder / "stranger").write_text("x")
    capsys.readouterr()
    assert main(["verify", str(folder), "--engine", "ray"]) == 4
    out = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0].rsplit("/", 1)[1] for line in out] == ["clips.csv", "shard-00001.i16", "shard-00003.json", "stranger"]


def test_files_and_store_on_another_file_system(cluster, data, reference, tmp_path, ftp):
    folder, address = ftp
    for path in data.iterdir():
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / path.name).write_bytes(path.read_bytes())
    here = tmp_path / "tables"  # the table is here, the audio there
    here.mkdir()
    (here / "clips.csv").write_bytes((data / "clips.csv").read_bytes())
    settings = {"place": f"{address}/store", "workers": 2, "source": f"{address}/data"}
    bulk.prepare_store(table(here), **settings)
    made, expected = contents(folder / "store"), contents(reference)
    assert made.keys() == expected.keys() and not list(folder.rglob("*.partial"))
    for name in expected:  # the plan differs, as other files were read
        assert made[name] == expected[name] or (name.endswith(".json") and name != "summary.json"), name
    assert list(bulk.damage(settings["place"], 2)) == []
    for name in ("shard-00002.i16", "ids.txt"):
        flip(folder / "store" / name, 33)
    (folder / "store/shard-00004.json").unlink()
    assert {name for name, _ in bulk.damage(settings["place"], 2)} == {"shard-00002.i16", "ids.txt", "shard-00004.json"}
    for name in ("shard-00002.i16", "manifest.json"):  # what is damaged and the manifest removed, it goes on from there
        (folder / "store" / name).unlink()
    done: list[int] = []
    bulk.prepare_store(table(here), progress=done.append, **settings)
    assert done == [CLIPS - 2 * SHARD_CLIPS, SHARD_CLIPS, SHARD_CLIPS] and contents(folder / "store") == made
    assert "a store of other data" in refused("not-writable", bulk.prepare_store, table(here, max_seconds=1.0), **settings)
