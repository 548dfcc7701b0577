"""The model's thread: fair turns, shared passes, and the bits that a recording gets offline, on every
engine.
"""

import asyncio
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from beatline.audio.windows import cut
from beatline.core.labels import audioset
from beatline.model.engines.base import Engine
from beatline.model.engines.load import load_export
from beatline.model.engines.pytorch import TorchEngine
from beatline.model.geometry import tile_short
from beatline.model.tagger import Tagger, initialise_tagger
from beatline.serve.batcher import Batcher, Lane, Scored, rows_are_independent
from beatline.tag.tagger import AudioTagger
from tests.helpers.models import CONFIG, LABELS, make_tagger, tiny_export

pytestmark = pytest.mark.xdist_group("export")
WINDOW, HOP = 8000, 4000


class Loud(Engine):
    """Scores a window by its loudest sample, and remembers its passes; its rows depend on nothing or on their
    number.
    """

    name, task, labels = "loud", "multi-label", LABELS
    alone = True

    def __init__(self):
        super().__init__()
        self.passes: list[list[float]] = []

    def run_pass(self, waveforms, lengths, names):
        loudest = np.abs(waveforms).max(axis=1, keepdims=True).astype(np.float32)
        self.passes.append(loudest[:, 0].tolist())
        if not self.alone:
            loudest = loudest + 1e-3 * len(waveforms)
        scores = np.repeat(loudest, 3, axis=1)
        return [
            scores,
            scores,
            np.repeat(loudest, 4, axis=1),
            np.zeros((len(waveforms), 8, 4), np.float32),
            scores[:, None],
        ][: len(names)]


def recording(count: int, seed: int, length: int = WINDOW) -> list[tuple[int, np.ndarray]]:
    return [(HOP * i, np.full(length, 100 * seed + i, np.int16)) for i in range(count)]


def lane(parts: list[tuple[int, np.ndarray]], detail: bool = False) -> Lane:
    return Lane(iter(parts), len(parts), len(tile_short(parts[0][1])), detail)


async def scored(batcher: Batcher, *lanes: Lane) -> list[list[Scored]]:
    for one in lanes:
        batcher.add(one)
    return [[part async for part in one] for one in lanes]


def ready(batcher: Batcher) -> Batcher:
    while not batcher.ready:
        time.sleep(0.001)
    return batcher


@pytest.mark.parametrize("alone", [True, False])
def test_every_window_comes_back_in_order_with_its_own_scores(alone):
    ears = Loud()
    ears.alone = alone
    recordings = [recording(count, seed) for seed, count in enumerate([1, 7, 3, 30, 2], 1)] + [
        recording(1, 9, 5000)
    ]

    async def main() -> list[list[Scored]]:
        with Batcher(ears, WINDOW, 0.0) as batcher:
            found = await scored(ready(batcher), *(lane(parts) for parts in recordings))
            assert batcher.together == alone and len(batcher) == 0
            return found

    for parts, found in zip(recordings, asyncio.run(main()), strict=True):
        assert [(part.begin, part.length) for part in found] == [
            (begin, len(samples)) for begin, samples in parts
        ]
        for part, (_, samples) in zip(found, parts, strict=True):
            expected = samples[0] / np.float32(32768)
            np.testing.assert_allclose(
                part.outputs.scores[part.row],
                expected + (0 if alone else 1e-3 * len(part.outputs.scores)),
                atol=1e-6,
            )


def test_windows_of_one_length_share_passes_and_recordings_take_turns():
    ears = Loud()

    async def main() -> None:
        with Batcher(ears, WINDOW, 0.0) as batcher:
            ready(batcher)
            ears.passes.clear()
            lanes = [lane(recording(40, seed)) for seed in (1, 2, 3)] + [
                lane(recording(1, 4, 5000)),
                lane(recording(2, 5)),
            ]
            batcher.add(*lanes)
            await asyncio.gather(*(drained(one) for one in lanes))

    async def drained(one: Lane) -> None:
        async for _ in one:
            pass

    asyncio.run(main())
    heard = [[round(value * 32768) for value in one] for one in ears.passes]
    assert heard[0] == [100, 200, 300, 500] and heard[1] == [
        400
    ]  # the short one waits for one pass, the second window of the last for two
    assert (
        501 in heard[2]
        and sum(map(len, heard)) == 123
        and max(map(len, heard)) == 4
        and sum(len(one) == 4 for one in heard) >= 30
    )


def test_where_rows_depend_on_their_number_a_pass_is_of_one_recording_as_offline():
    ears = Loud()
    ears.alone = False

    async def main() -> None:
        with Batcher(ears, WINDOW, 0.0) as batcher:
            ready(batcher)
            ears.passes.clear()
            await scored(batcher, lane(recording(6, 1)), lane(recording(5, 2)))

    asyncio.run(main())
    assert [{round(value * 32768) // 100 for value in one} for one in ears.passes] == [{1}, {2}, {1}, {2}]
    assert [len(one) for one in ears.passes] == [4, 4, 2, 1]


def test_a_window_that_repeats_the_one_before_it_is_not_scored_again():
    ears = Loud()

    def windows_of(*levels: int) -> list[tuple[int, np.ndarray]]:
        return [(HOP * i, np.full(WINDOW, level, np.int16)) for i, level in enumerate(levels)]

    async def main() -> None:
        with Batcher(ears, WINDOW, 0.0) as batcher:
            ready(batcher)
            ears.passes.clear()
            levels = [[0] * 1000, [5, 5, 7, 7, 7, 5, 5, 0, 0, 9]]
            for wanted, found in zip(
                levels, await scored(batcher, *(lane(windows_of(*some)) for some in levels)), strict=True
            ):
                assert [part.begin for part in found] == [HOP * i for i in range(len(wanted))]
                assert [round(float(part.outputs.scores[part.row, 0]) * 32768) for part in found] == wanted

    asyncio.run(main())
    assert sorted(round(level * 32768) for one in ears.passes for level in one) == [0, 0, 5, 5, 7, 9]
    ears.alone, ears.passes[:] = False, []

    async def together() -> None:
        with Batcher(ears, WINDOW, 0.0) as batcher:
            ready(batcher)
            ears.passes.clear()
            await scored(batcher, lane(windows_of(*[3] * 9)))

    asyncio.run(together())
    assert (
        sum(map(len, ears.passes)) == 9
    )  # its bits depend on its company, so it is heard in the one that it has offline


def test_who_leaves_is_not_scored_any_more_and_who_fails_is_told():
    ears = Loud()

    async def main() -> None:
        with Batcher(ears, WINDOW, 0.0) as batcher:
            ready(batcher)
            ears.passes.clear()
            gone = Lane(((HOP * i, np.ones(WINDOW, np.int16)) for i in range(1_000_000)), 1_000_000, WINDOW)
            batcher.add(gone)
            async for _ in gone:
                batcher.drop(gone)
                break
            assert len(batcher) == 0

            def broken() -> Iterator[tuple[int, np.ndarray]]:
                raise OSError("the disk is gone")
                yield

            with pytest.raises(OSError, match="the disk is gone"):
                await scored(batcher, Lane(broken(), 3, WINDOW))
            assert len((await scored(batcher, lane(recording(2, 2))))[0]) == 2  # the thread lives

    asyncio.run(main())


def test_who_fails_in_a_shared_pass_fails_alone():
    ears = Loud()

    async def main() -> None:
        with Batcher(ears, WINDOW, 0.0) as batcher:
            ready(batcher)
            ears.passes.clear()

            def gone() -> Iterator[tuple[int, np.ndarray]]:
                yield 0, np.full(WINDOW, 7, np.int16)
                raise FileNotFoundError("its folder was removed")

            bad, good = Lane(gone(), 2, WINDOW), lane(recording(2, 1))
            batcher.add(bad, good)  # all four windows are one pass
            assert [round(float(part.outputs.scores[part.row, 0]) * 32768) async for part in good] == [
                100,
                101,
            ]
            with pytest.raises(FileNotFoundError):
                assert [part async for part in bad]
            assert len(ears.passes) == 1 and len(batcher) == 0

    asyncio.run(main())


def test_a_window_that_finds_the_model_idle_waits_a_little_for_others():
    ears = Loud()

    async def main() -> None:
        with Batcher(ears, WINDOW, 240.0) as batcher:
            ready(batcher)
            ears.passes.clear()
            four = (lane(recording(1, seed)) for seed in range(1, 5))
            await asyncio.wait_for(scored(batcher, *four), 60)  # which are as many as a pass takes
            assert [len(one) for one in ears.passes] == [4]

    asyncio.run(main())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return tiny_export(tmp_path_factory)


@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
def test_the_bits_are_those_of_the_recording_alone_offline(exported, kind):
    ready_made = TorchEngine(make_tagger(), LABELS) if kind == "torch" else load_export(exported, kind)
    tagger = AudioTagger(ready_made, WINDOW / 16_000, HOP / 16_000)
    rng = np.random.default_rng(0)
    recordings = [
        rng.integers(-5000, 5000, length).astype(np.int16)
        for length in (WINDOW, 100, 5 * WINDOW + 7, WINDOW, 3 * WINDOW, 5000, 5000, WINDOW + 1)
    ]

    async def main() -> list[list[Scored]]:
        with Batcher(ready_made, WINDOW, 0.02) as batcher:
            ready(batcher)
            lanes = [
                lane(list(cut([samples], WINDOW, HOP)), detail=number == 1)
                for number, samples in enumerate(recordings)
            ]
            return await scored(batcher, *lanes)

    for samples, found in zip(recordings, asyncio.run(main()), strict=True):
        offline = tagger((samples.astype(np.float32) / 32768), 16_000)
        np.testing.assert_array_equal(
            np.stack([part.outputs.scores[part.row] for part in found]), offline.window_scores
        )


def test_independence_is_found_out_on_the_engine_itself():
    ears = Loud()
    assert rows_are_independent(ears, [WINDOW])
    ears.alone = False
    assert not rows_are_independent(ears, [WINDOW])
    many = Tagger(CONFIG, 527)
    initialise_tagger(many, torch.Generator().manual_seed(0))
    assert rows_are_independent(TorchEngine(many, audioset()), [3200, 16_000, 50_001])
