"""An HTTP request: what may be asked, what an answer says, and which troubles pass.

In: an address and headers. Out: the answer, opened, or `Again` where another try may do better. The client is
httpx2, which comes with huggingface_hub. It checks certificates, asks proxies as the environment says, and
keeps `Authorization` from other hosts. Here: only http and https, no redirect from https to http, the file's
own bytes. Begin with `opened`.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from beatline.core.errors import UserError

if TYPE_CHECKING:
    import httpx2

PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that another try may change
MOST_REDIRECTS = 10
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
    """An attempt failed in a way that another attempt may not.

    Args:
        cause: Why, as a clause.
        wait: Seconds that the server asked to wait, if it did.
        answered: Whether a server answered at all.
    """

    def __init__(self, cause: str, wait: float | None = None, answered: bool = True):
        super().__init__(cause)
        self.cause, self.wait, self.answered = cause, wait, answered


class NoRanges(Exception):
    """The server sends whole files only."""


@contextmanager
def opened(address: str, headers: Mapping[str, str], policy: Policy) -> Iterator["httpx2.Response"]:
    """The answer to a GET request, to be read inside the block: of status 2xx, or 416.

    Args:
        headers: Of the request; `Authorization` goes to the address' own host only.

    Raises:
        Again: for passing troubles, also those of reading the answer.
        UserError: `download-failed` for lasting troubles; `bad-usage` for another kind of address;
            `missing-package`; `no-network` where the environment names a proxy that cannot be.
    """
    client = _client(policy)
    with client, trouble("the server"), closing(_sent(client, address, headers)) as answer:
        status = f"the server answers {answer.status_code} ({answer.reason_phrase})"
        if answer.status_code in PASSING:
            raise Again(status, retry_after(answer.headers))
        if not answer.is_success and answer.status_code != 416:
            raise UserError(
                "download-failed",
                f"cannot get {address}",
                status,
                _REMEDIES.get(answer.status_code, "check the address"),
            )
        yield answer


def _client(policy: Policy) -> "httpx2.Client":
    try:
        import httpx2
    except ImportError as error:
        raise UserError(
            "missing-package",
            "cannot ask the network",
            "it needs the package httpx2",
            "pip install 'beatline[download]'",
        ) from error
    with environment():
        return httpx2.Client(timeout=policy.timeout)


@contextmanager
def environment() -> Iterator[None]:
    """Names what keeps the block from making a client as the environment says.

    Raises:
        UserError: `no-network`.
    """
    import httpx2

    try:
        yield
    except (ImportError, ValueError, OSError, httpx2.InvalidURL) as error:
        raise UserError(
            "no-network",
            "cannot use the network as the environment says",
            str(error),
            "check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR",
        ) from error


def _sent(client: "httpx2.Client", address: str, headers: Mapping[str, str]) -> "httpx2.Response":
    """The answer, not yet read, of the address or of where its host sends us on to."""
    import httpx2

    own = {"User-Agent": "beatline", "Accept-Encoding": "identity"}
    request = None
    with suppress(httpx2.InvalidURL):
        request = client.build_request("GET", address, headers={**own, **headers})
    if request is None or request.url.scheme not in ("http", "https") or not request.url.host:
        raise UserError(
            "bad-usage",
            f"address {address!r}",
            "it is not of the form https://...",
            "give a web address or a folder",
        )
    for _ in range(1 + MOST_REDIRECTS):
        answer = client.send(request, stream=True)
        if answer.next_request is None:
            return answer
        answer.close()
        before = request.url.scheme
        request = answer.next_request
        if request.url.scheme not in ("https", before):
            cause = "the server sends us on to an address without encryption"
            raise UserError("download-failed", f"cannot get {address}", cause, "get it from another source")
    cause = f"the server sends us on more than {MOST_REDIRECTS} times"
    raise UserError("download-failed", f"cannot get {address}", cause, "check the address")


@contextmanager
def trouble(who: str) -> Iterator[None]:
    """Turns what the network does inside the block into `Again`.

    Args:
        who: Whom the block asks, for the cause.

    Raises:
        UserError: `download-failed` for a certificate that is not valid.
    """
    import httpx2

    try:
        yield
    except httpx2.TransportError as error:
        origin: BaseException | None = error  # httpx2 wraps what the system said more than once
        while origin is not None and not isinstance(origin, OSError):
            origin = origin.__cause__ or origin.__context__
        if isinstance(origin, ssl.SSLCertVerificationError):
            raise UserError(
                "download-failed",
                f"refused {who}",
                f"its certificate is not valid ({origin.verify_message})",
                "check the machine's clock and its proxy",
            ) from error
        words = (origin and origin.strerror) or str(error) or type(error).__name__
        raise Again(
            f"the connection to {who} failed ({words})",
            answered=not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError),
        ) from error


def is_chunked(answer: "httpx2.Response") -> bool:
    """Whether the answer is sent in chunks, whose end is marked."""
    return "chunked" in answer.headers.get("Transfer-Encoding", "").lower()


def span(answer: "httpx2.Response") -> tuple[int, int | None]:
    """The first byte that an answer brings, and the whole file's length, as far as it says."""
    if answer.status_code == 206:
        begin, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes").strip().partition("/")
        first = begin.partition("-")[0]
        return int(first) if first.isdecimal() else -1, int(total) if total.isdecimal() else None
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() and not is_chunked(answer) else None


def validator(answer: "httpx2.Response") -> str:
    """What tells the versions of a file apart: a strong ETag, else the date of its last change."""
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
