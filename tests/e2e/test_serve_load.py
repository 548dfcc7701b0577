"""The server under load and under bad input, in short; the long versions are `benchmarks/serve_load.py` and
`benchmarks/serve_fuzz.py`.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from beatline.core.limits import ServeLimits
from beatline.model.engines.pytorch import TorchEngine
from beatline.tag.tagger import AudioTagger
from tests.helpers.bombs import bombs
from tests.helpers.models import make_tagger
from tests.helpers.processes import until
from tests.helpers.serving import LABELS, LIMITS, SHORT, head, serving, wav

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import fuzz_decode
import serve_clients as clients
import serve_fuzz

pytestmark = pytest.mark.xdist_group("load")
# how many times longer than the goal something of milliseconds may take here, where other tests run beside it
GRACE = 10.0


def crowding() -> float:
    """How many programs a core has to run."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for number in range(6):
        (folder / f"{number}.wav").write_bytes(wav(0.4 + 0.3 * number, number))
    return folder


def test_a_crowd_is_served_with_the_offline_bits_or_told_at_once_to_come_again(files):
    offline = AudioTagger(TorchEngine(make_tagger(), LABELS), window=1.0, hop=0.5)
    with serving(ServeLimits(), seconds=0.05) as client:
        port = client.place[1]
        crowd = clients.start("crowd", port, 4.0, "256", str(files))
        time.sleep(1.0)
        health = clients.said(clients.start("probe", port, 2.5, "/healthz"))
        found = clients.said(crowd)
    assert found["trouble"] == []
    waits = {status: [wait for _, wait, got in found["asked"] if got == status] for status in (200, 429, 503)}
    assert len(waits[200]) >= 64 and len(waits[429]) >= 64 and not waits[503]
    assert (
        np.percentile(health, 99) < crowding() * GRACE * 0.1
        and np.percentile(waits[429], 99) < crowding() * GRACE * 0.1
    )
    assert sum(map(len, found["tags"].values())) == 6
    for name, (answer,) in found["tags"].items():
        assert {mid: np.float32(score) for mid, score in answer} == {
            label.mid: np.float32(score) for label, score in offline(files / name).top(10)
        }


def test_slow_clients_do_not_slow_the_others(files):
    with serving(ServeLimits(), seconds=0.02) as client:
        port, medians = client.place[1], []
        for count in (0, 200):
            slow = clients.start("slow", port, 4.0, str(count))
            until(lambda count=count: client.service.connections() >= count)
            found = clients.said(clients.start("crowd", port, 2.0, "4", str(files)))
            assert found["trouble"] == [] and {status for _, _, status in found["asked"]} == {200}
            medians.append(np.median([wait for _, wait, _ in found["asked"]]))
            clients.said(slow)
    assert medians[1] < GRACE * 1.2 * medians[0]


@pytest.mark.parametrize("slow", [1, 8])
def test_places_in_the_queue_are_kept_for_bodies_on_their_way_but_not_for_slow_ones_and_not_all(
    slow, monkeypatch
):
    monkeypatch.setattr("beatline.serve.service.FAST_SECONDS", 2.0)
    with serving(replace(LIMITS, max_queue=slow, upload_grace=20.0)) as client:
        links = [client.raw(head(1000)) for _ in range(slow)]
        until(lambda: client.service.uploads == slow)
        assert client.service.kept == slow
        status, headers, answer = client.tag(("x", SHORT))
        if slow == 1:
            assert status == 429 and headers["retry-after"] and answer["error"]["code"] == "server-busy"
        else:
            assert status == 200
        until(lambda: not client.service.kept)
        assert client.tag(("x", SHORT))[0] == 200 and client.service.uploads == slow
        for link in links:
            link.close()
        until(lambda: not client.service.uploads)
        assert client.service.kept == client.service.files == 0


def test_who_sends_much_and_is_turned_away_still_hears_why():
    with serving(replace(LIMITS, max_queue=0)) as client:
        for _ in range(5):
            status, headers, answer = client.tag(("x", bytes(4 << 20)))
            assert status == 429 and headers["retry-after"] and answer["error"]["code"] == "server-busy"


def test_mutated_files_are_tagged_or_refused():
    originals = fuzz_decode.originals()
    with serving(ServeLimits()) as client, ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(
                lambda number: serve_fuzz.tried(
                    client.place[1], f"{number}.wav", fuzz_decode.mutated(originals, 1, number)
                ),
                range(120),
            )
        )
    assert [one["wrong"] for one in found if one["wrong"]] == [] and max(
        one["seconds"] for one in found
    ) < crowding() * 10
    assert len({one["outcome"] for one in found}) > 2


def test_eight_bombs_at_once_stay_within_their_memory():
    made = bombs()
    with serving(ServeLimits(), window=10.0) as client, ThreadPoolExecutor(serve_fuzz.AT_ONCE) as pool:
        assert client.tag(("x", SHORT))[0] == 200
        with serve_fuzz.Watch(os.getpid()) as watch:
            found = list(pool.map(lambda bomb: serve_fuzz.tried(client.place[1], *bomb), made.items()))
        assert client.tag(("x", SHORT))[0] == 200
    assert [one["wrong"] for one in found if one["wrong"]] == [] and max(
        one["seconds"] for one in found
    ) < crowding() * 10
    assert len(found) >= 12 and 0 < watch.most < 256 << 20


def test_an_openapi_fuzzer_finds_nothing():
    with serving(ServeLimits()) as client:
        status, said = serve_fuzz.schemathesis(client.place[1], 10)
    assert status == 0 and "No issues found" in said, said[-3000:]
