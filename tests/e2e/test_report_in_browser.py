"""The report in headless Chromium: it asks nobody for anything, fits wide and narrow screens, plays its clips
and sorts its tables.
"""

import pytest

from beatline.evaluate import report
from tests.helpers import browser as browsers
from tests.helpers.browser import Browser
from tests.helpers.reports import make

pytestmark = [
    pytest.mark.xdist_group("page"),
    pytest.mark.skipif(not browsers.CHROMIUM, reason="no Chromium: apt-get install chromium"),
]

PLAYED = (
    "(async () => { const a = document.querySelector('audio'); a.muted = true; await a.play(); await "
    "new Promise(done => a.addEventListener('timeupdate', done)); return a.duration })()"
)
AP = "[...document.querySelectorAll('table.sortable')[0].tBodies[0].rows].map(row => row.cells[2].innerText)"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return report.write(
        tmp_path_factory.mktemp("report") / "report", make(clips=40, labels=30, resamples=20)
    ).as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("browser"), "--autoplay-policy=no-user-gesture-required")
    yield made
    made.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (390, "dark")])
def test_a_screen_of_any_width_shows_all_of_it(browser, address, width, scheme):
    with browser.page(address, width, 900, scheme) as page:
        assert (
            page.run("document.documentElement.scrollWidth") <= width
        )  # what is wider scrolls within itself
        assert page.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.run("document.querySelectorAll('section').length") == 9
        assert page.run(
            "[...document.querySelectorAll('svg')].every(drawing => drawing.getBoundingClientRect().height "
            "> 100)"
        )
        ink, ground = (
            page.run(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
        )
        assert (sum(map(int, ink[4:-1].split(","))) > sum(map(int, ground[4:-1].split(",")))) == (
            scheme == "dark"
        )
        assert page.problems == [] and page.requests == [address]


def test_clips_play_and_tables_sort(browser, address):
    with browser.page(address) as page:
        assert page.run(PLAYED) == 1.0
        before = page.run(AP)
        assert before == sorted(before, key=float, reverse=True)
        for expected in (before, before[::-1]):
            page.click("table.sortable thead th:nth-child(3) button")
            assert page.run(AP) == expected
        assert before != before[::-1]
        assert page.problems == [] and page.requests == [address]
