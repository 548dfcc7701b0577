"""Headless Chromium for tests, driven by its DevTools protocol over two pipes; no package is needed.

`Page` counts what a reader must never cause: console errors, uncaught exceptions, requests to another host.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# The browser reads commands from descriptor 3 and writes to 4: a step between makes the pipes these two.
_PLACED = """
import os, sys
read, write = (os.dup(int(one)) for one in sys.argv[1:3])
for number, place in (read, 3), (write, 4):
    os.dup2(number, place)
    os.set_inheritable(place, True)
os.execv(sys.argv[3], sys.argv[3:])
"""
KEYS = {
    "Tab": 9,
    "Enter": 13,
    " ": 32,
    "PageUp": 33,
    "PageDown": 34,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}


class Browser:
    """One Chromium process; `page` opens a tab of its own."""

    def __init__(self, profile: Path, *switches: str):
        assert CHROMIUM, "no Chromium: apt-get install chromium"
        down, self._write = os.pipe()
        self._read, up = os.pipe()
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--mute-audio",
        ]
        command = [
            sys.executable,
            "-c",
            _PLACED,
            str(down),
            str(up),
            CHROMIUM,
            *options,
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            *switches,
        ]
        self._process = subprocess.Popen(
            command, pass_fds=(down, up), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(down)
        os.close(up)
        self._held, self._number, self.pages = b"", 0, dict[str, Page]()

    def close(self) -> None:
        """Ends the process and waits for it."""
        try:
            self.call("Browser.close")
        except (OSError, EOFError, TimeoutError):
            self._process.kill()
        finally:
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            os.close(self._read)
            os.close(self._write)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to one command of the protocol; what else arrives meanwhile goes to its page."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters} | (
            {"sessionId": session} if session else {}
        )
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.next(30)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def next(self, seconds: float) -> dict[str, Any]:
        """The next message, which its page has seen.

        Raises:
            TimeoutError: None came in so many seconds.
            EOFError: The browser is gone.
        """
        until = time.monotonic() + seconds
        while b"\0" not in self._held:
            if not select.select([self._read], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser is silent")
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise EOFError("the browser is gone")
            self._held += piece
        line, _, self._held = self._held.partition(b"\0")
        message = json.loads(line)
        page = self.pages.get(message.get("sessionId", ""))
        if page and "method" in message:
            page.saw(message["method"], message["params"])
        return message

    @contextmanager
    def page(
        self, address: str, width: int = 1280, height: int = 900, scheme: str = "light", **features: str
    ) -> Iterator["Page"]:
        """A new tab without a past at this address, of this size and in this colour scheme.

        Args:
            features: Media features by name, `_` for `-`, as in `prefers_reduced_motion="reduce"`.
        """
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session, context, address)
        try:
            for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
                page.call(f"{domain}.enable")
            media = {"prefers-color-scheme": scheme} | {
                name.replace("_", "-"): value for name, value in features.items()
            }
            page.call(
                "Emulation.setEmulatedMedia",
                features=[{"name": name, "value": value} for name, value in media.items()],
            )
            page.resize(width, height)
            page.call("Page.navigate", url=address)
            page.wait("document.readyState === 'complete'")
            yield page
        finally:
            del self.pages[session]
            self.call("Target.disposeBrowserContext", browserContextId=context)


class Page:
    """A tab: scripts run in it, keys and clicks go to it."""

    def __init__(self, browser: Browser, session: str, context: str, address: str):
        self.browser, self.session, self.context, self.address = browser, session, context, address
        self.problems: list[str] = []
        """Console errors and warnings, uncaught exceptions, and violations of the page's policy."""
        self.requests: list[str] = []
        """Addresses of all requests, `blob:` and `data:` left out."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    def saw(self, method: str, what: dict[str, Any]) -> None:
        """Keeps what counts of an event."""
        if method == "Runtime.exceptionThrown":
            details = what["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.problems.append(str([one.get("value", one.get("description")) for one in what["args"]]))
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{what['entry']['text']} {what['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent" and not what["request"]["url"].startswith(
            ("blob:", "data:")
        ):
            self.requests.append(what["request"]["url"])

    def run(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, (
            answer["exceptionDetails"].get("exception", {}).get("description", answer["exceptionDetails"])
        )
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 20) -> Any:
        """The first true value of an expression."""
        until = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < until, f"not within {seconds:g} s: {script}; {self.problems}"
            time.sleep(0.03)
        return value

    def text(self, selector: str) -> str:
        """What an element says to the eye."""
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText.trim()")

    def give(self, selector: str, *files: Path) -> None:
        """Chooses files in a file input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def point(self, selector: str, across: float = 0.5) -> dict[str, float]:
        """Moves the mouse over an element, at this share of its width; where that is."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: "
            f"'nearest'}}); const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height] }})()"
        )
        place = {"x": box[0] + across * box[2], "y": box[1] + box[3] / 2}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
        return place

    def click(self, selector: str, across: float = 0.5) -> None:
        """A mouse's click on an element, at this share of its width."""
        place = self.point(selector, across)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def press(self, key: str, shift: bool = False) -> None:
        """A key down and up: a name of `KEYS`, or a character."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = KEYS.get(key, ord(key[0].upper()))
        common = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def resize(self, width: int, height: int) -> None:
        """Another size of the window; a narrow one is a telephone's, whose scroll bars take no room."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """The page as a PNG, all of its height unless told otherwise."""
        path.write_bytes(
            base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])
        )

    def accessible(self) -> list[dict[str, Any]]:
        """The nodes that a screen reader meets."""
        return [node for node in self.call("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
