"""The reliability page: its figures are those of the definition, nothing comes from outside, a real browser
shows it at any width.
"""

import re

import numpy as np
import pytest

from beatline.core.labels import Label, LabelSet
from beatline.evaluate import calibrate
from beatline.evaluate.calibrate import BINS, Evidence
from beatline.evaluate.calibrate_page import interval, page
from beatline.tag.calibration import Calibration
from tests.helpers.browser import CHROMIUM, Browser

LABELS = LabelSet(tuple(Label(f"/m/{name}", f"<b>{name}") for name in "pqrst"))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def evidence(task: str = "multi-label", clips: int = 400) -> Evidence:
    """A model whose logits are three times too large; nobody has the last label."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-3, 6, (clips, 5)).astype(np.float32)
    targets = rng.random(logits.shape) < sigmoid(logits / 3)
    if task == "single-label":
        targets = (softmax(logits / 3).cumsum(axis=1) > rng.random((clips, 1))).cumsum(axis=1) == 1
    targets[:, 4] = False
    return Evidence(
        [row[None] for row in logits],
        targets,
        targets.any(axis=0),
        sigmoid if task == "multi-label" else softmax,
        task=task,
    )


def made(
    task: str = "multi-label", goal: float | None = None, parts: int = 5
) -> tuple[Calibration, calibrate.Worth, str]:
    known = evidence(task)
    temperature = calibrate.fit_temperature(known)
    thresholds, states = calibrate.fit_thresholds(known.scores(temperature), known.targets, goal)
    about = {
        "goal": "f1" if goal is None else f"precision={goal:g}",
        "clips": len(known.logits),
        "clips_hash": "0" * 64,
    }
    learned = Calibration(LABELS, thresholds, temperature, states, known.targets.sum(axis=0), about)
    worth = calibrate.worth(known, np.arange(len(known.logits)) % parts, goal)
    return learned, worth, page("<u>runs", learned, worth, task)


def test_what_it_is_worth_is_what_the_definition_says():
    known = evidence()
    _, worth, _ = made()
    for scores, bins, error in zip(
        (known.scores(1.0), known.scores(3.0)), worth.bins, worth.errors, strict=True
    ):
        said, right = scores[:, :4].ravel(), known.targets[:, :4].ravel()
        inside = [
            (said >= k / BINS) & (said < (k + 1) / BINS) if k < BINS - 1 else said >= k / BINS
            for k in range(BINS)
        ]
        wanted = sum(
            some.sum() / len(said) * abs(said[some].mean() - right[some].mean())
            for some in inside
            if some.any()
        )
        assert error == pytest.approx(
            wanted, abs=0.01 if bins is worth.bins[1] else 1e-6
        )  # the temperature that was found is not just 3
        assert (
            bins[:, 2].sum() == len(said)
            and (np.abs(bins[:, 0] - (bins[:, 3] + 0.5) / BINS) <= 0.5 / BINS + 1e-9).all()
        )
    assert worth.errors[1] < 0.03 < 0.08 < worth.errors[0] and worth.parts == 5
    assert np.isnan(worth.label_f1[0][4]) or worth.label_f1[0][4] == 0


def test_the_page_holds_the_figures_and_asks_nobody():
    learned, worth, shown = made()
    for figure in (
        f"{worth.errors[0]:.3f} without",
        f">{worth.errors[1]:.3f}<",
        f">{learned.temperature:.3f}<",
        f"{100 * worth.decisions[0]['f1']:.1f} with 0.5",
        f">{100 * worth.decisions[1]['f1']:.1f}<",
        "too sure",
        "the highest F1",
    ):
        assert figure in shown, figure
    assert "<u>runs" not in shown and "<b>p" not in shown and shown.count("&lt;b&gt;") == 5
    assert set(re.findall(r'https?://[^"\s]+', shown)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert (
        shown.count("<svg") == 2
        and "Expected calibration error</strong>" in shown
        and "no clip has it: 0.5" in shown
    )
    rows = re.findall(r'<th scope="row">(0\.\d\d) to', shown)
    assert len(rows) == BINS
    assert (
        "every score of every label that some clip has, 1\u202f600 in all" in shown
    )  # four labels are known


def test_other_goals_and_tasks():
    _, worth, shown = made(goal=0.9)
    assert "a precision of 0.9" in shown and worth.decisions[1]["precision"] > worth.decisions[0]["precision"]
    _, worth, shown = made("single-label")
    assert "a clip's highest score, 400 in all" in shown
    assert worth.bins[0][:, 2].sum() == 400 and worth.errors[1] < worth.errors[0]
    assert "learned from</strong>: all come from one recording" in made(parts=1)[2]


def test_intervals_are_wilson_s():
    assert interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_it_at_any_width(tmp_path):
    (tmp_path / "page.html").write_text(made()[2])
    browser = Browser(tmp_path / "profile")
    try:
        for width, scheme in ((1280, "light"), (360, "dark")):
            with browser.page(f"file://{tmp_path}/page.html", width, 800, scheme) as shown:
                assert shown.run("document.documentElement.scrollWidth") <= width
                shown.click("summary")
                assert shown.run("document.querySelectorAll('details[open] tbody tr').length") == BINS
                assert not shown.problems and shown.requests == [f"file://{tmp_path}/page.html"]
    finally:
        browser.close()
