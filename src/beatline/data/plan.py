"""What a store is made from, and which files it is made of.

In: a `Manifest`, and the folder where its store grows. Out: the plan, a hash of everything the store is a
function of. Also the shards that are still missing, and the sealed folder. `prepare`, `repair` and `ray`
share this. Imports no torch.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from beatline.audio.decoders.sndfile import DECODER
from beatline.audio.samples import RESAMPLER
from beatline.core import artefact
from beatline.core.limits import LIMITS
from beatline.data import shards, store_tables
from beatline.data.manifest import Manifest
from beatline.data.store import FORMAT, shard_name


def state(path: Path) -> list[Any]:
    """What tells a file from another with the same name. Empty where it cannot be looked at, as decoding will
    say.
    """
    try:
        found = path.stat()
        return [found.st_size, found.st_mtime_ns]
    except (OSError, ValueError):
        return []


def plan_of(manifest: Manifest, state: Callable[[Path], list[Any]] = state) -> str:
    """A hash of everything the store is a function of. A file counts by size and time of change, so that a
    repaired file is read again.
    """
    remembered = lru_cache(16)(state)  # an archive holds many clips in a row
    limits = [
        LIMITS.max_clip_seconds,
        LIMITS.max_channels,
        LIMITS.min_sample_rate,
        LIMITS.max_sample_rate,
        LIMITS.max_decoder_bytes,
        LIMITS.max_decode_wait,
    ]
    limits += [LIMITS.max_member_bytes, LIMITS.max_row_group_bytes]
    whole = sha256()

    def add(value: Any) -> None:
        whole.update(json.dumps(value).encode() + b"\n")

    add(
        [
            FORMAT,
            shards.SHARD_CLIPS,
            DECODER,
            _ffmpeg(),
            RESAMPLER,
            limits,
            manifest.min_seconds,
            manifest.max_seconds,
        ]
    )
    for c in manifest.clips:
        add(
            [
                c.id,
                c.recording,
                store_tables.source(c, manifest),
                c.labels,
                c.start,
                c.end,
                c.events,
                remembered(c.path),
            ]
        )
    for r in manifest.rejected:
        add([r.input, r.code, r.reason, r.labels, r.split])
    add([manifest.splits, manifest.val, manifest.labels.to_csv()])
    return whole.hexdigest()


def _ffmpeg() -> str:
    try:
        return f"PyAV {version('av')}"
    except PackageNotFoundError:
        return ""


def plans_in(folder: Path) -> set[str]:
    """What a store was made from: by its list of contents, or, where the list is damaged, by its shards."""
    about = artefact.read_contents(folder)
    if about is not None:
        return {about.get("plan", "")}
    return {
        facts["plan"] for path in folder.glob("shard-*.json") if (facts := shards.parse(path.read_bytes()))
    }


def partial_of(folder: Path) -> Path:
    """Where the store grows."""
    return artefact.beside(folder, ".partial")


def begin(manifest: Manifest, work: Path, plan: str) -> list[int]:
    """Numbers of the shards that are still to be made in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    return [number for number in range(shards.count(manifest)) if shards.read(work, number, plan) is None]


def finish(manifest: Manifest, work: Path, plan: str) -> dict[str, Any]:
    """Writes the tables beside the shards' facts, seals the folder and returns the summary. The shards'
    samples may be elsewhere.
    """
    count = shards.count(manifest)
    expected = {*artefact.LISTS, *file_names(count)}
    for path in work.iterdir():  # of a call that was killed here, or of other inputs
        if path.name not in expected or path.name in store_tables.NAMES:
            path.unlink()
    summary = store_tables.write(manifest, shards.rows(work, count), work)
    known = {}
    for number in range(count):
        facts = json.loads((work / shards.facts_name(number)).read_bytes())
        known[shard_name(number)] = {"bytes": shards.size(facts), "sha256": facts["sha256"]}
    content = artefact.hash_json(
        [
            [facts["sha256"] for facts in known.values()],
            *(artefact.sha256_file(work / name) for name in store_tables.CONTENT),
        ]
    )
    about = {
        "kind": "store",
        "format": FORMAT,
        "plan": plan,
        "content": content,
        "clips": len(manifest.clips),
        "decoder": DECODER,
        "resampler": RESAMPLER,
    }
    artefact.seal(work, about, known)
    return summary


def file_names(count: int) -> Iterator[str]:
    """Every file of a store but its list of contents."""
    yield from store_tables.NAMES
    for number in range(count):
        yield from (shard_name(number), shards.facts_name(number))


def clips_in(manifest: Manifest, numbers: Iterable[int]) -> int:
    """How many clips these shards hold."""
    return sum(len(manifest.clips[n * shards.SHARD_CLIPS : (n + 1) * shards.SHARD_CLIPS]) for n in numbers)
