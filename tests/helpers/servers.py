"""A server on loopback for the tests of `fetch`: plain files, a Hugging Face endpoint and video pages, with
faults on order.

It serves a folder: `files/...` as they are; `hub/{models,datasets}/<owner>/<name>/...` as repositories;
`videos/<id>` as sound, or as an answer where the file is JSON (`{"status": 404}`). `Server.faults` sets what
happens to the next requests for content, one fault each: see `Handler.content`. Model repositories can also
be made and written, by whoever has the token, as far as huggingface_hub asks: see `Handler.write`.
"""

import base64
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
LARGE = 1000  # bytes; a larger file is stored by its SHA-256, as git LFS does


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
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            self.address + path, body, timeout=20
        ) as answer:
            return answer.read()


def blob(content: bytes) -> str:
    """What the hub calls a file's content by: SHA-256 of a large one, git's hash of a small one."""
    return (
        hashlib.sha256(content).hexdigest()
        if len(content) > LARGE
        else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    )


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a body waits 40 ms for its headers to be acknowledged
    root: Path
    waiting: list[dict] = []  # noqa: RUF012
    seen: list[dict] = []  # noqa: RUF012
    lock = threading.Lock()
    commits: dict[str, str] = {}  # noqa: RUF012
    private: set[str] = set()  # noqa: RUF012
    objects: dict[str, bytes] = {}  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/_faults":
            self.write(body)
            return
        with self.lock:
            self.waiting[:], self.seen[:] = json.loads(body), []
        self.answer(200, b"{}")

    def do_PUT(self) -> None:
        self.write(self.rfile.read(int(self.headers["Content-Length"])))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/_log":
            with self.lock:
                self.answer(200, json.dumps(self.seen).encode())
            return
        with self.lock:
            self.seen.append(
                {
                    "path": path,
                    "range": self.headers.get("Range"),
                    "token": self.headers.get("Authorization"),
                    "method": self.command,
                }
            )
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
            name = name.removeprefix("datasets/")
            file = self.root / "hub" / kind / name / rest.partition("/")[2]
            if (
                file.is_file()
                and name.startswith("gated/")
                and self.headers.get("Authorization") != f"Bearer {TOKEN}"
            ):
                self.answer(401, b"", {"X-Error-Code": "GatedRepo"})
                return
            more = (
                {"ETag": f'"{blob(file.read_bytes())}"'}
                if file.is_file()
                else {"X-Error-Code": "EntryNotFound"}
            )
            self.content(file, {"X-Repo-Commit": self.commits.get(name, COMMIT), **more})
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
        commit = self.commits.get(f"{owner}/{name}", COMMIT)
        folder = self.root / "hub" / kind / owner / name
        if not folder.is_dir():
            self.answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        elif owner == "gated" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, b'{"error": "log in"}')
        elif rest[:1] == ["tree"]:
            self.json(
                [self.entry(file, folder) for file in sorted(folder.rglob("*")) if file.is_file()]
                + [{"type": "directory", "oid": "0", "path": "data"}]
            )
        else:
            self.json(
                {
                    "_id": "0",
                    "id": f"{owner}/{name}",
                    "sha": commit,
                    "private": f"{owner}/{name}" in self.private,
                    "siblings": [],
                }
            )

    def write(self, body: bytes) -> None:
        """Makes and fills model repositories. Fault `flip`, place `put`: a byte of a large file is another
        one here.
        """
        path = unquote(urlsplit(self.path).path)
        with self.lock:
            self.seen.append(
                {
                    "path": path,
                    "token": self.headers.get("Authorization"),
                    "method": self.command,
                    "bytes": len(body),
                }
            )
        if self.broken(self.fault("api"), b""):
            return
        if path.startswith("/lfs/"):
            oid, flipped = path.removeprefix("/lfs/"), self.fault("put").get("do") == "flip"
            good = hashlib.sha256(body).hexdigest() == oid
            self.objects[oid] = bytes([body[0] ^ 1]) + body[1:] if flipped else body
            self.answer(200 if good else 422, b"")
        elif path == "/api/validate-yaml":
            bad = "license: nonsense" in json.loads(body)["content"]
            self.answer(
                400 if bad else 200,
                b'{"errors": [{"message": "license must be one of [...]"}]}' if bad else b"{}",
                {"Content-Type": "application/json"},
            )
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, b'{"error": "Invalid username or password."}')
        elif path == "/api/repos/create":
            asked = json.loads(body)
            self.create(f"{asked['organization']}/{asked['name']}", asked.get("visibility") == "private")
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            self.json(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "lfs" if file["size"] > LARGE else "regular",
                            "shouldIgnore": False,
                        }
                        for file in files
                    ]
                }
            )
        elif path.endswith("/info/lfs/objects/batch"):
            host = f"http://127.0.0.1:{self.server.server_address[1]}"
            wanted = json.loads(body)["objects"]
            self.json(
                {
                    "transfer": "basic",
                    "objects": [
                        entry
                        | (
                            {}
                            if entry["oid"] in self.objects
                            else {"actions": {"upload": {"href": f"{host}/lfs/{entry['oid']}"}}}
                        )
                        for entry in wanted
                    ],
                }
            )
        else:
            _, _, _, owner, name, _, _ = path.split("/")
            self.commit(f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])

    def create(self, name: str, private: bool) -> None:
        if name.startswith("others/"):
            self.answer(403, b'{"error": "You do not have the rights"}')
            return
        folder = self.root / "hub/models" / name
        there = folder.is_dir()
        if not there:
            folder.mkdir(parents=True)
            (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
            self.private |= {name} if private else set()
        self.answer(
            409 if there else 200,
            json.dumps({"url": f"http://127.0.0.1:{self.server.server_address[1]}/{name}"}).encode(),
        )

    def commit(self, name: str, lines: list[dict]) -> None:
        """Every change of a commit, or none where a file has not arrived."""
        folder = self.root / "hub/models" / name
        changes = {line["value"]["path"]: line for line in lines if line["key"] != "header"}
        contents = {
            path: self.objects.get(line["value"]["oid"])
            if line["key"] == "lfsFile"
            else base64.b64decode(line["value"].get("content", ""))
            for path, line in changes.items()
        }
        if None in contents.values():
            self.answer(400, b'{"error": "a file has not arrived"}')
            return
        for path, content in contents.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            if changes[path]["key"] == "deletedFile":
                (folder / path).unlink()
            else:
                (folder / path).write_bytes(content)  # type: ignore[arg-type]
        self.commits[name] = hashlib.sha1(json.dumps(lines).encode()).hexdigest()
        self.json(
            {
                "commitUrl": f"http://127.0.0.1:{self.server.server_address[1]}/{name}/commit/"
                f"{self.commits[name]}",
                "commitOid": self.commits[name],
            }
        )

    def json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def entry(file: Path, folder: Path) -> dict:
        content = file.read_bytes()
        name = file.relative_to(folder).as_posix()
        entry = {
            "type": "file",
            "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
            "size": len(content),
            "path": name.replace("%2F", "/"),
        }
        if len(content) > LARGE:
            entry["lfs"] = {
                "oid": hashlib.sha256(content).hexdigest(),
                "size": len(content),
                "pointerSize": 130,
            }
        return entry

    # --- video

    def video(self, file: Path) -> None:
        about = (
            json.loads(file.read_bytes())
            if file.is_file() and file.read_bytes()[:1] == b"{"
            else {"status": 404}
            if not file.is_file()
            else None
        )
        if about:
            self.answer(about["status"], b"")
        else:
            self.content(
                file,
                {
                    "Content-Type": "audio/webm",
                    "Content-Disposition": 'attachment; filename="../../evil.webm"',
                },
            )

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
            self.answer(
                fault["status"],
                b"no",
                {
                    name: fault[key]
                    for name, key in (("Retry-After", "after"), ("RateLimit", "limit"))
                    if key in fault
                },
            )
        elif fault.get("do") == "silent":
            time.sleep(fault["seconds"])
            self.close_connection = True
        else:
            return False
        return True

    def content(self, file: Path, more: dict | None = None) -> None:
        """Sends a file. Faults: `reset`, `status` (with `after`, `limit`), `silent`; `cut` after `bytes`;
        `ignore` the range; `old`: another version, cut after `bytes`; `wrong`: a part that was not asked for;
        `drip` `bytes` at a time; `chunked` or `endless`: without a length; `lie`: other bytes under the same
        ETag, cut after `bytes`; `flip`: one byte is another.
        """
        fault = self.fault("content") if self.command == "GET" else {}
        do = fault.get("do")
        if self.broken(fault, b""):
            return
        if not file.is_file():
            self.answer(404, b"")
            return
        body = file.read_bytes()
        etag = (more or {}).get("ETag") or '"' + hashlib.md5(body).hexdigest() + '"'
        if do == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        if do in ("old", "lie"):
            body = bytes(255 - byte for byte in body)
        if do == "old":
            etag = '"old"'
        first, last = self.part(len(body), etag) if do != "ignore" else (0, len(body) - 1)
        whole = first == 0 and last == len(body) - 1 and not self.headers.get("Range")
        headers = {**(more or {}), "ETag": etag, "Accept-Ranges": "bytes"}
        if first > last and self.headers.get("Range"):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            return
        part = body[first : last + 1]
        if do == "wrong":
            first += 7
        self.send_response(200 if whole or do == "ignore" or self.fresh else 206)
        if not (whole or do == "ignore" or self.fresh):
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        headers |= (
            {"Transfer-Encoding": "chunked"}
            if do == "chunked"
            else {"Connection": "close"}
            if do == "endless"
            else {"Content-Length": str(len(part))}
        )
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
                self.wfile.write(
                    b"%x\r\n%s\r\n" % (len(part), part) + (b"" if fault.get("bytes") else b"0\r\n\r\n")
                )
                self.close_connection = bool(fault.get("bytes"))
            elif do == "drip":
                for begin in range(0, len(part), fault["bytes"]):
                    self.wfile.write(part[begin : begin + fault["bytes"]])
                    self.wfile.flush()
                    time.sleep(fault.get("pause", 0.02))
            elif do in ("cut", "old", "lie"):
                self.wfile.write(
                    part[: min(fault["bytes"], max(0, len(part) - 1))]
                )  # never whole: it would count as a file
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
