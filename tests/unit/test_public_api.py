"""What is public is there, typed and documented."""

import inspect
import subprocess
import sys

import pytest

import beatline

SCRIPT = """
from pathlib import Path

import numpy as np

import beatline

tagger: beatline.AudioTagger = beatline.load("runs/mini", engine="torch", window=5.0)
result: beatline.Result = tagger("bark.mp3", events=beatline.EventOptions(threshold=0.5))
results: list[beatline.Result] = tagger([Path("a.wav"), Path("b.wav")])
names: list[str] = [label.name for label, score in result.top(3) if score > 0.5]
embedding: np.ndarray = tagger.embed("bark.mp3", level="window")
each: list[beatline.Result | beatline.Refused] = list(tagger.tag([Path("a.wav")]))
tagger.calibration = beatline.Calibration.load("runs/mini")
stream = beatline.Stream(tagger, rate=16_000)
moments: list[beatline.Moment] = stream.push(np.zeros(160, np.int16)) + stream.finish()
batches = beatline.BatchTagger("runs/mini", column="audio")
app = beatline.create_app(tagger)
config = beatline.load_config("mini", ("--train.epochs", "1"))
width: int = beatline.load_checkpoint("runs/mini").config.encoder_embed_dim
try:
    beatline.run(config)
except beatline.UserError as error:
    code: str = error.code
"""


@pytest.mark.parametrize("name", sorted(set(beatline.__all__) - {"__version__"}))
def test_every_public_name_is_there_and_documented(name):
    public = getattr(beatline, name)
    assert inspect.getdoc(public)
    if inspect.isfunction(public):
        hints = public.__annotations__
        assert "return" in hints and set(inspect.signature(public).parameters) <= set(hints)


def test_help_of_load_says_every_argument():
    text = inspect.getdoc(beatline.load)
    assert all(f"{name}: " in text for name in inspect.signature(beatline.load).parameters)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'no_such'"):
        beatline.no_such  # noqa: B018


@pytest.mark.slow
def test_a_script_that_uses_all_of_it_passes_mypy_strict(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\nfollow_imports = silent\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_beatline_imports_no_torch_and_little_else():
    code = "import sys, beatline; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "soundfile", "tqdm"} & set(done.stdout.split())
