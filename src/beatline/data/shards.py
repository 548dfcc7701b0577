"""clips -> a shard: up to 512 clips decoded into a file, and facts about each clip in another.

In: a `ShardTask`, which says all that a shard depends on. Out: `shard-N.i16`, the clips' samples in a row,
and `shard-N.json`, what became of each clip. The pair says by itself whether it is whole, and what it was
made from. So a pair survives a kill, is made again when damaged, and may be made on another machine (`ray`).
The pair's bytes depend on the task only. Imports no torch.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice, tee
from pathlib import Path
from typing import Any

import numpy as np

from beatline.audio.pool import Decoders, Job
from beatline.audio.samples import FULL_SCALE, SAMPLE_RATE, Decoded
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.limits import LIMITS
from beatline.data.manifest import Clip, Manifest
from beatline.data.store import shard_name

SHARD_CLIPS = 512
MORE_TRIES = 2
FRAME = 320  # samples, 20 ms: what loudness is measured over
QUIET = (FULL_SCALE / 1000) ** 2 * FRAME  # energy of a frame at -60 dB of full scale

Progress = Callable[[int], Any]
"""Called with the number of clips done since the last call."""

Outcome = dict[str, Any]
"""What became of a clip: `length` (samples) and measurements, or `code` and `reason`."""


def no_progress(count: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class ShardTask:
    """All that a shard is a function of."""

    number: int
    """The shard's number in the store."""
    plan: str
    """Hash of all inputs of the store, written into the shard."""
    jobs: tuple[Job, ...]
    """A job for each clip."""
    min_seconds: tuple[float, ...]
    """Shorter clips are rejected, seconds."""

    def to_json(self) -> str:
        """The task as text that `from_json` reads."""
        return json.dumps(
            asdict(self) | {"jobs": [asdict(job) | {"path": str(job.path)} for job in self.jobs]}
        )

    @staticmethod
    def from_json(text: str) -> "ShardTask":
        """The task that `to_json` wrote."""
        task = json.loads(text)
        return ShardTask(
            task["number"],
            task["plan"],
            tuple(Job(**job | {"path": Path(job["path"])}) for job in task["jobs"]),
            tuple(task["min_seconds"]),
        )


def facts_name(number: int) -> str:
    """The file with what became of a shard's clips."""
    return f"shard-{number:05d}.json"


def count(manifest: Manifest) -> int:
    """How many shards the manifest's clips make."""
    return -(-len(manifest.clips) // SHARD_CLIPS)


def tasks(manifest: Manifest, plan: str, numbers: Iterable[int]) -> Iterator[ShardTask]:
    """The tasks of these shards. A test clip may be of any length within the limits, others within the
    manifest's bounds.
    """
    in_test = np.zeros(len(manifest.clips), bool)
    in_test[list(manifest.splits["test"])] = True
    for number in numbers:
        chosen = slice(number * SHARD_CLIPS, (number + 1) * SHARD_CLIPS)
        yield task(manifest, plan, number, manifest.clips[chosen], in_test[chosen].tolist())


def task(
    manifest: Manifest, plan: str, number: int, clips: Sequence[Clip], in_test: Sequence[bool]
) -> ShardTask:
    """The task of a shard of these clips."""
    longest = (LIMITS.max_clip_seconds if test else manifest.max_seconds for test in in_test)
    jobs = tuple(
        Job(clip.path, clip.member, clip.start, clip.end, most)
        for clip, most in zip(clips, longest, strict=True)
    )
    return ShardTask(number, plan, jobs, tuple(0.0 if test else manifest.min_seconds for test in in_test))


def make(
    todo: Iterable[ShardTask],
    folder: Path,
    workers: int = 1,
    progress: Progress = no_progress,
    fetch: Callable[[Job], Job] = lambda job: job,
) -> Iterator[int]:
    """The number of each shard in turn, once it is in `folder`; decoders work on across the shards' borders.

    Args:
        workers: Child processes that decode, at least 1.
        progress: Called with the number of clips done since the last call.
        fetch: Called with each job shortly before it is decoded. Gives the job to decode: the same from where
            this machine can read it.
    """
    ahead, todo = tee(todo)
    with Decoders(workers) as decoders:
        results = decoders.map(fetch(job) for task in ahead for job in task.jobs)
        for task in todo:
            tried = (
                _tried(result, job, decoders, fetch)
                for result, job in zip(islice(results, len(task.jobs)), task.jobs, strict=True)
            )
            _write(task, tried, folder, progress)
            yield task.number


def _tried(
    result: Decoded | UserError, job: Job, decoders: Decoders, fetch: Callable[[Job], Job]
) -> Decoded | UserError:
    """The result, or that of more tries where the decoder may have died of something else than the file."""
    for _ in range(MORE_TRIES):
        if not isinstance(result, UserError) or result.code not in ("decoder-crashed", "decode-timeout"):
            break
        result = next(decoders.map([fetch(job)]))
    return result


def _write(task: ShardTask, results: Iterable[Decoded | UserError], folder: Path, progress: Progress) -> None:
    final = folder / shard_name(task.number)
    rows = []
    whole = sha256()
    partial = final.with_name(final.name + ".partial")
    with partial.open("wb") as file:
        for result, shortest in zip(results, task.min_seconds, strict=True):
            row = _facts(result, shortest)
            if isinstance(result, Decoded) and "code" not in row:
                content = result.samples.astype("<i2", copy=False).data
                file.write(content)
                whole.update(content)
            rows.append(row)
            progress(1)
    artefact.checkpoint_hook("shard-filled")
    partial.replace(final)
    facts = {"plan": task.plan, "sha256": whole.hexdigest(), "rows": rows}
    artefact.write_atomic(
        folder / facts_name(task.number), json.dumps(facts | {"self": artefact.hash_json(facts)}) + "\n"
    )
    artefact.checkpoint_hook("shard-written")


def _facts(result: Decoded | UserError, shortest: float) -> Outcome:
    if isinstance(result, UserError):
        return {"code": result.code, "reason": result.cause}
    samples = result.samples
    if len(samples) < shortest * SAMPLE_RATE:
        return {
            "code": "too-short",
            "reason": f"{len(samples) / SAMPLE_RATE:.3f} s is less than {shortest:g} s",
        }
    levels = samples.astype(
        np.float64
    )  # integers: every sum below is exact, in whatever order a machine adds
    frames = levels[: max(1, len(levels) // FRAME) * FRAME].reshape(-1, min(FRAME, len(levels)))
    energy = np.einsum("ij,ij->i", frames, frames)
    most, least = int(samples.max()), int(samples.min())
    at_the_rail = (
        np.count_nonzero((samples == FULL_SCALE - 1) | (samples == -FULL_SCALE))
        if most == FULL_SCALE - 1 or least == -FULL_SCALE
        else 0
    )
    return {
        "length": len(samples),
        "crc": zlib.crc32(samples.astype("<i2", copy=False).data),
        "rate_in": result.rate_in,
        "channels_in": result.channels_in,
        "peak": round(max(most, -least) / FULL_SCALE, 6),
        "rms": round(float(np.sqrt(np.einsum("i,i->", levels, levels) / len(levels))) / FULL_SCALE, 6),
        "quiet": round(float(np.count_nonzero(energy < QUIET * frames.shape[1] / FRAME)) / len(frames), 6),
        "clipped": round(at_the_rail / len(samples), 6),
        "note": result.note,
    }


def read(folder: Path, number: int, plan: str) -> dict[str, Any] | None:
    """The facts of a shard that was made from this plan, or None where the pair is not whole."""
    try:
        facts = parse((folder / facts_name(number)).read_bytes())
        whole = (
            facts is not None
            and facts["plan"] == plan
            and facts["sha256"] == artefact.sha256_file(folder / shard_name(number))
        )
    except OSError:
        return None
    return facts if whole else None


def parse(text: str | bytes) -> dict[str, Any] | None:
    """What a facts file says (`plan`, `sha256`, `rows`), or None where it is damaged."""
    try:
        facts = json.loads(text)
        return facts if facts.pop("self") == artefact.hash_json(facts) else None
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def size(facts: dict[str, Any]) -> int:
    """Bytes of a shard with these facts."""
    return 2 * sum(row.get("length", 0) for row in facts["rows"])


def rows(folder: Path, shards: int) -> Iterator[Outcome]:
    """What became of every clip, from the facts of shards that are known to be whole."""
    for number in range(shards):
        yield from json.loads((folder / facts_name(number)).read_bytes())["rows"]


def number_of(name: str) -> int | None:
    """Which shard a file belongs to, None for other files."""
    stem, extension = os.path.splitext(name)
    digits = stem.removeprefix("shard-")
    return int(digits) if extension in (".i16", ".json") and stem != digits and digits.isdecimal() else None
