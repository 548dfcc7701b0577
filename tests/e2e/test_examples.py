"""examples/ and docs/export.md: the same scores in Python, in C++ and in a browser as from beatline, of a
real clip and of a short one.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from beatline.audio import media
from beatline.fetch.known import box_folder
from beatline.tag import tagger as tag
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.models import tiny_export

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("export")]
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CLIP = ROOT / "src/beatline/assets/mini-audioset/audio/test_bird_01.ogg"
ORT = EXAMPLES / "cpp/onnxruntime"
NODE = EXAMPLES / "web/node_modules"


@pytest.fixture(scope="module", params=["export", "box"])
def place(tmp_path_factory, request):
    """A folder with an export or the box, and two WAV files: a clip, and a clip too short for a model."""
    folder = tmp_path_factory.mktemp("examples")
    model = box_folder() if request.param == "box" else tiny_export(tmp_path_factory)
    (folder / "exported").symlink_to(model)
    samples = media.decode(CLIP).samples
    soundfile.write(folder / "clip.wav", samples, 16_000)
    soundfile.write(folder / "short.wav", samples[8000:9300], 16_000)
    return folder


@pytest.fixture(scope="module")
def wanted(place):
    """What beatline says of each file: names with scores, best first."""
    ready = tag.load(place / "exported", "onnx")
    return {
        name: [(label.name, score) for label, score in ready(place / name).top(5)]
        for name in ("clip.wav", "short.wav")
    }


def assert_same(text, wanted, within):
    """Lines of a score and a name."""
    got = [line.split(maxsplit=1) for line in text.strip().splitlines()]
    assert [name for _, name in got] == [name for name, _ in wanted]
    assert [float(score) for score, _ in got] == pytest.approx([score for _, score in wanted], abs=within)


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=200, **options)


def test_python(place, wanted):
    assert "import beatline" not in (EXAMPLES / "python/tag.py").read_text()
    for name in wanted:
        done = run(sys.executable, "-I", EXAMPLES / "python/tag.py", place / "exported", place / name)
        assert done.returncode == 0, done.stderr
        assert_same(done.stdout, wanted[name], 1e-6)
    refused = run(
        sys.executable, "-I", EXAMPLES / "python/tag.py", place / "exported", CLIP.with_name("gone.ogg")
    )
    assert refused.returncode != 0


@pytest.mark.skipif(not shutil.which("g++"), reason="no g++: apt-get install g++")
@pytest.mark.skipif(
    not ORT.exists(), reason="no onnxruntime headers: examples/cpp/onnxruntime.sh fetches them on Debian"
)
def test_cpp(place, wanted, tmp_path):
    (written,) = re.findall(r"(?m)^//   (g\+\+ .*?)  ", (EXAMPLES / "cpp/tag.cpp").read_text())
    command = written.replace("ORT/", f"{ORT}/").replace(
        "-o tag", f"-o {tmp_path / 'tag'} -Wall -Wextra -Werror"
    )
    built = run(*command.split(), cwd=EXAMPLES / "cpp")
    assert built.returncode == 0, built.stderr
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"} | {
        "HOME": str(home)
    }
    for name in wanted:
        done = run(tmp_path / "tag", place / "exported", place / name, env=environment)
        assert done.returncode == 0, done.stderr
        assert_same(done.stdout, wanted[name], 1e-5)
    assert not list(home.rglob("*"))
    for bad in ([], [place / "exported", CLIP], [place / "gone", place / "clip.wav"]):
        refused = run(tmp_path / "tag", *bad)
        assert (
            refused.returncode == 1 and refused.stderr.startswith("tag: ") and refused.stderr.count("\n") == 1
        )


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium")
@pytest.mark.skipif(not NODE.exists(), reason="no onnxruntime-web: npm install --prefix examples/web")
def test_browser(place, wanted, tmp_path):
    site = shutil.copytree(EXAMPLES / "web", tmp_path / "site", ignore=shutil.ignore_patterns("node_modules"))
    (site / "node_modules").symlink_to(NODE)
    (site / "exported").symlink_to(place / "exported")
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", site],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline()).group(0)
        browser = Browser(tmp_path / "profile")
        try:
            for name in wanted:
                with browser.page(address) as page:
                    page.wait("!document.querySelector('input').disabled", 60)
                    page.give("input", place / name)
                    page.wait(
                        "document.querySelectorAll('li').length || "
                        "document.querySelector('[role=status]').textContent.includes('not work')",
                        60,
                    )
                    assert_same(page.text("ol"), wanted[name], 1e-4)
                    assert page.problems == [] and all(
                        request.startswith(address) for request in page.requests
                    )
            (site / "clip.wav").symlink_to(place / "clip.wav")
            (block,) = re.findall(
                r"(?s)```js\nimport (.*?) from (.*?);\n(.*?)```", (ROOT / "docs/export.md").read_text()
            )  # as the page has it, but for the import, which a script cannot
            with browser.page(address) as page:
                best = page.run(
                    f"(async () => {{ const file = await (await fetch('clip.wav')).blob(); const {block[0]} "
                    f"= await import({block[1]}); {block[2]} return best[0].name }})()"
                )
                assert best == wanted["clip.wav"][0][0]
            with browser.page(address) as page:
                page.wait("!document.querySelector('input').disabled", 60)
                page.give("input", EXAMPLES / "web/tagger.js")
                page.wait("document.querySelector('[role=status]').textContent.includes('not work')", 60)
        finally:
            browser.close()
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def test_the_page_names_what_is_there():
    """Its blocks of Python run in `test_docs`."""
    named = re.findall(r"`((?:examples|docs|tests)/[\w./-]+)`", (ROOT / "docs/export.md").read_text())
    assert len(named) >= 5
    for name in named:
        assert (ROOT / name).exists(), name
