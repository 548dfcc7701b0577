"""One download against a server that does everything wrong."""

import hashlib
import os
import random
import ssl
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from beatline.core.errors import UserError
from beatline.fetch import http
from tests.helpers.servers import Server

QUICK = http.Policy(
    tries=6, first_wait=0.001, longest_wait=0.01, timeout=0.5, slowest=1000, longest_request=2
)
BODY = random.Random(0).randbytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    (root / "files").mkdir()
    (root / "files/a.bin").write_bytes(BODY)
    (root / "files/empty").write_bytes(b"")
    server = Server(root)
    yield server
    server.close()


@pytest.fixture
def get(server, tmp_path):
    """Downloads under the given faults; afterwards there is the file and nothing else."""

    def run(*faults, path="files/a.bin", body=BODY, **options):
        server.faults(*faults)
        digest = http.download(f"{server.address}/{path}", tmp_path / "a.bin", policy=QUICK, **options)
        assert (tmp_path / "a.bin").read_bytes() == body and digest == hashlib.sha256(body).hexdigest()
        assert os.listdir(tmp_path) == ["a.bin"]
        return [request["range"] for request in server.log()]

    return run


CUT = {"do": "cut", "bytes": 100_000}


def test_plain(get):
    assert get() == [None]


def test_an_empty_file(get):
    assert get(path="files/empty", body=b"") == [None]


def test_a_cut_connection_goes_on_where_it_broke(get):
    assert get(CUT, CUT) == [None, "bytes=100000-", "bytes=200000-"]


def test_a_server_that_ignores_ranges_is_taken_from_the_beginning(get):
    assert get(CUT, {"do": "ignore"}) == [None, "bytes=100000-"]


def test_a_file_that_changes_midway_is_taken_from_the_beginning(get):
    assert get({"do": "old", "bytes": 100_000}) == [None, "bytes=100000-"]


def test_parts_that_do_not_belong_together_are_found_by_the_hash(get):
    assert get({"do": "lie", "bytes": 100_000}, sha256=SHA) == [None, "bytes=100000-", None]


def test_parts_that_never_belong_together_are_not_asked_for_for_ever(get, server, tmp_path):
    with pytest.raises(UserError) as refused:
        get(*[CUT, {}] * 20, sha256="0" * 64)
    assert refused.value.code == "hash-mismatch" and not list(tmp_path.iterdir())
    assert [request["range"] for request in server.log()] == [None, "bytes=100000-"] * 2


def test_chunks_beyond_the_stated_size_are_refused(get, tmp_path):
    with pytest.raises(UserError) as refused:
        get({"do": "chunked"}, size=200_000)
    assert refused.value.code == "hash-mismatch" and not list(tmp_path.iterdir())


def test_a_wrong_part_is_not_used(get):
    assert len(get(CUT, {"do": "wrong"})) == 3


@pytest.mark.parametrize(
    "fault",
    [
        {"do": "reset"},
        {"do": "status", "status": 503},
        {"do": "status", "status": 500},
        {"do": "status", "status": 429, "after": "0"},
    ],
)
def test_passing_troubles_pass(get, fault):
    assert len(get(fault, CUT, fault)) == 4


def test_chunks_without_a_length(get):
    assert len(get({"do": "chunked"})) == 1


def test_chunks_that_end_early(get):
    assert len(get({"do": "chunked", "bytes": 1})) >= 2


def test_a_silent_server_is_asked_again(get):
    assert len(get({"do": "silent", "seconds": 1.0})) == 2


def test_a_dripping_server_is_asked_again(get):
    assert len(get({"do": "drip", "bytes": 10, "pause": 0.05})) == 2


def test_without_a_length_only_a_known_hash_is_proof(get):
    get({"do": "endless"}, sha256=SHA)


def test_without_a_length_and_a_hash_it_is_refused(get):
    with pytest.raises(UserError, match="does not say how long"):
        get({"do": "endless"})


def test_retry_after_in_seconds_and_as_a_date(get, monkeypatch):
    waited = []
    monkeypatch.setattr(http.time, "sleep", waited.append)
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=1.9), usegmt=True)
    get({"do": "status", "status": 503, "after": "2"}, {"do": "status", "status": 429, "after": date})
    assert waited[0] == 2 and 0 <= waited[1] <= 2


def test_a_pause_that_is_too_long_ends_the_run_and_keeps_what_there_is(get, tmp_path):
    with pytest.raises(UserError, match="asks to wait 3600 s") as refused:
        get(CUT, {"do": "status", "status": 429, "after": "3600"})
    assert refused.value.code == "service-refused" and (tmp_path / "a.bin.partial").stat().st_size == 100_000
    assert get() == ["bytes=100000-"]


def test_what_a_killed_run_left_goes_on(get, tmp_path):
    with pytest.raises(UserError):
        get(CUT, *[{"do": "reset"}] * 9)
    assert get() == ["bytes=100000-"]


def test_leftovers_of_unknown_origin_are_not_used(get, tmp_path):
    (tmp_path / "a.bin.partial").write_bytes(b"something else")
    assert get() == [None]


def test_leftovers_that_are_longer_than_the_file(get, tmp_path):
    (tmp_path / "a.bin.partial").write_bytes(BODY * 2)
    assert len(get(sha256=SHA)) == 2


def test_a_whole_leftover_needs_no_second_download(get, tmp_path):
    with pytest.raises(UserError):
        get(check=lambda path: (_ for _ in ()).throw(UserError("bad-table", "x", "y", "z")))
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.bin.partial").write_bytes(BODY)
    assert get(size=len(BODY), sha256=SHA) == []


@pytest.mark.parametrize(
    "options, code", [({"sha256": "0" * 64}, "hash-mismatch"), ({"size": 299_999}, "hash-mismatch")]
)
def test_the_wrong_file_is_refused_and_leaves_nothing(get, tmp_path, options, code):
    with pytest.raises(UserError) as refused:
        get(**options)
    assert refused.value.code == code and not list(tmp_path.glob("a.bin"))


def test_lasting_answers_end_at_once(get):
    with pytest.raises(UserError, match="404"):
        get(path="files/none")


def test_nobody_there(tmp_path):
    with pytest.raises(UserError) as refused:
        http.download("http://127.0.0.1:9/x", tmp_path / "x", policy=QUICK, remedy="put x there")
    assert refused.value.code == "no-network" and "put x there" in str(refused.value)


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "/etc/passwd"]
)
def test_nothing_but_http(tmp_path, address):
    with pytest.raises(UserError):
        http.download(address, tmp_path / "x", policy=QUICK)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/loop"])
def test_redirects_to_elsewhere_are_not_followed(server, tmp_path, target):
    with pytest.raises(UserError):
        http.download(f"{server.address}/loop?to={target}", tmp_path / "x", policy=QUICK)
    assert not (tmp_path / "x").exists()


def test_a_token_stays_with_its_host(server, tmp_path):
    server.faults()
    http.download(
        f"{server.address}/elsewhere/files/a.bin",
        tmp_path / "x",
        headers={"Authorization": "Bearer t"},
        policy=QUICK,
    )
    assert [request["token"] for request in server.log()] == ["Bearer t", None]


def test_a_full_disk_is_seen_before_the_first_byte(get, monkeypatch, tmp_path):
    monkeypatch.setattr(http, "SPARE", 1 << 60)
    with pytest.raises(UserError) as refused:
        get()
    assert refused.value.code == "disk-full" and not (tmp_path / "a.bin.partial").exists()


def test_a_stream_transfers_what_is_read(server):
    server.faults(CUT)
    stream = http.RangeStream(
        lambda first, count: http.read_range(f"{server.address}/files/a.bin", first, count, policy=QUICK)
    )
    stream.seek(-100_000, os.SEEK_END)
    assert stream.read(500) == BODY[200_000:200_500]
    assert stream.read() == BODY[200_500:] and stream.read() == b""
    assert {request["range"] for request in server.log()} == {
        "bytes=0-131071",
        "bytes=131072-262143",
        "bytes=262144-393215",
    }


def test_a_stream_of_a_server_without_ranges(server):
    server.faults({"do": "ignore"})
    with pytest.raises(http.NoRanges):
        http.RangeStream(
            lambda first, count: http.read_range(f"{server.address}/files/a.bin", first, count, policy=QUICK)
        )


def test_a_part_of_a_file_and_none_beyond_its_end(server):
    server.faults()
    assert http.read_range(f"{server.address}/files/a.bin", 10, 20, policy=QUICK) == (BODY[10:30], len(BODY))
    with pytest.raises(http.NoRanges):
        http.read_range(f"{server.address}/files/a.bin", len(BODY) + 5, 20, policy=QUICK)


# --- encryption, proxies, what is not installed


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    """An https server on loopback with a certificate of its own, which sends `/down` on to http; its address
    and the certificate's file.
    """
    folder = tmp_path_factory.mktemp("encrypted")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate").write_bytes(certificate.public_bytes(pem))
    (folder / "key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            down = self.path == "/down"
            self.send_response(302 if down else 200)
            self.send_header(*("Location", "http://localhost:9/") if down else ("X-Nothing", "x"))
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_):
            pass

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    serving.handle_error = lambda *_: None  # a client that goes away
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate", folder / "key")
    serving.socket = context.wrap_socket(serving.socket, server_side=True)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"https://localhost:{serving.server_port}", folder / "certificate"
    serving.shutdown()
    serving.server_close()


def test_a_certificate_of_somebody_is_refused_in_one_line_and_at_once(encrypted, tmp_path):
    with pytest.raises(UserError, match="its certificate is not valid") as refused:
        http.download(f"{encrypted[0]}/x", tmp_path / "x", policy=QUICK)
    assert refused.value.code == "download-failed" and not list(tmp_path.iterdir())


def test_an_encrypted_address_never_leads_to_one_that_is_not(encrypted, tmp_path, monkeypatch):
    address, certificate = encrypted
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert http.download(f"{address}/x", tmp_path / "x", policy=QUICK) == hashlib.sha256(b"hello").hexdigest()
    with pytest.raises(UserError, match="without encryption") as refused:
        http.download(f"{address}/down", tmp_path / "y", policy=QUICK)
    assert refused.value.code == "download-failed" and not (tmp_path / "y").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PROXY", "socks5://127.0.0.1:9"),
        ("ALL_PROXY", "nonsense://x"),
        ("SSL_CERT_FILE", "/no/such/file"),
    ],
)
def test_an_environment_that_cannot_be_used_is_named(server, tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=name) as refused:
        http.download(f"{server.address}/files/a.bin", tmp_path / "x", policy=QUICK)
    assert refused.value.code == "no-network"


def test_a_proxy_that_is_not_there_is_no_network(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="Connection refused") as refused:
        http.download(f"{server.address}/files/a.bin", tmp_path / "x", policy=QUICK)
    assert refused.value.code == "no-network"


def test_without_the_client_it_says_what_installs_it(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(UserError, match="httpx2 is not installed; pip install beatline") as refused:
        http.download(f"{server.address}/files/a.bin", tmp_path / "x", policy=QUICK)
    assert refused.value.code == "missing-package"


@pytest.mark.parametrize("address", ["http://", "https://[::1", "http://\x00/", "http:/x"])
def test_an_address_that_cannot_be_one_is_refused_in_one_line(tmp_path, address):
    with pytest.raises(UserError) as refused:
        http.download(address, tmp_path / "x", policy=QUICK)
    assert refused.value.code == "bad-usage" and str(refused.value).isprintable()
