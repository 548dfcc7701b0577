"""The page in headless Chromium, on the real server: real uploads, what is seen, heard, typed and saved."""

import csv
import json
import re
import signal
import threading
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.image import imread

from beatline.core.labels import LabelSet
from beatline.model.engines.pytorch import TorchEngine
from beatline.model.tagger import Tagger, initialise_tagger
from beatline.serve.app import create_app
from beatline.serve.program import Server
from beatline.tag.tagger import AudioTagger
from tests.helpers import browser as browsers
from tests.helpers import screenshots
from tests.helpers.browser import Browser, Page
from tests.helpers.models import CONFIG

CLIPS = Path(__file__).parents[2] / "src/beatline/assets/mini-audioset"
CLIP, OTHER = CLIPS / "audio/test_mix_000.ogg", CLIPS / "audio/test_bird_00.ogg"
AXE = Path(__file__).parent / "web/node_modules/axe-core/axe.min.js"
CONTROLS = {
    "button",
    "combobox",
    "searchbox",
    "slider",
    "link",
    "DisclosureTriangle",
    "progressbar",
    "textbox",
    "checkbox",
    "toolbar",
    "navigation",
    "meter",
}

pytestmark = [
    pytest.mark.xdist_group("page"),
    pytest.mark.skipif(not browsers.CHROMIUM, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def running():
    """A server whose model is small and untrained, but of strong opinions."""
    labels = LabelSet.from_csv((CLIPS / "classes.csv").read_text())
    model = Tagger(CONFIG, len(labels))
    initialise_tagger(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.head.weight.normal_(0, 2, generator=torch.Generator().manual_seed(1))
    running = Server(
        create_app(AudioTagger(TorchEngine(model.eval(), labels), window=1.0, hop=0.5)), "127.0.0.1", 0
    )
    thread = threading.Thread(target=running.listen)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield running
    running.handle_exit(signal.SIGTERM, None)
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def server(running):
    return running.address + "/"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("browser"), "--use-fake-device-for-media-stream")
    yield made
    made.close()


@pytest.fixture
def open_page(browser, server):
    """Opens the page; at the end nothing was written to its console, and no other host was asked for
    anything.
    """
    with ExitStack() as stack:
        pages = []

        def opener(*files: Path, **options) -> Page:
            page = stack.enter_context(browser.page(server, **options))
            pages.append(page)
            page.wait("document.querySelector('#model').textContent.includes('kinds of sound')")
            if files:
                page.give("#files", *files)
                page.wait("document.querySelectorAll('#labels button').length")
                page.wait(
                    f"document.querySelectorAll('#item-list .done, #item-list .refused').length === "
                    f"{len(files)}"
                )
                page.wait("document.querySelector('#play').disabled === false")
            return page

        yield opener
        for page in pages:
            page.run("0")
            assert page.problems == []
            assert page.requests and all(address.startswith(server) for address in page.requests)


def answer(server: str, file: Path) -> dict:
    """What the server says of a file to a client without a browser."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n' % file.name.encode()
        + file.read_bytes()
        + b"\r\n--x--\r\n"
    )
    request = urllib.request.Request(
        f"{server}v1/tag?timeline=true&events=true&top=1000",
        body,
        {"Content-Type": "multipart/form-data; boundary=x", "Accept": "application/x-ndjson"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as got:
        return json.loads(got.read().splitlines()[-1])


def number(page: Page, script: str) -> float:
    return float(page.run(script))


def played(page: Page) -> float:
    return number(page, "document.querySelector('#audio').currentTime")


def test_the_answer_is_shown_over_the_sound(open_page, server):
    page, said = open_page(CLIP), answer(server, CLIP)
    best = [f"{tag['name']} {tag['score']:.2f}" for tag in said["tags"][:5]]
    assert (
        page.run(
            "[...document.querySelectorAll('#best li')].map((one) => "
            "one.innerText.split(/\\s*\\n\\s*/).filter(Boolean).join(' '))"
        )
        == best
    )
    peaks = {label["name"]: max(label["scores"]) for label in said["timeline"]["labels"]}
    rows = page.run(
        "[...document.querySelectorAll('#labels button')].map((one) => [...one.children].map((part) => "
        "part.textContent))"
    )
    assert [float(score) for _, score in rows] == pytest.approx(
        sorted(peaks.values(), reverse=True)[:10], abs=0.0051
    )
    assert all(peaks[name] == pytest.approx(float(score), abs=0.0051) for name, score in rows)
    assert page.run("document.querySelectorAll('.lane').length") == 10
    assert page.text("#about") == "0:04.0" and best[0] in page.text("#status")
    page.wait(  # the spectrogram is drawn: many colours, all of its width
        "(() => { const c = document.querySelector('#spectrogram'), o = new OffscreenCanvas(c.width, "
        "c.height).getContext('2d'); o.drawImage(c, 0, 0);"
        " const d = new Uint32Array(o.getImageData(0, 0, c.width, c.height).data.buffer); return new "
        "Set(d).size > 100 && d[d.length - 1] !== 0 })()"
    )


def test_a_label_leads_to_where_it_is_strongest(open_page, server):
    page, said = open_page(CLIP), answer(server, CLIP)
    starts = {}
    for label in said["timeline"]["labels"]:
        events = [one for one in said["events"] if one["mid"] == label["mid"]]
        best = (
            max(events, key=lambda one: one["score"])["onset"]
            if events
            else said["timeline"]["starts"][int(np.argmax(label["scores"]))]
        )
        starts[label["name"]] = best
    names = page.run("[...document.querySelectorAll('#labels .name')].map((one) => one.textContent)")
    row, name = max(enumerate(names, 1), key=lambda one: starts[one[1]])  # not the one that begins at 0
    start = starts[name]
    assert start > 0
    page.click(f"#labels button:nth-child({row})")
    assert played(page) >= start - 0.01
    page.wait(
        f"document.querySelector('#audio').currentTime > {start} && !document.querySelector('#audio').paused"
    )
    assert played(page) < start + 2
    page.wait("document.querySelector('#play-name').textContent === 'Pause'")
    page.click("#play")
    page.wait("document.querySelector('#audio').paused")
    assert page.run("document.querySelector('#labels [aria-current=true] .name').textContent") == name
    # the playhead stands where the sound does
    shift = number(
        page,
        "new DOMMatrix(getComputedStyle(document.querySelector('#playhead')).transform).e / "
        "document.querySelector('#view').clientWidth",
    )
    page.wait("document.querySelector('#track').ariaValueNow > 0")
    assert shift == pytest.approx(played(page) / 4, abs=0.02)


def test_a_click_seeks_and_zoom_keeps_the_moment(open_page, server):
    page, said = open_page(CLIP, width=1000), answer(server, CLIP)["timeline"]
    for share in (0.95, 0.25):
        page.click("#track", share)
        assert played(page) == pytest.approx(4 * share, abs=0.01)
    names = page.run("[...document.querySelectorAll('#labels .name')].map((one) => one.textContent)")
    label = max(
        (one for one in said["labels"] if one["name"] in names), key=lambda one: np.ptp(one["scores"])
    )
    for share in (
        0.05,
        0.3,
        0.5,
        0.7,
        0.95,
    ):  # what is said of the pointer's place is of the window around it
        page.point(f".lane:nth-child({names.index(label['name']) + 1})", share)
        nearest = int(np.argmin(np.abs((np.array(said["starts"]) + said["ends"]) / 2 - 4 * share)))
        assert page.text("#readout").endswith(f"{label['name']} {label['scores'][nearest]:.2f}")
    width = "document.querySelector('#spacer').offsetWidth"
    under = (
        "(() => { const s = document.querySelector('#scroller'); return (s.scrollLeft + 0.75 * "
        "s.clientWidth) / document.querySelector('#spacer').offsetWidth })()"
    )
    whole = number(page, width)
    page.click("#zoom-in")
    assert number(page, width) == pytest.approx(2 * whole, abs=1)
    page.click("#track", 0.5)  # the playhead stayed in the window, where it was
    assert played(page) == pytest.approx(1.0, abs=1.01)
    box = page.run(
        "(() => { const b = document.querySelector('#track').getBoundingClientRect(); return [b.x + 0.75 * "
        "b.width, b.y + 40] })()"
    )
    before = number(page, under)
    for _ in range(2):
        page.call(
            "Input.dispatchMouseEvent",
            type="mouseWheel",
            x=box[0],
            y=box[1],
            deltaX=0,
            deltaY=-100,
            modifiers=2,
        )
    page.wait(f"{width} > {5 * whole}")
    assert number(page, under) == pytest.approx(before, abs=0.005)
    page.call("Input.dispatchMouseEvent", type="mouseWheel", x=box[0], y=box[1], deltaX=200, deltaY=0)
    page.wait(f"{under} > {before + 0.01}")
    page.click("#zoom-fit")
    assert number(page, width) == whole
    for _ in range(30):
        page.click("#zoom-in")
    assert number(page, width) / 4 >= 400


def test_words_and_kinds_filter_the_labels(open_page):
    page = open_page(CLIP)
    names = "[...document.querySelectorAll('#labels .name')].map((one) => one.textContent)"
    page.click("#find")
    for letter in "an":
        page.press(letter)
    found = page.run(names)
    assert found and all("an" in name.lower() for name in found)
    assert page.text("#count").endswith(f"of {len(found)} labels") or len(found) == 10
    for letter in "zz":
        page.press(letter)
    assert page.text("#count") == "No label matches" and page.run(names) == []
    page.run(
        "document.querySelector('#find').value = ''; document.querySelector('#find').dispatchEvent(new "
        "Event('input'))"
    )
    kinds = page.run(
        "[...document.querySelectorAll('#branch option')].map((one) => [one.value, one.textContent.trim()])"
    )
    mid, text = next(kind for kind in kinds if kind[1].startswith("Animal ("))
    page.run(
        f"document.querySelector('#branch').value = '{mid}'; "
        f"document.querySelector('#branch').dispatchEvent(new Event('input'))"
    )
    count = int(re.search(r"\((\d+)\)", text)[1])
    assert page.text("#count").endswith(f"of {count} labels") and {"Speech", "Thunder"}.isdisjoint(
        page.run(names)
    )
    if count > 10:
        page.click("#more")
        assert len(page.run(names)) == min(30, count)


def test_what_is_saved_is_what_the_server_said(open_page, server, browser, tmp_path):
    page, said = open_page(CLIP), answer(server, CLIP)
    browser.call(
        "Browser.setDownloadBehavior",
        behavior="allow",
        downloadPath=str(tmp_path),
        browserContextId=page.context,
    )

    def saved(button: str, name: str) -> str:
        page.click(button)
        until = time.monotonic() + 10
        while not (tmp_path / name).exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        return (tmp_path / name).read_text()

    got = json.loads(saved("#save-json", "test_mix_000.json"))
    assert (
        got["timeline"] == said["timeline"] and got["events"] == said["events"] and got["file"] == CLIP.name
    )
    rows = list(csv.DictReader(saved("#save-csv", "test_mix_000.csv").splitlines()))
    times = said["timeline"]
    assert len(rows) == len(times["starts"]) * len(times["labels"])
    assert {"Cattle, bovinae"} <= {row["name"] for row in rows}  # a name with a comma stays one field
    for row in rows[:: len(rows) // 7]:
        label = next(one for one in times["labels"] if one["mid"] == row["mid"])
        place = int(np.argmin(np.abs(np.array(times["starts"]) - float(row["onset"]))))
        assert float(row["score"]) == pytest.approx(label["scores"][place], abs=1e-6) and float(
            row["offset"]
        ) == pytest.approx(times["ends"][place], abs=1e-3)
    lines = [line.split("\t") for line in saved("#save-audacity", "test_mix_000.txt").splitlines()]
    wanted = sorted((one["onset"], one["offset"], one["name"]) for one in said["events"])
    assert len(lines) == len(wanted) > 0
    assert sorted((float(a), float(b), c) for a, b, c in lines) == [
        (pytest.approx(a, abs=1e-6), pytest.approx(b, abs=1e-6), c) for a, b, c in wanted
    ]


def test_the_table_says_it_in_words(open_page, server):
    page, said = open_page(CLIP), answer(server, CLIP)
    page.click("summary")
    page.wait("document.querySelectorAll('#table tr').length")
    table = {
        row[0]: row[1:]
        for row in page.run(
            "[...document.querySelectorAll('#table tr')].map((row) => [...row.children].map((cell) => "
            "cell.textContent))"
        )
    }
    assert len(table) == len(said["timeline"]["labels"])
    for tag in said["tags"][:5]:
        assert table[tag["name"]][0] == f"{tag['score']:.2f}"
    for event in said["events"][:5]:
        assert f"{int(event['onset'] * 10 + 1e-6) / 10:.1f}" in table[event["name"]][3]


def test_the_keyboard_reaches_and_moves_all(open_page):
    page = open_page(CLIP)
    stops = []
    for _ in range(40):
        page.press("Tab")
        stop = page.run(
            "(() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return e === document.body ? null : [e.id || e.closest('[id]').id, s.outlineStyle !== 'none' "
            "&& parseFloat(s.outlineWidth) >= 2] })()"
        )
        if not stop or (stops and stop[0] == stops[0]):
            break
        assert stop[1], f"no visible focus on {stop[0]}"
        stops.append(stop[0])
    assert stops == [
        "choose",
        "record",
        "play",
        "zoom-out",
        "zoom-fit",
        "zoom-in",
        "find",
        "branch",
        "labels",
        "track",
        "more",
        "save-json",
        "save-csv",
        "save-audacity",
        "as-table",
    ]
    page.run("document.querySelector('#track').focus()")
    for key, wanted in [
        ("End", 4.0),
        ("Home", 0.0),
        ("ArrowRight", 0.1),
        ("ArrowUp", 0.2),
        ("ArrowLeft", 0.1),
        ("PageDown", 4.0),
        ("PageUp", 0.0),
    ]:
        page.press(key)
        assert played(page) == pytest.approx(wanted, abs=0.03), key
        assert number(page, "document.querySelector('#track').ariaValueNow") == pytest.approx(
            wanted, abs=0.06
        )
    width = number(page, "document.querySelector('#spacer').offsetWidth")
    page.press("+")
    assert number(page, "document.querySelector('#spacer').offsetWidth") > 1.9 * width
    page.press("0")
    page.press(" ")
    page.wait("document.querySelector('#audio').currentTime > 0.1")
    page.press(" ")
    page.wait("document.querySelector('#audio').paused")
    page.press("Tab", shift=True)
    names = page.run("[...document.querySelectorAll('#labels .name')].map((one) => one.textContent)")
    focused = "document.activeElement.firstChild.textContent"
    for key, wanted in [("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("End", -1), ("Home", 0)]:
        page.press(key)
        assert page.run(focused) == names[wanted]
    page.press("Enter")
    page.wait("!document.querySelector('#audio').paused")


def test_a_screen_reader_hears_a_name_for_every_control(open_page):
    page = open_page(CLIP, OTHER)
    page.click("summary")
    page.wait("document.querySelectorAll('#table tr').length")
    nodes = page.accessible()
    nameless = [
        node["role"]["value"]
        for node in nodes
        if node["role"]["value"] in CONTROLS and not node.get("name", {}).get("value", "").strip()
    ]
    assert nameless == []
    roles = {node["role"]["value"] for node in nodes}
    assert {
        "main",
        "banner",
        "heading",
        "slider",
        "toolbar",
        "table",
        "rowheader",
        "columnheader",
        "status",
        "navigation",
        "searchbox",
        "combobox",
        "button",
    } <= roles
    assert re.fullmatch(
        r"0:00\.0 of 0:04\.0, .+ \d\.\d\d", page.run("document.querySelector('#track').ariaValueText")
    )
    assert (
        page.run("document.documentElement.lang") == "en"
        and page.run("document.querySelector('#status').ariaLive") == "polite"
    )


@pytest.mark.skipif(not AXE.exists(), reason="no axe-core: npm install --prefix tests/e2e/web")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(open_page, scheme, width):
    page = open_page(CLIP, OTHER, scheme=scheme, width=width)
    page.click("summary")
    page.wait("document.querySelectorAll('#table tr').length")
    page.run(f"{AXE.read_text()}; 0")
    found = page.run(
        "axe.run().then((said) => [said.passes.length, said.violations.map((one) => [one.id, "
        "one.nodes.map((node) => node.html)])])"
    )
    assert found[0] > 20 and found[1] == []


def test_a_file_that_is_no_audio_is_one_clear_line(open_page, tmp_path):
    text = tmp_path / "letter.txt"
    text.write_text("Dear reader,\n" * 50)
    page = open_page()
    page.give("#files", text)
    page.wait("!document.querySelector('#refusal').hidden")
    line = page.text("#refusal")
    assert "letter.txt" in line and "; " in line and "\n" not in line and line.endswith(".")
    assert page.run(
        "[document.querySelector('#player').hidden, document.querySelector('#again').hidden]"
    ) == [True, True]
    assert "letter.txt" in page.text("#status")
    page.give("#files", CLIP)  # and the page goes on
    page.wait("document.querySelectorAll('#labels button').length")
    assert page.run("[...document.querySelectorAll('#item-list button')].map((one) => one.className)") == [
        "refused",
        "done",
    ]


def test_keys_go_on_where_a_button_has_gone(open_page, running, monkeypatch):
    page = open_page()
    service = running.config.app.state.service
    with monkeypatch.context() as patch:
        patch.setattr(service, "limits", replace(service.limits, max_queue=0))
        page.give("#files", CLIP)
        page.wait("document.querySelector('#progress-text').textContent.startsWith('The server is busy')")
        page.run("document.querySelector('#cancel').focus()")
        page.press("Enter")
        page.wait("document.activeElement.id === 'again'")
        assert page.text("#refusal-text") == f"{CLIP.name}: cancelled."
    page.press("Enter")
    page.wait("document.querySelectorAll('#labels button').length")
    assert page.run("document.activeElement.id") == "title"
    page.problems.clear()  # the browser's note of 429


def test_a_server_that_is_busy_or_gone_is_asked_again(open_page, running, monkeypatch):
    page = open_page()
    service = running.config.app.state.service
    with monkeypatch.context() as patch:
        patch.setattr(service, "limits", replace(service.limits, max_queue=0))
        page.give("#files", CLIP)
        page.wait(
            "document.querySelector('#progress-text').textContent === 'The server is busy; next try in 1 s'"
        )
    page.wait("document.querySelectorAll('#labels button').length")

    def connected(yes: bool) -> None:
        page.call(
            "Network.emulateNetworkConditions",
            offline=not yes,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    connected(False)
    page.give("#files", OTHER)
    page.wait("!document.querySelector('#refusal').hidden")
    assert (
        page.text("#refusal-text")
        == f"{OTHER.name}: the server does not answer; check that it runs, then try again."
    )
    connected(True)
    page.click("#again")
    page.wait(
        "document.querySelectorAll('#item-list .done').length === 2 && "
        "document.querySelector('#refusal').hidden"
    )
    assert all("429" in problem or "ERR_INTERNET_DISCONNECTED" in problem for problem in page.problems), (
        page.problems
    )  # the browser's own notes of these answers
    page.problems.clear()


def test_several_files_are_a_list(open_page):
    page = open_page(CLIP, OTHER)
    first = page.run(
        "[document.querySelector('h2').textContent, document.querySelector('#best').textContent]"
    )
    assert first[0] == CLIP.name
    page.click("#item-list li:nth-child(2) button")
    page.wait("document.querySelector('#item-list li:nth-child(2) button').ariaCurrent === 'true'")
    second = page.run(
        "[document.querySelector('h2').textContent, document.querySelector('#best').textContent]"
    )
    assert second[0] == OTHER.name and second[1] != first[1]
    page.wait("!document.querySelector('#play').disabled")
    page.click("#track", 0.5)
    page.click("#play")
    page.wait("document.querySelector('#audio').currentTime > 2.2")
    page.click("#item-list li:nth-child(1) button")
    assert page.run("document.querySelector('#audio').paused") and played(page) == 0
    page.click("#item-list li:nth-child(2) button")
    page.wait("document.querySelector('#audio').currentTime > 2.2")  # where the reader was


def test_a_file_the_browser_cannot_read_still_has_its_timeline(open_page, tmp_path):
    samples, rate = soundfile.read(CLIP)
    soundfile.write(tmp_path / "tape.au", samples, rate)
    page = open_page()
    page.give("#files", tmp_path / "tape.au")
    page.wait(
        "document.querySelectorAll('.lane').length === 10 && !document.querySelector('#no-picture').hidden"
    )
    assert "cannot read the file" in page.text("#no-picture") and page.run(
        "document.querySelector('#play').disabled"
    )
    page.click("#labels button")
    assert "strongest from" in page.text("#status")


def test_a_long_recording_says_how_far_it_is(open_page, tmp_path):
    samples, rate = soundfile.read(CLIP)
    soundfile.write(tmp_path / "long.wav", np.tile(samples, 20), rate)
    page = open_page()
    page.run(
        "window.seen = []; new MutationObserver(() => "
        "seen.push(document.querySelector('#progress').value)).observe("
        "document.querySelector('#progress-text'), {childList: true, characterData: true, subtree: true})"
    )
    page.give("#files", tmp_path / "long.wav")
    page.wait("document.querySelectorAll('#labels button').length")
    seen = page.run("seen")
    assert sum(0 < value < 1 for value in seen) >= 2 and seen == sorted(seen)
    assert page.text("#about") == "1:20.0"


def test_the_microphone(open_page, browser, server):
    page = open_page()

    def allow(setting: str) -> None:
        browser.call(
            "Browser.setPermission",
            permission={"name": "microphone"},
            setting=setting,
            origin=server.rstrip("/"),
            browserContextId=page.context,
        )

    allow("denied")
    page.click("#record")
    page.wait("!document.querySelector('#problem').hidden")
    assert page.text("#problem").startswith("The microphone was refused: allow it")
    allow("granted")
    page.click("#record")
    page.wait(
        "document.querySelector('#record-name').textContent === 'Stop' && "
        "document.querySelector('#problem').hidden"
    )
    page.wait("document.querySelector('#record-time').textContent === '0:01'")
    page.click("#record")
    page.wait(
        "document.querySelector('h2').textContent === 'recording-1.wav' && "
        "document.querySelectorAll('#labels button').length"
    )
    assert 0.8 < page.wait("document.querySelector('#audio').duration") < 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_layout_and_contrast(open_page, scheme):
    page = open_page(CLIP, OTHER, width=360, height=740, scheme=scheme, prefers_reduced_motion="reduce")
    page.click("summary")
    for width in (360, 760, 1920):
        page.resize(width, 740)
        assert page.run("document.documentElement.scrollWidth") <= width
        small = page.run(
            "[...document.querySelectorAll('button, select, input, summary')].filter((e) => e.offsetParent "
            "&& (e.offsetHeight < 24 || e.offsetWidth < 24)).map((e) => e.id)"
        )
        assert small == []
    ratios = page.run("""(() => {
      const context = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
      const light = (name) => {
        context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
        context.fillRect(0, 0, 1, 1);
        const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
      };
      const pairs = [["--ink", "--page"], ["--ink", "--panel"], ["--soft", "--page"], ["--soft", "--panel"],
        ["--accent", "--panel"], ["--on-accent", "--accent"],
        ["--ink", "--bad-page"], ["--bad", "--panel"], ["--accent", "--lane"]];
      const ratio = (x, y) => (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
      return pairs.map(([a, b]) => [a, b, ratio(light(a), light(b))]);
    })()""")
    assert all(ratio >= 4.5 for _, _, ratio in ratios), ratios
    assert page.run("getComputedStyle(document.querySelector('#choose')).transitionDuration") == "0s"


def test_its_pictures_narrow_and_wide_light_and_dark(browser, server, tmp_path):
    seen = {path.stem: imread(path) for path in screenshots.take(browser, server, CLIP, tmp_path)}
    assert {name: picture.shape[1] for name, picture in seen.items()} == {
        f"page-{look}-{scheme}": width
        for look, width in screenshots.WIDTHS.items()
        for scheme in ("light", "dark")
    }
    for look in screenshots.WIDTHS:
        assert (
            seen[f"page-{look}-light"][..., :3].mean() > 0.7
            and seen[f"page-{look}-dark"][..., :3].mean() < 0.3
        )


def test_the_spectrogram_is_a_fourier_transform(open_page):
    page = open_page()
    samples = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    module = "(await import(new URL('page/spectrogram.js', document.baseURI)))"
    got = page.run(
        f"(async () => {{ const s = new {module}.Spectrogram(Float32Array.from({samples.tolist()}), () => "
        f"0); s.power.fill(0); s.transform.add(s.samples, 2048, s.power); return [...s.power] }})()"
    )
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    wanted = np.abs(np.fft.rfft(samples[2048 - 256 : 2048 + 256] * window)[:256]) ** 2
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)
    # a tone is loudest at its place
    loudest = page.run(f"""(async () => {{
      const {{Spectrogram, height}} = {module};
      const tone = (_, i) => Math.sin(2 * Math.PI * 2000 * i / 16000);
      const s = new Spectrogram(Float32Array.from({{length: 8000}}, tone), () => 0);
      const column = new Float32Array(96);
      s.column(4000, 100, column);
      return [column.indexOf(Math.max(...column)) / 96, height(2000)];
    }})()""")
    assert loudest[0] == pytest.approx(loudest[1], abs=0.02)
