"""store -> what is in it: every count a person should know before training on it.

In: an opened store. Out: `inspect`'s dictionary of plain JSON values, a key per question. The questions
about clips are splits, hours, missing inputs, levels and formats, silent and half-empty clips,
near-duplicates. Those about labels are what each lost, labels that go together, labels to doubt.
`measurements` reads the store and hears the sound; here the measurements are counted. `inspection_page` shows
the result. Imports no torch.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beatline.audio.samples import FULL_SCALE, SAMPLE_RATE
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.data import fingerprint, label_noise, shards
from beatline.data.measurements import Heard, Table, hear, near_duplicates, read_table
from beatline.data.store import Store

QUIET_DB = round(
    10 * math.log10(shards.QUIET / shards.FRAME / FULL_SCALE**2)
)  # RMS of a quiet frame, dB of full scale
HALF_EMPTY = 0.5  # share of quiet frames
LOWEST_DB = -120.0  # stands for the level of digital silence
QUANTILES = (0, 5, 50, 95, 100)
LEDGER_EXAMPLES = 3
PAIR_CLIPS = 5  # labels that meet in fewer clips have no meaningful lift
PAIRS = 100
CHUNK = 4096


def open_store(folder: Path) -> Store:
    """The store in a folder that a user named.

    Raises:
        UserError: `missing-file` where it is no store, `corrupt-artefact`.
    """
    if not folder.is_dir():
        raise UserError(
            "missing-file",
            f"cannot inspect {folder}",
            "there is no such folder",
            "give a folder that `beatline prepare` made",
        )
    about = artefact.read_contents(folder)
    if not artefact.contents_file(folder).exists() or (about is not None and about.get("kind") != "store"):
        raise UserError(
            "missing-file",
            f"cannot inspect {folder}",
            "it is not a store",
            "give a folder that `beatline prepare` made (setting `store`)",
        )
    return Store.open(folder)


def inspect(
    store: Store,
    quality: dict[str, tuple[int, int]] | None = None,
    progress: Callable[[int], Any] = lambda count: None,
) -> dict[str, Any]:
    """Everything about a store as JSON values.

    Args:
        quality: As from `label_noise.read_quality`.
        progress: Called with the number of clips measured since the last call.

    Raises:
        UserError: `corrupt-artefact` where a clip is not what was written.
    """
    compared = label_noise.sample(len(store.ids))
    table = read_table(store, compared)
    heard = hear(store, compared, progress)
    splits = _splits_of(store)
    duplicates, pairs = _duplicates(store, heard, splits)
    return {
        "store": str(store.folder),
        "content": store.about.get("content", ""),
        "inputs": store.summary["inputs"],
        "clips": len(store.ids),
        "hours": float(store.lengths.sum()) / SAMPLE_RATE / 3600,
        "validation": store.summary.get("validation", ""),
        "splits": _splits(store),
        "missing": _missing(store),
        "labels": _labels(store, quality),
        "formats": _formats(store, table),
        "silence": _silence(store, table),
        "duplicates": duplicates,
        "together": _together(store),
        "doubt": _doubt(store, compared, heard, table, pairs, quality),
    }


# --- what the store's tables say


def _splits_of(store: Store) -> list[str]:
    """The split of each clip, `val+test` where it is in two; empty where it is in none."""
    names = [""] * len(store.ids)
    for name, clips in store.splits.items():
        for i in clips.tolist():
            names[i] += ("+" if names[i] else "") + name
    return names


def _splits(store: Store) -> dict[str, dict[str, float]]:
    found = {}
    for name, clips in store.splits.items():
        carried = sum(
            (store.targets(part).sum(axis=0) for part in _chunks(clips)), np.zeros(len(store.labels))
        )
        found[name] = {
            "clips": len(clips),
            "hours": float(store.lengths[clips].sum()) / SAMPLE_RATE / 3600,
            "labels": int((carried > 0).sum()),
            "labels_per_clip": float(carried.sum() / max(1, len(clips))),
        }
    return found


def _chunks(clips: np.ndarray) -> Iterable[np.ndarray]:
    return (clips[begin : begin + CHUNK] for begin in range(0, len(clips), CHUNK))


def _missing(store: Store) -> dict[str, Any]:
    """Inputs without a clip by code, with the first few of each, and how many clips came with a note."""
    examples: dict[str, list[str]] = {}
    notes = 0
    ledger = store.folder / "ledger.jsonl"
    with ledger.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            entry = json.loads(line)
            notes += entry["status"] == "ok" and "note" in entry
            if (
                entry["status"] == "rejected"
                and len(shown := examples.setdefault(entry["code"], [])) < LEDGER_EXAMPLES
            ):
                shown.append(f"{entry['input']}: {entry['reason']}")
    counts = sorted(store.summary["rejected"].items(), key=lambda item: (-item[1], item[0]))
    return {
        "clips": sum(count for _, count in counts),
        "noted": notes,
        "reasons": [
            {"code": code, "clips": count, "examples": examples.get(code, [])} for code, count in counts
        ],
    }


def _labels(store: Store, quality: dict[str, tuple[int, int]] | None) -> list[dict[str, Any]]:
    """Each label's clips wanted, present and lost, the largest share lost first; of equals the rarer
    first.
    """
    rows = []
    for row in store.summary["labels"]:
        share = row["lost"] / row["expected"] if row["expected"] else 0.0
        rated = (
            {}
            if quality is None or row["mid"] not in quality
            else dict(zip(("rated", "true"), quality[row["mid"]], strict=True))
        )
        rows.append({**row, "lost_share": share, **rated})
    return sorted(rows, key=lambda row: (-row["lost_share"], -row["lost"], row["present"], row["mid"]))


def decibels(amplitude: np.ndarray) -> np.ndarray:
    """Amplitudes in dB of full scale, no less than `LOWEST_DB`."""
    return 20 * np.log10(np.maximum(amplitude, 10 ** (LOWEST_DB / 20)))


def _formats(store: Store, table: Table) -> dict[str, Any]:
    seconds = store.lengths / SAMPLE_RATE
    longest = math.ceil(seconds.max(initial=1))
    return {
        "seconds": _histogram(seconds, np.linspace(0, longest, 41)),
        "peak_db": _histogram(decibels(table.peak), np.arange(-60, 3, 3)),
        "rms_db": _histogram(decibels(table.rms), np.arange(-90, 3, 3)),
        "clipped": int((table.clipped > 0).sum()),
        "rate_in": [{"hertz": rate, "clips": count} for rate, count in sorted(table.rate.items())],
        "channels_in": [
            {"channels": channels, "clips": count} for channels, count in sorted(table.channels.items())
        ],
    }


def _histogram(values: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """Counts between edges, what lies outside in the outermost, and `QUANTILES` in percent."""
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    quantiles = np.percentile(values, QUANTILES).tolist() if len(values) else []
    return {
        "edges": edges.tolist(),
        "clips": counts.tolist(),
        "quantiles": dict(zip(map(str, QUANTILES), quantiles, strict=False)),
    }


def _together(store: Store) -> dict[str, Any]:
    """Pairs of labels on the same clip: the most frequent, and those that meet most above chance.

    Lift is clips with both labels over the clips expected of independent labels.
    """
    both = np.zeros((len(store.labels), len(store.labels)))
    for part in _chunks(np.arange(len(store.ids))):
        targets = store.targets(part)
        both += targets.T @ targets
    own = both.diagonal()
    a, b = np.triu_indices(len(own), k=1)
    count = both[a, b]
    lift = count * len(store.ids) / np.maximum(1, own[a] * own[b])

    def rows(order: np.ndarray) -> list[dict[str, Any]]:
        names = store.labels.names
        return [
            {
                "labels": [names[a[k]], names[b[k]]],
                "clips": int(count[k]),
                "of": [int(own[a[k]]), int(own[b[k]])],
                "lift": float(lift[k]),
            }
            for k in order.tolist()
        ]

    frequent = [k for k in np.lexsort((-lift, -count))[:PAIRS] if count[k]]
    lifted = [k for k in np.lexsort((-count, -lift)) if count[k] >= PAIR_CLIPS][:PAIRS]
    per_clip = float(own.sum() / max(1, len(store.ids)))
    return {
        "labels_per_clip": per_clip,
        "least_clips": PAIR_CLIPS,
        "by_count": rows(np.array(frequent, int)),
        "by_lift": rows(np.array(lifted, int)),
    }


# --- what the measurements say


def _silence(store: Store, table: Table) -> dict[str, Any]:
    """Clips that are quiet throughout, and those that are so for at least half their length, the emptiest
    first.
    """
    silent = np.flatnonzero(table.quiet == 1)
    half = np.flatnonzero((table.quiet >= HALF_EMPTY) & (table.quiet < 1))
    half = half[np.argsort(-table.quiet[half], kind="stable")]
    return {
        "quiet_below_db": QUIET_DB,
        "frame_seconds": shards.FRAME / SAMPLE_RATE,
        "silent": [store.ids[i] for i in silent.tolist()],
        "half_empty": [{"clip": store.ids[i], "quiet": float(table.quiet[i])} for i in half.tolist()],
    }


def _duplicates(
    store: Store, heard: Heard, splits: Sequence[str]
) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """Near-duplicates, the pairs most alike first, and the pairs as indices into the store."""
    found = near_duplicates(store, heard)
    between = Counter[str]()
    across = 0
    rows = []
    for alike, a, b in found:
        apart = not set(splits[a].split("+")) & set(splits[b].split("+"))
        across += apart
        between[
            f"within {splits[a]}" if splits[a] == splits[b] else " and ".join(sorted((splits[a], splits[b])))
        ] += 1
        rows.append(
            {
                "clips": [store.ids[a], store.ids[b]],
                "splits": [splits[a], splits[b]],
                "similarity": alike,
                "across": apart,
            }
        )
    pairs = [(a, b) for _, a, b in found]
    groups = fingerprint.groups(pairs)
    result = {
        "similarity_from": fingerprint.SAME,
        "clips": sum(map(len, groups)),
        "without_fingerprint": int((heard.sketches == fingerprint.ABSENT).all(axis=1).sum()),
        "across": across,
        "between": dict(sorted(between.items())),
        "groups": [
            [store.ids[i] for i in group] for group in sorted(groups, key=lambda group: (-len(group), group))
        ],
        "pairs": rows,
    }
    return result, pairs


def _doubt(
    store: Store,
    compared: np.ndarray,
    heard: Heard,
    table: Table,
    pairs: Sequence[tuple[int, int]],
    quality: dict[str, tuple[int, int]] | None,
) -> dict[str, Any]:
    """Agreement of neighbours per label, lowest first, and the clips they contradict most; `label_noise` says
    what that means.
    """
    row_of = {clip: k for k, clip in enumerate(compared.tolist())}
    first: dict[str, int] = {}
    links = [(first.setdefault(name, k), k) for k, name in enumerate(table.recording)]
    together = np.arange(len(compared))
    for group in fingerprint.groups(
        links + [(row_of[a], row_of[b]) for a, b in pairs if a in row_of and b in row_of]
    ):
        together[group] = group[0]
    targets = store.targets(compared)
    found = label_noise.agreement(heard.sounds, targets, together) if len(compared) else None
    result: dict[str, Any] = {
        "compared": len(compared),
        "neighbours": label_noise.NEIGHBOURS,
        "labels": [],
        "clips": [],
    }
    if found is not None:
        result["labels"] = _doubted_labels(store, found, targets)
        result["clips"] = _doubted_clips(store, found, targets, compared)
    if quality is not None:
        known = [
            (row["present"], *quality[row["mid"]])
            for row in store.summary["labels"]
            if row["mid"] in quality and quality[row["mid"]][0]
        ]
        carried = sum(present for present, *_ in known)
        wrong = sum(present * (1 - true / rated) for present, rated, true in known)
        result["rated"] = {"labels": len(known), "wrong_share": wrong / carried if carried else None}
    return result


def _doubted_labels(store: Store, found: label_noise.Agreement, targets: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for k, label in enumerate(store.labels.labels):
        own = found.own[~np.isnan(found.own[:, k]), k]
        if len(own):
            chance = float(targets[:, k].mean())
            alone, alone_chance = float((own == 0).mean()), (1 - chance) ** label_noise.NEIGHBOURS
            rows.append(
                {
                    "mid": label.mid,
                    "name": label.name,
                    "clips": len(own),
                    "agreement": float(own.mean()),
                    "chance": chance,
                    "alone": alone,
                    "alone_chance": alone_chance,
                }
            )
    return sorted(rows, key=lambda row: (row["agreement"] - row["chance"], row["mid"]))


def _doubted_clips(
    store: Store, found: label_noise.Agreement, targets: np.ndarray, compared: np.ndarray
) -> list[dict[str, Any]]:
    doubt = label_noise.suspicion(found)
    names = store.labels.names
    rows = []
    for k in np.argsort(-doubt, kind="stable")[:PAIRS].tolist():
        if doubt[k] > 0:
            carried = [names[j] for j in np.flatnonzero(targets[k])]
            rows.append(
                {
                    "clip": store.ids[int(compared[k])],
                    "labels": carried,
                    "neighbours": names[found.other[k]],
                    "share": float(found.other_share[k]),
                    "doubt": float(doubt[k]),
                }
            )
    return rows
