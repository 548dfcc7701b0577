"""prepare and verify over many machines, as jobs on Ray Data: a shard is the unit of work.

In: what `prepare` and `verification` take, and places that are folders all machines see or addresses that fsspec knows (`s3://bucket/store`). Out: the same
bytes. A task says all that its shard depends on (`shards.Task`), so a worker that dies costs its shard only: Ray gives the task to another one, and a job
that ends early goes on where it was. Extra `bulk`. Imports no torch.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from beatline import artefact, prepare, shards
from beatline.children import Job
from beatline.errors import UserError
from beatline.manifest import Manifest
from beatline.store import shard_name

KEPT = 16  # fetched sources a worker keeps: more than its decoder works ahead
BLOCK = 1 << 22
HASHED_TOGETHER = 16  # files of one verification task


def prepare_store(manifest: Manifest, place: str, workers: int = 1, progress: prepare.Progress = lambda count: None, source: str = "") -> dict[str, Any]:
    """The summary of the store in `place`, made by Ray tasks; as `prepare.prepare`.

    Args:
        place: A folder that all machines see, or an address for fsspec. There the store grows under `<place>.partial`; its manifest comes last.
        workers: Processors of a local Ray; with RAY_ADDRESS set, that cluster's count instead.
        source: Where the machines find the clips' files, folder or address; the manifest's root when empty.

    Raises:
        UserError: as `prepare.prepare`; `missing-package`.
    """
    plan = prepare.plan_of(manifest, _states(source) if source else prepare.state)
    target = _Folder(Path(place)) if _is_path(place) else _Remote(place)
    if (summary := target.there(manifest, plan, workers, progress)) is not None:
        return summary
    with target.work(manifest, plan) as (work, missing):
        progress(len(manifest.clips) - sum(len(task.jobs) for task in shards.tasks(manifest, plan, missing)))
        rows = [{"task": task.to_json(), "root": str(manifest.root), "source": source, "work": work} for task in shards.tasks(manifest, plan, missing)]
        for done in _ray(rows, _make, workers):
            progress(done["clips"])
        return target.publish(manifest, plan)
