"""The light installation: `pip install DIR` into a fresh environment, then a tag, without PyTorch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "src/beatline/assets/mini-audioset/audio/test_speech_00.ogg"
MOST_BYTES = 250e6

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("install")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The `bin` of an environment that has beatline and all that it depends on, and its folder."""
    folder = tmp_path_factory.mktemp("light") / "venv"
    source = folder.with_name("source")
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "-c", source / "constraints.txt", source],
        capture_output=True,
        text=True,
        env=environment(folder),
    )
    assert done.returncode == 0, done.stderr
    return folder


def environment(folder, **more):
    """Nothing of this environment, and a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BEATLINE"))}
    return kept | {"HOME": str(folder.parent)} | more


def beatline(folder, *words, **more):
    offline = {"HF_HUB_OFFLINE": "1", "HTTPS_PROXY": "http://127.0.0.1:9"}
    return subprocess.run(
        [folder / "bin/beatline", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder.parent,
        env=environment(folder, **offline, **more),
    )


def test_it_is_light(installed):
    packages = {path.name for path in installed.glob("lib/python*/site-packages/*")}
    assert not {"torch", "matplotlib", "tensorboard", "transformers"} & packages
    assert sum(path.lstat().st_size for path in installed.rglob("*")) < MOST_BYTES


def test_it_tags_at_once(installed):
    done = beatline(installed, "tag", CLIP)
    assert done.returncode == 0 and "the box answers" in done.stderr, done.stderr
    assert done.stdout.startswith(f"{CLIP}  4.0 s\n") and len(done.stdout.splitlines()) == 6


@pytest.mark.parametrize(
    "words",
    [
        ["embed", CLIP, "--to", "embedded"],
        ["listen", CLIP, "--threshold", "0"],
        ["models"],
        ["verify"],
        ["doctor"],
        ["fetch", "audioset", "--help"],
        ["score", "--help"],
        ["compare", "--help"],
    ],
    ids=lambda words: words[0],
)
def test_what_needs_no_pytorch_runs(installed, words):
    done = beatline(installed, *words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["run"], "train"),
        (["tag", CLIP, "--model", "beats"], "train"),
        (["tag", CLIP, "--engine", "torch"], "train"),
        (["export", "box", "exported"], "train"),
        (["convert", "box", "converted"], "train"),
        (["calibrate", "--model", "beats"], "train"),
        (["probe", CLIP.parent, "--to", "own"], "train"),
        (["serve"], "serve"),
        (["listen"], "listen"),
        (["tag", CLIP, "--format", "parquet", "--out", "x.parquet"], "data"),
        (["tag", CLIP, "--engine", "openvino"], "export"),
    ],
)
def test_what_needs_more_says_in_a_line_what_to_install(installed, words, extra):
    done = beatline(installed, *words)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert f"pip install 'beatline[{extra}]'" in last and "[missing-package]" in last
