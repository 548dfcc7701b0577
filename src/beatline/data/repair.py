"""A damaged store -> byte for byte what it was.

In: the `Manifest` that the store was made from, and the folder. Out: the names of the files made again. Only
damaged shards are decoded, and a file is replaced only by a file with the hash it had. So a store that cannot
be repaired is left no worse than it was. Imports no torch.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.data import shards, store_tables
from beatline.data.manifest import Manifest
from beatline.data.plan import clips_in, file_names, finish, plan_of, plans_in
from beatline.data.shards import Progress, no_progress
from beatline.data.store import shard_name


def damage(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and cause of every damaged file of a published folder.

    Where a store's list of contents is damaged, its shards speak for themselves.
    """
    found = dict(artefact.damaged(folder))
    yield from found.items()
    listed = artefact.contents_file(folder).name
    for path in sorted(folder.glob("shard-*.json")) if listed in found else []:
        number = shards.number_of(path.name)
        facts = shards.parse(path.read_bytes())
        if facts is None and path.name not in found:
            yield path.name, "it does not match its own hash"
        elif (
            facts is not None
            and number is not None
            and shard_name(number) not in found
            and shards.read(folder, number, facts["plan"]) is None
        ):
            yield shard_name(number), f"its SHA-256 is not that in {path.name}"


def repair(manifest: Manifest, folder: Path, workers: int = 1, progress: Progress = no_progress) -> list[str]:
    """Names of the files of a damaged store that are again, bit for bit, what they were. Empty where nothing
    was wrong.

    Only damaged shards are decoded. A file is replaced only by a file with the hash in the store's list of
    contents. Where the list is damaged, what the same inputs give replaces it. A store that cannot be
    repaired is left no worse than it was.

    Args:
        manifest: The data that the store was made from. Of its files only those of damaged shards need to be
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
            listed = artefact.contents_file(folder).name
            make_again = _from_its_inputs if listed in found else _as_its_list_says
            return make_again(manifest, folder, list(found), work, workers, progress)
        finally:
            shutil.rmtree(work)


def _as_its_list_says(
    manifest: Manifest, folder: Path, found: list[str], work: Path, workers: int, progress: Progress
) -> list[str]:
    about, files, _ = artefact.parse_contents(artefact.contents_file(folder).read_bytes())
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
    """Where the list of contents is damaged: the shards say what they were made from."""
    plan = plan_of(manifest)
    count = shards.count(manifest)
    _refuse_foreign(folder, [p.name for p in folder.iterdir()], {*artefact.LISTS, *file_names(count)})
    if plans_in(folder) != {plan}:
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
) -> list[shards.ShardTask]:
    """The tasks of damaged shards, by the ledger's ids. In the manifest a source that is gone since would
    shift the clips.
    """
    index_of = {clip.id: i for i, clip in enumerate(manifest.clips)}
    in_test = set(manifest.splits["test"])
    reasons = {rejected.input: rejected.reason for rejected in manifest.rejected}
    with (folder / "ledger.jsonl").open() as lines:
        recorded = [json.loads(line)["input"] for line in islice(lines, about["clips"])]
    tasks = []
    for number in numbers:
        ids = recorded[number * shards.SHARD_CLIPS : (number + 1) * shards.SHARD_CLIPS]
        gone = next((name for name in ids if name not in index_of), None)
        if gone is not None:
            failed.append(
                _cannot(
                    folder / shard_name(number),
                    f"the source of clip {gone} is gone ({reasons.get(gone, 'not in the data any more')})",
                    "put it back and run again",
                )
            )
            continue
        indices = [index_of[name] for name in ids]
        tasks.append(
            shards.task(
                manifest,
                about["plan"],
                number,
                [manifest.clips[i] for i in indices],
                [i in in_test for i in indices],
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
