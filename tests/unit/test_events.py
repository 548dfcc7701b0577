"""Scores to events, against the same rules written out step by step over the whole recording."""

import pickle
import statistics
from dataclasses import replace

import numpy as np
import pytest

from beatline.audio import windows
from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet
from beatline.model import geometry
from beatline.tag.events import Event, EventOptions, Events, in_order

LABELS = LabelSet(tuple(Label(f"/m/{name}", name) for name in "abc"))
STEP = geometry.STEP_SECONDS
PLAIN = EventOptions(median=0, gap=0, low=1)


def find(rows, options, pieces=None, labels=LABELS, **more):
    """The events of scores `(steps, labels)` that begin on the grid, given in pieces of so many steps."""
    finder, events, begin = Events(labels, options, **more), [], 0
    for count in pieces or [len(rows)]:
        events += finder.add(begin * 2560, count * 2560, rows[begin : begin + count])
        begin += count
    return in_order(events + finder.finish(len(rows) * STEP))


def column(*scores):
    rows = np.zeros((len(scores), 3), np.float32)
    rows[:, 1] = scores
    return rows


def spans(events):
    return [(round(event.onset / STEP), round(event.offset / STEP)) for event in events]


def by_hand(rows, options, high):
    """The events as a definition says it, `(label, first step, step after, score)`."""
    half = round(options.median / STEP) // 2
    gap, shortest = options.gap / STEP + 1e-6, options.shortest / STEP - 1e-6
    found = []
    for label, scores in enumerate(rows.T.tolist()):
        long = [scores[0]] * half + scores + [scores[-1]] * half
        smooth = [statistics.median(long[i : i + 2 * half + 1]) for i in range(len(scores))]
        runs, begin = [], None
        for step, score in enumerate([*smooth, -1.0]):
            if score >= np.float32(high[label]) * np.float32(options.low) and begin is None:
                begin = step
            elif score < np.float32(high[label]) * np.float32(options.low) and begin is not None:
                peak = max(smooth[begin:step])
                if peak >= np.float32(high[label]):
                    runs.append([begin, step, peak])
                begin = None
        joined = []
        for begin, end, peak in runs:
            if joined and begin - joined[-1][1] <= gap:
                joined[-1][1:] = [end, max(peak, joined[-1][2])]
            else:
                joined.append([begin, end, peak])
        found += [
            (LABELS.mids[label], begin, end, peak) for begin, end, peak in joined if end - begin >= shortest
        ]
    return sorted(found)


@pytest.mark.parametrize("seed", range(40))
def test_events_are_what_the_definition_says_however_the_steps_come(seed):
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(1, 120))
    rows = (
        (np.cumsum(rng.normal(0, 0.12, (steps, 3)), axis=0) + rng.normal(0, 0.1, (steps, 3)) + 0.4)
        .clip(0, 1)
        .astype(np.float32)
    )
    high = rng.uniform(0.2, 0.8, 3).astype(np.float32)
    options = EventOptions(
        low=float(rng.choice([0.3, 0.7, 1.0])),
        median=float(rng.choice([0, 0.48, 0.8, 1.7])),
        gap=float(rng.choice([0, 0.16, 0.5])),
        shortest=float(rng.choice([0, 0.32])),
    )
    cuts = np.sort(rng.integers(0, steps + 1, 6))
    pieces = np.diff([0, *cuts, steps]).tolist()
    wanted = by_hand(rows, options, high)
    for some in ([steps], [piece for piece in pieces if piece], [1] * steps):
        events = find(rows, options, some, thresholds=high)
        got = sorted(
            (event.label.mid, *span, event.score) for event, span in zip(events, spans(events), strict=True)
        )
        assert [row[:3] for row in got] == [row[:3] for row in wanted]
        np.testing.assert_allclose([row[3] for row in got], [row[3] for row in wanted], atol=1e-7)


def test_hysteresis_reaches_down_from_what_was_loud_enough():
    rows = column(0, 0.3, 0.6, 0.3, 0, 0.3, 0.4, 0)
    assert spans(find(rows, replace(PLAIN, low=0.5))) == [(1, 4)]
    assert spans(find(rows, PLAIN)) == [(2, 3)]
    assert spans(find(rows, replace(PLAIN, threshold=0.4, low=0.5))) == [(1, 4), (5, 7)]


def test_gaps_are_joined_before_short_events_are_left_out():
    rows = column(1, 0, 1, 0, 0, 1, 0)
    assert spans(find(rows, PLAIN)) == [(0, 1), (2, 3), (5, 6)]
    assert spans(find(rows, replace(PLAIN, gap=0.16))) == [(0, 3), (5, 6)]
    assert spans(find(rows, replace(PLAIN, gap=0.16, shortest=0.32))) == [(0, 3)]
    assert spans(find(rows, replace(PLAIN, gap=0.32))) == [(0, 6)]


def test_the_median_filter_removes_a_click_and_fills_a_hole():
    rows = column(0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 0, 0)
    assert spans(find(rows, replace(PLAIN, median=0.48))) == [(5, 10)]


def test_events_come_as_soon_as_they_are_certain():
    finder = Events(LABELS, replace(PLAIN, gap=0.32))
    scores = column(0, 1, 1, 0, 0, 0, 0)
    came = [len(finder.add(step * 2560, 2560, scores[step : step + 1])) for step in range(7)]
    assert (
        sum(came) == 1 and came[6] == 1
    )  # the step before is only closed by the next window; the pause is longer than the gap at step 5
    assert finder.finish(7 * STEP) == []


def test_windows_that_overlap_are_averaged_and_the_last_step_ends_with_the_recording():
    length, hop, total = 160_000, 80_000, 400_000  # 62 steps each; hops of 31.25 steps
    rng = np.random.default_rng(0)
    begins = [0, 80_000, 160_000, 240_000]
    scores = rng.random((4, 62, 3)).astype(np.float32)
    seen = []
    finder = Events(LABELS, PLAIN, after=lambda rows: seen.append(rows) or rows)
    for begin, rows in zip(begins, scores, strict=True):
        finder.add(begin, length, rows)
    events = finder.finish(total / 16_000)
    steps = np.concatenate(seen)
    assert len(steps) == 156  # those whose middle is in the recording
    for step in (0, 30, 31, 62, 63, 100, 155):
        middle = step * 2560 + 1280
        inside = [
            (begin, rows)
            for begin, rows in zip(begins, scores, strict=True)
            if begin <= middle < begin + length
        ]
        np.testing.assert_allclose(
            steps[step],
            np.mean([rows[min((middle - begin) // 2560, 61)] for begin, rows in inside], axis=0),
            atol=1e-6,
        )
    assert hop and max(event.offset for event in events) == 25.0


@pytest.mark.parametrize(
    ("window", "hop"), [(160_000, 160_000), (160_000, 1_000), (800, 800), (7_000, 3_000), (2_560, 1_280)]
)
@pytest.mark.parametrize("total", [1, 100, 799, 5_000, 400_001])
def test_every_step_is_covered_whatever_the_windows(window, hop, total):
    finder = Events(
        LABELS,
        EventOptions(level="windows", threshold=0.5),
        after=lambda rows: rows if np.isfinite(rows).all() else pytest.fail("a step without a score"),
    )
    events = []
    for begin, part in windows.cut([np.zeros(total, np.int16)], window, hop):
        events += finder.add(begin, len(part), np.full((1, 3), 0.75, np.float32))
    events += finder.finish(total / 16_000)
    assert [(event.onset, event.offset, event.score) for event in events] == [
        (0.0, round(total / 16_000, 6), 0.75)
    ] * 3


def test_thresholds_of_labels_and_what_is_done_before():
    rows = np.tile(np.array([[0.3, 0.3, 0.3]], np.float32), (5, 1))
    assert [event.label.name for event in find(rows, PLAIN, thresholds=np.array([0.2, 0.4, 0.3]))] == [
        "a",
        "c",
    ]
    assert (
        find(rows, replace(PLAIN, threshold=0.31), thresholds=np.array([0.2, 0.4, 0.3])) == ()
    )  # what was asked for counts
    assert [
        event.label.name for event in find(rows, PLAIN, after=lambda some: some + np.float32([0, 0.3, 0]))
    ] == ["b"]
    assert find(rows, PLAIN, thresholds=np.array([np.inf, 1.1, np.nan])) == ()


def test_no_steps_no_events():
    assert Events(LABELS, EventOptions()).finish(0.0) == []


def test_a_long_recording_holds_little():
    finder = Events(LABELS, EventOptions())
    rows, sizes = np.zeros((62, 3), np.float32), []
    for number in range(2_000):
        rows[:, 0] = number % 2
        finder.add(number * 158_720, 158_720, rows)
        sizes.append(len(pickle.dumps(finder)))
    assert max(sizes) <= 1.05 * max(sizes[:4])


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"low": 0.0},
        {"low": 1.1},
        {"median": -1.0},
        {"median": 61.0},
        {"gap": float("nan")},
        {"shortest": -0.1},
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match="of events") as caught:
        EventOptions(**wrong)
    assert caught.value.code == "bad-usage"


def test_events_are_ordered_by_time():
    a, b = LABELS.labels[:2]
    events = [
        Event(b, 1.0, 2.0, 0.5),
        Event(a, 1.0, 2.0, 0.5),
        Event(b, 0.0, 9.0, 0.1),
        Event(a, 1.0, 1.5, 0.9),
    ]
    assert [(event.onset, event.offset, event.label.name) for event in in_order(events)] == [
        (0.0, 9.0, "b"),
        (1.0, 1.5, "a"),
        (1.0, 2.0, "a"),
        (1.0, 2.0, "b"),
    ]
