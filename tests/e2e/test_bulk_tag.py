"""A real Ray of two workers tags files, archives and another file system: one row for each recording,
whatever is killed.
"""

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import beatline
from beatline.cli import main
from beatline.core import ray as beatline_cluster
from beatline.core import remote
from beatline.model.checkpoints.own import save
from beatline.tag import ray as bulk_tag
from beatline.tag import tagger as tag
from beatline.tag.batch_tagger import BatchTagger, Settings
from beatline.tag.events import EventOptions
from tests.helpers import rays
from tests.helpers.models import LABELS, make_tagger
from tests.helpers.stores import contents, refused

cluster, ftp = rays.cluster, rays.ftp  # the fixtures
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.xdist_group("ray"),
]
FILES, BAD, TOGETHER = 30, {3: "not-audio", 11: "broken-audio", 17: "empty-file"}, 4
CLIPS = sorted((Path(beatline.__file__).parent / "assets/mini-audioset/audio").iterdir())[:FILES]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(bulk_tag, "TOGETHER", TOGETHER)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    save(folder, make_tagger(), LABELS, {})
    return str(folder)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Beginnings of real clips, some of them spoilt."""
    folder = tmp_path_factory.mktemp("sounds")
    for number, clip in enumerate(CLIPS):
        samples, rate = soundfile.read(clip, frames=8_000 + 400 * number)
        soundfile.write(folder / f"{number:02d}.wav", samples, rate)
    (folder / "03.wav").write_bytes(b"<html></html>")
    (folder / "11.wav").write_bytes(b"RIFF\0\0\0\0WAVE" + bytes(99))
    (folder / "17.wav").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def offline(model, sounds):
    """By name what the library says."""
    return {Path(result.source).name: result for result in tag.load(model).tag(sorted(sounds.iterdir()))}


def run(sources, model, place, **options) -> tuple[dict, list[int]]:
    done: list[int] = []
    return bulk_tag.tag_inputs(
        bulk_tag.find_inputs(map(str, sources), str(place)),
        Settings.of(model, **options),
        str(place),
        2,
        done.append,
    ), done


def rows(place: Path) -> list[dict]:
    return pq.read_table(place / "tags").to_pylist()


def agree(made: list[dict], offline: dict) -> None:
    """There is one row for each file, and it says what the library says."""
    assert sorted(Path(row["file"]).name for row in made) == sorted(offline)
    for row in made:
        expected = offline[Path(row["file"]).name]
        if isinstance(expected, tag.Refused):
            assert (row["code"], row["cause"], row["scores"], row["embedding"]) == (
                expected.error.code,
                expected.error.cause,
                None,
                None,
            )
        else:
            assert row["code"] is None and row["seconds"] == expected.seconds
            np.testing.assert_allclose(
                row["scores"], expected.scores, atol=1e-6
            )  # other files share the passes
            np.testing.assert_allclose(row["embedding"], expected.embedding, atol=1e-5)


def test_a_worker_killed_and_every_file_has_its_row(cluster, sounds, model, offline, tmp_path):
    with rays.assassin(b"_make_part") as killed:
        made, done = run([sounds], model, tmp_path / "out")
    assert killed and sum(done) == FILES
    agree(rows(tmp_path / "out"), offline)
    assert made["rows"] == FILES and made["refused"] == dict(sorted(Counter(BAD.values()).items()))
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert main(["verify", str(tmp_path / "out"), "--engine", "ray"]) == 0


DRIVER = (
    "import sys; from beatline import cli; from beatline.tag import ray as bulk; bulk.TOGETHER = 2; "
    "sys.exit(cli.main(sys.argv[1:]))"
)


def test_the_driver_killed_and_only_the_rest_is_done(
    cluster, sounds, model, offline, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-c",
        DRIVER,
        "tag",
        str(sounds),
        "--engine",
        "ray",
        "--model",
        model,
        "--to",
        str(out),
    ]
    driver = subprocess.Popen(command, env=os.environ | {"HOME": str(tmp_path)}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.glob("facts/*.json"))) < 3:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    its = set(rays.processes(lambda names: f"HOME={tmp_path}\0".encode() in names, "environ"))
    agents = its & set(
        rays.processes(lambda line: b"Agent" in line)
    )  # which take a minute to see that their Ray is no more
    rays.gone(its - agents)
    for agent in agents:
        os.kill(agent, signal.SIGKILL)
    assert not (out / "contents.json").exists()
    there = {path: path.stat().st_mtime_ns for path in out.glob("facts/*.json")}
    assert 3 <= len(there) < FILES // 2
    (out / "tags/part-0123456789abcdef.parquet.partial").write_bytes(b"what a worker left")
    monkeypatch.setattr(bulk_tag, "TOGETHER", 2)
    assert main(command[3:]) == 0
    assert {path: path.stat().st_mtime_ns for path in there} == there
    agree(rows(out), offline)
    assert main(["verify", str(out)]) == 0
    once = contents(out)
    assert main(command[3:]) == 0 and contents(out) == once
    assert main([*command[3:], "--merge", "max"]) == 5 and contents(out) == once
    assert "other inputs, by another model or with other options" in capsys.readouterr().err


def test_archives_and_another_file_system(cluster, sounds, model, offline, tmp_path, ftp):
    folder, address = ftp
    data = folder / "data"
    (data / "more").mkdir(parents=True)
    files = sorted(sounds.iterdir())
    for path in files[:5]:
        (data / "more" / path.name).write_bytes(path.read_bytes())
    with tarfile.open(data / "shard-0.tar", "w") as archive:
        for path in files[5:9]:
            archive.add(path, f"x/{path.name}")
        archive.add(files[0], "../outside.wav")
    column = [{"bytes": path.read_bytes(), "path": path.name} for path in files[9:14]]
    pq.write_table(
        pa.table({"audio": column, "id": [path.name for path in files[9:14]]}), data / "train.parquet"
    )
    (data / "cut.tar").write_bytes((data / "shard-0.tar").read_bytes()[:3000])
    (data / "notes.txt").write_text("no audio")
    with tarfile.open(data / "words.tar", "w") as archive:
        archive.add(data / "notes.txt", "notes.txt")
    pq.write_table(pa.table({"id": [1, 2], "text": ["no", "audio"]}), data / "words.parquet")
    pq.write_table(
        pa.table({"number": [1, 2], "audio": [path.read_bytes() for path in files[14:16]]}),
        data / "nameless.parquet",
    )
    made, done = run([f"{address}/data"], model, f"{address}/out", events=EventOptions())
    assert sum(done) == 11 and not list(folder.rglob("*.partial"))
    found = rows(folder / "out")
    assert made["rows"] == len(found) == 5 + 5 + 5 + 1 + 2 + 1 + 1
    assert len({(row["file"], row["position"]) for row in found}) == len(found)
    for row in found:
        name = Path(row["member"] or row["file"]).name
        if name in offline and row["code"] is None:
            np.testing.assert_allclose(row["scores"], offline[name].scores, atol=1e-6)
            assert row["events"] is not None
    nameless = {row["member"]: row for row in found if row["file"].endswith("nameless.parquet")}
    for number in range(2):
        np.testing.assert_allclose(
            nameless[str(number)]["scores"], offline[files[14 + number].name].scores, atol=1e-6
        )
    assert {row["code"] for row in found if Path(row["file"]).name in ("words.tar", "words.parquet")} == {
        "not-audio"
    }
    codes = Counter(row["code"] for row in found)
    assert codes == {None: 14, "not-audio": 3, "broken-audio": 1, "unsafe-path": 1, "bad-archive": 1}
    (folder / "out/contents.json").unlink()
    parts = sorted((folder / "out/tags").iterdir())
    parts[0].write_bytes(parts[0].read_bytes()[:-1])
    assert sum(run([f"{address}/data"], model, f"{address}/out", events=EventOptions())[1]) == 11
    assert sorted(map(str, rows(folder / "out"))) == sorted(map(str, found))


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # fsspec leaves the local file open
def test_a_server_that_hangs_up_has_not_said_that_a_file_is_missing(ftp, tmp_path, monkeypatch):
    folder, address = ftp
    (folder / "a.wav").write_bytes(b"RIFF")
    for name in "ab":
        remote.get(f"{address}/{name}.wav", tmp_path / name)
    assert (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    monkeypatch.setattr("pyftpdlib.handlers.FTPHandler.ftp_RETR", lambda handler, file: handler.close())
    refused("download-failed", remote.get, f"{address}/a.wav", tmp_path / "c")
    refused("download-failed", bulk_tag.find_inputs, ["ftp://127.0.0.1:9/x"], "out")
    gc.collect()  # here, where it is expected


def test_the_tagger_goes_into_ray_data_as_it_is(cluster, sounds, model, offline):
    import ray

    paths = [str(path) for path in sorted(sounds.iterdir())]
    some = ray.data.from_items([{"audio": path} for path in paths], override_num_blocks=2)
    made = some.map_batches(BatchTagger(model, threads=1), batch_size=8).take_all()
    for row in made:  # a tensor has no nulls
        assert bool(row["code"]) == bool(np.isnan(row["scores"]).all())
    agree(
        [
            row | {"file": row["audio"]} | (dict.fromkeys(("scores", "embedding")) if row["code"] else {})
            for row in made
        ],
        offline,
    )


class AudioDecoder:
    """As `datasets` 4 gives audio: samples by name, decoded when they are asked for (its class is
    torchcodec's, with such a `__getitem__`).
    """

    def __init__(self, path):
        self._path = path

    def __getitem__(self, key: str):
        samples, rate = soundfile.read(self._path, dtype="float32")
        if key not in ("array", "sampling_rate"):
            raise TypeError("'torchcodec.decoders.AudioDecoder' object is not subscriptable")
        return samples if key == "array" else rate


def test_batches_of_any_kind(sounds, model, offline):
    tagger = pickle.loads(pickle.dumps(BatchTagger(model, events=EventOptions())))
    path = sounds / "00.wav"
    samples, rate = soundfile.read(path)
    values = [
        str(path),
        path,
        path.read_bytes(),
        {"bytes": path.read_bytes(), "path": None},
        {"bytes": None, "path": str(path)},
        {"array": samples, "sampling_rate": rate},
        AudioDecoder(path),
    ]
    batch = tagger(
        {
            "audio": [
                *values,
                {"x": 1},
                7,
                str(sounds / "gone.wav"),
                b"<html>",
                AudioDecoder(sounds / "03.wav"),
                [1, 2],
                {"array": samples, "sampling_rate": None},
            ],
            "id": list("abcdefghijklmn"),
        }
    )
    assert batch["id"] == list("abcdefghijklmn")
    assert batch["code"] == [None] * 7 + [
        "not-audio",
        "not-audio",
        "missing-file",
        "not-audio",
        "not-audio",
        "not-audio",
        "not-audio",
    ]
    for scores in batch["scores"][:7]:
        np.testing.assert_allclose(scores, offline["00.wav"].scores, atol=1e-6)
    assert (
        batch["scores"].shape == (14, len(LABELS))
        and np.isnan(batch["scores"][7:]).all()
        and np.isnan(batch["embedding"][7:]).all()
        and np.isnan(batch["seconds"][7:]).all()
    )
    assert isinstance(batch["events"][0], list) and tagger.labels == list(LABELS.names)
    assert tagger({"audio": []})["embedding"].shape == (0, batch["embedding"].shape[1])


def test_what_is_found(sounds, tmp_path):
    place = tmp_path / "in/out"
    (place / "tags").mkdir(parents=True)
    for name in (
        "in/b.wav",
        "in/a.tar",
        "in/.hidden.wav",
        "in/x.txt",
        "in/out/tags/part-0.parquet",
        "strange.bin",
    ):
        (tmp_path / name).write_bytes(b"x")
    names = [
        name
        for name, _ in bulk_tag.find_inputs(
            [str(tmp_path / "in"), str(tmp_path / "strange.bin"), str(tmp_path / "in/*.wav")], str(place)
        )
    ]
    assert names == [str(tmp_path / name) for name in ("in/a.tar", "in/b.wav", "strange.bin")]
    addresses = [name for name, _ in bulk_tag.find_inputs([f"file://{tmp_path}/in"], "s3://bucket/out")]
    assert str(tmp_path / "in/b.wav") in addresses
    refused("missing-file", bulk_tag.find_inputs, [str(tmp_path / "nothing")], "out")
    refused("bad-usage", bulk_tag.find_inputs, ["strange://x/y"], "out")


def test_a_folder_that_cannot_be_read_has_a_row(half_closed):
    (half_closed / "a.wav").write_bytes(b"x")
    assert [name for name, _ in bulk_tag.find_inputs([str(half_closed)], "out")] == [
        str(half_closed / "a.wav"),
        str(half_closed / "closed"),
    ]


def test_a_model_that_changed_meanwhile_is_not_used(model, tmp_path):
    settings = Settings.of(model)
    other = Settings(**json.loads(settings.to_json()) | {"state": "another", "options": ()})
    refused("run-differs", other.tagger)
    assert Settings.from_json(settings.to_json()) == settings


def die(task):
    os._exit(3)


def test_a_task_that_kills_every_worker_ends_the_job(cluster, monkeypatch):
    monkeypatch.setattr(beatline_cluster, "MORE_TRIES", 1)
    assert "2 workers died at one task" in refused(
        "out-of-memory", list, beatline_cluster.each([{"x": "1"}], die, 2)
    )
