"""README.md and docs/: every command and every block of Python is run as it stands, or is in `ELSEWHERE` with
the reason why not; and one mp3 gets one right answer in four ways.
"""

import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import beatline
from beatline import cli, load_config
from beatline.core import remote
from tests.helpers import hubs, rays
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.pages import ANSWER, PAGES, ROOT, SHOWN, blocks, furnish

cluster, s3 = rays.cluster, rays.s3  # the fixtures
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),  # one Ray at a time
    *(
        pytest.mark.filterwarnings(f"ignore::{kind}")
        for kind in ("DeprecationWarning", "FutureWarning", "UserWarning")
    ),  # of Ray, transformers, onnx
]
NOTEBOOK = ROOT / "examples/notebook/tag.ipynb"

ELSEWHERE = {
    r"pip install 'beatline\[\w+\]'": "asks a package index; the extra is looked up below",
    r"pip install \.": "asks a package index: tests/e2e/test_install.py does it in an environment of its own",
    r"\./test\.sh( fast)?( tests/unit/test_events\.py)?": "runs this",
    r"source .venv/bin/activate": "a test has an environment already",
    r"\./run\.sh": "makes an environment, then `beatline run`: tests/e2e/test_main_job.py",
    r"\./run\.sh conf/(as20k|esc50)\S* .*": "AudioSet and BEATs' weights are not here",
    r"beatline fetch .*": "AudioSet, its copies and YouTube are not here: tests/e2e/test_fetch.py does it "
    "on loopback",
    r"hf download .*": "the Hugging Face Hub is not here",
    r"beatline (prepare|run) as20k .*": "AudioSet is not here: tests/e2e/test_prepare.py",
    r"torchrun .*": "machines with GPUs: tests/e2e/test_resume.py does it with two processes",
    r"beatline listen --model .*": "a microphone: tests/e2e/test_microphone.py",
    r"beatline (tag .* --model|models --check) beats": "it is not here: tests/unit/test_hub.py",
    r"jupyter lab .*": "opens a browser; the notebook is executed below",
}
"""Commands that cannot run here, and the reason; their options are checked all the same."""
SOURCES = {
    "arecord -f S16_LE -r 16000": "cat rooster.raw",
    "ffmpeg -i rtsp://camera -f wav -": "cat long.wav",
}
"""What makes sound where there is a microphone or a camera, and what does it here."""
SOURCE = {"PYTHONPATH": str(Path(beatline.__file__).parents[1])}
SERVER = "beatline serve --model runs/mini"
LANGUAGES = {"": "run", "python": "run", "js": "tests/e2e/test_examples.py"} | dict.fromkeys(SHOWN, "shown")


def elsewhere(command: str) -> str | None:
    return next((reason for form, reason in ELSEWHERE.items() if re.fullmatch(form, command)), None)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    return furnish(tmp_path_factory.mktemp("docs") / "place")


@pytest.fixture(scope="module")
def server(furnished):
    """The port of `SERVER`, which several pages start."""
    port = free_port()
    with serving(port, "-m", *shlex.split(SERVER), "--port", str(port), place=furnished):
        yield port


@pytest.fixture(scope="module")
def exports():
    """What was exported, by command: it takes seconds, and two pages do the same."""
    return {}


@pytest.fixture
def place(furnished, tmp_path, monkeypatch):
    """A copy for one page."""
    shutil.copytree(furnished, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", SOURCE["PYTHONPATH"])
    return tmp_path / "place"


def free_port() -> int:
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))
        return link.getsockname()[1]


@contextlib.contextmanager
def serving(port: int, *command: str, place: Path | None = None) -> Iterator[None]:
    """A server as a program, from ready to SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, cwd=place, env={**os.environ, **SOURCE}
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with (
                contextlib.suppress(OSError),
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                    f"http://127.0.0.1:{port}/readyz", timeout=5
                ),
            ):
                break
            assert process.poll() is None and time.monotonic() < deadline, command
            time.sleep(0.05)
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


class Desk:
    """Where a page's lines are run, in order."""

    def __init__(self, servers: contextlib.ExitStack, request, said):
        self.servers, self.request, self.said, self.port = servers, request, said, free_port()

    def command(self, command: str) -> None:
        """Runs a line to its end, a server to the page's end; what it promises to write is there."""
        for name, here in {**SOURCES, "127.0.0.1:8000": f"127.0.0.1:{self.port}"}.items():
            command = command.replace(name, here)
        words, exports = shlex.split(command), self.request.getfixturevalue("exports")
        if command == SERVER:
            self.port = self.request.getfixturevalue("server")
            return
        if command in exports:
            shutil.copytree(exports[command], words[3])
            return
        if words[:2] == ["beatline", "serve"]:
            self.servers.enter_context(serving(self.port, "-m", *words, "--port", str(self.port)))
            return
        if words[0] == "beatline" and "|" not in words:
            assert cli.main(words[1:]) == 0, command
            output = self.said.readouterr().out
        else:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, (command, done.stderr)
            output = done.stdout
        written = [
            value
            for option, value in itertools.pairwise(words)
            if option in ("--out", "--html", "--to")
            and not re.fullmatch(r"openvino|onnx|torch-export|espnet", value)
        ]
        assert written or output.strip(), f"{command} says nothing and writes nothing"
        assert all(remote.listing(*remote.system(place)) for place in written), command
        if "curl" in words:
            assert ANSWER in output
        elif words[:2] == ["beatline", "export"]:
            exports[command] = Path(words[3]).absolute()
            assert (exports[command] / "contents.json").exists()

    def python(self, text: str, name: str) -> None:
        """Runs a block as a program of its own where it serves or is ESPnet's, else here."""
        if "program.run(" in text:
            self.port = free_port()
            Path("block.py").write_text(text.replace("8000", str(self.port)))
            with serving(self.port, "block.py"):
                pass
        elif "espnet2" in text:
            self.espnet(text)
        else:
            exec(compile(text, name, "exec"), {})
            assert self.said.readouterr().out.strip(), f"{name} says nothing"

    def espnet(self, text: str) -> None:
        """Its own `unpack`, then its own model on the same samples; `Classification` imports librosa, numba
        and more, which the peers' environment leaves out: `./bench.sh espnet_zip` runs it.
        """
        assert 'Classification(**unpack("mini.zip", "unpacked"))(waveform)' in text
        if "BEATLINE_PEERS" not in os.environ:
            pytest.skip("no peers: BEATLINE_PEERS names their environment")
        python, alone = (
            Path(os.environ["BEATLINE_PEERS"], "bin/python").absolute(),
            {**os.environ, "PYTHONPATH": ""},
        )
        unpack = (
            'from espnet2.main_funcs.pack_funcs import unpack; print(unpack("mini.zip", '
            '"unpacked")["classification_model_file"])'
        )
        model = subprocess.run(
            [python, "-W", "ignore", "-c", unpack], capture_output=True, text=True, check=True, env=alone
        ).stdout.strip()
        waveform = soundfile.read("rooster.wav", dtype="float32")[0]
        np.savez("clip.npz", waveforms=waveform[None], lengths=np.array([len(waveform)]))
        subprocess.run(
            [
                python,
                "-W",
                "ignore",
                ROOT / "tests/parity/peer_espnet.py",
                "+",
                "score",
                Path(model).parent,
                "clip.npz",
                "scores.npz",
            ],
            capture_output=True,
            check=True,
            env=alone,
        )
        np.testing.assert_allclose(
            np.load("scores.npz")["scores_alone"][0],
            beatline.load("runs/mini")("rooster.wav").scores,
            atol=1e-4,
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page(page, place, request, tmp_path, monkeypatch, capfd):
    text = page.read_text()
    if any(
        "--engine ray" in command and not elsewhere(command)
        for block in blocks(page)
        for command in block.commands
    ):
        request.getfixturevalue("s3").put("recordings/", "bucket/audio/", recursive=True)
        request.getfixturevalue("cluster")  # it knows the store only if it is started after it
    with contextlib.ExitStack() as open_until_the_end:
        if "OWNER/NAME" in text:
            open_until_the_end.enter_context(hubs.serving(tmp_path / "hub", monkeypatch))
        desk = Desk(open_until_the_end, request, capfd)
        for block in blocks(page):
            assert block.language in LANGUAGES, f"{block.page}:{block.line}"
            if block.language == "python":
                desk.python(block.text, f"{block.page}:{block.line}")
            for command in block.commands:
                if elsewhere(command) is None:
                    desk.command(command)


def test_what_is_not_run_would_run(capsys):
    """Its commands, options, configurations and extras exist; and no reason is left over from a line that is
    gone.
    """
    commands = [command for page in PAGES for block in blocks(page) for command in block.commands]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    used = set()
    for command in commands:
        used |= {form for form in ELSEWHERE if re.fullmatch(form, command)}
        words = shlex.split(
            command.removeprefix("./run.sh") if (own := command.startswith("./run.sh")) else command
        )
        if elsewhere(command) is None:
            continue
        if found := re.search(r"beatline\[(\w+)\]", command):
            assert found[1] in extras, command
        if own or words[:2] in (["beatline", "run"], ["beatline", "prepare"]) or "torchrun" in words:
            words = words if own else words[words.index("beatline") + 2 :]
            if words:
                settings = re.sub(r"--(engine|source|to) \S+", "", shlex.join(words[1:]))
                load_config(words[0], shlex.split(settings))
        elif words[0] == "beatline":
            assert cli.main([*words[1 : 3 if words[1] == "fetch" else 2], "--help"]) == 0
            helped = capsys.readouterr().out
            assert all(word.split("=")[0] in helped for word in words if word.startswith("--")), command
    assert used == set(ELSEWHERE), "reasons without a line"
    assert len(commands) > 60


def test_one_mp3_gets_one_right_answer_in_four_ways(place, server, tmp_path):
    """The command, a notebook, curl and a browser hear in rooster.mp3 what is in it."""
    said = subprocess.run(
        [sys.executable, "-m", "beatline", "tag", "rooster.mp3", "--model", "runs/mini", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (best, *_) = json.loads(said)[0]["tags"]
    assert best["name"] == ANSWER

    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), (
        "outputs are not kept"
    )
    shutil.copy(NOTEBOOK, place)
    environment = {
        **os.environ,
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "HOME": str(tmp_path),
        "PYTHONWARNINGS": "ignore",
    }
    subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", NOTEBOOK.name, "--inplace", "--kernel_name=python3"],
        check=True,
        timeout=200,
        env=environment,
        capture_output=True,
    )
    shown = [
        out
        for cell in json.loads((place / NOTEBOOK.name).read_text())["cells"]
        for out in cell.get("outputs", [])
    ]
    pages = ["".join(out["data"]["text/html"]) for out in shown if "text/html" in out.get("data", {})]
    assert re.search(r"<tbody><tr><td>([^<]*)", pages[0])[1] == ANSWER and not any(
        out["output_type"] == "error" for out in shown
    )
    assert any("image/png" in out.get("data", {}) for out in shown) and "rooster.mp3" in pages[0]

    if shutil.which("curl"):
        answer = json.loads(
            subprocess.run(
                ["curl", "-sF", "files=@rooster.mp3", f"http://127.0.0.1:{server}/v1/tag?top=1"],
                capture_output=True,
                check=True,
            ).stdout
        )
        (tag,) = answer["results"][0]["tags"]
        assert tag["name"] == ANSWER and tag["score"] == pytest.approx(best["score"], abs=1e-5)
    if CHROMIUM:
        browser = Browser(tmp_path / "profile")
        try:
            with browser.page(f"http://127.0.0.1:{server}/") as page:
                page.wait("document.querySelector('#model').textContent.includes('kinds of sound')")
                page.give("#files", place / "rooster.mp3")
                page.wait("document.querySelectorAll('#labels button').length")
                assert page.text("#labels button").startswith(ANSWER) and not page.problems
        finally:
            browser.close()
