"""A small data set and what tests of stores do with it."""

import os
import select
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatline.config import DataConfig
from beatline.core.errors import UserError
from beatline.data import manifest, shards
from beatline.data.manifest import Manifest
from beatline.data.prepare import prepare

CLIPS = 23
BAD = (4, 8, 12)  # an HTML file, one that is not there, one too short
SHARD_CLIPS = 4  # six shards


def write_data(folder: Path) -> Path:
    """23 clips of several rates, lengths and forms; three of them unusable."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), ["file,labels,split"]
    for i in range(CLIPS):
        rate, extension = [(16_000, "wav"), (22_050, "flac"), (44_100, "ogg"), (8000, "wav")][i % 4]
        soundfile.write(
            folder / f"{i}.{extension}",
            rng.uniform(-0.5, 0.5, (int(rate * rng.uniform(0.2, 0.6)), 1 + i % 2)),
            rate,
        )
        rows.append(
            f"{i}.{extension},{'a;b' if i % 3 else 'c'},{'train' if i < 15 else 'val' if i < 18 else 'test'}"
        )
    (folder / "4.wav").write_bytes(b"<html></html>")
    (folder / "8.wav").unlink()
    soundfile.write(folder / "12.wav", np.zeros(100), 16_000)
    rows.append("x.wav,,train")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(shards, "SHARD_CLIPS", SHARD_CLIPS)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory) -> Path:
    """A store made without trouble; in the folder beside it lies nothing else."""
    folder = tmp_path_factory.mktemp("reference") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_CLIPS", SHARD_CLIPS)
        prepare(table(data), folder)
    return folder


def table(data: Path, **options: object) -> Manifest:
    return manifest.read(DataConfig(csv=data / "clips.csv", **options))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def copy_of(folder: Path, target: Path) -> Path:
    target.mkdir()
    for name, content in contents(folder).items():
        (target / name).write_bytes(content)
    return target


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def refused(code: str, call: object, *arguments: object, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert caught.value.code == code, caught.value
    return str(caught.value)


def in_child(work, kill_after: float | None = None) -> int:
    """Runs `work` in a forked child (the parent is warm, so this is cheap); its exit status, or minus the
    signal that ended it.
    """
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    if kill_after is not None:
        with open(os.pidfd_open(child)) as ended:
            select.select([ended], [], [], kill_after)
        os.kill(child, signal.SIGKILL)  # one that has ended takes no notice
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(point: int):
    """A hook that pulls the plug at the given named point."""
    passed = 0

    def hook(name: str) -> None:
        nonlocal passed
        passed += 1
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook
