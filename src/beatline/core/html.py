"""HTML pages: the environment of the templates, and what no template can draw.

Templates and their style lie in `assets/pages`; jinja2 escapes every value in them. In: plain values. Out:
pages that name no outside address, plots as SVG, pictures and sound as data URIs. Plots take their colours
from the page's own variables (`var(--ink)`), so that the same plot serves light and dark. What draws imports
Matplotlib.
"""

import base64
import hashlib
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "assets/pages"
SERIES = 5  # colours `--c0` to `--c4` of the style sheet
POINTS = 500  # of a line; more cannot be seen
INK = "#0a0b0c"  # stand-in, replaced by a variable of the page
SOFT = "#0b0c0d"  # stand-in, replaced by a variable of the page
LINES = tuple(f"#0{i}0{i}0{i}" for i in range(1, SERIES + 1))  # of series; never black, which SVG leaves out
COLOURS = {stand_in: f"var(--c{i})" for i, stand_in in enumerate(LINES)} | {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
}
SVG = Markup(
    '<svg role="img" aria-label="{}" {} xmlns="http://www.w3.org/2000/svg" '
    'xmlns:xlink="http://www.w3.org/1999/xlink">{}'
)


# --- templates


@cache
def templates() -> Environment:
    """The environment: values are escaped, a name that a template misses is an error."""
    made = Environment(
        loader=PackageLoader("beatline", FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": count,
        "number": number,
        "percent": percent,
        "shown": shown,
        "sort_key": sort_key,
    }
    made.tests["nan"] = math.isnan
    return made


def resource(name: str) -> str:
    """The text of a file in `assets/pages`."""
    return (files("beatline") / FOLDER / name).read_text(encoding="utf-8")


def page(template: str, **values: object) -> str:
    """A whole page: an HTML file that needs no other file and may ask no server for anything.

    Args:
        template: A file in `assets/pages` that extends `frame.html`.
        values: What it shows.
    """
    script = resource("page.js")
    return (
        templates()
        .get_template(template)
        .render(
            style=Markup(resource("page.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            **values,
        )
    )


def fragment(template: str, **values: object) -> str:
    """A piece of HTML for somebody else's page."""
    return templates().get_template(template).render(**values)


def number(value: float | None, digits: int = 2, scale: float = 1.0) -> str:
    """The value times `scale`, or a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return f"{value:.0f}".replace("inf", "∞")
    return f"{scale * float(value):.{digits}f}"


def count(value: float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def shown(value: float | None, digits: int = 2, scale: float = 1.0) -> str:
    """What stands in a cell of numbers: a whole number whole, another as `number`."""
    return count(value) if isinstance(value, int | np.integer) else number(value, digits, scale)


def sort_key(value: float | None) -> str:
    """By what a cell is sorted; empty where there is no value."""
    return "" if value is None or math.isnan(value) else f"{value:.9g}"


def percent(share: float, digits: int = 1) -> str:
    """A share within 0 to 1 as percent, 0 where it is not finite."""
    known = min(max(float(share), 0.0), 1.0) if math.isfinite(share) else 0.0
    return f"{100 * known:.{digits}f}"


# --- plots


@dataclass(frozen=True)
class Plot:
    """A drawing with its title; macro `plot` shows it."""

    title: str
    drawing: Markup
    """Inline SVG."""
    legend: tuple[str, ...]
    """Names of the lines, in order of their colours; empty where the axis says what the line is."""


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A long line as at most `POINTS` means of neighbours."""
    if len(x) <= POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), POINTS)
    return np.array([x[p].mean() for p in parts]), np.array([y[p].mean() for p in parts])


def line_plot(
    title: str,
    lines: dict[str, tuple[np.ndarray, np.ndarray]],
    x_name: str,
    y_name: str,
    adjust: Callable[[Any], object] | None = None,
    legend: bool = True,
    height: float = 3.0,
) -> Plot:
    """Lines over a common axis.

    Args:
        lines: Up to five lines `(x, y)` by name. The names appear in HTML only, and may be anything.
        adjust: Called with the axes at the end.
        legend: Whether to name the lines; not needed for a single line that the axis names.
        height: For a width of 4.8.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, height), layout="constrained")
    axes = figure.add_subplot()
    for i, (x, y) in enumerate(lines.values()):
        axes.plot(x, y, color=LINES[i], linewidth=1.6, marker="o" if len(x) < 3 else None)
    axes.set_xlabel(x_name, color=INK, fontsize=9)
    axes.set_ylabel(y_name, color=INK, fontsize=9)
    axes.tick_params(colors=SOFT, labelsize=8)
    axes.grid(color=SOFT, alpha=0.22, linewidth=0.6)
    for side in axes.spines:
        axes.spines[side].set(color=SOFT, alpha=0.6, visible=side in ("left", "bottom"))
    for offset in (axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text()):
        offset.set(color=SOFT, fontsize=8)
    if adjust:
        adjust(axes)
    described = f"{title}: {y_name} over {x_name}; lines: {', '.join(lines)}"
    return Plot(title, _svg(figure, title, described), tuple(lines) if legend else ())


def histogram(title: str, edges: Sequence[float], counts: Sequence[int], x_name: str, y_name: str) -> Plot:
    """Counts between edges as a filled outline."""
    x, y = np.repeat(edges, 2), np.concatenate([[0], np.repeat(counts, 2), [0]])
    return line_plot(
        title,
        {y_name: (x, y)},
        x_name,
        y_name,
        lambda axes: axes.fill_between(x, y, color=SOFT, alpha=0.25, linewidth=0),
        legend=False,
    )


def _svg(figure: "Figure", name: str, described: str) -> Markup:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    # ids are common to the page, and matplotlib's repeat from figure to figure
    prefix = re.sub(r"\W+", "-", name.lower())
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", drawing)
    for stand_in, variable in COLOURS.items():
        drawing = drawing.replace(stand_in, variable)
    box = re.search(r'viewBox="[^"]+"', drawing)
    assert box
    return SVG.format(described, Markup(box[0]), Markup(drawing[drawing.index(">") + 1 :]))


# --- pictures and sound


@dataclass(frozen=True)
class Sound:
    """A clip to look at and to listen to; macro `media` shows it."""

    picture: str
    """Data URI of its spectrogram."""
    audio: str
    """Data URI of its samples."""
    cut: str = ""
    """What part of it is shown, in words, where that is not all."""


def picture(values: np.ndarray, low: float, high: float) -> str:
    """An image of an array as a data URI, first axis up, values from `low` (dark) to `high`."""
    from matplotlib import image

    buffer = io.BytesIO()
    image.imsave(buffer, values, vmin=low, vmax=high, cmap="magma", origin="lower", format="png")
    return _data_uri("image/png", buffer.getvalue())


def flac(samples: np.ndarray, sample_rate: int) -> str:
    """16-bit samples as a data URI of FLAC."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return _data_uri("audio/flac", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# --- Markdown, which jinja2 does not know


def markdown(value: object) -> str:
    """Text without meaning in Markdown, on one line: labels and settings are a stranger's words."""
    line = " ".join(str(value).split())
    return re.sub(r"[\\`*_\[\]|#]", r"\\\g<0>", line).replace("<", "&lt;")


def markdown_cell(value: object) -> str:
    """Text for a cell of a Markdown table, or between backticks, on one line."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("`", "'").replace("<", "&lt;")
