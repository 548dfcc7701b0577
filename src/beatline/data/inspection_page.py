"""inspection -> a table for the console and a page for the eye.

In: what `inspection.inspect` found, and for the page a way to a clip's samples. Out: text, or one HTML file
that needs nothing else. Nothing is measured here. Names that come from files are shown so that they can
neither break the page nor drive a terminal.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from beatline.audio.samples import SAMPLE_RATE
from beatline.core.html import bar, cell, frame, histogram, number, picture, player, table, text
from beatline.core.text import printable
from beatline.data import fingerprint

ROWS = 10  # of a list on the console
PAGE_ROWS = 100
PAIRS_HEARD, DOUBTS_HEARD = 3, 6  # on the page, with sound
SECONDS_HEARD = 20  # of a clip, at most: bounds the page
DYNAMIC_RANGE = 60.0  # dB below the loudest point of a picture

DOUBT = (
    "Agreement is the share of a clip's ten nearest neighbours, by plain statistics of its sound, that "
    "carry its label too; neighbours from the same recording or "
    "of the same sound do not count. It is not a rate of errors: a label of varied sounds agrees as little "
    "as a wrong one. Listen to these first."
)
DUPLICATES = (
    "Found by fingerprints that ignore gain, coding, resampling, faint noise and small shifts; a "
    "recording that occurs many times is linked as a chain, not each with each."
)


def plain(value: object) -> str:
    """The value as one line of text that a terminal shows and does not obey."""
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
    """The inspection as one HTML file.

    Args:
        samples_of: Gives a clip's samples, int16 at 16 kHz, by its id; without it the page has no pictures
            and no sound.

    Raises:
        UserError: `corrupt-artefact` where a clip's audio cannot be read.
    """
    sections = {
        "Overview": _overview(found),
        "Missing": _missing(found),
        "Loss per label": _loss(found),
        "Levels and formats": _formats(found),
        "Silence": _silence(found),
        "Near-duplicates": _duplicates(found, samples_of),
        "Labels together": _together(found),
        "Labels to doubt": _doubt(found, samples_of),
    }
    name = str(found["store"]).rstrip("/").rsplit("/", 1)[-1]
    return frame(
        name,
        "inspection",
        f"Inspection of a store: {found['clips']} clips, {found['hours']:.2f} hours",
        sections,
        f"Content: <code>{text(found['content'])}</code>",
    )


def _card(title: str, value: str, about: str) -> str:
    return (
        f'<div class="card"><dt>{title}</dt><dd class="figure">{value}</dd><dd '
        f'class="about">{about}</dd></div>'
    )


def _first(rows: list[str], of: Sequence[object]) -> str:
    return f"; the first {len(rows)}" if len(rows) < len(of) else ""


def _overview(found: Mapping[str, Any]) -> str:
    missing, twins, silence = found["missing"]["clips"], found["duplicates"], found["silence"]
    cards = [
        _card("Clips", str(found["clips"]), f"of {found['inputs']} inputs"),
        _card("Hours", f"{found['hours']:.2f}", "of sound"),
        _card("Missing", str(missing), f"{100 * missing / max(1, found['inputs']):.1f} % of the inputs"),
        _card("Silent", str(len(silence["silent"])), f"and {len(silence['half_empty'])} at least half empty"),
        _card(
            "Near-duplicates",
            str(twins["clips"]),
            f"clips in {len(twins['groups'])} groups; {twins['across']} pairs across splits",
        ),
    ]
    rows = []
    for name, split in found["splits"].items():
        counts = (
            cell(split["clips"])
            + cell(split["hours"], 2)
            + cell(split["labels"])
            + cell(split["labels_per_clip"], 2)
        )
        rows.append(
            f'<th scope="row">{text(name)}</th>{bar(split["clips"] / max(1, found["clips"]))}{counts}'
        )
    splits = table(
        ["Split", "", "#Clips", "#Hours", "#Labels", "#Per clip"],
        rows,
        "Clips by split; a clip may be in two",
    )
    return (
        f'<dl class="cards">{"".join(cards)}</dl>{splits}<p class="note">Validation clips: '
        f"{text(found['validation'])}.</p>"
    )


def _missing(found: Mapping[str, Any]) -> str:
    missing = found["missing"]
    note = (
        f'<p class="note">{missing["noted"]} clips came with a note, such as a file that breaks off; '
        f"<code>ledger.jsonl</code> names each input.</p>"
    )
    rows = []
    for row in missing["reasons"]:
        examples = "<br>".join(text(plain(example)) for example in row["examples"])
        rows.append(
            f'<th scope="row"><code>{text(row["code"])}</code></th>'
            f"{bar(row['clips'] / max(1, found['inputs']), series=1)}{cell(row['clips'])}<td>{examples}</td>"
        )
    return (
        table(["Reason", "", "#Inputs", "For example"], rows, "Inputs without a clip, by reason")
        if rows
        else "<p>Nothing is missing.</p>"
    ) + note


def _loss(found: Mapping[str, Any]) -> str:
    rated = any("rated" in row for row in found["labels"])
    rows = []
    for row in found["labels"]:
        quality = cell(row["true"] / row["rated"] if row.get("rated") else None, 1, 100) if rated else ""
        counts = cell(row["lost_share"], 1, 100) + cell(row["lost"]) + cell(row["present"])
        rows.append(
            f'<th scope="row">{text(row["name"])}</th>{bar(row["lost_share"], series=1)}{counts}{quality}'
        )
    lost = sum(row["lost"] > 0 for row in found["labels"])
    headings = ["Label", "", "#% lost", "#Lost", "#Left", *(["#% right, rated"] if rated else [])]
    return table(
        headings,
        rows,
        f"{lost} of {len(rows)} labels lost clips; a click on a heading sorts",
        sortable=True,
        tall=len(rows) > 20,
    )


def _formats(found: Mapping[str, Any]) -> str:
    formats = found["formats"]
    kinds = {
        "seconds": ("Duration", "seconds"),
        "peak_db": ("Peak", "dB of full scale"),
        "rms_db": ("RMS", "dB of full scale"),
    }
    plots = [
        histogram(title, formats[key]["edges"], formats[key]["clips"], unit, "clips")
        for key, (title, unit) in kinds.items()
    ]
    rows = [
        f'<th scope="row">{title}, '
        f"{unit}</th>{''.join(cell(value, 2) for value in formats[key]['quantiles'].values())}"
        for key, (title, unit) in kinds.items()
    ]
    headings = ["", "#Least", "#5 %", "#Median", "#95 %", "#Most"]
    most = max(1, found["clips"])

    def counts(kind: str, unit: str) -> list[str]:
        return [
            f'<th scope="row">{row[kind]} {unit}</th>{bar(row["clips"] / most)}{cell(row["clips"])}'
            for row in formats[f"{'rate' if kind == 'hertz' else kind}_in"]
        ]

    return (
        f'<div class="plots">{"".join(plots)}</div>'
        + (table(headings, rows, "Quantiles over clips") if found["clips"] else "")
        + f'<p class="note">What lies outside a plot is counted in its outermost bin. {formats["clipped"]} '
        f"clips touch full scale.</p>" + f'<div class="plots">'
        f"{table(['Sample rate', '', '#Clips'], counts('hertz', 'Hz'), 'Sample rate of the sources')}"
        + f"{table(['Channels', '', '#Clips'], counts('channels', ''), 'Channels of the sources')}</div>"
    )


def _silence(found: Mapping[str, Any]) -> str:
    silence = found["silence"]
    quiet = [(name, 1.0) for name in silence["silent"]] + [
        (row["clip"], row["quiet"]) for row in silence["half_empty"]
    ]
    meaning = (
        f"Quiet means a frame of {1000 * silence['frame_seconds']:.0f} ms with an RMS below "
        f"{silence['quiet_below_db']} dB of full scale."
    )
    if not quiet:
        return f'<p>No clip is silent or half empty.</p><p class="note">{meaning}</p>'
    rows = [
        f'<th scope="row"><code>{text(plain(name))}</code></th>{bar(share, series=1)}{cell(share, 0, 100)}'
        for name, share in quiet[:PAGE_ROWS]
    ]
    counts = (
        f"{len(silence['silent'])} silent clips and {len(silence['half_empty'])} at least half "
        f"empty{_first(rows, quiet)}"
    )
    return (
        table(["Clip", "", "#% quiet"], rows, counts, tall=len(rows) > 20) + f'<p class="note">{meaning}</p>'
    )


def _duplicates(found: Mapping[str, Any], samples_of: Callable[[str], np.ndarray] | None) -> str:
    twins = found["duplicates"]
    unheard = (
        f"{twins['without_fingerprint']} clips have too few features to be compared. "
        if twins["without_fingerprint"]
        else ""
    )
    note = (
        f'<p class="note">{unheard}{DUPLICATES} Similarity is the correlation where two clips fit best, '
        f"from {twins['similarity_from']:g} on.</p>"
    )
    if not twins["pairs"]:
        return f"<p>No two clips hold the same sound.</p>{note}"
    between = table(
        ["Splits", "#Pairs"],
        [f'<th scope="row">{text(name)}</th>{cell(count)}' for name, count in twins["between"].items()],
        "Pairs by the splits of their clips",
    )
    ordered = sorted(twins["pairs"], key=lambda row: not row["across"])
    rows = []
    for row in ordered[:PAGE_ROWS]:
        clips = "".join(
            f"<td><code>{text(plain(name))}</code> {text(split)}</td>"
            for name, split in zip(row["clips"], row["splits"], strict=True)
        )
        rows.append(f"{clips}<td>{'across' if row['across'] else 'within'}</td>{cell(row['similarity'], 3)}")
    listed = table(
        ["Clip", "Same sound", "Splits", "#Similarity"],
        rows,
        f"{len(twins['pairs'])} pairs, those across splits first{_first(rows, ordered)}",
        sortable=True,
        tall=len(rows) > 20,
    )
    heard = (
        "".join(
            _article(
                zip(row["clips"], row["splits"], strict=True),
                f"<p>Similarity {row['similarity']:.3f}</p>",
                samples_of,
            )
            for row in ordered[:PAIRS_HEARD]
        )
        if samples_of
        else ""
    )
    return f'{between}<h3>Pairs</h3>{listed}{note}<div class="clips">{heard}</div>'


def _together(found: Mapping[str, Any]) -> str:
    pairs = found["together"]
    titles = {
        "by_count": "Most frequent pairs",
        "by_lift": f"Pairs that meet most above chance, from {pairs['least_clips']} clips",
    }
    parts = []
    for key, title in titles.items():
        rows = []
        for row in pairs[key]:
            names = f'<th scope="row">{text(row["labels"][0])}</th><td>{text(row["labels"][1])}</td>'
            rows.append(
                f"{names}{cell(row['clips'])}{cell(row['of'][0])}{cell(row['of'][1])}{cell(row['lift'], 1)}"
            )
        if rows:
            parts.append(
                table(
                    ["Label", "With", "#Clips", "#Of", "#And", "#Lift"],
                    rows,
                    title,
                    sortable=True,
                    tall=len(rows) > 20,
                )
            )
    note = (
        '<p class="note">Lift: clips with both labels over those expected if the labels were independent.</p>'
    )
    return "".join(parts) + note if parts else "<p>No clip has two labels.</p>"


def _doubt(found: Mapping[str, Any], samples_of: Callable[[str], np.ndarray] | None) -> str:
    doubt, parts = found["doubt"], [f'<p class="note">{DOUBT}</p>']
    if rated := doubt.get("rated"):
        parts.insert(
            0,
            f"<p>People rated {rated['labels']} of these labels again: "
            f"{number(rated['wrong_share'], 1, 100)} % of the store's clips that carry them are expected "
            f"not to have them.</p>",
        )
    rows = [
        f'<th scope="row">{text(row["name"])}</th>{bar(row["agreement"])}{cell(row["agreement"], 0, 100)}'
        f"{cell(row['chance'], 0, 100)}{cell(row['alone'], 0, 100)}{cell(row['alone_chance'], 0, 100)}"
        f"{cell(row['clips'])}"
        for row in doubt["labels"]
    ]
    if rows:
        headings = ["Label", "", "#% agree", "#by chance", "#% alone", "#by chance", "#Clips"]
        parts.append(
            table(
                headings,
                rows,
                f"Agreement of neighbours, least above chance first; alone: not one neighbour carries the "
                f"label; {doubt['compared']} clips compared",
                sortable=True,
                tall=len(rows) > 20,
            )
        )
    rows = [
        f'<th scope="row"><code>{text(plain(row["clip"]))}</code></th><td>{text(", ".join(row["labels"]))}'
        f"</td><td>{text(row['neighbours'])}</td>{cell(row['share'], 0, 100)}"
        for row in doubt["clips"][:PAGE_ROWS]
    ]
    if rows:
        parts.append(
            table(
                ["Clip", "Its labels", "Its neighbours'", "#% of them"],
                rows,
                f"Clips that their neighbours contradict most{_first(rows, doubt['clips'])}",
                sortable=True,
                tall=len(rows) > 20,
            )
        )
    if samples_of and rows:
        heard = (
            _article(
                [(row["clip"], ", ".join(row["labels"]))],
                f"<p>Its neighbours: {text(row['neighbours'])}</p>",
                samples_of,
            )
            for row in doubt["clips"][:DOUBTS_HEARD]
        )
        parts.append(f'<div class="clips">{"".join(heard)}</div>')
    return "".join(parts)


def _article(clips: Iterable[tuple[str, str]], facts: str, samples_of: Callable[[str], np.ndarray]) -> str:
    """Clips, each with a word about it, to look at and to listen to."""
    shown = []
    for name, about in clips:
        samples = samples_of(name)[: SECONDS_HEARD * SAMPLE_RATE]
        level = 10 * np.log10(fingerprint.band_power(samples).T + 1e-12)
        loudest = max(float(level.max()), -DYNAMIC_RANGE)  # silence is dark
        image = picture(level, f"Spectrogram of {plain(name)}", loudest - DYNAMIC_RANGE, loudest)
        shown.append(
            f"<h4><code>{text(plain(name))}</code> "
            f"{text(about)}</h4>{image}{player(samples, SAMPLE_RATE, f'Sound of {plain(name)}')}"
        )
    return f"<article>{''.join(shown)}{facts}</article>"
