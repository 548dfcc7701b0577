"""The page of a comparison: the right clips, nothing from outside, readable in a real browser at any
width.
"""

import re

import numpy as np
import pytest

from beatline.core.labels import Label, LabelSet
from beatline.evaluate import compare_page
from beatline.evaluate.compare import compare
from beatline.evaluate.compare_page import disagreements, page
from beatline.evaluate.predictions import Predictions
from tests.helpers.browser import CHROMIUM, Browser

LABELS = LabelSet(tuple(Label(f"/m/{name}", f"<b>{name}") for name in "pqrstu"))
IDS = tuple(f'clip <i>"{number}' for number in range(30))


@pytest.fixture(scope="module")
def result():
    """A is wrong about clip 3, B about 5 and 6; clip 9 is far apart and as good in both."""
    rng = np.random.default_rng(0)
    targets = rng.random((30, 6)) < 0.3
    targets[[3, 5, 6, 9]] = np.eye(6, dtype=bool)[[0, 1, 2, 3]]
    good = np.where(targets, 0.6, 0.1).astype(np.float32)
    first, second = good.copy(), good.copy()
    first[3], second[5], second[6] = first[3][::-1], second[5][::-1], second[6][::-1]
    second[9] = np.where(targets[9], 0.99, 0.02)
    first[9] = np.where(targets[9], 0.2, 0.1)
    return compare(
        Predictions(IDS, first, targets, LABELS),
        Predictions(IDS, second, targets, LABELS),
        ("<u>one", "runs/two"),
        50,
    )


def test_the_clips_where_they_disagree_most_come_first(result, monkeypatch):
    found = disagreements(result)
    assert (
        found["Furthest apart"] == [9, 3, 5, 6] and not found["B is right where A is not"]
    )  # no clip is in two lists
    monkeypatch.setattr(compare_page, "CLIPS_SHOWN", 1)
    assert [disagreements(result)[kind] for kind in compare_page.KINDS] == [[9], [3], [5]]
    same = compare(result.predictions[0], result.predictions[0], ("a", "a"), 10)
    assert not any(disagreements(same).values()) and "the same of every clip" in page(same)


def test_the_page_holds_what_was_compared_and_nothing_else(result):
    sound = (3000 * np.sin(np.arange(8000) / 10)).astype(np.int16)
    made = page(result, {IDS[9]: sound, IDS[3]: np.zeros(400_000, np.int16)})
    assert (
        made.count("<audio") == made.count("<img") == 2
        and made.count("<article>") == 4
        and "first 20 s of 25" in made
    )
    assert "<b>p" not in made and "<i>&quot;" not in made and "<u>one" not in made and "&lt;u&gt;one" in made
    assert set(re.findall(r'https?://[^"\s]+', made)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "Compared on the 30 clips and 6 labels" in made and made.count('class="true" title') == 4


def test_undefined_figures_are_dashes(result):
    nothing = [Predictions(p.ids, p.scores, np.zeros_like(p.targets), LABELS) for p in result.predictions]
    made = page(compare(*nothing, ("a", "b"), 10))
    assert "nan" not in made.lower().replace("nanum", "") and "none of these labels" in made


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_it_at_any_width(result, tmp_path):
    sound = (3000 * np.sin(np.arange(8000) / 10)).astype(np.int16)
    (tmp_path / "page.html").write_text(page(result, dict.fromkeys(IDS, sound)))
    browser = Browser(tmp_path / "profile")
    try:
        for width, scheme in ((1280, "light"), (360, "dark")):
            with browser.page(f"file://{tmp_path}/page.html", width, 800, scheme) as shown:
                assert shown.run("document.documentElement.scrollWidth") <= width
                assert shown.run(
                    "(async () => { const a = document.querySelector('audio'); a.muted = true; await "
                    "a.play(); return a.duration })()"
                ) == pytest.approx(0.5)
                shown.click("table.sortable th button")
                names = shown.run(
                    "[...document.querySelectorAll('table.sortable tbody th')].map((e) => e.textContent)"
                )
                assert names == sorted(names)
                assert not shown.problems and shown.requests == [f"file://{tmp_path}/page.html"]
    finally:
        browser.close()
