"""Bodies of requests: whole files whatever the pieces they come in, and a reason where they are refused."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beatline.core.errors import UserError
from beatline.core.limits import ServeLimits
from beatline.serve.uploads.multipart import Left, Upload, receive
from beatline.serve.uploads.spool import Share, Spool

LIMITS = ServeLimits(
    max_file_bytes=1000, max_request_bytes=5000, max_files=3, upload_grace=0.3, min_upload_rate=10_000
)
KIND = "multipart/form-data; boundary=b"


def body(*files: tuple[bytes, bytes]) -> bytes:
    return (
        b"".join(
            b"--b\r\nContent-Disposition: form-data; " + about + b"\r\n\r\n" + content + b"\r\n"
            for about, content in files
        )
        + b"--b--\r\n"
    )


def named(name: str) -> bytes:
    return b'name="files"; filename="' + name.encode() + b'"'


def take(
    content: bytes,
    size: int = 100,
    kind: str = KIND,
    length: str = "",
    limits: ServeLimits = LIMITS,
    pause: float = 0.0,
    spool: Spool | None = None,
    left: bool = False,
) -> list[tuple[Upload, bytes]]:
    pieces = [content[i : i + size] for i in range(0, len(content), size)] or [b""]
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": i + 1 < len(pieces) or left}
        for i, piece in enumerate(pieces)
    ]
    queue = iter([*messages, {"type": "http.disconnect"}])

    async def incoming() -> dict[str, Any]:
        await asyncio.sleep(pause)
        return next(queue)

    with tempfile.TemporaryDirectory() as folder, Share(spool or Spool(10_000)) as share:
        uploads = asyncio.run(receive(kind, length, incoming, Path(folder), limits, share))
        return [(upload, upload.path.read_bytes() if upload.path.exists() else b"") for upload in uploads]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_files_are_whole_whatever_the_pieces(size):
    contents = [b"", b"x", b"\r\n--a \r\n-\r\r\n--", bytes(range(256)) * 3]
    found = take(body(*((named(f"{i}.wav"), content) for i, content in enumerate(contents[1:]))), size)
    assert [(upload.name, upload.size, content) for upload, content in found] == [
        (f"{i}.wav", len(content), content) for i, content in enumerate(contents[1:])
    ]
    assert take(body((named("empty.wav"), b"")), size)[0][1] == b""


@pytest.mark.parametrize(
    ("about", "name"),
    [
        (named("a b.wav"), "a b.wav"),
        (named("../../etc/passwd"), "../../etc/passwd"),
        (named("tönung\n\x7f.wav"), "tönung\ufffd\ufffd.wav"),
        (b'name="files"; filename="\xff\xfe.wav"', "\ufffd\ufffd.wav"),
        (b'name="files"', "audio"),
        (named("x" * 999), "x" * 255),
    ],
)
def test_names_are_given_back_in_one_printable_line_and_name_no_file(about, name):
    ((upload, content),) = take(body((about, b"abc")))
    assert upload.name == name and upload.path.name == "0" and content == b"abc"


def test_a_file_that_is_too_large_is_dropped_and_the_others_kept():
    spool = Spool(10_000)
    (first, _), (second, content), (third, _) = take(
        body((named("a"), b"1"), (named("b"), bytes(1001)), (named("c"), bytes(1000))), spool=spool
    )
    assert first.error is None and third.error is None and content == b"" and spool.used == 0
    assert second.error is not None and second.error.code == "too-large" and "b" in second.error.what


@pytest.mark.parametrize(
    ("code", "given"),
    [
        ("bad-usage", {"content": b""}),
        ("bad-usage", {"content": body()}),
        ("bad-usage", {"content": b"nonsense"}),
        ("bad-usage", {"content": body((named("a"), b"abc"))[:-10]}),
        ("bad-usage", {"content": body((b'name="url"', b"http://localhost/"))}),
        ("bad-usage", {"content": body((b"", b"abc"))}),
        ("bad-usage", {"content": body((named("a"), b"abc")), "kind": "application/json"}),
        ("bad-usage", {"content": body((named("a"), b"abc")), "kind": "multipart/form-data"}),
        (
            "bad-usage",
            {"content": body((named("a"), b"abc")), "kind": "multipart/form-data; boundary=" + "b" * 999},
        ),
        ("bad-usage", {"content": b"--b\r\n" + b"X: y\r\n" * 100 + body((named("a"), b"abc"))[5:]}),
        ("too-large", {"content": body(*[(named("a"), b"abc")] * 4)}),
        ("too-large", {"content": body((named("a"), bytes(6000)))}),
        ("too-large", {"content": b"", "length": "5001"}),
        ("upload-timeout", {"content": body((named("a"), b"abc")), "size": 1, "pause": 0.02}),
        ("server-busy", {"content": body((named("a"), b"abc")), "spool": Spool(2)}),
    ],
)
def test_a_body_that_cannot_be_used_is_refused_with_its_reason(code, given):
    with pytest.raises(UserError) as caught:
        take(**given)
    assert caught.value.code == code


def test_a_fast_body_may_take_longer_than_the_grace_and_a_slow_one_not():
    content = body((named("a"), bytes(900)), (named("b"), bytes(900)), (named("c"), bytes(900)))
    fast = replace(LIMITS, upload_grace=0.1, min_upload_rate=5_000)
    assert len(content) // 300 * 0.03 > 2 * fast.upload_grace
    assert len(take(content, 300, pause=0.03, limits=fast)) == 3
    with pytest.raises(UserError, match="slower than 1000000 bytes"):
        take(content, 300, pause=0.03, limits=replace(fast, min_upload_rate=1_000_000))


def test_a_body_that_pauses_is_refused_however_fast_it_was():
    content = body((named("a"), bytes(900)), (named("b"), bytes(900)))
    with pytest.raises(UserError, match=r"paused for 0\.05 s"):
        take(content, 1800, pause=0.15, limits=replace(LIMITS, upload_grace=0.05, min_upload_rate=100))


def test_a_client_that_leaves_is_noticed():
    with pytest.raises(Left):
        take(body((named("a"), b"abc"))[:-10], left=True)
