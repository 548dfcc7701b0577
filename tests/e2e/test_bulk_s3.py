"""Bulk tagging from S3 into S3: its real client, and a server of its own on loopback."""

import filecmp
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import beatline
from beatline.core import artefact, remote
from beatline.data import ray as bulk
from beatline.tag import ray as bulk_tag
from beatline.tag import tagger
from tests.helpers import rays
from tests.helpers.models import tiny_export
from tests.helpers.processes import until
from tests.helpers.stores import refused

s3 = rays.s3  # the fixture
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.xdist_group("ray"),
]
CLIPS = sorted((Path(beatline.__file__).parent / "assets/mini-audioset/audio").iterdir())[:11]
IN_ARCHIVE = 3
PARTS = len(CLIPS) - IN_ARCHIVE + 1
BEATLINE = [
    sys.executable,
    "-c",
    "import sys; from beatline import cli; from beatline.tag import ray as bulk; bulk.TOGETHER = 1; "
    "sys.exit(cli.main(sys.argv[1:]))",
]


def test_killed_midway_and_every_recording_has_its_row(s3, tmp_path, tmp_path_factory):
    sounds, home, model = (
        tmp_path / "sounds",
        tmp_path / "home",
        tiny_export(tmp_path_factory),
    )  # whose workers need no PyTorch, which takes them long to import
    for folder in (sounds, home):
        folder.mkdir()
    for number, clip in enumerate(CLIPS):
        samples, rate = soundfile.read(clip, frames=8_000 + 400 * number)
        soundfile.write(sounds / f"{number:02d}.wav", samples, rate)
    (sounds / "03.wav").write_bytes(b"<html></html>")
    files = sorted(sounds.iterdir())
    alone, archived = files[:-IN_ARCHIVE], files[-IN_ARCHIVE:]
    for path in alone:
        s3.put_file(str(path), f"bucket/in/{path.name}")
    pq.write_table(
        pa.table({"audio": [{"bytes": path.read_bytes(), "path": path.name} for path in archived]}),
        "bucket/in/train.parquet",
        filesystem=s3,
    )
    for marker in ("in/", "out/"):  # what a console leaves of "create folder"
        s3.call_s3("put_object", Bucket="bucket", Key=marker, Body=b"")

    command = [
        *BEATLINE,
        "tag",
        "s3://bucket/in",
        "--engine",
        "ray",
        "--model",
        str(model),
        "--to",
        "s3://bucket/out",
    ]
    with subprocess.Popen(command, env=os.environ | {"HOME": str(home)}, stdout=subprocess.DEVNULL) as driver:
        until(lambda: driver.poll() is not None or len(s3.find("bucket/out/facts")) >= 3, 120)
        its = rays.processes(lambda names: f"HOME={home}\0".encode() in names, "environ")
        for process in its:
            os.kill(process, signal.SIGKILL)
    rays.gone(set(its))
    assert driver.returncode == -signal.SIGKILL and len(its) > 3
    done = sorted(Path(name).stem for name in s3.find("bucket/out/facts"))
    assert 3 <= len(done) < PARTS and not s3.exists("bucket/out/contents.json")

    half = f"bucket/out/tags/{done[0]}.parquet"
    s3.pipe_file(half, s3.cat_file(half)[:-9])  # as a store might leave it where an upload is not atomic
    before = rays.versions(s3, "out/")
    said = subprocess.run(
        command, env=os.environ | {"HOME": str(home)}, capture_output=True, text=True, timeout=120
    )
    assert (
        said.returncode == 0
        and f"{len(files)} rows" in said.stdout
        and "1 refused (not-audio 1)" in said.stdout
    ), said.stderr
    after = rays.versions(s3, "out/")
    for part in done:
        for name in (f"out/tags/{part}.parquet", f"out/facts/{part}.json"):
            assert (after[name] == before[name]) is (part != done[0]), (
                "what is done stays, what is half there is done again"
            )
    assert not [name for name in after if "partial" in name], "nothing was copied"

    made = pq.read_table("bucket/out/tags", filesystem=s3).to_pylist()
    rows = {row["member"] or row["file"].rpartition("/")[2]: row for row in made}
    assert len(made) == len(files) and sorted(rows) == [path.name for path in files]
    assert Counter(row["file"] for row in made) == {f"s3://bucket/in/{path.name}": 1 for path in alone} | {
        "s3://bucket/in/train.parquet": IN_ARCHIVE
    }
    for result in tagger.load(str(model)).tag(files):
        row = rows[Path(result.source).name]
        if isinstance(result, tagger.Refused):
            assert (row["code"], row["cause"], row["scores"]) == (result.error.code, result.error.cause, None)
        else:
            assert row["code"] is None and row["seconds"] == result.seconds
            np.testing.assert_allclose(row["scores"], result.scores, atol=1e-6)
            np.testing.assert_allclose(row["embedding"], result.embedding, atol=1e-5)

    _, listed, good = artefact.parse_contents(s3.cat_file("bucket/out/contents.json"))
    assert (
        good
        and listed.keys() == remote.listing(s3, "bucket/out").keys() - {"contents.json"}
        and len(listed) == 2 * PARTS + 1
    )
    for name, facts in listed.items():
        assert sha256(s3.cat_file(f"bucket/out/{name}")).hexdigest() == facts["sha256"]


def test_what_is_found_in_a_bucket(s3):
    sound = b"RIFF"
    names = ["a b.wav", "h#y.wav", "ü.wav", "p%20q.wav", "[1].wav", "a::b.wav", "deep/x+y.tar", "c::d/e.wav"]
    for name in (*names, "notes.txt", ".hidden.wav", "out/tags/part-0.parquet"):
        s3.pipe_file(f"bucket/found/{name}", sound)
    for marker in ("found/", "found/deep/", "found/strange.wav/"):
        s3.call_s3("put_object", Bucket="bucket", Key=marker, Body=b"")
    found = dict(bulk_tag.find_inputs(["s3://bucket/found/"], "s3://bucket/found/out"))
    assert sorted(found) == sorted(f"s3://bucket/found/{name}" for name in names)
    for given in ("s3://bucket/found/a b.wav", "s3://bucket/found/[a-z]*.wav"):
        same = dict(bulk_tag.find_inputs([given], "out"))
        assert same and {name: found[name] for name in same} == same, (
            "the same input has the same state, however it is named"
        )
    for source in ("s3://bucket/nothing", "s3://nowhere/x"):
        refused("missing-file", bulk_tag.find_inputs, [source], "out")


def test_a_file_is_fetched_or_missing_or_the_job_ends(s3, tmp_path, monkeypatch):
    for name in ("a", "c::d"):
        s3.pipe_file(f"bucket/got/{name}.wav", b"RIFF")
    for name in ("a", "b", "c::d", "e::f"):
        remote.get(f"s3://bucket/got/{name}.wav", tmp_path / name)
    assert all((tmp_path / name).read_bytes() == b"RIFF" for name in ("a", "c::d")) and not any(
        (tmp_path / name).exists() for name in ("b", "e::f")
    )
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody answers
    s3.clear_instance_cache()
    assert "EndpointConnectionError" in refused(
        "download-failed", remote.get, "s3://bucket/got/a.wav", tmp_path / "c"
    )
    assert "check the address, the network and the credentials" in refused(
        "download-failed", bulk_tag.find_inputs, ["s3://bucket/got"], "out"
    )
    gone, name = remote.system("s3://bucket/got/a.wav")
    for ask, what in ((remote.content, name), (remote.contents, [name]), (remote.remove, name)):
        assert "EndpointConnectionError" in refused("download-failed", ask, gone, what)
    hashed = bulk.hash_files({"address": "s3://bucket/got", "names": '["a.wav"]'})
    assert "EndpointConnectionError" in json.loads(hashed["hashes"])["a.wav"] and not hashed["error"]
    s3.clear_instance_cache()


def test_a_large_file_goes_up_in_parts_and_is_there_whole(s3, tmp_path):
    with (tmp_path / "shard").open("wb") as file:
        for number in range(101):  # s3fs sends up to 100 MB at once
            file.write(bytes([number]) * 2**20)
    remote.put(remote.system("s3://bucket")[0], tmp_path / "shard", "bucket/large/shard")
    assert "-" in s3.info("bucket/large/shard")["ETag"], "in parts"
    remote.get("s3://bucket/large/shard", tmp_path / "back")
    assert filecmp.cmp(tmp_path / "shard", tmp_path / "back", shallow=False)
    assert not s3.call_s3("list_multipart_uploads", Bucket="bucket").get("Uploads")


def test_a_bucket_that_is_not_there_is_not_made(s3, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    assert "bucket does not exist" in refused(
        "not-writable", remote.put, remote.system("s3://bukcet/out")[0], tmp_path / "x", "bukcet/out/x"
    )
    assert not s3.exists("bukcet")


WITHOUT = """
import sys
sys.modules["s3fs"] = None
from beatline.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_its_client_one_line_says_what_to_install():
    tag = ["tag", "s3://bucket/in", "--engine", "ray", "--model", "runs/mini", "--to", "out"]
    found = subprocess.run([sys.executable, "-c", WITHOUT, *tag], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (
        2,
        "beatline: cannot reach s3://bucket/in: Install s3fs to access S3; pip install 'beatline[bulk]', "
        "or the package that is named here [missing-package]\n",
    )
