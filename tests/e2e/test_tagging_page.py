"""docs/tagging.md: every command and the Python in it, run where its names are."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatline import cli, formats
from beatline.labels import LabelSet, audioset
from beatline.model.checkpoint import save
from tests.unit.test_engine import make_tagger

PAGE = (Path(__file__).parents[2] / "docs/tagging.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.S)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the model and the sounds that the page speaks of."""
    labels = audioset()
    save(tmp_path / "runs/mini/model", make_tagger(), LabelSet(tuple(labels.labels[labels.index_of_mid[mid]] for mid in ("/m/0jbk", "/m/0bt9lr", "/m/05tny_"))), {})
    (tmp_path / "recordings").mkdir()
    rng = np.random.default_rng(0)
    for name in ("bark.mp3", "recordings/a.wav", "recordings/b.wav"):
        soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(16_000 * 12), 16_000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_does_what_stands_beside_it(place, capfd):
    commands = [re.split(r"\s{2,}", line)[0] for line in dict(BLOCKS)[""].splitlines()]
    assert len(commands) == 8
    for command in commands:
        if command.startswith("cat "):
            source, words = command.split(" | ")
            piped = subprocess.run([sys.executable, "-m", *shlex.split(words)], input=Path(shlex.split(source)[1]).read_bytes(), check=True, capture_output=True)
            assert b"Animal" in piped.stdout
        else:
            assert cli.main(shlex.split(command)[1:]) == 0, command
    assert "Dog" in capfd.readouterr().out
    assert len((place / "tags.jsonl").read_text().splitlines()) == 2 and "Selection" in (place / "table.txt").read_text()


def test_the_python_runs(place, capsys):
    exec(compile(dict(BLOCKS)["python"], "docs/tagging.md", "exec"), {})
    assert "Dog" in capsys.readouterr().out


def test_every_option_and_format_is_on_the_page():
    from beatline.cli.tagging import _parser

    own = [option for action in _parser()._actions for option in action.option_strings if option not in ("-h", "--help", "--model", "--engine", "--precision", "--device")]
    assert own and [option for option in own if f"{option} " not in PAGE and f"{option}`" not in PAGE] == []
    assert [name for name in formats.NAMES if f"`{name}`" not in PAGE] == []
