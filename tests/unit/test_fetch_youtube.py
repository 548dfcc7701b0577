"""Clips of videos: yt-dlp's own extractor of direct links and its own downloader, against a server on
loopback.
"""

import gc
import os
import threading
from inspect import getsource
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yt_dlp.globals
from yt_dlp.extractor.youtube import _video

from beatline.audio import media
from beatline.core.errors import UserError
from beatline.fetch import http, youtube
from beatline.fetch.youtube import Excerpt
from tests.helpers.servers import Server
from tests.helpers.sounds import contained

# yt-dlp's extractor of direct links, which only the tests use, leaves its first connection open
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <s:pytest.PytestUnraisableExceptionWarning"
)
QUICK = http.Policy(tries=4, first_wait=0.001, longest_wait=0.01, timeout=5)
RECORDING = "-a_bcdefghi"


def stairs(seconds: float) -> np.ndarray:
    """A tone of 200 Hz in the first second, 210 Hz in the next, and so on."""
    time = np.arange(round(48_000 * seconds)) / 48_000
    return (0.4 * np.sin(2 * np.pi * (200 + 10 * np.floor(time)) * time))[:, None].astype(np.float32)


def heard(path: Path, second: float) -> int:
    """Which second of `stairs` is heard there, by its tone."""
    samples = np.asarray(media.decode(path).samples, float)[
        round((second - 0.1) * 16_000) : round((second + 0.1) * 16_000)
    ]
    return round(
        (np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * 16_000 / len(samples) - 200) / 10
    )


@pytest.fixture(autouse=True)
def collected():
    """Such connections end within the test; what was there before is not searched."""
    gc.freeze()
    yield
    gc.collect()
    gc.unfreeze()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    (root / "videos").mkdir()
    (root / "videos" / RECORDING).write_bytes(contained("webm", "libopus", 48_000, stairs(60)))
    (root / "videos/aac________").write_bytes(contained("ipod", "aac", 48_000, stairs(90)))
    (root / "videos/page_______").write_text("<html>nothing here</html>")
    for status in (404, 429, 500):
        (root / f"videos/answers_{status}").write_text(f'{{"status": {status}}}')
    server = Server(root)
    yield server
    server.close()


@pytest.fixture
def ask(server, tmp_path):
    """Gets excerpts; the number of files and the answers."""

    def run(*excerpts, **options):
        service = youtube.Service(address=server.address + "/watch/{id}", extractors=("generic",))
        said = []
        options = {"rate": 1e6, "jobs": 1, "policy": QUICK} | options
        count = youtube.fetch(
            [(tmp_path, excerpt) for excerpt in excerpts],
            lambda *answer: said.append(answer),
            service=service,
            **options,
        )
        return count, [(excerpt.recording, kind) for excerpt, kind, _ in said]

    return run


@pytest.mark.parametrize(
    "recording, name",
    [(RECORDING, f"{RECORDING}_30000_40000.opus"), ("aac________", "aac_________30000_40000.m4a")],
)
def test_only_the_needed_seconds_are_transferred(server, ask, tmp_path, recording, name):
    server.faults()
    assert ask(Excerpt(recording, 30.0, 40.0)) == (1, [])
    assert os.listdir(tmp_path) == [name]
    assert heard(tmp_path / name, 0.5) == 30 and heard(tmp_path / name, 9.5) == 39
    assert abs(len(media.decode(tmp_path / name).samples) / 16_000 - 10) < 0.05
    size = (server.root / "videos" / recording).stat().st_size
    assert size > 600_000 and len([r for r in server.log() if r["range"]]) * (1 << 17) < 0.8 * size


def test_the_same_bytes_each_time(ask, tmp_path):
    ask(Excerpt(RECORDING, 12.0, 14.5))
    first = (tmp_path / f"{RECORDING}_12000_14500.opus").read_bytes()
    ask(Excerpt(RECORDING, 12.0, 14.5))
    assert first == (tmp_path / f"{RECORDING}_12000_14500.opus").read_bytes()


def test_where_parts_cannot_be_had_the_whole_goes_through_yt_dlps_downloader(server, ask, tmp_path):
    server.faults(*[{"do": "ignore"}] * 2, {"do": "cut", "bytes": 200_000})
    assert ask(Excerpt(RECORDING, 30.0, 40.0)) == (1, [])
    assert heard(tmp_path / f"{RECORDING}_30000_40000.opus", 0.5) == 30
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".opus"]
    assert (
        server.log()[-1]["range"].endswith("-") and int(server.log()[-1]["range"][6:-1]) > 100_000
    )  # it went on where it broke


def test_passing_troubles_pass(server, ask, tmp_path):
    server.faults({"do": "ignore"}, {"do": "cut", "bytes": 500}, {"do": "reset"})
    assert ask(Excerpt(RECORDING, 30.0, 40.0)) == (1, [])


def test_many_at_once(ask, tmp_path):
    count, said = ask(*[Excerpt(RECORDING, float(second), second + 2.0) for second in range(40)], jobs=4)
    assert (count, said) == (40, []) and len(list(tmp_path.iterdir())) == 40
    assert heard(tmp_path / f"{RECORDING}_23000_25000.opus", 0.5) == 23


def test_answers_are_kept_apart(ask, tmp_path):
    assert ask(
        Excerpt("answers_404", 0.0, 10.0),
        Excerpt("page_______", 0.0, 10.0),
        Excerpt(RECORDING, 70.0, 80.0),
        Excerpt(RECORDING, 50.0, 60.0),
    ) == (1, [("answers_404", "failed"), ("page_______", "failed"), (RECORDING, "too-short")])
    assert len(list(tmp_path.iterdir())) == 1


def test_too_many_requests_stop_everything(server, ask):
    server.faults()
    with pytest.raises(UserError, match="--cookies") as refused:
        ask(*[Excerpt("answers_429", float(second), second + 1.0) for second in range(50)], jobs=2)
    assert refused.value.code == "service-refused" and len(server.log()) <= 4


def test_when_nothing_works_it_stops(server, ask):
    server.faults()
    with pytest.raises(UserError, match="10 clips in a row"):
        ask(*[Excerpt("answers_404", float(second), second + 1.0) for second in range(50)])
    assert len(server.log()) < 25


def test_without_a_network_it_stops_at_once_and_says_what_to_do():
    service, said = youtube.Service(address="http://127.0.0.1:9/{id}", extractors=("generic",)), []
    with pytest.raises(
        UserError,
        match=r"3 clips in a row.*Without a network: do so on another machine, and name its folder with "
        r"--from",
    ) as refused:
        youtube.fetch(
            [(Path("nowhere"), Excerpt(RECORDING, float(second), second + 1.0)) for second in range(50)],
            lambda *answer: said.append(answer[1]),
            jobs=1,
            rate=1e6,
            service=service,
            policy=QUICK,
        )
    assert refused.value.code == "no-network" and said == ["failed"] * 3


def test_the_rate_is_kept_by_all_jobs_together(ask, monkeypatch):
    waits = []

    class Hurried(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return self.is_set()

    monkeypatch.setattr(youtube, "threading", SimpleNamespace(**vars(threading) | {"Event": Hurried}))
    ask(*[Excerpt(RECORDING, float(second), second + 1.0) for second in range(5)], jobs=4, rate=3600 / 100)
    assert sorted(round(seconds / 100) for seconds in waits) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "words, kind",
    [
        ("Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser or --cookies", "stop"),
        ("HTTP Error 429: Too Many Requests", "stop"),
        (
            "Video unavailable. This content isn\u2019t available, try again later. The current session has "
            "been rate-limited by YouTube for up to an hour",
            "stop",
        ),
        ("This video is private. YouTube is requiring a captcha challenge before playback", "stop"),
        ("Private video. Sign in if you've been granted access to this video", "private"),
        ("Video unavailable. The uploader has not made this video available in your country", "geo-blocked"),
        ("Sign in to confirm your age. This video may be inappropriate for some users.", "age-restricted"),
        ("Join this channel to get access to members-only content like this video", "members-only"),
        ("Video unavailable. This video has been removed by the uploader", "removed"),
        (
            "This video is no longer available because the YouTube account associated with this video has "
            "been terminated.",
            "removed",
        ),
        ("Video unavailable. This video is no longer available due to a copyright claim by X", "removed"),
        ("Video unavailable", "unavailable"),
        ("Requested format is not available. Use --list-formats for a list of available formats", "failed"),
        ("Unable to download API page: The read operation timed out", "failed"),
    ],
)
def test_kinds_of_answers(words, kind):
    assert youtube.kind_of(f"[youtube] {RECORDING}: {words}") == kind


def test_yt_dlp_still_says_it_so():
    source = getsource(_video)
    for words in (
        "rate-limited by YouTube",
        "This content isn't available, try again later",
        "not made this video available in your country",
        "captcha challenge",
    ):
        assert words in source


def test_no_option_runs_a_program_and_nothing_of_the_users_is_written(server, tmp_path, monkeypatch):
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t2147483647\tkey\tvalue\n")
    before, home, threads = cookies.read_bytes(), tmp_path / "home", threading.active_count()
    plugin = home / "yt-dlp/plugins/evil/yt_dlp_plugins/extractor"
    plugin.mkdir(parents=True)
    (plugin / "evil.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\n")
    (home / "yt-dlp/config").write_text(f"--exec 'touch {tmp_path / 'pwned'}'\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setattr(yt_dlp.globals.all_plugins_loaded, "value", False)
    opened, given = yt_dlp.YoutubeDL, []
    monkeypatch.setattr(
        yt_dlp, "YoutubeDL", lambda options, **more: given.append(set(options)) or opened(options, **more)
    )
    service = youtube.Service(address=server.address + "/watch/{id}", extractors=("generic",))
    youtube.fetch(
        [(tmp_path / "out", Excerpt(RECORDING, 1.0, 2.0))],
        lambda *_: None,
        cookies=cookies,
        rate=1e6,
        service=service,
        policy=QUICK,
    )
    assert (
        cookies.read_bytes() == before
        and not (tmp_path / "pwned").exists()
        and len(list((tmp_path / "out").iterdir())) == 1
    )
    (options,) = given
    assert not options & {
        "postprocessors",
        "exec_cmd",
        "external_downloader",
        "external_downloader_args",
        "ffmpeg_location",
        "proxy",
        "netrc_cmd",
        "cookiesfrombrowser",
        "outtmpl",
        "remote_components",
    }
    assert threading.active_count() < threads + 10


def test_only_youtube_answers_by_default(tmp_path):
    said = []
    youtube.fetch(
        [(tmp_path, Excerpt(RECORDING, 1.0, 2.0))],
        lambda *answer: said.append(answer),
        rate=1e6,
        service=youtube.Service(address="http://127.0.0.1:9/{id}"),
        policy=QUICK,
    )
    assert said[0][1] == "failed" and "No suitable extractor" in said[0][2]


def test_cookies_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="cookies"):
        youtube.fetch([], lambda *_: None, cookies=tmp_path / "none.txt")
