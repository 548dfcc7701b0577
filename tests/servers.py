"""A server on loopback for the tests of `fetch`: plain files, a Hugging Face endpoint and video pages, with faults on order.

It serves a folder: `files/...` as they are; `hub/{models,datasets}/<owner>/<name>/...` as repositories; `videos/<id>` as sound, or as an answer where the file is JSON
(`{"status": 404}`). `Server.faults` sets what happens to the next requests for content, one fault each: see `Handler.content`.
"""

import hashlib
import json
import re
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_secret"


class Server:
    """The server as a process of its own, so that tests can fork."""

    def __init__(self, root: Path):
        self.root = root
        self._process = subprocess.Popen([sys.executable, __file__, str(root)], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.address = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def faults(self, *faults: dict) -> None:
        """What happens to the next requests for content; forgets the log."""
        self._ask("/_faults", json.dumps(faults).encode())

    def log(self) -> list[dict]:
        """The requests since `faults`: path, range and authorization."""
        return json.loads(self._ask("/_log"))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.address + path, body, timeout=20) as answer:
            return answer.read()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    root: Path
    waiting: list[dict] = []  # noqa: RUF012
    seen: list[dict] = []  # noqa: RUF012
    lock = threading.Lock()

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        faults = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            self.waiting[:], self.seen[:] = faults, []
        self.answer(200, b"{}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/_log":
            with self.lock:
                self.answer(200, json.dumps(self.seen).encode())
            return
        with self.lock:
            self.seen.append({"path": path, "range": self.headers.get("Range"), "token": self.headers.get("Authorization"), "method": self.command})
        if path.startswith("/api/"):
            self.api(path)
        elif path.startswith("/elsewhere/"):
            target = path.removeprefix("/elsewhere/")
            self.answer(302, b"", {"Location": f"http://localhost:{self.server.server_address[1]}/{target}"})
        elif path.startswith("/loop"):
            self.answer(302, b"", {"Location": parse_qs(urlsplit(self.path).query).get("to", ["/loop"])[0]})
        elif path.startswith("/files/"):
            self.content(self.root / path.lstrip("/"))
        elif path.startswith("/watch/"):
            self.video(self.root / "videos" / path.split("/")[2])
        elif "/resolve/" in path:
            name, _, rest = path.strip("/").partition("/resolve/")
            kind = "datasets" if name.startswith("datasets/") else "models"
            file = self.root / "hub" / kind / name.removeprefix("datasets/") / rest.partition("/")[2]
            self.content(file, {"X-Repo-Commit": COMMIT})
        else:
            self.answer(404, b"")

    def answer(self, status: int, body: bytes, headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # --- the hub

    def api(self, path: str) -> None:
        if self.broken(self.fault("api"), b""):
            return
        _, _, kind, owner, name, *rest = path.split("/")
        folder = self.root / "hub" / kind / owner / name
        if not folder.is_dir():
            self.answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        elif owner == "gated" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, b'{"error": "log in"}')
        elif rest[:1] == ["tree"]:
            self.json([self.entry(file, folder) for file in sorted(folder.rglob("*")) if file.is_file()] + [{"type": "directory", "oid": "0", "path": "data"}])
        else:
            self.json({"_id": "0", "id": f"{owner}/{name}", "sha": COMMIT, "siblings": []})

    def json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def entry(file: Path, folder: Path) -> dict:
        content = file.read_bytes()
        name = file.relative_to(folder).as_posix()
        entry = {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name.replace("%2F", "/")}
        if len(content) > 1000:
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    # --- video

    def video(self, file: Path) -> None:
        about = json.loads(file.read_bytes()) if file.is_file() and file.read_bytes()[:1] == b"{" else {"status": 404} if not file.is_file() else None
        if about:
            self.answer(about["status"], b"")
        else:
            self.content(file, {"Content-Type": "audio/webm", "Content-Disposition": 'attachment; filename="../../evil.webm"'})

    # --- content and its faults

    def fault(self, place: str) -> dict:
        with self.lock:
            for number, fault in enumerate(self.waiting):
                if fault.get("place", "content") == place and re.search(fault.get("path", ""), self.path):
                    return self.waiting.pop(number)
        return {}

    def broken(self, fault: dict, _: bytes) -> bool:
        """Answers for faults that leave no content."""
        if fault.get("do") == "reset":
            self.connection.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: RST
            self.close_connection = True
            self.connection.close()
        elif fault.get("do") == "status":
            self.answer(fault["status"], b"no", {"Retry-After": fault["after"]} if "after" in fault else {})
        elif fault.get("do") == "silent":
            time.sleep(fault["seconds"])
            self.close_connection = True
        else:
            return False
        return True

    def content(self, file: Path, more: dict | None = None) -> None:
        """Sends a file. Faults: `reset`, `status` (with `after`), `silent`; `cut` after `bytes`; `ignore` the range; `old`: another version, cut after `bytes`; `wrong`: a part
        that was not asked for; `drip` `bytes` at a time; `chunked` or `endless`: without a length; `lie`: other bytes under the same ETag, cut after `bytes`."""
        fault = self.fault("content") if self.command == "GET" else {}
        do = fault.get("do")
        if self.broken(fault, b""):
            return
        if not file.is_file():
            self.answer(404, b"")
            return
        body = file.read_bytes()
        etag = '"' + hashlib.md5(body).hexdigest() + '"'
        if do in ("old", "lie"):
            body = bytes(255 - byte for byte in body)
        if do == "old":
            etag = '"old"'
        first, last = self.part(len(body), etag) if do != "ignore" else (0, len(body) - 1)
        whole = first == 0 and last == len(body) - 1 and not self.headers.get("Range")
        headers = {"ETag": etag, "Accept-Ranges": "bytes", **(more or {})}
        if first > last and self.headers.get("Range"):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            return
        part = body[first : last + 1]
        if do == "wrong":
            first += 7
        self.send_response(200 if whole or do == "ignore" or self.fresh else 206)
        if not (whole or do == "ignore" or self.fresh):
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        headers |= {"Transfer-Encoding": "chunked"} if do == "chunked" else {"Connection": "close"} if do == "endless" else {"Content-Length": str(len(part))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.send(part, fault)

    def part(self, length: int, etag: str) -> tuple[int, int]:
        self.fresh = False
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if self.headers.get("If-Range", etag) != etag:
            self.fresh = True
            return 0, length - 1
        return (int(asked[1]), min(length - 1, int(asked[2] or length - 1))) if asked else (0, length - 1)

    fresh = False

    def send(self, part: bytes, fault: dict) -> None:
        do = fault.get("do")
        try:
            if do == "chunked":
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) + (b"" if fault.get("bytes") else b"0\r\n\r\n"))
                self.close_connection = bool(fault.get("bytes"))
            elif do == "drip":
                for begin in range(0, len(part), fault["bytes"]):
                    self.wfile.write(part[begin : begin + fault["bytes"]])
                    self.wfile.flush()
                    time.sleep(fault.get("pause", 0.02))
            elif do in ("cut", "old", "lie"):
                self.wfile.write(part[: min(fault["bytes"], max(0, len(part) - 1))])  # never whole: it would count as a file
                self.close_connection = True
            else:
                self.wfile.write(part)
                self.close_connection = self.close_connection or do == "endless"
        except OSError:  # the client was killed
            self.close_connection = True


def main() -> None:
    """Serves the folder on a free port, and prints that."""
    Handler.root = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
