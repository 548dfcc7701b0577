"""The page on a recording, narrow and wide, light and dark, as it is to be looked at.

python -m tests.helpers.screenshots runs/mini docs/screenshots        runs/mini is what ./run.sh makes; an
    environment
    with the extra `serve`, and Chromium
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from tests.helpers.browser import Browser

WIDTHS = {"narrow": 390, "wide": 1120}
SCHEMES = ("light", "dark")
CLIPS = Path(__file__).parents[2] / "src/beatline/assets/mini-audioset/audio"
HEARD = (
    "bird",
    "motor_vehicle_road",
    "thunder",
    "violin_fiddle",
    "water",
    "chicken_rooster",
    "organ",
    "fire",
    "drum_kit",
    "speech",
)
"""Four seconds of each."""


def take(browser: Browser, address: str, recording: Path, folder: Path) -> list[Path]:
    """The four pictures, each of the whole page after a click on the second label."""
    made = []
    for look, width in WIDTHS.items():
        for scheme in SCHEMES:
            with browser.page(address, width=width, scheme=scheme) as page:
                page.wait("document.querySelector('#model').textContent.includes('kinds of sound')")
                page.give("#files", recording)
                page.wait(
                    "document.querySelectorAll('#labels button').length && "
                    "!document.querySelector('#play').disabled"
                )
                page.click("#labels button:nth-child(2)")
                page.wait("!document.querySelector('#audio').paused")
                page.click("#play")
                page.wait("document.querySelector('#audio').paused")
                page.run("document.activeElement.blur()")
                page.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
                page.resize(width, page.run("document.documentElement.scrollHeight"))  # no scroll bar
                page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
                made.append(folder / f"page-{look}-{scheme}.png")
                page.screenshot(made[-1])
                Image.open(made[-1]).convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE).save(
                    made[-1], optimize=True
                )  # 256 colours: half the size
    return made


def main(model: str, folder: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        recording = Path(place) / "afternoon.wav"
        soundfile.write(
            recording,
            np.concatenate(
                [soundfile.read(CLIPS / f"test_{kind}_00.ogg", dtype="int16")[0] for kind in HEARD]
            ),
            16_000,
        )
        command = [
            sys.executable,
            "-m",
            "beatline",
            "serve",
            "--model",
            model,
            "--window",
            "2",
            "--hop",
            "1",
            "--port",
            "0",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            browser = Browser(Path(place) / "profile")
            try:
                address = next(
                    word for line in server.stdout or () for word in line.split() if word.startswith("http")
                )
                print(*take(browser, address, recording, Path(folder)), sep="\n")
            finally:
                browser.close()
                server.terminate()


if __name__ == "__main__":
    main(*sys.argv[1:])
