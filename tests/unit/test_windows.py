"""Cutting recordings into windows."""

import numpy as np
import pytest

from beatline.audio import windows


def blocks_of(samples: np.ndarray, size: int):
    return (samples[i : i + size] for i in range(0, len(samples), size))


@pytest.mark.parametrize("size", [1, 7, 10, 64, 1000])
@pytest.mark.parametrize("total", [1, 9, 10, 11, 14, 15, 16, 25, 99, 100])
@pytest.mark.parametrize("hop", [1, 5, 10])
def test_windows_cover_the_recording_whatever_the_blocks(total, hop, size):
    samples = np.arange(total, dtype=np.int16)
    cut = list(windows.cut(blocks_of(samples, size), 10, hop))
    begins = list(range(0, max(1, total - 10), hop))
    wanted = [*begins, *([total - 10] if total > 10 else [])]
    assert [begin for begin, _ in cut] == wanted
    for begin, part in cut:
        assert np.array_equal(part, samples[begin : begin + 10])
    assert set(np.concatenate([part for _, part in cut]).tolist()) == set(range(total))


def test_nothing_gives_no_window():
    assert list(windows.cut([], 10, 5)) == []
    assert list(windows.cut([np.empty(0, np.int16)], 10, 5)) == []


def test_a_long_recording_is_held_a_window_at_a_time():
    held = 0

    def endless():
        for number in range(200):
            yield np.full(1000, number, np.int16)

    for _, part in windows.cut(endless(), 1500, 700):
        base = part.base if part.base is not None else part
        held = max(held, len(base))
    assert held <= 1500 + 1000 + 700


def test_merging():
    scores = np.array([[0.0, 1.0], [0.5, 0.5]], np.float32)
    assert windows.merge(scores, "mean").tolist() == [0.25, 0.75]
    assert windows.merge(scores, "max").tolist() == [0.5, 1.0]
