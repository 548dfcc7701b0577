"""A shard's facts are exact, its task survives the way to another machine, and a pair knows whether it is
whole.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatline.audio.pool import Job
from beatline.core import artefact
from beatline.data import shards
from beatline.data.store import shard_name


def made(folder: Path, sounds: list[np.ndarray], **options: object) -> list[dict]:
    """The rows of a shard of these int16 sounds."""
    jobs = []
    for number, samples in enumerate(sounds):
        soundfile.write(folder / f"{number}.wav", samples, 16_000, subtype="PCM_16")
        jobs.append(Job(folder / f"{number}.wav"))
    task = shards.ShardTask(7, "plan", tuple(jobs), (0.0,) * len(jobs))
    assert list(shards.make([task], folder, **options)) == [7]
    facts = shards.read(folder, 7, "plan")
    assert (
        np.array_equal(np.fromfile(folder / shard_name(7), "<i2"), np.concatenate(sounds))
        and shards.size(facts) == sum(map(len, sounds)) * 2
    )
    return facts["rows"]


def test_levels_silence_and_clipping_are_measured(tmp_path):
    half = np.concatenate(
        [np.zeros(8000, np.int16), np.full(8000, 33, np.int16)]
    )  # 33 is above -60 dB of full scale, 32 is not
    edge = np.full(16_000, 32, np.int16)
    loud = np.array([32767, -32768, 100, -32767] * 4000, np.int16)
    short = np.array([0, 5], np.int16)
    rows = made(tmp_path, [half, edge, loud, short])
    assert [row["quiet"] for row in rows] == [0.5, 1.0, 0.0, 1.0]
    assert [row["clipped"] for row in rows] == [0.0, 0.0, 0.5, 0.0]
    assert [row["peak"] for row in rows] == [round(p / 32768, 6) for p in (33, 32, 32768, 5)]
    assert rows[2]["rms"] == pytest.approx(np.sqrt((loud.astype(float) ** 2).mean()) / 32768, abs=1e-6)


def test_jobs_are_fetched_shortly_before_they_are_decoded(tmp_path):
    fetched = []

    def fetch(job: Job) -> Job:
        fetched.append(job.path.name)
        return job

    made(tmp_path, [np.full(1600, n, np.int16) for n in range(3)], fetch=fetch)
    assert fetched == ["0.wav", "1.wav", "2.wav"]


def test_a_task_survives_as_text():
    task = shards.ShardTask(
        3, "p", (Job(Path("/a/ü\udcff.tar"), "x.wav", 1.5, None, 12.0), Job(Path("b"), end=2.0)), (0.1, 0.0)
    )
    assert shards.ShardTask.from_json(task.to_json()) == task


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"self": 1}', '{"rows": [], "plan": "p", "sha256": "0", "self": "0"}', "\xff"],
)
def test_damaged_facts_are_none(text):
    assert shards.parse(text) is None


def test_a_pair_is_whole_only_with_its_plan_and_its_samples(tmp_path):
    made(tmp_path, [np.full(1600, 3, np.int16)])
    assert (
        shards.read(tmp_path, 7, "plan")
        and shards.read(tmp_path, 7, "other") is None
        and shards.read(tmp_path, 8, "plan") is None
    )
    facts = json.loads((tmp_path / shards.facts_name(7)).read_text())
    facts.pop("self")
    facts["rows"][0]["crc"] += 1
    (tmp_path / shards.facts_name(7)).write_text(
        json.dumps(facts | {"self": artefact.hash_json(facts | {"plan": "x"})})
    )
    assert shards.read(tmp_path, 7, "plan") is None


def test_which_shard_a_file_belongs_to():
    names = [
        "shard-00012.i16",
        "shard-123456.json",
        "shard-00012.i16.partial",
        "shard-.json",
        "index.npy",
        "12.json",
        "shard-1.txt",
    ]
    assert [shards.number_of(name) for name in names] == [12, 123456, None, None, None, None, None]
