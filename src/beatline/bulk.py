"""prepare and verify over many machines: jobs on Ray Data, a shard being the unit of work.

In: what `prepare` and `verification` take, and places: folders that all machines see, or addresses that fsspec knows (`s3://bucket/store`). Out: the same
bytes. A task says all that its shard depends on (`shards.Task`), so a worker that dies costs only its shard, which Ray gives to another one; a job that ends
early goes on where it was. Extra `bulk`. Imports no torch.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from beatline import artefact, prepare, shards
from beatline.children import Job
from beatline.errors import UserError
from beatline.manifest import Manifest
from beatline.store import shard_name

KEPT = 16  # fetched sources that a worker keeps: more than its decoder is ahead
BLOCK = 1 << 22
OBJECT_BYTES = 256 << 20  # memory for tasks and answers, of which a shard has some 100 kB; Ray would take a third of the machine
HASHED_TOGETHER = 16  # files of one task of verification
STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "modify")  # what file systems call the time or the version of a file

Task = dict[str, str]
"""A row of the data set that Ray Data maps: what to do as JSON."""


def prepare_store(manifest: Manifest, place: str, workers: int = 1, progress: prepare.Progress = lambda count: None, source: str = "") -> dict[str, Any]:
    """The summary of the store in `place`, made by Ray; its bytes are those that `prepare.prepare` makes of the same files.

    Args:
        place: A folder that all machines see, or an address for fsspec; there every object is written under a temporary key first, and the manifest last.
        workers: Processors of a local Ray; a cluster named by RAY_ADDRESS has its own.
        source: Where the machines find what is below the manifest's root, folder or address; the root itself when empty.

    Raises:
        UserError: as `prepare.prepare`; `missing-package`; `not-writable` where an address holds a store of other data.
    """
    manifest = replace(manifest, root=manifest.root.absolute(), clips=tuple(replace(clip, path=clip.path.absolute()) for clip in manifest.clips))
    plan = prepare.plan_of(manifest, _state_of(source, manifest.root) if source else prepare.state)

    def make(missing: list[int], work: str) -> None:
        progress(len(manifest.clips) - prepare.clips_in(manifest, missing))
        tasks = [{"task": task.to_json(), "root": str(manifest.root), "source": source, "work": work} for task in shards.tasks(manifest, plan, missing)]
        for made in _each(tasks, _make_shard, workers):
            progress(made["clips"])

    folder = _folder(place)
    if folder is None:
        return _prepare_far(manifest, place, plan, make)
    if prepare.is_there(manifest, folder, plan, workers, progress):
        return json.loads((folder / "summary.json").read_text())
    with artefact.disk_errors(folder):
        work = prepare.partial_of(folder)
        make(prepare.begin(manifest, work, plan), str(work))
        if not all((work / shards.facts_name(number)).exists() for number in range(shards.count(manifest))):
            raise _not_there(place)
        summary = prepare.finish(manifest, work, plan)
        artefact.put_in_place(work, folder)
    return summary


def _prepare_far(manifest: Manifest, place: str, plan: str, make: Callable[[list[int], str], None]) -> dict[str, Any]:
    """As `prepare_store` at an address: no folder can be renamed there, so the store grows in its place, and is one when its manifest is written."""
    system, root = _system(place)
    there = {name: facts["size"] for name, facts in _listing(system, root).items()}
    if artefact.MANIFEST in there:
        about, _, good = artefact.parse_manifest(system.cat_file(f"{root}/{artefact.MANIFEST}"))
        if not good or about.get("plan") != plan:
            raise UserError("not-writable", f"cannot write {place}", "a store of other data is there, or a damaged one", "verify it; remove its damaged files and its manifest, or choose another address")
        return json.loads(system.cat_file(f"{root}/summary.json"))
    with tempfile.TemporaryDirectory(prefix="beatline-") as scratch:
        work, numbers = Path(scratch), range(shards.count(manifest))

        def fetched(number: int) -> bool:
            name = shards.facts_name(number)
            facts = shards.parse(system.cat_file(f"{root}/{name}")) if name in there else None
            if facts is None or facts["plan"] != plan or there.get(shard_name(number)) != shards.size(facts):
                return False
            (work / name).write_text(json.dumps(facts | {"self": artefact.hash_json(facts)}) + "\n")
            return True

        make([number for number in numbers if not fetched(number)], place)
        there = {name: facts["size"] for name, facts in _listing(system, root).items()}
        if not all((work / shards.facts_name(number)).exists() or fetched(number) for number in numbers):
            raise _not_there(place)
        summary = prepare.finish(manifest, work, plan)
        for path in sorted(work.iterdir(), key=lambda path: path.name == artefact.MANIFEST):
            if shards.number_of(path.name) is None:
                _put(system, path, f"{root}/{path.name}")
    return summary


def _not_there(place: str) -> UserError:
    return UserError("not-writable", f"cannot write {place}", "shards that other machines wrote are not there", "name a folder or an address that is the same for all machines")


def damage(place: str, workers: int = 1) -> Iterator[tuple[str, str]]:
    """Name and cause of every damaged file of a published folder, found by Ray; as `artefact.damaged`.

    Args:
        place: As in `prepare_store`.
    """
    system, root = _system(place)
    try:
        _, files, good = artefact.parse_manifest(system.cat_file(f"{root}/{artefact.MANIFEST}"))
    except (OSError, ValueError) as error:
        yield artefact.MANIFEST, f"no readable manifest ({type(error).__name__})"
        return
    if not good:
        yield artefact.MANIFEST, "the manifest does not match its own hash"
    there = _listing(system, root)
    found = {name: cause for name, facts in files.items() if (cause := artefact.difference(facts, there[name]["size"] if name in there else None))}
    names = [name for name in files if name not in found]
    tasks = [{"names": json.dumps(names[i : i + HASHED_TOGETHER]), "place": place} for i in range(0, len(names), HASHED_TOGETHER)]
    for row in _each(tasks, _hash_files, workers):
        for name, hash_or_cause in json.loads(row["hashes"]).items():
            if hash_or_cause != files[name]["sha256"]:
                found[name] = artefact.CHANGED if len(hash_or_cause) == 64 else hash_or_cause
    yield from ((name, found[name]) for name in files if name in found)
    yield from ((name, artefact.UNLISTED) for name in sorted(there) if name not in files and name != artefact.MANIFEST)


# --- on a worker


def _make_shard(row: Task) -> dict[str, Any]:
    """Makes one shard and puts it where the store grows."""
    task, folder = shards.Task.from_json(row["task"]), _folder(row["work"])
    with tempfile.TemporaryDirectory(prefix="beatline-") as scratch, ExitStack() as stack:
        fetch = _Fetch(row["source"], Path(row["root"]), Path(scratch)) if row["source"] else lambda job: job
        made = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beatline-")))
        try:
            with artefact.disk_errors(made):
                list(shards.make([task], made, fetch=fetch))
            if folder is None:
                system, root = _system(row["work"])
                for name in (shard_name(task.number), shards.facts_name(task.number)):  # the facts last: without them there is no shard
                    _put(system, made / name, f"{root}/{name}")
        except UserError as error:  # Ray would wrap it
            return {"clips": 0, "error": json.dumps([error.code, error.what, error.cause, error.remedy])}
    return {"clips": len(task.jobs), "error": ""}


class _Fetch:
    """A job with its source where this machine can read it; keeps the last few files fetched, as an archive holds many clips in a row."""

    def __init__(self, source: str, root: Path, scratch: Path):
        self._folder, self._source, self._root, self._scratch = _folder(source), source, root, scratch
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
            _get(f"{self._source.rstrip('/')}/{relative.as_posix()}", local)
            self._kept[relative] = local
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)[1].unlink(missing_ok=True)
        self._kept.move_to_end(relative)
        return replace(job, path=self._kept[relative])


def _get(address: str, local: Path) -> None:
    """Copies a file to here, or leaves none where there is none: its decoder will say so.

    Raises:
        UserError: `download-failed`; the job ends, and goes on from here when it is run again.
    """
    system, name = _system(address)
    try:
        system.get_file(name, str(local))
    except Exception as error:  # file systems raise what they like, even for a file that is not there
        local.unlink(missing_ok=True)
        if not isinstance(error, FileNotFoundError) and system.exists(name):
            raise UserError("download-failed", f"cannot fetch {address}", f"{type(error).__name__}: {error}", "run again to go on from here") from error


def _hash_files(row: Task) -> dict[str, Any]:
    """SHA-256 of files, or why there is none."""
    (system, root), hashes = _system(row["place"]), {}
    for name in json.loads(row["names"]):
        whole = hashlib.sha256()
        try:
            with system.open(f"{root}/{name}", "rb") as file:
                while part := file.read(BLOCK):
                    whole.update(part)
            hashes[name] = whole.hexdigest()
        except OSError as error:
            hashes[name] = error.strerror or str(error)
    return {"hashes": json.dumps(hashes), "error": ""}


# --- places


def locked(place: str) -> AbstractContextManager[Any]:
    """One run per folder, as elsewhere; at an address two runs write the same bytes."""
    folder = _folder(place)
    return nullcontext() if folder is None else artefact.FolderLock(folder.parent)


def _folder(place: str) -> Path | None:
    """The folder that a place is, None for an address."""
    path = place.removeprefix("file://")
    return None if "://" in path else Path(path).absolute()


def _system(place: str) -> tuple[Any, str]:
    """fsspec's file system of a place, and the place's name in it."""
    try:
        from fsspec.core import url_to_fs

        system, root = url_to_fs(place, use_listings_cache=False)
    except ImportError as error:
        raise UserError("missing-package", f"cannot reach {place}", str(error), "pip install 'beatline[bulk]' and the package that fsspec names for such an address") from error
    return system, root.rstrip("/")


def _listing(system: Any, root: str) -> dict[str, dict[str, Any]]:
    """Facts about every file below a place, by relative name."""
    found = system.find(root, detail=True)
    return {name.removeprefix(root).lstrip("/"): facts for name, facts in found.items()}


def _put(system: Any, path: Path, name: str) -> None:
    """Copies a file to its place, under a temporary name until it is all there.

    Raises:
        UserError: `not-writable`.
    """
    try:
        system.makedirs(name.rsplit("/", 1)[0], exist_ok=True)
        system.put_file(str(path), name + ".partial")
        system.mv(name + ".partial", name)
    except Exception as error:  # file systems raise what they like
        raise UserError("not-writable", f"cannot write {name}", f"{type(error).__name__}: {error}", "run again to go on from here") from error


def _state_of(source: str, root: Path) -> Callable[[Path], list[Any]]:
    """As `prepare.state`, of the files at the source."""
    folder = _folder(source)
    if folder is not None:
        return lambda path: prepare.state(folder / path.relative_to(root) if path.is_relative_to(root) else path)
    listing = _listing(*_system(source))

    def state(path: Path) -> list[Any]:
        facts = listing.get(path.relative_to(root).as_posix()) if path.is_relative_to(root) else None
        return [facts["size"], str(next((facts[name] for name in STAMPS if name in facts), ""))] if facts else []

    return state


# --- Ray


def _each(tasks: list[Task], work: Callable[[Task], dict[str, Any]], workers: int) -> Iterator[dict[str, Any]]:
    """What `work` makes of each task, in any order, one task a processor; a task whose worker dies is done again.

    Raises:
        UserError: `missing-package`; what a task says in `error`.
    """
    if not tasks:
        return
    with _ray(workers) as ray:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        for row in ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(work).iter_rows():
            if row["error"]:
                raise UserError(*json.loads(row["error"]))
            yield row


@contextmanager
def _ray(workers: int) -> Iterator[Any]:
    """Ray, connected to the cluster at RAY_ADDRESS or started on this machine for as long as it is needed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray's switch, on every system, between this machine's address and loopback
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("missing-package", "cannot use Ray", str(error), "pip install 'beatline[bulk]'") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    mine = not ray.is_initialized()
    if mine and os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    elif mine:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, object_store_memory=OBJECT_BYTES)
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()
