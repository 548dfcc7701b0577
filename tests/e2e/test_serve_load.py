"""The server under load and under bad input, in short; the long versions are `benchmarks/serve_load.py` and
`benchmarks/serve_fuzz.py`. How fast they are is measured there, not here.
"""

import os
import sys
import threading
from collections import Counter
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


class HeldEngine(TorchEngine):
    """A tagger whose passes wait until they are let go."""

    def __init__(self):
        super().__init__(make_tagger(), LABELS)
        self.go = threading.Event()
        self.hold(False)

    def hold(self, held: bool) -> None:
        """Lets passes begin and not end, or end all."""
        self.go.set()
        self.go = threading.Event()
        self.inside = threading.Event()
        if not held:
            self.go.set()

    def run_pass(self, waveforms, lengths, names):
        self.inside.set()
        assert self.go.wait(60)
        return super().run_pass(waveforms, lengths, names)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for number in range(6):
        (folder / f"{number}.wav").write_bytes(wav(0.4 + 0.3 * number, number))
    return folder


def test_a_crowd_is_served_with_the_offline_bits_or_told_at_once_to_come_again(files):
    offline = AudioTagger(TorchEngine(make_tagger(), LABELS), window=1.0, hop=0.5)
    with serving(ServeLimits(), seconds=0.05) as client:
        found = clients.said(clients.start("crowd", client.place[1], 4.0, "256", str(files)))
    assert found["trouble"] == []
    answered = Counter(status for _, _, status in found["asked"])
    assert answered[200] >= 64 and answered[429] >= 64 and not answered[503]
    assert sum(map(len, found["tags"].values())) == 6
    for name, (answer,) in found["tags"].items():
        assert {mid: np.float32(score) for mid, score in answer} == {
            label.mid: np.float32(score) for label, score in offline(files / name).top(10)
        }


def test_health_and_refusals_do_not_wait_for_the_model():
    engine = HeldEngine()
    limits = replace(LIMITS, max_queue=1)
    with (
        serving(limits, tagger=AudioTagger(engine, window=1.0, hop=0.5)) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        engine.hold(True)
        try:
            running = pool.submit(client.tag, ("x", SHORT))
            until(engine.inside.is_set)
            assert client.get("/healthz")[0] == client.get("/readyz")[0] == client.get("/metrics")[0] == 200
            assert client.tag(("y", SHORT))[0] == 429
            assert not running.done()
        finally:
            engine.hold(False)
        assert running.result()[0] == 200


def test_all_others_are_served_while_slow_clients_trickle(files):
    with serving(ServeLimits(), seconds=0.02) as client:
        port = client.place[1]
        slow = clients.start("slow", port, 4.0, "200")
        until(lambda: client.service.connections() >= 200)
        found = clients.said(clients.start("crowd", port, 2.0, "4", str(files)))
        clients.said(slow)
    assert found["trouble"] == [] and {status for _, _, status in found["asked"]} == {200}


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
    assert [one["wrong"] for one in found if one["wrong"]] == []
    assert len({one["outcome"] for one in found}) > 2


def test_eight_bombs_at_once_stay_within_their_memory():
    made = bombs()
    with serving(ServeLimits(), window=10.0) as client, ThreadPoolExecutor(serve_fuzz.AT_ONCE) as pool:
        assert client.tag(("x", SHORT))[0] == 200
        with serve_fuzz.Watch(os.getpid()) as watch:
            found = list(pool.map(lambda bomb: serve_fuzz.tried(client.place[1], *bomb), made.items()))
        assert client.tag(("x", SHORT))[0] == 200
    assert [one["wrong"] for one in found if one["wrong"]] == []
    assert len(found) >= 12 and 0 < watch.most < 256 << 20


def test_an_openapi_fuzzer_finds_nothing():
    with serving(ServeLimits()) as client:
        status, said = serve_fuzz.schemathesis(client.place[1], 10)
    assert status == 0 and "No issues found" in said, said[-3000:]
