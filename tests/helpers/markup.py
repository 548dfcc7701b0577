"""Pieces of pages as tests see them: a macro by its name, a section by its heading."""

import re
from typing import Any

from beatline.core import html


def macros() -> Any:
    """The macros of `macros.html` as functions."""
    return html.templates().get_template("macros.html").module


def table(headings: list[str], rows: str, caption: str, **options: bool) -> str:
    """A table around rows that are HTML."""
    source = (
        '{% from "macros.html" import table %}'
        "{% call table(headings, caption, **options) %}{{ rows|safe }}{% endcall %}"
    )
    made = html.templates().from_string(source)
    return made.render(headings=headings, rows=rows, caption=caption, options=options)


def section(page: str, heading: str) -> str:
    """The HTML of a page's section."""
    found = re.search(rf"<section [^>]*><h2 [^>]*>{re.escape(heading)}</h2>(.*?)</section>", page, re.DOTALL)
    assert found, f"no section {heading}"
    return found[1]
