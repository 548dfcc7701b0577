"""The server as its clients see it, over real connections: its contract, its limits, and that it stays well
whatever they do.
"""

import concurrent.futures
import http.client
import io
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
import torch

from beatline.cli import main
from beatline.core.labels import audioset
from beatline.core.limits import ServeLimits
from beatline.model.checkpoints.own import save
from beatline.model.engines.pytorch import TorchEngine
from beatline.model.tagger import Tagger, initialise_tagger
from beatline.serve import answers
from beatline.tag.events import EventOptions
from beatline.tag.tagger import AudioTagger
from tests.helpers.models import make_tagger
from tests.helpers.processes import until
from tests.helpers.serving import LABELS, LIMITS, LONG, SHORT, Client, form, head, serving, wav


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serving() as ready:
        yield ready


@pytest.fixture(scope="module")
def offline() -> AudioTagger:
    return AudioTagger(TorchEngine(make_tagger(), LABELS), window=1.0, hop=0.5)


def scores(entries: list[dict[str, Any]]) -> dict[str, np.float32]:
    return {entry["mid"]: np.float32(entry["score"]) for entry in entries}


# --- the contract


def test_one_file_is_tagged_with_the_bits_it_gets_offline(client, offline):
    for content in (SHORT, LONG, wav(0.01), wav(1.0), wav(2.5, rate=44_100)):
        status, headers, answer = client.tag(
            ("bark.wav", content), query="timeline=true&events=true&threshold=0.4"
        )
        wanted = offline(content, events=EventOptions(threshold=0.4))
        (result,) = answer["results"]
        assert status == 200 and answer["request_id"] == headers["x-request-id"]
        assert result["file"] == "bark.wav" and result["seconds"] == round(wanted.seconds, 3)
        assert scores(result["tags"]) == {
            label.mid: np.float32(score) for label, score in wanted.top(10, 0.4)
        }
        timeline = result["timeline"]
        assert (
            timeline["starts"] == wanted.starts.tolist()
            and timeline["ends"] == wanted.ends.tolist()
            and timeline["window"] == 1.0
        )
        for row in timeline["labels"]:
            np.testing.assert_array_equal(
                np.array(row["scores"], np.float32), wanted.window_scores[:, LABELS.index_of_mid[row["mid"]]]
            )
        assert [
            (event["mid"], event["onset"], event["offset"], np.float32(event["score"]))
            for event in result["events"]
        ] == [
            (event.label.mid, event.onset, event.offset, np.float32(event.score)) for event in wanted.events
        ]
    assert wanted.events and len(wanted.starts) > 2


def test_silence_has_scores(client):
    silent = io.BytesIO()
    soundfile.write(silent, np.zeros(48_000), 16_000, format="WAV")
    status, _, answer = client.tag(("silence.wav", silent.getvalue()))
    found = scores(answer["results"][0]["tags"])
    assert (
        status == 200 and len(found) == 3 and all(0 <= score <= 1 for score in found.values())
    )  # of NaN neither is true


def test_many_clients_at_once_get_the_bits_of_each_alone(client, offline):
    contents = [
        wav(seconds, seed)
        for seed, seconds in enumerate([0.3, 1.0, 1.0, 4.2, 0.3, 2.0, 1.0, 0.9, 3.1, 1.0, 5.0, 0.5])
    ]
    with concurrent.futures.ThreadPoolExecutor(len(contents)) as pool:
        answers = list(pool.map(lambda content: client.tag(("x", content), query="timeline=true"), contents))
    for content, (status, _, answer) in zip(contents, answers, strict=True):
        wanted = offline(content)
        assert status == 200 and scores(answer["results"][0]["tags"]) == {
            label.mid: np.float32(score) for label, score in wanted.top()
        }
    assert re.search(r'beatline_pass_windows_bucket{le="1.0"} (\d+)', client.get("/metrics")[2].decode())


def test_a_refused_file_costs_the_others_nothing(client):
    status, _, answer = client.tag(
        ("a.wav", SHORT), ("b.txt", b"these are words, no sound"), ("c.wav", b""), ("d.wav", LONG)
    )
    assert status == 200
    assert [result["file"] for result in answer["results"]] == ["a.wav", "b.txt", "c.wav", "d.wav"]
    assert [result.get("error", {}).get("code") for result in answer["results"]] == [
        None,
        "not-audio",
        "empty-file",
        None,
    ]
    assert (
        set(answer["results"][1]["error"]) == {"code", "what", "cause", "remedy"}
        and "b.txt" in answer["results"][1]["error"]["what"]
    )


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ([b"words " * 9], 415),
        ([wav(41.0)[: 45 + 32_000 * 41]], 413),
        ([b""], 422),
        ([b"words " * 9, b""], 422),
        ([bytes(5 << 20)], 413),
    ],
    ids=["words", "long", "empty", "both", "large"],
)
def test_a_request_without_a_good_file_says_so_in_its_status(client, files, status):
    got, _, answer = client.tag(*((f"{i}.wav", content) for i, content in enumerate(files)))
    assert got == status and all("error" in result for result in answer["results"])


def test_lines_come_as_windows_are_scored(client, offline):
    status, headers, lines = client.tag(
        ("long.wav", LONG),
        ("words.txt", b"words words"),
        query="top=2&timeline=true",
        Accept="application/x-ndjson",
    )
    assert (
        status == 200
        and headers["content-type"] == "application/x-ndjson"
        and headers["transfer-encoding"] == "chunked"
    )
    wanted, seen = offline(LONG), [line for line in lines if line["type"] == "window"]
    assert [(line["start"], line["end"]) for line in seen] == list(
        zip(wanted.starts.tolist(), wanted.ends.tolist(), strict=True)
    )
    for line, row in zip(seen, wanted.window_scores, strict=True):
        assert len(line["tags"]) == 2 and all(
            np.float32(entry["score"]) == row[LABELS.index_of_mid[entry["mid"]]] for entry in line["tags"]
        )
    results = {line["file"]: line for line in lines if line["type"] == "result"}
    assert results["words.txt"]["error"]["code"] == "not-audio" and scores(results["long.wav"]["tags"]) == {
        label.mid: np.float32(score) for label, score in wanted.top(2)
    }
    assert lines.index(seen[-1]) < lines.index(results["long.wav"])


def test_a_window_is_sent_before_the_next_is_scored():
    with serving(seconds=0.3) as client:
        with client.raw(
            head(len(body := form(("x", wav(8.0)))), "Accept: application/x-ndjson\r\n") + body
        ) as link:
            got = b""
            while b'"window"' not in got:
                got += link.recv(1 << 16)
            assert b'"result"' not in got


def test_labels_are_chosen_by_name_mid_and_branch(client):
    assert {
        entry["name"]
        for entry in client.tag(("x", SHORT), query="labels=rain&labels=hum")[2]["results"][0]["tags"]
    } == {"Rain", "Hum"}
    assert [
        entry["mid"] for entry in client.tag(("x", SHORT), query="labels=Animal")[2]["results"][0]["tags"]
    ] == ["/m/05tny_"]
    assert client.tag(("x", SHORT), query="threshold=1")[2]["results"][0]["tags"] == []
    assert len(client.tag(("x", SHORT), query="top=1")[2]["results"][0]["tags"]) == 1
    status, _, answer = client.tag(("x", SHORT), query="labels=Trombone")
    assert status == 422 and answer["error"]["code"] == "unknown-label"


def test_labels_come_with_their_place_in_the_ontology(client):
    answer = json.loads(client.get("/v1/labels")[2])
    assert [(entry["index"], entry["mid"], entry["name"]) for entry in answer["labels"]] == [
        (0, "/m/05tny_", "Bark"),
        (1, "/m/06mb1", "Rain"),
        (2, "hum", "Hum"),
    ]
    names = {node["mid"]: node["name"] for node in answer["nodes"]}
    (parent,) = answer["labels"][0]["parents"]
    assert (
        names[parent] == "Dog"
        and "Animal" in names.values()
        and answer["labels"][2] == {"index": 2, "mid": "hum", "name": "Hum", "parents": [], "children": []}
    )
    assert all(child in names for node in answer["nodes"] for child in node["children"])


def test_what_is_asked_wrongly_is_answered_in_the_same_form(client):
    multipart = {"Content_Type": "multipart/form-data; boundary=limit"}
    for status, answer in [
        (422, client.tag(("x", SHORT), query="top=many")[:3]),
        (422, client.tag(("x", SHORT), query="threshold=2")),
        (422, client.tag()),
        (413, client.tag(*[("x", SHORT)] * 5)),
        (422, client.ask("POST", "/v1/tag", form(("x", SHORT), field="url"), **multipart)),
        (422, client.ask("POST", "/v1/tag", form(("x", SHORT))[:-30], **multipart)),
        (422, client.ask("POST", "/v1/tag", b"no boundary here", **multipart)),
        (
            422,
            client.ask("POST", "/v1/tag", b'{"url": "http://127.0.0.1/"}', Content_Type="application/json"),
        ),
        (422, client.ask("POST", "/v1/tag", b"x", Content_Type=f"multipart/form-data; boundary={'b' * 300}")),
        (
            413,
            client.ask(
                "POST",
                "/v1/tag",
                iter([form(("x", b""))[:-12], *[bytes(1 << 20)] * 9]),
                Content_Type="multipart/form-data; boundary=limit",
            ),
        ),
        (404, client.get("/v2/tag")),
        (405, client.get("/v1/tag")),
    ]:
        got, headers, body = answer
        body = body if isinstance(body, dict) else json.loads(body)
        assert (
            got == status
            and body["request_id"] == headers["x-request-id"]
            and set(body["error"]) == {"code", "what", "cause", "remedy"}
        ), body


def test_request_ids_are_given_back_if_they_are_sane(client):
    assert client.get("/healthz", X_Request_ID="my-id.7")[1]["x-request-id"] == "my-id.7"
    for odd in ("a b", "x" * 65, "<script>"):
        assert re.fullmatch("[0-9a-f]{32}", client.get("/healthz", X_Request_ID=odd)[1]["x-request-id"])


def test_every_address_is_described_and_nothing_is_loaded_from_elsewhere(client):
    _, headers, body = client.get("/openapi.json")
    described = json.loads(body)
    assert set(described["paths"]) == {"/v1/tag", "/v1/labels", "/healthz", "/readyz", "/metrics"}
    assert described["paths"]["/v1/tag"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"][
        "required"
    ] == ["files"]
    assert client.get("/docs")[0] == client.get("/redoc")[0] == 404
    policy = headers["content-security-policy"]
    assert (
        policy.startswith("default-src 'self';")
        and "unsafe" not in policy
        and "http" not in policy
        and headers["x-content-type-options"] == "nosniff"
    )


def test_the_page_is_served_and_nothing_beside_it(client):
    status, headers, body = client.get("/")
    assert (
        status == 200
        and headers["content-type"].startswith("text/html")
        and "default-src 'self'" in headers["content-security-policy"]
    )
    for name in re.findall(rb'(?:src|href)="(page/[^"]+)"', body):
        assert client.get("/" + name.decode())[0] == 200
    for path in (
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/%2e%2e/app.py",
        "/page/..%5capp.py",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/.",
        "/page/",
        "/page/x%00.js",
        "/../app.py",
        "/app.py",
    ):
        status, _, body = client.get(path)
        assert status == 404 and b"root:" not in body and b"import" not in body, path


def test_names_are_data_and_never_paths(client, tmp_path):
    before = sorted(Path.cwd().iterdir())
    for name in (
        "../../../../tmp/evil.wav",
        str(tmp_path / "evil.wav"),
        "CON",
        ".",
        "..",
        "/etc/passwd",
        "a" * 3000 + ".wav",
        "dröhnen \N{DOG}.wav",
        "x\x00y.wav",
        "%2e%2e%2fx",
        "$(touch x).wav",
        "https://example.org/x.wav",
        "<img src=x>.wav",
    ):
        status, _, answer = client.tag((name, SHORT))
        assert (
            status == 200
            and answer["results"][0]["file"]
            == "".join(c if c.isprintable() else "\ufffd" for c in name)[:255]
        )
    assert sorted(Path.cwd().iterdir()) == before and not list(tmp_path.iterdir())
    assert client.tag(("", SHORT))[2]["results"][0]["file"] == "audio"


def test_metrics_tell_what_happened(client):
    client.tag(("x", SHORT))
    client.tag(("x", b"words"))
    client.get("/nothing")
    text = client.get("/metrics")[2].decode()
    values = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }
    assert (
        values['beatline_requests_total{status="200"}'] > 0
        and values['beatline_files_total{outcome="tagged"}'] > 0
        and values['beatline_files_total{outcome="not-audio"}'] > 0
    )
    assert (
        values["beatline_queue_files"] == values["beatline_uploads"] == 0
        and values["beatline_connections"] >= 1
    )
    assert (
        values["beatline_request_seconds_count"] == values['beatline_request_seconds_bucket{le="+Inf"}'] > 0
        and values["beatline_audio_seconds_total"] >= 0.7
    )
    assert values['beatline_rejections_total{code="missing-file"}'] >= 1
    names = {line.split("{")[0].split(" ")[0] for line in values}
    assert {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in names
    } == set(re.findall(r"# TYPE (\S+)", text))


# --- bad and too many clients


def test_a_full_queue_turns_away_at_once_and_health_answers():
    with (
        serving(replace(LIMITS, max_queue=3), seconds=0.4) as client,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        running = [pool.submit(client.tag, ("x", wav(2.0))) for _ in range(3)]
        until(lambda: client.service.metrics.text().find("beatline_queue_files 3") > 0)
        for _ in range(5):
            with client.raw(head(4 << 20)) as link:  # not a byte of the body
                answer = http.client.HTTPResponse(link)
                answer.begin()
                assert (
                    answer.status == 429
                    and int(answer.headers["Retry-After"]) >= 1
                    and json.loads(answer.read())["error"]["code"] == "server-busy"
                )
            assert client.get("/healthz")[0] == 200 and not all(future.done() for future in running)
        assert [future.result()[0] for future in running] == [200] * 3
        assert client.tag(("x", SHORT))[0] == 200


def test_a_file_whose_turn_does_not_come_is_given_up():
    with (
        serving(replace(LIMITS, max_wait=0.5), seconds=1.0) as client,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(client.tag, ("x", wav(0.9)))
        status, _, _ = client.tag(("x", wav(0.8)))
        assert 429 in (status, first.result()[0])


def test_an_hour_does_not_hold_up_a_second():
    with serving(seconds=0.1) as client, concurrent.futures.ThreadPoolExecutor(3) as pool:
        long = [pool.submit(client.tag, ("x", wav(39.0))) for _ in range(2)]
        until(lambda: len(client.service.batcher) == 2)
        assert client.tag(("x", SHORT))[0] == 200
        assert not any(future.done() for future in long)
        assert [future.result()[0] for future in long] == [200, 200]


def test_a_client_that_leaves_frees_its_place():
    with serving(seconds=0.2) as client:
        for accept in ("", "Accept: application/x-ndjson\r\n"):
            body = form(("x", wav(39.0)))
            link = client.raw(head(len(body), accept) + body)
            until(lambda: len(client.service.batcher) == 1)
            link.close()
            until(lambda: not len(client.service.batcher) and not client.service.running, 1.0)
            assert not list(client.service.folder.iterdir())
        link = client.raw(head(1000) + form(("x", SHORT))[:500])
        until(lambda: client.service.uploads == 1)
        link.close()
        until(lambda: not client.service.uploads and not client.service.running, 1.0)
        assert not list(client.service.folder.iterdir()) and not client.service.spool.used


def test_slow_clients_are_cut_and_hold_nothing():
    with serving() as client:
        body = form(("x", SHORT))
        links = [client.raw(head(len(body)) + body[:100]) for _ in range(20)]  # a body that never ends
        links += [client.raw(b"POST /v1/tag HTTP/1.1\r\nHos") for _ in range(20)]  # a head that never ends
        links += [client.raw() for _ in range(5)]  # and nothing at all
        until(lambda: client.service.uploads == 20)
        assert client.tag(("x", SHORT))[0] == 200
        answers = [link.recv(1 << 16) for link in links]
        assert all(b" 408 " in answer for answer in answers[:20]) and not any(answers[20:])
        until(lambda: client.service.connections() == 0, 10)
        for link in links:
            link.close()
        assert not list(client.service.folder.iterdir())


# --- long answers


@pytest.fixture(scope="module")
def wordy() -> AudioTagger:
    """A tagger whose answers are long: 527 labels, twenty windows a second."""
    labels = audioset()
    model = Tagger(make_tagger().config, len(labels))
    initialise_tagger(model, torch.Generator().manual_seed(0))
    return AudioTagger(TorchEngine(model.eval(), labels), window=0.5, hop=0.05)


def ask_much(
    client: Client, seconds: float = 30.0, accept: str = ""
) -> tuple[socket.socket, http.client.HTTPResponse]:
    """A connection that asked for every score, and the answer that begins; it holds only little at once."""
    body = form(("x", wav(seconds)))
    link = socket.socket()
    link.settimeout(20)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    link.connect(client.place)
    link.sendall(
        head(len(body), accept).replace(b"/v1/tag", b"/v1/tag?timeline=true&events=true&top=10000") + body
    )
    answer = http.client.HTTPResponse(link)
    answer.begin()
    return link, answer


@pytest.mark.parametrize("accept", ["", "Accept: application/x-ndjson\r\n"])
def test_a_long_answer_is_whole_and_made_as_it_is_taken(wordy, accept):
    wanted, most = wordy(wav(30.0)), 0
    with serving(tagger=wordy) as client:
        link, answer = ask_much(client, accept=accept)
        with link:
            body = bytearray()
            while part := answer.read1(1 << 16):
                body += part
                most = max(
                    most, *(connection.unsent for connection in client.server.server_state.connections), 0
                )
        assert (
            answer.status == 200
            and answer.headers["Transfer-Encoding"] == "chunked"
            and len(body) > 3_000_000
            and most < 300_000
        )
        result = json.loads(body.splitlines()[-1]) if accept else json.loads(body)["results"][0]
        rows = {row["mid"]: np.array(row["scores"], np.float32) for row in result["timeline"]["labels"]}
        assert np.array_equal(np.stack([rows[mid] for mid in wanted.labels.mids], 1), wanted.window_scores)
        answers.Result.model_validate(result)


@pytest.mark.parametrize("slow", ["takes nothing", "takes a little now and then"])
def test_who_does_not_take_a_long_answer_is_cut_and_holds_no_place(wordy, slow):
    with serving(replace(LIMITS, answer_grace=1.0, min_answer_rate=1_000_000), tagger=wordy) as client:
        link, answer = ask_much(client)
        with link:
            assert client.service.running == 1 and client.service.files == 1
            begun = time.monotonic()
            while client.service.running and time.monotonic() - begun < 15:
                time.sleep(0.2)
                if slow != "takes nothing":
                    answer.read1(60_000)
            assert not client.service.running and not client.service.files
            until(lambda: client.service.connections() == 0)
            with pytest.raises((OSError, http.client.HTTPException)):
                answer.read()


def test_an_answer_on_its_way_is_taken_to_its_end_before_the_server_stops(wordy):
    with serving(tagger=wordy) as client:
        link, answer = ask_much(client)
        with link:
            client.server.handle_exit(signal.SIGTERM, None)
            body = bytearray()
            while len(body) < 1_000_000:  # made as it is taken, as before
                body += answer.read1(1 << 16)
            (connection,) = client.server.server_state.connections
            connection.transport.set_write_buffer_limits(1 << 30)  # all of the rest waits here for its client
            until(lambda: not client.service.running)
            assert connection.unsent > 1_000_000
            time.sleep(2.5)  # longer than a connection may be quiet
            body += answer.read()
            assert len(json.loads(body)["results"][0]["timeline"]["labels"]) == 527


def test_too_many_connections_and_uploads_are_turned_away():
    with serving(replace(LIMITS, max_connections=6, max_uploads=2, upload_grace=60.0)) as client:
        links = [client.raw(head(1000)) for _ in range(2)]
        until(lambda: client.service.uploads == 2)
        assert client.tag(("x", SHORT))[0] == 429
        links += [client.raw() for _ in range(4)]
        until(lambda: client.service.connections() == 6)
        for asked in (b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
            with client.raw(asked) as link:
                answer = http.client.HTTPResponse(link)
                answer.begin()
                assert (
                    answer.status,
                    answer.headers["Retry-After"],
                    answer.headers["Connection"],
                    answer.read(),
                ) == (503, "1", "close", b"")
        for link in links:
            link.close()
        until(lambda: client.get("/healthz")[0] == 200)


def test_disk_space_is_shared_and_given_back():
    with serving(replace(LIMITS, max_spool_bytes=300_000)) as client:
        assert client.tag(("x", LONG))[0] == 200
        status, _, answer = client.tag(("x", wav(20.0)))
        assert status == 429 and answer["error"]["code"] == "server-busy"
        until(lambda: not client.service.spool.used)  # given back after the answer
        assert client.tag(("x", LONG))[0] == 200


def test_a_disk_that_is_full_while_a_file_is_decoded_refuses_that_file(caplog):
    packed = io.BytesIO()  # some kilobytes, whose samples take 320
    soundfile.write(packed, np.zeros(160_000), 16_000, format="FLAC")
    files, before = (
        [("small.wav", SHORT), ("packed.flac", packed.getvalue())],
        resource.getrlimit(resource.RLIMIT_FSIZE),
    )
    with serving() as client:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (100_000, before[1])
        )  # of this process, which the server is a thread of
        try:
            alone, headers, answer = client.tag(files[1])
            both, _, answers = client.tag(*files)
            status, _, lines = client.tag(*files, Accept="application/x-ndjson")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert client.tag(*files)[2]["results"][1]["seconds"] == 10
        until(lambda: not client.service.spool.used)  # given back after the answer
    assert (
        alone == 503
        and int(headers["retry-after"]) >= 1
        and both == status == 200
        and "File too large" in caplog.text
    )
    results = {line["file"]: line for line in lines if line["type"] == "result"}
    for result in (answer["results"][0], answers["results"][1], results["packed.flac"]):
        assert result["error"]["code"] == "disk-full" and "packed.flac" in result["error"]["what"]
    assert "error" not in answers["results"][0] | results["small.wav"]


def test_a_mistake_of_ours_is_logged_with_its_id_and_not_shown(caplog):
    with serving() as client:
        client.service.tagger.engine.seconds = "nonsense"
        status, _, answer = client.tag(("x", SHORT), X_Request_ID="find-me")
        assert (
            status == 500
            and answer["error"]["code"] == "internal-error"
            and "find-me" in answer["error"]["remedy"]
            and "nonsense" not in json.dumps(answer)
            and "Traceback" not in json.dumps(answer)
        )
        assert "find-me" in caplog.text and "TypeError" in caplog.text
        lines = client.tag(("x", SHORT), Accept="application/x-ndjson")[2]
        assert lines[-1]["error"]["code"] == "internal-error"


# --- the program


def test_doctor_prints_the_limits(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert (
        len(fields(ServeLimits)) > 15
        and [
            field.name
            for field in fields(ServeLimits)
            if f"{field.name} {getattr(ServeLimits(), field.name)}" not in said.split("\nserve ")[1]
        ]
        == []
    )


def test_the_command_serves_drains_and_ends_with_0(tmp_path):
    save(tmp_path / "model", make_tagger(), LABELS, {})
    command = [
        sys.executable,
        "-m",
        "beatline",
        "serve",
        "--model",
        str(tmp_path / "model"),
        "--engine",
        "torch",
        "--port",
        "0",
        "--window",
        "0.3",
        "--hop",
        "0.01",
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            address = urlsplit(re.search(r"http://\S+", process.stdout.readline())[0])
            body = form(("long.wav", wav(12.0)))

            def get(path: str, method: str = "GET", content: bytes | None = None) -> tuple[int, str | None]:
                connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
                try:
                    connection.request(
                        method,
                        path,
                        content,
                        {"Content-Type": "multipart/form-data; boundary=limit"} if content else {},
                    )
                    answer = connection.getresponse()
                    return answer.status, answer.getheader("Retry-After")
                finally:
                    connection.close()

            until(lambda: get("/readyz")[0] == 200)
            with socket.create_connection((address.hostname, address.port), 20) as link:
                link.sendall(head(len(body), "Accept: application/x-ndjson\r\n") + body)
                got = b""
                while b'"window"' not in got:
                    got += link.recv(1 << 16)
                process.send_signal(signal.SIGTERM)
                until(lambda: get("/readyz")[0] == 503)
                assert get("/v1/tag", "POST", form(("x", SHORT))) == (503, "1") and get("/healthz")[0] == 200
                assert b'"result"' not in got
                while part := link.recv(1 << 16):
                    got += part
            assert b'"type": "result", "file": "long.wav", "seconds": 12.0' in got and got.endswith(
                b"0\r\n\r\n"
            )
            assert process.wait(10) == 0
            assert process.stderr.read() == ""
            assert not list(tmp_path.glob("beatline*"))
        finally:
            process.kill()


def test_the_second_signal_does_not_wait(tmp_path):
    with serving(seconds=0.3) as client:
        body = form(("x", wav(39.0)))
        with client.raw(head(len(body)) + body) as link:
            until(lambda: len(client.service.batcher) == 1)
            client.server.handle_exit(signal.SIGTERM, None)
            time.sleep(0.3)
            assert client.get("/readyz")[0] == 503 and client.server.started and not client.server.should_exit
            client.server.handle_exit(signal.SIGTERM, None)
            answer = http.client.HTTPResponse(link)
            answer.begin()
            assert (
                answer.status == 503
                and answer.headers["Retry-After"]
                and json.loads(answer.read())["error"]["code"] == "server-stopping"
            )


def test_an_address_in_use_is_one_line(tmp_path, capsys):
    save(tmp_path / "model", make_tagger(), LABELS, {})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert (
            main(
                [
                    "serve",
                    "--model",
                    str(tmp_path / "model"),
                    "--engine",
                    "torch",
                    "--port",
                    str(taken.getsockname()[1]),
                ]
            )
            == 2
        )
    error = capsys.readouterr().err
    assert "cannot listen on 127.0.0.1" in error and len(error.splitlines()) == 1
