"""One HTTP request: what may be asked, what an answer says, and which troubles pass.

In: an address and headers. Out: the answer, opened, or `Again` where another try may do better. Only http and
https, certificates checked, proxies as the environment says, no redirect from https to http; what is meant
for one host is never sent to another. Standard library only: `http` has to survive cut connections and kills
by itself anyway, and needs no more than this of a client.
"""

import http.client
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from beatline.core.errors import UserError

PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that another try may change
_REMEDIES = {
    401: "it needs a token: log in with `hf auth login`",
    403: "it needs a token or a consent: log in with `hf auth login`, accept its terms in a browser",
}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How patient and how polite a download is."""

    tries: int = 8
    """Attempts in a row without progress before giving up; a server that never answered gets three."""
    first_wait: float = 1.0
    """Wait after a failed attempt, seconds; doubled each time."""
    longest_wait: float = 60.0
    """Largest such wait, seconds."""
    longest_request: float = 900.0
    """Longest wait that a server may ask for with Retry-After, seconds; more ends the run."""
    timeout: float = 30.0
    """Longest silence of a server, seconds."""
    slowest: float = 100.0
    """Slowest rate accepted over `timeout`, bytes a second; a slower connection is made anew."""


POLICY = Policy()


class Again(Exception):
    """An attempt failed in a way that another one may not.

    Args:
        cause: Why, in one clause.
        wait: Seconds that the server asked to wait, if it did.
        answered: Whether a server answered at all.
    """

    def __init__(self, cause: str, wait: float | None = None, answered: bool = True):
        super().__init__(cause)
        self.cause, self.wait, self.answered = cause, wait, answered


class NoRanges(Exception):
    """The server sends whole files only."""


@contextmanager
def opened(
    address: str, own: Mapping[str, str], headers: Mapping[str, str], policy: Policy
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET request.

    Raises:
        Again: passing troubles.
        HTTPError: 416.
        UserError: `download-failed` for lasting ones.
    """
    if urlsplit(address).scheme not in ("http", "https"):
        raise UserError(
            "bad-usage",
            f"address {address!r}",
            "it is not of the form https://...",
            "give a web address or a folder",
        )
    request = urllib.request.Request(
        address, headers={"User-Agent": "beatline", "Accept-Encoding": "identity", **own}
    )
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    try:
        with trouble():
            answer = _client().open(request, timeout=policy.timeout)
    except HTTPError as error:
        error.close()
        if error.code in PASSING:
            raise Again(
                f"the server answers {error.code} ({error.reason})", retry_after(error.headers)
            ) from error
        if error.code == 416:
            raise
        raise UserError(
            "download-failed",
            f"cannot get {address}",
            f"the server answers {error.code} ({error.reason})",
            _REMEDIES.get(error.code, "check the address"),
        ) from error
    with answer:
        yield answer


def _client() -> urllib.request.OpenerDirector:
    """A client of HTTP and nothing else: no files, no FTP; proxies as the environment says."""
    client = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        client.add_handler(handler())
    return client


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, never from https to http; what is meant for one host is sent to that host only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise UserError(
                "download-failed",
                f"cannot get {req.full_url}",
                "the server sends us on to an address without encryption",
                "get it from another source",
            )
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]:
            request.unredirected_hdrs.update(
                {name: value for name, value in req.unredirected_hdrs.items() if name != "Host"}
            )
        return request


@contextmanager
def trouble() -> Iterator[None]:
    """Turns what the network does into `Again`."""
    try:
        yield
    except HTTPError:
        raise
    except (URLError, OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UserError(
                "download-failed",
                "refused the server",
                f"its certificate is not valid ({reason.verify_message})",
                "check the machine's clock and its proxy",
            ) from error
        answered = isinstance(error, http.client.HTTPException | TimeoutError | ValueError) or isinstance(
            reason, ConnectionResetError
        )
        raise Again(
            str(getattr(reason, "strerror", None) or reason or type(error).__name__), answered=answered
        ) from error


def span(answer: http.client.HTTPResponse) -> tuple[int, int | None]:
    """The first byte that an answer brings, and the whole file's length, as far as it says."""
    if answer.status == 206:
        begin, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes").strip().partition("/")
        first = begin.partition("-")[0]
        return int(first) if first.isdecimal() else -1, int(total) if total.isdecimal() else None
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() and not answer.chunked else None


def validator(answer: http.client.HTTPResponse) -> str:
    """What tells one version of a file from another: a strong ETag, else the date of its last change."""
    etag = answer.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")


def retry_after(headers: Any) -> float | None:
    """Seconds that the server asks to wait, from Retry-After as seconds or as a date by the server's own
    clock; None where it does not ask.
    """
    asked = (headers.get("Retry-After") or "").strip()
    if asked.isdecimal():
        return float(asked)
    try:
        until = parsedate_to_datetime(asked)
        now = parsedate_to_datetime(headers["Date"]) if headers.get("Date") else datetime.now(UTC)
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return None
