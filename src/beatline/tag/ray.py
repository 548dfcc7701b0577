"""audio anywhere -> tables of scores: `tag` on Ray, over folders, archives and object storage.

In: folders and addresses (`core.remote`) with audio files, tar, Parquet or HDF5 archives. Out: a folder or
address with partitioned Parquet. Each file or member of an archive has a row, refused recordings too. Inputs
are cut into parts. The name of a part hashes what its rows depend on, and a part appears whole. A job that
was killed does only the rest. Decoding happens in bounded children (`audio.pool`). Extra `bulk`. Imports no
torch.
"""

import json
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from beatline.audio import archives
from beatline.audio.inputs import matches
from beatline.audio.pool import Job
from beatline.audio.signatures import EXTENSIONS
from beatline.core import artefact, remote
from beatline.core import ray as cluster
from beatline.core.errors import UserError
from beatline.core.ray import RayTask
from beatline.core.version import __version__
from beatline.data.manifest.sources import walk
from beatline.data.manifest.table import as_text
from beatline.data.plan import state
from beatline.tag import batch_tagger
from beatline.tag.batch_tagger import Settings
from beatline.tag.events import EventOptions
from beatline.tag.tagger import AudioTagger

FORMAT = 2
TOGETHER = 256  # files of a part; an archive is a part of its own
LABELS = "labels.csv"
TAGS = "tags"
FACTS = "facts"

Input = tuple[str, list[Any]]
"""Path or address of a file, and what tells it from another of that name."""


# --- the job


def tag_inputs(
    inputs: list[Input],
    settings: Settings,
    target: str,
    workers: int = 1,
    progress: Callable[[int], Any] = lambda count: None,
) -> dict[str, Any]:
    """Facts about the tables in `target`, which Ray makes or completes: `rows`, `refused` by code, `seconds`
    of sound, `core_seconds` of work.

    Args:
        inputs: Of `find_inputs`; an archive is a single input.
        target: A folder that all machines see, or an address; `tags/*.parquet` are the rows, `labels.csv`
            the order of their scores.
        workers: Processors of a local Ray.
        progress: Called with the number of inputs done since the last call.

    Raises:
        UserError: `not-writable` where the target holds something else; `missing-package`; `download-failed`;
            as `Settings.tagger`.
    """
    parts = _parts(inputs, settings)
    plan = artefact.hash_json(sorted(parts))
    tagger = settings.tagger()
    needs = {"num_gpus": 1} if getattr(getattr(tagger.engine, "device", None), "type", "") == "cuda" else {}
    done = _begin(target, plan, parts)
    progress(sum(len(parts[name]) for name in done))
    tasks = [
        {
            "settings": settings.to_json(),
            "inputs": json.dumps(group),
            "name": name,
            "target": str(remote.folder(target) or target),
        }
        for name, group in parts.items()
        if name not in done
    ]
    for made in cluster.each(tasks, _make_part, workers, **needs):
        progress(made["inputs"])
    facts = _facts(target, parts)
    if len(facts) < len(parts):
        raise UserError(
            "not-writable",
            f"cannot write {target}",
            "parts that other machines wrote are not there",
            "name a folder or an address that is the same for all machines",
        )
    return _finish(target, plan, settings, tagger.labels.to_csv(), facts)


def find_inputs(sources: Iterable[str], target: str) -> list[Input]:
    """All inputs in order of name, each once. These are audio files and archives in folders, and files as
    they are named. Nothing below `target` is an input.

    Raises:
        UserError: `missing-file`, `download-failed`.
    """
    found: dict[str, list[Any]] = {}
    for source in sources:
        folder = remote.folder(source)
        below = dict(_below_address(source) if folder is None else _below_folder(folder))
        if not below:
            raise UserError(
                "missing-file",
                f"nothing to tag in {source}",
                "no audio file and no archive there",
                "check the path or the address",
            )
        found |= below
    own = f"{remote.folder(target) or target.rstrip('/')}/"
    return sorted((name, state) for name, state in found.items() if not name.startswith(own))


def _below_folder(path: Path) -> Iterator[Input]:
    for match in matches(str(path)):
        if match.is_dir():
            tree = walk(match)
            unread = [folder for folder, _ in tree.unread]  # for decoding to say why
            for name in [
                *(f"{folder}/{name}" for folder, names in tree.folders() for name in names),
                *tree.archives,
                *unread,
            ]:
                yield name, state(Path(name))
        elif match.exists():
            yield str(match.absolute()), state(match)


def _below_address(address: str) -> Iterator[Input]:
    system, root = remote.system(address)
    with suppress(FileNotFoundError), remote.reaching(address):
        named = (
            system.glob(root, detail=True)
            if any(sign in root for sign in "*?[")
            else {root: system.info(root)}
        )
        for name, facts in named.items():
            below = system.find(name, detail=True) if facts["type"] == "directory" else {name: facts}
            for file, about in below.items():
                relative = file.removeprefix(name).strip("/").lower()
                if (
                    about["type"] == "file"
                    and not remote.is_marker(file)
                    and (
                        not relative
                        or (
                            (relative.endswith(EXTENSIONS) or archives.kind(relative))
                            and not f"/{relative}".count("/.")
                        )
                    )
                ):
                    yield _address(address.rstrip("/"), root, file, system), remote.stamp(about)


def _address(address: str, root: str, name: str, system: Any) -> str:
    """A name in a file system as a full address, with the hosts and users of the given address."""
    return address.removesuffix(root) + name if address.endswith(root) else system.unstrip_protocol(name)


def _parts(inputs: list[Input], settings: Settings) -> dict[str, list[Input]]:
    """Parts by name, which is a hash of everything that their rows are a function of."""
    apart = [item for item in inputs if archives.kind(item[0])]
    files = [item for item in inputs if not archives.kind(item[0])]
    groups = [[item] for item in apart] + [files[i : i + TOGETHER] for i in range(0, len(files), TOGETHER)]
    about = [FORMAT, __version__, settings.state, settings.calibrated, settings.events, settings.options]
    return {f"part-{artefact.hash_json([about, group])[:16]}": group for group in groups}


def _begin(target: str, plan: str, parts: dict[str, list[Input]]) -> set[str]:
    """The parts that are there; other files of an unfinished job are removed.

    Raises:
        UserError: `not-writable` where something else is there.
    """
    system, root = remote.system(target)
    there = remote.listing(system, root)
    done = set(_facts(target, parts, there))
    left = {name for name in there if name.split("/")[0] in (TAGS, FACTS)}
    own = left | {name + end for name in (LABELS, *artefact.LISTS) for end in ("", ".partial")}
    left -= {name for part in done for name in (_table(part), _about(part))}
    listed = artefact.contents_name(there)
    whole = listed in there and _plan(remote.content(system, f"{root}/{listed}"))
    if (
        there.keys() - own
        or (whole and whole != plan)
        or (not done and any(name.endswith(".json") for name in left))
    ):
        cause = (
            "something else is there, such as the tags of other inputs, by another model or with other "
            "options"
        )
        raise UserError(
            "not-writable",
            f"cannot write {target}",
            cause,
            "choose another folder or address, or remove what is there",
        )
    for name in left:
        remote.remove(system, f"{root}/{name}")
    return done


def _plan(contents: bytes) -> str:
    """The hash of what the tags were made from, by a folder's contents; empty where they are damaged."""
    try:
        about, _, good = artefact.parse_contents(contents)
    except ValueError:
        return ""
    return str(about.get("plan", "another")) if good else ""


def _table(part: str) -> str:
    return f"{TAGS}/{part}.parquet"


def _about(part: str) -> str:
    return f"{FACTS}/{part}.json"


def _facts(
    target: str, parts: Iterable[str], there: dict[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """What is known of each part that is there."""
    system, root = remote.system(target)
    there = remote.listing(system, root) if there is None else there
    wanted = {f"{root}/{_about(part)}": part for part in parts if _about(part) in there}
    found = {}
    for path, content in remote.contents(system, list(wanted)).items():
        facts = _parse(content)
        part = wanted[path]
        if facts is not None and there.get(_table(part), {}).get("size") == facts["bytes"]:
            found[part] = facts
    return found


def _text(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts | {"self": artefact.hash_json(facts)}).encode() + b"\n"


def _parse(content: bytes) -> dict[str, Any] | None:
    try:
        facts = json.loads(content)
        return facts if facts.pop("self") == artefact.hash_json(facts) else None
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def _finish(
    target: str, plan: str, settings: Settings, labels: str, facts: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Writes the labels' order and, last, the contents of the whole; the facts in them."""
    system, root = remote.system(target)
    refused = sum((Counter(made["refused"]) for made in facts.values()), Counter())
    sums = {
        name: round(sum(made[name] for made in facts.values()), 3)
        for name in ("rows", "seconds", "core_seconds")
    }
    about = {
        "kind": "tags",
        "plan": plan,
        "model": settings.model,
        "state": settings.state,
        "refused": dict(sorted(refused.items())),
    } | sums
    known = {_table(part): {"bytes": made["bytes"], "sha256": made["sha256"]} for part, made in facts.items()}
    known |= {
        _about(part): {"bytes": len(text), "sha256": sha256(text).hexdigest()}
        for part, made in facts.items()
        if (text := _text(made))
    }
    with tempfile.TemporaryDirectory(prefix="beatline-") as scratch:
        (Path(scratch) / LABELS).write_text(labels, encoding="utf-8")
        artefact.seal(Path(scratch), about, known)
        for name in (LABELS, artefact.CONTENTS):
            remote.put(system, Path(scratch) / name, f"{root}/{name}")
    return about


# --- on a worker


class _Unit(NamedTuple):
    """A recording on its way to a row."""

    file: str
    member: str | None
    position: int | None
    source: Any
    fetched: Path | None = None


def _make_part(task: RayTask) -> dict[str, Any]:
    """Makes a part and puts it into the target; what the job is to know of it."""
    begun = time.monotonic()
    inputs = json.loads(task["inputs"])
    try:
        settings = Settings.from_json(task["settings"])
        tagger = settings.tagger()
        system, root = remote.system(task["target"])
        with tempfile.TemporaryDirectory(prefix="beatline-") as name:
            scratch = Path(name)
            table = scratch / "part.parquet"
            about = scratch / "facts.json"
            facts = batch_tagger.write(
                table,
                _rows(tagger, _units(inputs, scratch), settings.event_options()),
                tagger,
                settings.events is not None,
            )
            about.write_bytes(_text(facts | {"core_seconds": round(time.monotonic() - begun, 3)}))
            remote.put(system, table, f"{root}/{_table(task['name'])}")
            remote.put(system, about, f"{root}/{_about(task['name'])}")  # last: without it there is no part
    except UserError as error:
        return {"inputs": 0, "error": cluster.failure(error)}
    return {"inputs": len(inputs), "error": ""}


def _units(inputs: list[Input], scratch: Path) -> Iterator[_Unit]:
    """The recordings in these inputs; what lies on another machine is copied to `scratch`."""
    for number, (address, _) in enumerate(inputs):
        suffix = "".join(Path(address).suffixes[-2:]) if archives.kind(address) else ""
        job = batch_tagger.job(address, scratch / f"{number}{suffix}")
        if not suffix:
            yield _Unit(as_text(address), None, None, job, None if remote.folder(address) else job.path)
            continue
        empty = True
        for entry in archives.listing(job.path, EXTENSIONS):
            empty = False
            position = int(entry.member.partition(":")[0]) if entry.member else None
            source = (
                batch_tagger.refusal(*entry.problem)
                if entry.problem
                else Job(job.path, entry.member, name=f"{address} ({entry.name})")
            )
            yield _Unit(as_text(address), as_text(entry.name) if entry.member else None, position, source)
        if empty:
            yield _Unit(
                as_text(address),
                None,
                None,
                batch_tagger.refusal("not-audio", "no audio is in the archive", "leave it out"),
            )


def _rows(
    tagger: AudioTagger, units: Iterable[_Unit], events: EventOptions | None
) -> Iterator[dict[str, Any]]:
    """A row for each recording, in order."""
    ahead: deque[_Unit] = deque()

    def sources() -> Iterator[Any]:
        for unit in units:
            ahead.append(unit)
            yield unit.source

    for result in batch_tagger.tagged(tagger, sources(), events):
        unit = ahead.popleft()
        if unit.fetched is not None:
            unit.fetched.unlink(missing_ok=True)
        yield {"file": unit.file, "member": unit.member, "position": unit.position} | batch_tagger.row(result)
