"""prepare and verify over many machines: jobs on Ray, a shard being the unit of work.

In: what `prepare` and `verify` take, and addresses: folders that all machines see, or what fsspec knows
(`s3://bucket/store`). Out: the same bytes. A task says all that its shard depends on (`shards.ShardTask`). A
worker that dies costs only its shard, which Ray gives to another worker. A job that ended early goes on.
Extra `bulk`. Imports no torch.
"""

import hashlib
import json
import tempfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from beatline.audio.pool import Job
from beatline.core import artefact, remote
from beatline.core import ray as cluster
from beatline.core.errors import UserError
from beatline.core.ray import RayTask
from beatline.data import shards
from beatline.data.manifest import Manifest
from beatline.data.plan import begin, clips_in, finish, partial_of, plan_of, state
from beatline.data.prepare import is_there
from beatline.data.shards import Progress, no_progress
from beatline.data.store import shard_name

KEPT = 16  # fetched sources that a worker keeps: more than its decoder is ahead
BLOCK = 1 << 22
HASHED_TOGETHER = 16  # files of a task of verification


def prepare_store(
    manifest: Manifest,
    address: str,
    workers: int = 1,
    progress: Progress = no_progress,
    source: str = "",
) -> dict[str, Any]:
    """The summary of the store in `address`, made by Ray. Its bytes are those that `prepare.prepare` makes of
    the same files.

    Args:
        address: A folder that all machines see, or what fsspec knows. There every object appears whole, and
            the list of contents last.
        workers: Processors of a local Ray; a cluster named by RAY_ADDRESS has its own.
        source: Where the machines find what is below the manifest's root, folder or address; the root itself
            when empty.

    Raises:
        UserError: as `prepare.prepare`; `missing-package`; `not-writable` where an address holds a store of
            other data.
    """
    plan = plan_of(manifest, _state_of(source, manifest.root) if source else state)

    def make(missing: list[int], work: str) -> None:
        progress(len(manifest.clips) - clips_in(manifest, missing))
        same = {"root": str(manifest.root.absolute()), "source": source, "work": work}
        tasks = [
            {"task": zlib.compress(_absolute(task).to_json().encode())} | same
            for task in shards.tasks(manifest, plan, missing)
        ]
        for made in cluster.each(tasks, _make_shard, workers):
            progress(made["clips"])

    folder = remote.folder(address)
    if folder is None:
        return _prepare_far(manifest, address, plan, make)
    if is_there(manifest, folder, plan, workers, progress):
        return json.loads((folder / "summary.json").read_text())
    with artefact.disk_errors(folder):
        work = partial_of(folder)
        make(begin(manifest, work, plan), str(work))
        if not all((work / shards.facts_name(number)).exists() for number in range(shards.count(manifest))):
            raise _not_there(address)
        summary = finish(manifest, work, plan)
        artefact.replace_folder(work, folder)
    return summary


def _absolute(task: shards.ShardTask) -> shards.ShardTask:
    """The task for a process that works in another folder."""
    return replace(task, jobs=tuple(replace(job, path=job.path.absolute()) for job in task.jobs))


def _prepare_far(
    manifest: Manifest, address: str, plan: str, make: Callable[[list[int], str], None]
) -> dict[str, Any]:
    """As `prepare_store`, where no folder can be renamed.

    The store grows where it stays, and is whole when its list of contents is written.
    """
    system, root = remote.system(address)
    there = {name: facts["size"] for name, facts in remote.listing(system, root).items()}
    own = artefact.contents_name(there)
    if own in there:
        about, _, good = artefact.parse_contents(remote.content(system, f"{root}/{own}"))
        if not good or about.get("plan") != plan:
            raise UserError(
                "not-writable",
                f"cannot write {address}",
                "a store of other data is there, or a damaged store",
                "verify it; remove its damaged files and its list of contents, or choose another address",
            )
        return json.loads(remote.content(system, f"{root}/summary.json"))
    with tempfile.TemporaryDirectory(prefix="beatline-") as scratch:
        work = Path(scratch)
        numbers = range(shards.count(manifest))

        def fetched(number: int) -> bool:
            name = shards.facts_name(number)
            facts = shards.parse(remote.content(system, f"{root}/{name}")) if name in there else None
            if facts is None or facts["plan"] != plan or there.get(shard_name(number)) != shards.size(facts):
                return False
            (work / name).write_text(json.dumps(facts | {"self": artefact.hash_json(facts)}) + "\n")
            return True

        make([number for number in numbers if not fetched(number)], address)
        there = {name: facts["size"] for name, facts in remote.listing(system, root).items()}
        if not all((work / shards.facts_name(number)).exists() or fetched(number) for number in numbers):
            raise _not_there(address)
        summary = finish(manifest, work, plan)
        for path in sorted(work.iterdir(), key=lambda path: path.name in artefact.LISTS):
            if shards.number_of(path.name) is None:
                remote.put(system, path, f"{root}/{path.name}")
    return summary


def _not_there(address: str) -> UserError:
    return UserError(
        "not-writable",
        f"cannot write {address}",
        "shards that other machines wrote are not there",
        "name a folder or an address that is the same for all machines",
    )


def damage(address: str, workers: int = 1) -> Iterator[tuple[str, str]]:
    """Name and cause of every damaged file of a published folder, found by Ray; as `artefact.damaged`.

    Args:
        address: As in `prepare_store`.
    """
    system, root = remote.system(address)
    there = remote.listing(system, root)
    own = artefact.contents_name(there)
    try:
        _, files, good = artefact.parse_contents(remote.content(system, f"{root}/{own}"))
    except (OSError, ValueError) as error:
        yield own, f"no readable list of contents ({type(error).__name__})"
        return
    if not good:
        yield own, "the list of contents does not match its own hash"
    found = {
        name: cause
        for name, facts in files.items()
        if (cause := artefact.difference(facts, there[name]["size"] if name in there else None))
    }
    names = [name for name in files if name not in found]
    tasks = [
        {"names": json.dumps(names[i : i + HASHED_TOGETHER]), "address": address}
        for i in range(0, len(names), HASHED_TOGETHER)
    ]
    for row in cluster.each(tasks, hash_files, workers):
        for name, hash_or_cause in json.loads(row["hashes"]).items():
            if hash_or_cause != files[name]["sha256"]:
                found[name] = artefact.CHANGED if len(hash_or_cause) == 64 else hash_or_cause
    yield from ((name, found[name]) for name in files if name in found)
    yield from (
        (name, artefact.UNLISTED)
        for name in sorted(there)
        if name not in files and name not in artefact.LISTS
    )


# --- on a worker


def _make_shard(row: RayTask) -> dict[str, Any]:
    """Makes a shard and puts it where the store grows."""
    task = shards.ShardTask.from_json(zlib.decompress(row["task"]).decode())
    folder = remote.folder(row["work"])
    with tempfile.TemporaryDirectory(prefix="beatline-") as scratch, ExitStack() as stack:
        fetch = _Fetch(row["source"], Path(row["root"]), Path(scratch)) if row["source"] else lambda job: job
        made = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beatline-")))
        try:
            with artefact.disk_errors(made):
                list(shards.make([task], made, fetch=fetch))
            if folder is None:
                system, root = remote.system(row["work"])
                for name in (
                    shard_name(task.number),
                    shards.facts_name(task.number),
                ):  # the facts last: without them there is no shard
                    remote.put(system, made / name, f"{root}/{name}")
        except UserError as error:
            return {"clips": 0, "error": cluster.failure(error)}
    return {"clips": len(task.jobs), "error": ""}


class _Fetch:
    """A job with its source where this machine can read it. The last few files fetched are kept, as an
    archive holds many clips in a row.
    """

    def __init__(self, source: str, root: Path, scratch: Path):
        self._folder = remote.folder(source)
        self._source = source
        self._root = root
        self._scratch = scratch
        self._kept: OrderedDict[Path, Path] = OrderedDict()
        self._count = 0

    def __call__(self, job: Job) -> Job:
        if not job.path.is_relative_to(self._root):
            return job
        relative = job.path.relative_to(self._root)
        if self._folder is not None:
            return replace(job, path=self._folder / relative)
        if relative not in self._kept:
            self._count += 1
            local = self._scratch / f"{self._count}-{relative.name}"
            remote.get(f"{self._source.rstrip('/')}/{relative.as_posix()}", local)
            self._kept[relative] = local
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)[1].unlink(missing_ok=True)
        self._kept.move_to_end(relative)
        return replace(job, path=self._kept[relative])


def hash_files(row: RayTask) -> dict[str, Any]:
    """SHA-256 of files, or why there is none."""
    system, root = remote.system(row["address"])
    hashes = {}
    for name in json.loads(row["names"]):
        whole = hashlib.sha256()
        try:
            with system.open(f"{root}/{name}", "rb") as file:
                while part := file.read(BLOCK):
                    whole.update(part)
            hashes[name] = whole.hexdigest()
        except Exception as error:  # file systems raise what they like
            hashes[name] = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return {"hashes": json.dumps(hashes), "error": ""}


# --- addresses


def _state_of(source: str, root: Path) -> Callable[[Path], list[Any]]:
    """As `plan.state`, of the files at the source."""
    folder = remote.folder(source)
    if folder is not None:
        return lambda path: state(folder / path.relative_to(root) if path.is_relative_to(root) else path)
    listing = remote.listing(*remote.system(source))

    def listed_state(path: Path) -> list[Any]:
        facts = listing.get(path.relative_to(root).as_posix()) if path.is_relative_to(root) else None
        return remote.stamp(facts) if facts else []

    return listed_state
