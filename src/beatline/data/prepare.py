"""manifest -> store: every clip decoded once.

In: a `Manifest`. Out: a published folder of shards (`shards`) and tables (`tables`) that `store` reads. Its
bytes depend on the inputs only, not on the number of workers nor on how often preparing was killed: it grows
in `<folder>.partial`, where shards survive, and only missing ones are made again. `repair` does the same for
a published store of which some bytes are no longer what they were. Imports no torch.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from beatline.audio.decoders.sndfile import DECODER
from beatline.audio.samples import RESAMPLER
from beatline.core import artefact
from beatline.core.console import say
from beatline.core.errors import UserError
from beatline.core.limits import LIMITS
from beatline.data import shards, store_tables
from beatline.data.manifest import Manifest
from beatline.data.store import FORMAT, shard_name

Progress = Callable[[int], Any]
"""Called with the number of clips done since the last call."""


def prepare(
    manifest: Manifest, folder: Path, workers: int = 1, progress: Progress = lambda count: None
) -> dict[str, Any]:
    """The summary of the store in `folder`, which is made, completed, repaired, or left alone where it is
    whole and of these inputs.

    Train and val clips outside the manifest's bounds of length are rejected; a test clip only where it
    exceeds the limits. Holds a few clips in memory at a time.

    Args:
        workers: Child processes that decode, at least 1.

    Raises:
        UserError: `no-clips` where nothing is left of a split; `disk-full`; `not-writable`, also where
            `folder` is something else than a store.
    """
    plan, work = plan_of(manifest), partial_of(folder)
    if is_there(manifest, folder, plan, workers, progress):
        return json.loads((folder / "summary.json").read_text())
    with artefact.disk_errors(folder):
        missing = begin(manifest, work, plan)
        progress(len(manifest.clips) - clips_in(manifest, missing))
        for _ in shards.make(shards.tasks(manifest, plan, missing), work, workers, progress):
            pass
        summary = finish(manifest, work, plan)
        artefact.put_in_place(work, folder)
    return summary


def whole_store(manifest: Manifest, folder: Path) -> dict[str, Any] | None:
    """The summary of the store in `folder` where it is whole and of these inputs, else None. Nothing is
    written, so that runs may share a folder that none of them may change.
    """
    about = artefact.read_manifest(folder)
    if (
        about is None
        or about.get("plan") != plan_of(manifest)
        or next(artefact.damaged(folder), None) is not None
    ):
        return None
    return json.loads((folder / "summary.json").read_text())


# --- the steps of preparing, for every engine


def partial_of(folder: Path) -> Path:
    """Where the store grows."""
    return artefact.beside(folder, ".partial")


def is_there(manifest: Manifest, folder: Path, plan: str, workers: int, progress: Progress) -> bool:
    """Whether the store of this plan is in `folder`, after repairing it where it is damaged.

    Raises:
        UserError: `not-writable` where `folder` is something else than a store; as `repair`.
    """
    artefact.recover(folder)
    if plan in _plans(folder):
        shutil.rmtree(partial_of(folder), ignore_errors=True)
        for name in repair(manifest, folder, workers, progress):
            say("prepare", f"{folder / name} was damaged and is made again")
        return True
    if (
        folder.exists()
        and not (folder / artefact.MANIFEST).exists()
        and not (folder.is_dir() and not any(folder.iterdir()))
    ):
        raise UserError(
            "not-writable",
            f"cannot write {folder}",
            "something that is not a store has this name",
            "choose another name, or move it away",
        )
    return False


def _plans(folder: Path) -> set[str]:
    """What a store was made from: as its manifest says, or, where that is damaged, as its shards do."""
    about = artefact.read_manifest(folder)
    if about is not None:
        return {about.get("plan", "")}
    return {
        facts["plan"] for path in folder.glob("shard-*.json") if (facts := shards.parse(path.read_bytes()))
    }


def begin(manifest: Manifest, work: Path, plan: str) -> list[int]:
    """Numbers of the shards that are still to be made in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    return [number for number in range(shards.count(manifest)) if shards.read(work, number, plan) is None]


def finish(manifest: Manifest, work: Path, plan: str) -> dict[str, Any]:
    """Writes the tables beside the shards' facts, seals the folder and returns the summary. The shards'
    samples may be elsewhere.
    """
    count = shards.count(manifest)
    expected = set(_names(count))
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


def state(path: Path) -> list[Any]:
    """What tells a file from another with the same name; empty where it cannot be looked at, as decoding it
    will say.
    """
    try:
        found = path.stat()
        return [found.st_size, found.st_mtime_ns]
    except (OSError, ValueError):
        return []


def plan_of(manifest: Manifest, state: Callable[[Path], list[Any]] = state) -> str:
    """A hash of everything the store is a function of; a file counts by size and time of change, so that a
    repaired one is read again.
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


def _names(count: int) -> Iterator[str]:
    """Every file of a store but its manifest."""
    yield from store_tables.NAMES
    for number in range(count):
        yield from (shard_name(number), shards.facts_name(number))


def clips_in(manifest: Manifest, numbers: Iterable[int]) -> int:
    """How many clips these shards hold."""
    return sum(len(manifest.clips[n * shards.SHARD_CLIPS : (n + 1) * shards.SHARD_CLIPS]) for n in numbers)


# --- repair


def damage(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and cause of every damaged file of a published folder; where the manifest of a store is damaged,
    its shards speak for themselves.
    """
    found = dict(artefact.damaged(folder))
    yield from found.items()
    for path in sorted(folder.glob("shard-*.json")) if artefact.MANIFEST in found else []:
        number, facts = shards.number_of(path.name), shards.parse(path.read_bytes())
        if facts is None and path.name not in found:
            yield path.name, "it does not match its own hash"
        elif (
            facts is not None
            and number is not None
            and shard_name(number) not in found
            and shards.read(folder, number, facts["plan"]) is None
        ):
            yield shard_name(number), f"its SHA-256 is not the one in {path.name}"


def repair(
    manifest: Manifest, folder: Path, workers: int = 1, progress: Progress = lambda count: None
) -> list[str]:
    """Names of the files of a damaged store that are again, bit for bit, what they were; empty where nothing
    was wrong.

    Only damaged shards are decoded, and a file is replaced only by one with the hash that the store's
    manifest gives; where that is damaged itself, by what the same inputs give. So a store that cannot be
    repaired is left no worse than it was.

    Args:
        manifest: The data that the store was made from; of its files only those of damaged shards need to be
            there.
        workers: Child processes that decode, at least 1.

    Raises:
        UserError: `corrupt-artefact` where something needed is gone or has changed, or where the folder holds
            files that are not the store's.
    """
    work = artefact.beside(folder, ".repair")
    shutil.rmtree(work, ignore_errors=True)
    for leftover in folder.glob("*.partial"):
        leftover.unlink()
    found = dict(damage(folder))
    if not found:
        progress(len(manifest.clips))
        return []
    with artefact.disk_errors(folder):
        work.mkdir()
        try:
            make_again = _from_its_inputs if artefact.MANIFEST in found else _as_its_manifest_says
            return make_again(manifest, folder, list(found), work, workers, progress)
        finally:
            shutil.rmtree(work)


def _as_its_manifest_says(
    manifest: Manifest, folder: Path, found: list[str], work: Path, workers: int, progress: Progress
) -> list[str]:
    about, files, _ = artefact.parse_manifest((folder / artefact.MANIFEST).read_bytes())
    _refuse_foreign(folder, found, set(files))
    numbers = sorted({number for name in found if (number := shards.number_of(name)) is not None})
    failed: list[UserError] = []
    tasks = (
        list(shards.tasks(manifest, about["plan"], numbers))
        if "ledger.jsonl" in found
        else _recorded_tasks(manifest, folder, about, numbers, failed)
    )
    progress(max(0, len(manifest.clips) - sum(len(task.jobs) for task in tasks)))
    mended: list[str] = []
    for number in shards.make(tasks, work, workers, progress):
        names = (shard_name(number), shards.facts_name(number))
        if any(artefact.sha256_file(work / name) != files[name]["sha256"] for name in names):
            failed.append(
                _cannot(
                    folder / names[0],
                    _what_differs(folder, work, number),
                    "put its sources back as they were and run again",
                )
            )
            continue
        for name in names:
            _replace(work / name, folder / name)
        mended += [name for name in names if name in found]
    damaged_tables = [name for name in found if name in store_tables.NAMES]
    if damaged_tables and not failed:
        if len(manifest.clips) == about["clips"]:
            store_tables.write(manifest, shards.rows(folder, -(-about["clips"] // shards.SHARD_CLIPS)), work)
        for name in damaged_tables:
            if not (work / name).exists() or artefact.sha256_file(work / name) != files[name]["sha256"]:
                raise _cannot(
                    folder / name,
                    "the data is not what the store was made from",
                    "give the same configuration, tables and files, or prepare again",
                )
            _replace(work / name, folder / name)
        mended += damaged_tables
    if failed:
        raise failed[0]
    return mended


def _from_its_inputs(
    manifest: Manifest, folder: Path, found: list[str], work: Path, workers: int, progress: Progress
) -> list[str]:
    """Where the manifest is damaged: the shards say what they were made from."""
    plan, count = plan_of(manifest), shards.count(manifest)
    _refuse_foreign(folder, [p.name for p in folder.iterdir()], {artefact.MANIFEST, *_names(count)})
    if _plans(folder) != {plan}:
        raise _cannot(
            folder,
            "its manifest is damaged, and the data is not what it was made from",
            "give the same configuration, tables and files, or prepare again",
        )
    missing = [number for number in range(count) if shards.read(folder, number, plan) is None]
    progress(len(manifest.clips) - clips_in(manifest, missing))
    for number in shards.make(shards.tasks(manifest, plan, missing), work, workers, progress):
        for name in (shard_name(number), shards.facts_name(number)):
            _replace(work / name, folder / name)
    finish(manifest, folder, plan)
    return found


def _cannot(path: Path, cause: str, remedy: str) -> UserError:
    return UserError("corrupt-artefact", f"cannot repair {path}", cause, remedy)


def _refuse_foreign(folder: Path, names: Iterable[str], own: set[str]) -> None:
    for name in names:
        if name not in own:
            raise _cannot(folder / name, "it is not a part of the store", "move it away and run again")


def _recorded_tasks(
    manifest: Manifest, folder: Path, about: dict[str, Any], numbers: Iterable[int], failed: list[UserError]
) -> list[shards.Task]:
    """The tasks of damaged shards by the ledger's ids, because a source that is gone since would shift the
    manifest's clips.
    """
    place, in_test = {clip.id: i for i, clip in enumerate(manifest.clips)}, set(manifest.splits["test"])
    reasons = {rejected.input: rejected.reason for rejected in manifest.rejected}
    with (folder / "ledger.jsonl").open() as lines:
        recorded = [json.loads(line)["input"] for line in islice(lines, about["clips"])]
    tasks = []
    for number in numbers:
        ids = recorded[number * shards.SHARD_CLIPS : (number + 1) * shards.SHARD_CLIPS]
        gone = next((name for name in ids if name not in place), None)
        if gone is not None:
            failed.append(
                _cannot(
                    folder / shard_name(number),
                    f"the source of clip {gone} is gone ({reasons.get(gone, 'not in the data any more')})",
                    "put it back and run again",
                )
            )
            continue
        places = [place[name] for name in ids]
        tasks.append(
            shards.task(
                manifest,
                about["plan"],
                number,
                [manifest.clips[i] for i in places],
                [i in in_test for i in places],
            )
        )
    return tasks


def _what_differs(folder: Path, work: Path, number: int) -> str:
    """Which clip of a shard is not what it was, as far as the facts of then and now tell."""
    facts = folder / shards.facts_name(number)
    then = shards.parse(facts.read_bytes()) if facts.exists() else None
    now = json.loads((work / shards.facts_name(number)).read_bytes())["rows"]
    for i, row in enumerate(now):
        if "code" in row and (then is None or then["rows"][i] != row):
            return f"the source of its clip {i} is not what it was ({row['code']}: {row['reason']})"
    return "the sources of its clips are not what they were"


def _replace(path: Path, final: Path) -> None:
    artefact.checkpoint_hook("file-mended")
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(final)
