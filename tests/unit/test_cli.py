"""The program and its pipes: a reader that leaves early, a full disk, and no output at all."""

import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from beatline import cli
from beatline.audio import media
from beatline.audio.inputs import find_audio
from beatline.core.errors import UserError
from beatline.model.checkpoints.own import save
from tests.helpers.models import LABELS, make_tagger


def shell(line: str, unbuffered: str = "") -> str:
    """What a shell says of a line, in which `beatline` is this program, with errors."""
    line = line.replace("beatline", f"{shlex.quote(sys.executable)} -m beatline", 1)
    done = subprocess.run(
        ["bash", "-c", line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        timeout=120,
    )
    return done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["--help", "--version", "tag --help 2>&1"])
def test_a_reader_that_leaves_is_no_error(words, unbuffered):
    assert shell(f"beatline {words} | true; echo ${{PIPESTATUS[0]}}", unbuffered) in (
        "141\n",
        "0\n",
    )  # argparse bears it by itself


def test_help_is_short_enough_for_head_and_closed_outputs_are_borne():
    first, code = shell("beatline --help | head -1; echo ${PIPESTATUS[0]}").splitlines()
    assert first.startswith("usage: beatline") and code in ("0", "141")
    assert shell("beatline --version >&-; echo $?") == "0\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line():
    line, code = shell("beatline --help > /dev/full; echo $?").splitlines()
    assert line.endswith("[disk-full]") and code == "5"


@pytest.mark.slow
def test_tagging_into_a_pipe_that_closes(tmp_path):
    save(tmp_path / "model", make_tagger(), LABELS, {})
    for number in range(40):
        soundfile.write(
            tmp_path / f"{number}.wav", 0.1 * np.random.default_rng(number).standard_normal(3200), 16_000
        )
    place = shlex.quote(str(tmp_path))
    tag = f"beatline tag {place} --model {place}/model --format jsonl"
    more_than_a_pipe_holds = "--timeline --window 0.02 --hop 0.01"
    lines = shell(f"{tag} {more_than_a_pipe_holds} | {{ head -1; }}; echo ${{PIPESTATUS[0]}}").splitlines()
    assert len(lines) == 2 and lines[0].startswith('{"file": ') and lines[1] == "141"


def test_an_argument_that_names_nothing_is_named(tmp_path):
    from beatline.cli.tag import find_sources

    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    assert list(find_sources([str(tmp_path / "a.wav")])) == [tmp_path / "a.wav"]
    for word in (tmp_path / "empty", tmp_path / "no*.mp3"):
        with pytest.raises(UserError, match=r"nothing to use in .*no audio file there"):
            list(find_sources([str(tmp_path / "a.wav"), str(word)]))


def test_an_error_writes_no_escape_sequences():
    assert (
        str(UserError("not-audio", "cannot use a\x1b]0;x\x07\udcff.wav", "ä", "b"))
        == "cannot use a\\x1b]0;x\\x07\\udcff.wav: ä; b [not-audio]"
    )


def test_a_folder_that_cannot_be_read_is_one_line_and_the_rest_is_found(half_closed):
    (half_closed / "a.wav").write_bytes(b"x")
    assert list(find_audio([str(half_closed)])) == [half_closed / "a.wav", half_closed / "closed"]
    with pytest.raises(UserError, match=r"closed: Permission denied"):
        media.decode(half_closed / "closed")


def test_debug_shows_the_traceback_and_keeps_line_and_exit_code(capsys):
    assert cli.main(["--debug", "tag", "--nonsense"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "beatline: option --nonsense" in shown


@pytest.mark.parametrize(
    "words, near",
    [
        (["tag", "--topp", "3"], "--top"),
        (["tag", "--modle", "x"], "--model"),
        (["tagg"], "tag"),
        (["prepare", "mini", "--data.folde", "x"], "--data.folder"),
    ],
)
def test_the_nearest_name_is_offered(words, near, capsys):
    assert cli.main(words)
    assert f"did you mean {near}?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["tag", "--colour"], ["xyzzy"], ["train", "mini", "--speed=2"]])
def test_a_far_name_is_not_offered(words, capsys):
    assert cli.main(words)
    assert "did you mean" not in capsys.readouterr().err
