"""Windows is refused in one line, by the program and by `beatline.load`."""

import subprocess
import sys
from pathlib import Path

import pytest

import beatline

WINDOWS = """
import sys
sys.modules |= dict.fromkeys(["fcntl", "grp", "pwd", "resource", "termios"])  # what Python has there: nothing
sys.platform = "win32"
"""
LINE = "beatline on Windows: it runs on Linux and macOS; install WSL2 and use beatline there"


def on_windows(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WINDOWS + program],
        env={"PYTHONPATH": str(Path(beatline.__file__).parents[1])},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("command", ["tag a.wav --model m", "run", "serve --model m"])
def test_the_program_refuses_windows_in_one_line(command):
    done = on_windows(f"from beatline.cli import main; sys.exit(main({command.split()}))")
    assert (done.returncode, done.stderr, done.stdout) == (2, f"beatline: {LINE} [unsupported-system]\n", "")


def test_load_refuses_windows():
    done = on_windows(
        "import beatline\ntry: beatline.load('m')\nexcept beatline.core.errors.UserError as e: print(e)"
    )
    assert (done.returncode, done.stdout) == (0, f"{LINE} [unsupported-system]\n"), done.stderr


def test_help_and_version_are_printed_on_windows():
    for word in ("--help", "--version"):
        assert on_windows(f"from beatline.cli import main; sys.exit(main(['{word}']))").returncode == 0
