import ast
import base64
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
from jinja2 import UndefinedError
from matplotlib import image

from beatline.core import html as markup
from tests.helpers.markup import macros, table

PACKAGE = Path(str(files("beatline")))
ELEMENT = r"</[a-z][a-z0-9]*>|<(a|article|b|br|code|div|dl|h[1-6]|i|img|p|section|span|svg|table|t[dhr])[ >]"


def payload(element: str, kind: str) -> bytes:
    found = re.search(f'src="data:{kind};base64,([^"]+)"', element)
    assert found
    return base64.b64decode(found[1])


def test_text_is_fit_for_elements_and_attributes():
    shown = markup.templates().from_string("{{ value }}").render(value="<a href=\"x\" b='y'>&")
    assert shown == "&lt;a href=&#34;x&#34; b=&#39;y&#39;&gt;&amp;"


def test_a_name_that_a_template_misses_is_an_error():
    with pytest.raises(UndefinedError):
        markup.templates().from_string("{{ missing }}").render()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.12345, "12.35"), (None, "–"), (float("nan"), "–"), (float("inf"), "∞"), (float("-inf"), "-∞")],
)
def test_number(value, shown):
    assert markup.number(value, 2, 100) == shown


def test_cell_sorts_by_its_value_and_an_unknown_one_has_none():
    assert 'data-v="20123">20\u202f123<' in macros().cell(20123)
    assert 'data-v="20123">20\u202f123<' in macros().cell(np.int64(20123))
    assert 'data-v="">–<' in macros().cell(float("nan"))
    assert 'data-v="0.5">50.0<' in macros().cell(0.5, 1, 100)


@pytest.mark.parametrize(
    ("share", "width"), [(0.25, "25.0%"), (-1.0, "0.0%"), (7.0, "100.0%"), (float("nan"), "0.0%")]
)
def test_bar_stays_in_its_cell(share, width):
    assert f"--v:{width};" in macros().bar(share)


def test_table_escapes_headings_and_caption():
    made = table(
        ["<b>", "#n"],
        '<tr><td>1</td><td>2</td></tr><tr class="ours"><td>3</td><td>4</td></tr>',
        '"<i>"',
        sortable=True,
    )
    assert "<b>" not in made and "<i>" not in made
    assert made.count("<tr") == 3 and "<tr><tr" not in made


def test_thin_keeps_short_lines_and_the_mean_of_long_ones():
    x = np.arange(40.0)
    assert markup.thin(x, x)[0] is x
    x = np.arange(10.0 * markup.POINTS)
    few_x, few_y = markup.thin(x, 2 * x)
    assert (
        len(few_x) == markup.POINTS
        and few_x[0] == 4.5
        and np.allclose(few_y, 2 * few_x)
        and few_x.mean() == x.mean()
    )


def test_line_plot_takes_any_name_and_needs_no_outside_address():
    line = (np.arange(5.0), np.arange(5.0))
    drawn = markup.line_plot("A plot", {"<script>$\\frac$": line, "_hidden": line}, "step", "loss")
    made = macros().plot(drawn)
    assert "<script>" not in made and made.count("&lt;script&gt;") == 2  # legend and description
    assert "_hidden" in made
    assert "var(--c1)" in made and "var(--ink)" in made and "#0a0b0c" not in made
    assert set(re.findall(r'https?://[^"\s]+', made)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_two_plots_share_no_id():
    line = {"loss": (np.arange(5.0), np.arange(5.0))}
    first, second = (
        set(re.findall(r'\bid="([^"]+)"', markup.line_plot(title, line, "step", "loss").drawing))
        for title in ("one", "two")
    )
    assert first and not first & second


def test_plot_is_the_same_every_time():
    line = {"loss": (np.arange(5.0), np.arange(5.0))}
    assert markup.line_plot("t", line, "x", "y") == markup.line_plot("t", line, "x", "y")


def test_picture_has_its_first_row_at_the_bottom():
    values = np.array([[1.0, 1.0], [0.0, 0.0]])
    made = macros().picture(markup.picture(values, 0.0, 1.0), '"x"')
    pixels = image.imread(io.BytesIO(payload(made, "image/png")))[:, :, :3].sum(axis=2)
    assert (pixels[1] > pixels[0]).all()
    assert 'alt="&#34;x&#34;"' in made


def test_player_holds_the_samples_themselves():
    samples = np.random.Generator(np.random.Philox(0)).integers(-(2**15), 2**15, 4000).astype(np.int16)
    heard, rate = soundfile.read(
        io.BytesIO(payload(macros().player(markup.flac(samples, 16000), "x"), "audio/flac")), dtype="int16"
    )
    assert rate == 16000 and np.array_equal(heard, samples)


# --- owners


def strings(path: Path) -> Iterator[str]:
    """The string literals of a module, its docstrings aside."""
    tree = ast.parse(path.read_text())
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_html_is_written_and_escaped_in_templates_only():
    sources = [path for path in PACKAGE.rglob("*.py") if path.name != "html.py"]
    assert len(sources) > 50
    written = {
        f"{path.name}: {text}" for path in sources for text in strings(path) if re.search(ELEMENT, text)
    }
    assert written == set()
    escaping = {
        path.name for path in sources if re.search(r"\bhtml\.escape\b|\bescape\(|&lt;", path.read_text())
    }
    assert escaping == set()


@pytest.mark.parametrize("command", ["beatline.cli", "beatline.recipe", "beatline.evaluate.score_folder"])
def test_what_makes_no_page_starts_without_the_template_engine(command):
    program = f"import sys, {command}; print('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
