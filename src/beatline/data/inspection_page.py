"""inspection -> a table for the console and a page for the eye.

In: what `inspection.inspect` found, and for the page a way to a clip's samples. Out: text, or an HTML file
that needs nothing else. Nothing is measured here. Names that come from files are shown so that they can
not drive a terminal. The template is `assets/pages/inspection.html`.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np

from beatline.audio.samples import SAMPLE_RATE
from beatline.core import html
from beatline.core.html import Sound, histogram
from beatline.core.text import printable
from beatline.data import fingerprint

ROWS = 10  # of a list on the console
PAGE_ROWS = 100
PAIRS_HEARD = 3  # on the page, with sound
DOUBTS_HEARD = 6  # on the page, with sound
SECONDS_HEARD = 20  # of a clip, at most: bounds the page
DYNAMIC_RANGE = 60.0  # dB below the loudest point of a picture
KINDS = {
    "seconds": ("Duration", "seconds"),
    "peak_db": ("Peak", "dB of full scale"),
    "rms_db": ("RMS", "dB of full scale"),
}
"""Title and unit of what is measured of a clip, by its name in `formats`."""


def plain(value: object) -> str:
    """The value as a line of text that a terminal shows and does not obey."""
    return printable(value)


# --- the console


def console(found: Mapping[str, Any]) -> str:
    """The inspection as text, the head of each list."""
    lines = [f"store     {plain(found['store'])}, content {found['content'][:12]}"]
    lines += [f"clips     {found['clips']} of {found['inputs']} inputs, {found['hours']:.2f} h"]
    lines += _rows(
        "splits",
        (
            (
                name,
                s["clips"],
                f"{s['hours']:.2f} h",
                f"{s['labels']} labels",
                f"{s['labels_per_clip']:.2f} per clip",
            )
            for name, s in found["splits"].items()
        ),
    )
    missing = found["missing"]
    lines += [f"missing   {missing['clips']}; {missing['noted']} clips came with a note in ledger.jsonl"]
    lines += _rows(
        "",
        (
            (row["code"], row["clips"], "e.g. " + row["examples"][0] if row["examples"] else "")
            for row in missing["reasons"]
        ),
    )
    lost = [row for row in found["labels"] if row["lost"]]
    lines += [
        f"labels    {len(lost)} of {len(found['labels'])} lost clips, "
        f"{sum(row['present'] == 0 for row in found['labels'])} have none"
    ]
    lines += _rows(
        "",
        (
            (
                row["name"],
                f"{100 * row['lost_share']:.1f} % lost",
                f"{row['present']} of {row['expected']} left",
            )
            for row in _head(lost)
        ),
    )
    formats = found["formats"]
    lines += [
        "formats   quantiles in percent: "
        + "  ".join(f"{name:>7}" for name in formats["seconds"]["quantiles"])
    ]
    lines += [
        f"          {title:22}{'  '.join(f'{value:7.2f}' for value in formats[key]['quantiles'].values())}"
        for key, title in (("seconds", "seconds"), ("peak_db", "peak, dB"), ("rms_db", "RMS, dB"))
    ]
    lines += [
        "          sources: " + ", ".join(f"{row['hertz']} Hz {row['clips']}" for row in formats["rate_in"])
    ]
    lines += [
        "          "
        + ", ".join(
            f"{row['channels']} channel{'s' * (row['channels'] > 1)} {row['clips']}"
            for row in formats["channels_in"]
        )
        + f"; {formats['clipped']} clips touch full scale"
    ]
    silence = found["silence"]
    lines += [
        f"silence   {len(silence['silent'])} silent, {len(silence['half_empty'])} at least half empty "
        f"(frames of {1000 * silence['frame_seconds']:.0f} ms below {silence['quiet_below_db']} dB)"
    ]
    lines += _rows("", (("silent", name) for name in _head(silence["silent"])))
    lines += _rows(
        "", ((f"{100 * row['quiet']:.0f} % empty", row["clip"]) for row in _head(silence["half_empty"]))
    )
    twins = found["duplicates"]
    counts = ", ".join(f"{name} {count}" for name, count in twins["between"].items())
    lines += [
        f"repeats   {len(twins['pairs'])} near-duplicate pairs in {len(twins['groups'])} groups of "
        f"{twins['clips']} clips, {twins['across']} pairs across splits{f' ({counts})' if counts else ''}"
    ]
    first = sorted(twins["pairs"], key=lambda row: not row["across"])
    lines += _rows(
        "",
        (
            (
                f"{row['similarity']:.2f}",
                *(f"{name} ({split})" for name, split in zip(row["clips"], row["splits"], strict=True)),
            )
            for row in _head(first)
        ),
    )
    pairs = found["together"]
    lines += [
        f"together  {pairs['labels_per_clip']:.2f} labels a clip; most frequent pairs, then the highest "
        f"lift (from {pairs['least_clips']} clips)"
    ]
    for key in ("by_count", "by_lift"):
        lines += _rows(
            "",
            (
                (" + ".join(row["labels"]), f"{row['clips']} clips", f"lift {row['lift']:.1f}")
                for row in _head(pairs[key], ROWS // 2)
            ),
        )
    doubt = found["doubt"]
    lines += [
        f"doubt     labels whose clips' nearest neighbours carry it least ({doubt['compared']} clips "
        f"compared; not a rate of errors)"
    ]
    lines += _rows(
        "",
        (
            (
                row["name"],
                f"agreement {100 * row['agreement']:.0f} %",
                f"chance {100 * row['chance']:.0f} %",
                f"{row['clips']} clips",
            )
            for row in _head(doubt["labels"])
        ),
    )
    lines += ["          clips that their neighbours contradict most"]
    lines += _rows(
        "",
        (
            (
                row["clip"],
                " + ".join(row["labels"]),
                f"neighbours: {row['neighbours']} {100 * row['share']:.0f} %",
            )
            for row in _head(doubt["clips"])
        ),
    )
    if rated := doubt.get("rated"):
        share = "unknown" if rated["wrong_share"] is None else f"{100 * rated['wrong_share']:.1f} %"
        lines += [
            f"rated     people rated {rated['labels']} of these labels again: {share} of the store's clips "
            f"that carry them are expected not to have them"
        ]
    return "\n".join(lines)


def _head(rows: Iterable[Any], count: int = ROWS) -> list[Any]:
    return list(islice(rows, count))


def _rows(name: str, rows: Iterable[Iterable[object]]) -> list[str]:
    """Rows as aligned columns under a name."""
    cells = [[plain(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=False)]
    padded = [
        "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=False)).rstrip()
        for row in cells
    ]
    return [f"{name if i == 0 else '':10}{line}" for i, line in enumerate(padded)]


# --- the page


def page(found: Mapping[str, Any], samples_of: Callable[[str], np.ndarray] | None = None) -> str:
    """The inspection as an HTML file.

    Args:
        samples_of: Gives a clip's samples, int16 at 16 kHz, by its id. When left out, the page has no
            pictures and no sound.

    Raises:
        UserError: `corrupt-artefact` where a clip's audio cannot be read.
    """
    formats = found["formats"]
    silence = found["silence"]
    pairs = sorted(found["duplicates"]["pairs"], key=lambda row: not row["across"])
    doubted = found["doubt"]["clips"]
    return html.page(
        "inspection.html",
        title=str(found["store"]).rstrip("/").rsplit("/", 1)[-1],
        found=found,
        measured=KINDS,
        plots=[
            histogram(title, formats[key]["edges"], formats[key]["clips"], unit, "clips")
            for key, (title, unit) in KINDS.items()
        ],
        quiet=[(name, 1.0) for name in silence["silent"]]
        + [(row["clip"], row["quiet"]) for row in silence["half_empty"]],
        pairs=pairs,
        most=PAGE_ROWS,
        plain=plain,
        pairs_heard=[
            row | {"sounds": [heard(samples_of(name)) for name in row["clips"]]}
            for row in pairs[:PAIRS_HEARD]
            if samples_of
        ],
        doubts_heard=[
            row | {"sound": heard(samples_of(row["clip"]))} for row in doubted[:DOUBTS_HEARD] if samples_of
        ],
    )


def heard(samples: np.ndarray) -> Sound:
    """The first `SECONDS_HEARD` of a clip, int16 at 16 kHz, to look at and to listen to."""
    samples = samples[: SECONDS_HEARD * SAMPLE_RATE]
    level = 10 * np.log10(fingerprint.band_power(samples).T + 1e-12)
    loudest = max(float(level.max()), -DYNAMIC_RANGE)  # silence is dark
    return Sound(html.picture(level, loudest - DYNAMIC_RANGE, loudest), html.flac(samples, SAMPLE_RATE))
