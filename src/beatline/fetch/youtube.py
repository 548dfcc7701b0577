"""YouTube -> a file for each clip, of the needed seconds only, through yt-dlp's Python API.

In: clips wanted. Out: `<id>_<start ms>_<end ms>` as Opus or whatever codec the video has, copied, not encoded
again. Its edges are those of the codec's packets, 20 ms. And an answer for each clip that has no file. A clip
with an answer of `PERMANENT` is never asked for again. When YouTube takes us for a robot, everything stops.
Options of yt-dlp are fixed here: no plugin, no configuration file, no program to run. An id is 11 characters
before it becomes part of an address or a name.
"""

import errno
import io
import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from beatline.core.artefact import disk_errors
from beatline.core.errors import UserError
from beatline.core.threads import in_order
from beatline.data.manifest.audioset import is_recording
from beatline.fetch import http, services

PERMANENT = ("removed", "private", "geo-blocked", "members-only", "unavailable", "too-short")
COOKIES_MAY_HELP = ("private", "members-only", "age-restricted")
FORMAT = "bestaudio[acodec=opus][protocol=https]/bestaudio[protocol=https]/bestaudio/best"
FORMS = {
    "opus": ("ogg", "opus"),
    "vorbis": ("ogg", "ogg"),
    "aac": ("mp4", "m4a"),
    "mp3": ("mp3", "mp3"),
    "flac": ("flac", "flac"),
}
"""Codec -> container and extension; others go into Matroska."""
READABLE = "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,ogg,mp3,flac,wav"
MOST_FAILURES = 10  # in a row: then it is the network, or YouTube has changed, and not these clips
MOST_UNREACHABLE = 3  # in a row, where there was not even an answer

# What YouTube says, as yt-dlp passes it on, in this order: "unavailable" is the beginning of many of the
# others.
STOPS = r"not a bot|captcha|http error 429|too many requests|rate-limited|try again later"
ANSWERS = (
    ("private", r"private video|video is private"),
    ("geo-blocked", r"in your country|geo.?restrict|from your location"),
    ("age-restricted", r"confirm your age|age.restricted|inappropriate for some users"),
    ("members-only", r"members.only|channel's members|join this channel|requires payment|purchase"),
    (
        "removed",
        r"removed|terminated|no longer available|has been deleted|isn't available anymore|does not "
        r"exist|copyright",
    ),
    (
        "unavailable",
        r"video unavailable|this video is (not available|unavailable)|this video isn't available",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Service:
    """Whom to ask."""

    address: str = services.VIDEO
    """Of a video's page, with `{id}`."""
    extractors: tuple[str, ...] = ("youtube",)
    """yt-dlp's extractors that may answer."""


SERVICE = Service()


class Excerpt(NamedTuple):
    """A clip to get."""

    recording: str
    start: float
    end: float

    @property
    def name(self) -> str:
        """Its file's name, without extension."""
        return f"{self.recording}_{round(self.start * 1000)}_{round(self.end * 1000)}"


class _Stop(Exception):
    """YouTube refuses us, not the clip."""


class _Missing(Exception):
    """There is no such clip; `kind` is that of the answer, if there was an answer."""

    def __init__(self, kind: str, reason: str, answered: bool = True):
        super().__init__(reason)
        self.kind, self.reason, self.answered = kind, reason, answered


def fetch(
    excerpts: Iterable[tuple[Path, Excerpt]],
    record: Callable[[Excerpt, str, str], None],
    *,
    cookies: Path | None = None,
    rate: float = 250.0,
    jobs: int = 4,
    service: Service = SERVICE,
    policy: http.Policy = http.POLICY,
) -> int:
    """Gets each excerpt into its folder; the number of them that are there now.

    Args:
        excerpts: Folders and what to put there.
        record: Called with each excerpt that cannot be had, the kind of answer and its words. A single thread
            calls, as soon as the answer is known.
        cookies: File of a browser's cookies, in Netscape's format; it is read, never written.
        rate: Videos asked for in an hour, by all jobs together.
        jobs: Videos asked for at the same time.

    Raises:
        UserError: `service-refused`, `no-network`, `missing-package`, `missing-file` (the cookies),
            `disk-full`, `not-writable`.
    """
    client = _Client(cookies, rate, service, policy)
    count = failures = unreachable = 0
    with ExitStack() as ending:
        ending.callback(client.close)
        answers = cast(
            Generator[tuple[Excerpt, _Missing | None], None, None],
            in_order(excerpts, lambda job: (job[1], client.get(*job)), jobs),
        )
        ending.callback(answers.close)
        ending.callback(client.stopped.set)  # first: the jobs end by it
        try:
            for excerpt, missing in answers:
                if missing is None:
                    count += 1
                    failures = 0
                    unreachable = 0
                    continue
                record(excerpt, missing.kind, missing.reason)
                failures = failures + 1 if missing.kind == "failed" else 0
                unreachable = 0 if missing.answered else unreachable + 1
                if failures == MOST_FAILURES or unreachable == MOST_UNREACHABLE:
                    remedy = (
                        "check the network, `pip install -U yt-dlp yt-dlp-ejs`, and run the same "
                        "command; it goes on from here. Without a network: do so on another machine, and "
                        "name its folder with --from"
                    )
                    raise UserError(
                        "no-network",
                        "stopped asking YouTube",
                        f"{failures} clips in a row failed, the last because: {missing.reason}",
                        remedy,
                    )
        except _Stop as stop:
            remedy = (
                "wait an hour or more and run the same command; it goes on from here. A lower --rate "
                "and --cookies FILE, exported from a browser where you watch YouTube, help"
            )
            raise UserError(
                "service-refused", "stopped asking YouTube", f"it takes us for a robot ({stop})", remedy
            ) from stop
    return count


def kind_of(words: str) -> str:
    """The kind of an answer: `stop`, a kind of `ANSWERS`, or `failed`, which may pass."""
    words = words.replace("\u2019", "'").lower()
    if re.search(STOPS, words):
        return "stop"
    return next((kind for kind, pattern in ANSWERS if re.search(pattern, words)), "failed")


class _Client:
    """What the jobs share: options, pace, and the order to stop."""

    def __init__(self, cookies: Path | None, rate: float, service: Service, policy: http.Policy):
        try:
            import av
            import yt_dlp
            from yt_dlp.globals import all_plugins_loaded
        except ImportError as error:
            raise UserError(
                "missing-package",
                "cannot ask YouTube",
                f"it needs the package {error.name}",
                "pip install 'beatline[download]'",
            ) from error
        all_plugins_loaded.value = True  # none is: a plugin is a program from who knows where
        try:
            self._cookies = None if cookies is None else cookies.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                "missing-file",
                f"cannot read {cookies}",
                getattr(error, "strerror", None) or "it is not text",
                "export the cookies again, in Netscape's format",
            ) from error
        self._yt_dlp, self._av, self._service, self._policy = yt_dlp, av, service, policy
        self._pause = 3600 / rate
        self._next = 0.0
        self._lock = threading.Lock()
        self._own = threading.local()
        self._downloaders: list[Any] = []
        self.stopped = threading.Event()

    def close(self) -> None:
        """Ends every connection; no job may be running."""
        for downloader in self._downloaders:
            downloader.close()

    def get(self, folder: Path, excerpt: Excerpt) -> _Missing | None:
        """Puts an excerpt into its folder; or says what is in the way."""
        assert is_recording(excerpt.recording)
        try:
            self._wait_for_turn()
            self._get(folder, excerpt)
        except _Missing as missing:
            return missing
        except _Stop:
            self.stopped.set()
            raise
        return None

    def _wait_for_turn(self) -> None:
        with self._lock:
            turn = self._next = max(time.monotonic(), self._next + self._pause)
        if self.stopped.wait(max(0.0, turn - time.monotonic())):
            raise _Missing("not-asked", "the run stopped before")

    def _get(self, folder: Path, excerpt: Excerpt) -> None:
        downloader = self._downloader()
        about = self._about(downloader, excerpt)
        whole = folder / ".whole" / excerpt.recording
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stream: Any = http.RangeStream(
                    lambda first, count: self._read(downloader, about, first, count)
                )
            except http.NoRanges:
                stream = self._whole(downloader, about, whole)
            with stream:
                _cut(self._av, stream, excerpt, folder)
            shutil.rmtree(whole, ignore_errors=True)

    def _downloader(self) -> Any:
        """This thread's yt-dlp."""
        if not hasattr(self._own, "downloader"):
            self._own.downloader = self._yt_dlp.YoutubeDL(self._options(), auto_init="no_verbose_header")
            self._downloaders.append(self._own.downloader)
        return self._own.downloader

    def _options(self) -> dict[str, Any]:
        silent = logging.getLogger("beatline.yt_dlp")
        silent.propagate = False
        silent.addHandler(logging.NullHandler())
        return {
            "format": FORMAT,
            "cookiefile": None
            if self._cookies is None
            else io.StringIO(self._cookies),  # a copy: yt-dlp writes into what it is given
            "allowed_extractors": [f"^{name}$" for name in self._service.extractors],
            "js_runtimes": {"deno": {}, "node": {}},
            "socket_timeout": self._policy.timeout,
            "retries": 3,
            "extractor_retries": 2,
            "logger": silent,
            "noprogress": True,
            "noplaylist": True,
            "cachedir": False,
            "fixup": "never",
            "updatetime": False,
        }

    def _about(self, downloader: Any, excerpt: Excerpt) -> dict[str, Any]:
        """What yt-dlp knows of the video: above all its sound's address."""
        try:
            about = downloader.extract_info(
                self._service.address.format(id=excerpt.recording), download=False
            )
        except self._yt_dlp.utils.YoutubeDLError as error:
            cause = (getattr(error, "exc_info", None) or (None, None))[1]
            getattr(getattr(cause, "cause", None), "close", lambda: None)()  # the server's answer
            kind = "geo-blocked" if isinstance(cause, self._yt_dlp.utils.GeoRestrictedError) else ""
            answered = not any(
                isinstance(origin, self._yt_dlp.networking.exceptions.TransportError)
                for origin in (cause, getattr(cause, "cause", None))
            )
            raise self._answer(str(error), kind, answered) from error
        if not about or not str(about.get("url", "")).startswith(("http://", "https://")):
            raise _Missing("failed", "there is no sound to download")
        return about

    def _answer(self, words: str, kind: str = "", answered: bool = True) -> Exception:
        words = " ".join(re.sub(r"\x1b\[[\d;]*m", "", words).removeprefix("ERROR:").split())[:300]
        kind = kind or kind_of(words)
        return _Stop(words) if kind == "stop" else _Missing(kind, words, answered)

    def _read(self, downloader: Any, about: dict[str, Any], first: int, count: int) -> tuple[bytes, int]:
        """Part of the sound."""
        from yt_dlp.networking import Request
        from yt_dlp.networking.exceptions import HTTPError, RequestError

        if about.get("protocol") not in ("http", "https"):
            raise http.NoRanges
        headers = {
            **about.get("http_headers", {}),
            "Range": f"bytes={first}-{first + count - 1}",
            "Accept-Encoding": "identity",
        }
        for attempt in range(3):
            if self.stopped.is_set():
                raise _Missing("not-asked", "the run stopped before")
            try:
                with downloader.urlopen(Request(about["url"], headers=headers)) as answer:
                    begin, _, total = (
                        answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
                    )
                    if answer.status != 206 or begin.partition("-")[0] != str(first) or not total.isdecimal():
                        raise http.NoRanges
                    content = answer.read()
                if len(content) == min(count, int(total) - first):
                    return content, int(total)
                words = "the connection ended early"
            except HTTPError as error:
                error.close()
                words = str(error)
                if error.status == 429 or error.status < 500:
                    raise self._answer(words) from error
            except RequestError as error:
                words = str(error)
            self.stopped.wait(self._policy.first_wait * 2**attempt)
        raise self._answer(words)

    def _whole(self, downloader: Any, about: dict[str, Any], folder: Path) -> Any:
        """The whole sound by yt-dlp's own downloader, where parts of it cannot be had."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "sound"
        try:
            done, _ = downloader.dl(str(path), about)
        except (self._yt_dlp.utils.YoutubeDLError, self._yt_dlp.networking.exceptions.RequestError) as error:
            raise self._answer(str(error)) from error
        if not done:
            raise _Missing("failed", "the download did not end")
        return path.open("rb")


def _cut(av: Any, stream: Any, excerpt: Excerpt, folder: Path) -> None:
    """Copies the packets of the needed seconds into a file."""
    partial = folder / f"{excerpt.name}.partial"
    try:
        with av.open(
            stream,
            options={"format_whitelist": READABLE, "protocol_whitelist": "none"},
            metadata_errors="replace",
            io_open=_nothing_else,
        ) as source:
            track = source.streams.best("audio")
            if track is None:
                raise _Missing("removed", "the video has no sound")
            form, extension = FORMS.get(track.codec_context.name.removesuffix("float"), ("matroska", "mka"))
            source.seek(round(excerpt.start * 1_000_000), backward=True)
            with av.open(str(partial), "w", format=form, options={"fflags": "+bitexact"}) as result:
                if not _copy(source, track, result, excerpt):
                    raise _Missing("too-short", "the video ends before the clip begins")
    except (av.FFmpegError, ValueError) as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(error.errno, error.strerror) from error
        raise _Missing("failed", f"its sound cannot be read ({error})") from error
    except _Missing:
        partial.unlink(missing_ok=True)
        raise
    http.finish(partial, folder / f"{excerpt.name}.{extension}")


def _copy(source: Any, track: Any, result: Any, excerpt: Excerpt) -> int:
    """Number of packets copied."""
    copied = result.add_stream_from_template(track)
    first = None
    count = 0
    for packet in source.demux(track):
        if (
            packet.pts is None
            or float((packet.pts + (packet.duration or 0)) * packet.time_base) <= excerpt.start
        ):
            continue
        if float(packet.pts * packet.time_base) >= excerpt.end:
            break
        first = packet.pts if first is None else first
        packet.pts = packet.dts = packet.pts - first
        packet.stream = copied
        result.mux(packet)
        count += 1
    return count


def _nothing_else(address: str, flags: int, options: dict[str, str]) -> Any:
    raise PermissionError(f"a container may not name another file: {address}")
