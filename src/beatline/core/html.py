"""An HTML page and its pieces: frame, text, tables, bars, line plots, histograms, pictures and sound, each as
a string.

Outside the straight line: `report` and `inspection_page` put them together. In: plain values; what comes from
a user goes through `text`. Out: HTML that names no outside address. The page's frame, style and script are in
`assets/report`. Colours are the page's own variables (`var(--ink)`), so that one plot serves light and dark.
"""

import base64
import hashlib
import html
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

import matplotlib
import numpy as np
import soundfile
from matplotlib import image
from matplotlib.figure import Figure

SERIES = 5  # colours `--c0` to `--c4` of the style sheet
POINTS = 500  # of a line; more cannot be seen
INK, SOFT = "#0a0b0c", "#0b0c0d"  # stand-ins, replaced by the page's variables
LINES = tuple(f"#0{i}0{i}0{i}" for i in range(1, SERIES + 1))  # of series; never black, which SVG leaves out
COLOURS = {stand_in: f"var(--c{i})" for i, stand_in in enumerate(LINES)} | {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
}


def text(value: object) -> str:
    """The value as HTML text, also fit for an attribute in quotes."""
    return html.escape(str(value))


def resource(name: str) -> str:
    """The text of a file in `assets/report`."""
    return (files("beatline") / "assets/report" / name).read_text(encoding="utf-8")


def frame(title: str, kind: str, subtitle: str, sections: Mapping[str, str], footer: str) -> str:
    """A whole page: one HTML file that needs nothing else and may ask no server for anything.

    Args:
        title: Plain text.
        kind: What the page is, one plain word.
        subtitle: HTML.
        sections: HTML by heading, in order; an empty one is left out.
        footer: HTML.
    """
    links, parts = [], []
    for place, (heading, content) in enumerate(sections.items()):
        if content:
            links.append(f'<a href="#part-{place}">{heading}</a>')
            parts.append(
                f'<section id="part-{place}" aria-labelledby="part-{place}-h"><h2 '
                f'id="part-{place}-h">{heading}</h2>\n{content}\n</section>'
            )
    script = resource("report.js")
    return Template(resource("report.html")).substitute(
        title=text(title),
        kind=kind,
        subtitle=subtitle,
        style=resource("report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        navigation="".join(links),
        sections="\n".join(parts),
        footer=footer,
    )


def number(value: float | None, digits: int = 2, scale: float = 1.0) -> str:
    """The value times `scale`, or a dash where there is none."""
    return (
        "–"
        if value is None or math.isnan(value)
        else f"{value:.0f}".replace("inf", "∞")
        if math.isinf(value)
        else f"{scale * value:.{digits}f}"
    )


def cell(value: float | int | None, digits: int = 2, scale: float = 1.0) -> str:
    """A table cell with a number; a whole number is written whole."""
    shown = (
        f"{value:,}".replace(",", "\u202f")
        if isinstance(value, (int, np.integer))
        else number(value, digits, scale)
    )
    key = "" if value is None or math.isnan(value) else f"{value:.9g}"
    return f'<td class="n" data-v="{key}">{shown}</td>'


def bar(share: float, interval: tuple[float, float] | None = None, series: int = 0) -> str:
    """A table cell with a bar from 0 to 1, and whiskers over an interval; for the eye only, its number stands
    in another cell.
    """
    percent = [100 * min(max(v, 0.0), 1.0) if math.isfinite(v) else 0.0 for v in (share, *(interval or ()))]
    whisker = f'<b style="--lo:{percent[1]:.1f}%;--hi:{percent[2]:.1f}%"></b>' if interval else ""
    return (
        f'<td class="bar" data-v="{percent[0]:.6f}" aria-hidden="true"><span><i '
        f'style="--v:{percent[0]:.1f}%;--series:var(--c{series})"></i>{whisker}</span></td>'
    )


def table(
    headings: Sequence[str], rows: Iterable[str], caption: str, sortable: bool = False, tall: bool = False
) -> str:
    """A table that scrolls within itself where the page is too narrow.

    Args:
        headings: Plain texts; one that begins with `#` heads a column of numbers.
        rows: Each the cells of one row, as HTML; a row that needs attributes brings its own `<tr>`.
        caption: Plain text.
        tall: Whether it also scrolls down within itself.
    """
    cells = []
    for heading in headings:
        name = text(heading.removeprefix("#"))
        cells.append(
            f'<th scope="col"{" class=n" if heading.startswith("#") else ""}>'
            f"{f'<button type=button>{name}</button>' if sortable and name else name}</th>"
        )
    body = "\n".join(row if row.startswith("<tr") else f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll{" tall" if tall else ""}" tabindex="0" role="region" '
        f'aria-label="{text(caption)}">'
        f"<table{' class=sortable' if sortable else ''}><caption>{text(caption)}</caption>"
        f"<thead><tr>{''.join(cells)}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


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
) -> str:
    """A figure with lines over a common axis, as inline SVG, its legend as a list.

    Args:
        lines: Up to five lines `(x, y)` by name; the names appear in HTML only, so that they may be anything.
        adjust: Called with the axes at the end.
        legend: Whether to name the lines; not needed where there is one and the axis says what it is.
        height: For a width of 4.8.
    """
    figure = Figure(figsize=(4.8, height), layout="constrained")
    axes = figure.add_subplot()
    for i, (x, y) in enumerate(lines.values()):
        axes.plot(x, y, color=LINES[i], linewidth=1.6, marker="o" if len(x) < 3 else None)
    axes.set_xlabel(x_name, color=INK, fontsize=9)
    axes.set_ylabel(y_name, color=INK, fontsize=9)
    axes.tick_params(colors=SOFT, labelsize=8)
    axes.grid(color=SOFT, alpha=0.22, linewidth=0.6)
    for place in axes.spines:
        axes.spines[place].set(color=SOFT, alpha=0.6, visible=place in ("left", "bottom"))
    for offset in (axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text()):
        offset.set(color=SOFT, fontsize=8)
    if adjust:
        adjust(axes)
    entries = "".join(f'<li style="--series:var(--c{i})">{text(name)}</li>' for i, name in enumerate(lines))
    described = text(f"{title}: {y_name} over {x_name}; lines: {', '.join(lines)}")
    names = f'<ul class="legend">{entries}</ul>' if legend else ""
    return f"<figure><h3>{text(title)}</h3>{_svg(figure, title, described)}{names}</figure>"


def histogram(title: str, edges: Sequence[float], counts: Sequence[int], x_name: str, y_name: str) -> str:
    """A figure with counts between edges as a filled outline, as inline SVG."""
    x, y = np.repeat(edges, 2), np.concatenate([[0], np.repeat(counts, 2), [0]])
    return line_plot(
        title,
        {y_name: (x, y)},
        x_name,
        y_name,
        lambda axes: axes.fill_between(x, y, color=SOFT, alpha=0.25, linewidth=0),
        legend=False,
    )


def _svg(figure: Figure, name: str, described: str) -> str:
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
    prefix = re.sub(
        r"\W+", "-", name.lower()
    )  # ids are common to the page, and matplotlib's repeat from figure to figure
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", drawing)
    for stand_in, variable in COLOURS.items():
        drawing = drawing.replace(stand_in, variable)
    box = re.search(r'viewBox="[^"]+"', drawing)
    assert box
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg role="img" aria-label="{described}" {box[0]} {names}>{drawing[drawing.index(">") + 1 :]}'


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(values: np.ndarray, described: str, low: float, high: float) -> str:
    """An image of an array, first axis up, values from `low` (dark) to `high`."""
    buffer = io.BytesIO()
    image.imsave(buffer, values, vmin=low, vmax=high, cmap="magma", origin="lower", format="png")
    return f'<img src="{_data_uri("image/png", buffer.getvalue())}" alt="{text(described)}">'


def player(samples: np.ndarray, sample_rate: int, described: str) -> str:
    """An audio player of 16-bit samples, embedded as FLAC."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return (
        f'<audio controls preload="metadata" aria-label="{text(described)}" '
        f'src="{_data_uri("audio/flac", buffer.getvalue())}"></audio>'
    )
