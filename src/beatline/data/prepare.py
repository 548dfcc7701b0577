"""manifest -> store: every clip decoded once.

In: a `Manifest`. Out: a published folder of shards (`shards`) and tables (`store_tables`) that `store` reads.
Its bytes depend on the inputs only, not on the number of workers nor on how often preparing was killed. It
grows in `<folder>.partial`, where shards survive. Only missing shards are made again. `repair` mends a store
of which bytes have changed since. Imports no torch.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from beatline.core import artefact
from beatline.core.console import say
from beatline.core.errors import UserError
from beatline.data import shards
from beatline.data.manifest import Manifest
from beatline.data.plan import begin, clips_in, finish, partial_of, plan_of, plans_in
from beatline.data.repair import repair
from beatline.data.shards import Progress, no_progress


def prepare(
    manifest: Manifest, folder: Path, workers: int = 1, progress: Progress = no_progress
) -> dict[str, Any]:
    """The summary of the store in `folder`. The store is made, completed, repaired, or left alone where it is
    whole and of these inputs.

    Train and val clips outside the manifest's bounds of length are rejected. A test clip is rejected only
    where it exceeds the limits. Holds a few clips in memory at a time.

    Args:
        workers: Child processes that decode, at least 1.

    Raises:
        UserError: `no-clips` where nothing is left of a split; `disk-full`; `not-writable`, also where
            `folder` is something else than a store.
    """
    plan = plan_of(manifest)
    work = partial_of(folder)
    if is_there(manifest, folder, plan, workers, progress):
        return json.loads((folder / "summary.json").read_text())
    with artefact.disk_errors(folder):
        missing = begin(manifest, work, plan)
        progress(len(manifest.clips) - clips_in(manifest, missing))
        for _ in shards.make(shards.tasks(manifest, plan, missing), work, workers, progress):
            pass
        summary = finish(manifest, work, plan)
        artefact.replace_folder(work, folder)
    return summary


def whole_store(manifest: Manifest, folder: Path) -> dict[str, Any] | None:
    """The summary of the store in `folder` where it is whole and of these inputs, else None. Nothing is
    written, so that runs may share a folder that none of them may change.
    """
    about = artefact.read_contents(folder)
    if (
        about is None
        or about.get("plan") != plan_of(manifest)
        or next(artefact.damaged(folder), None) is not None
    ):
        return None
    return json.loads((folder / "summary.json").read_text())


def is_there(manifest: Manifest, folder: Path, plan: str, workers: int, progress: Progress) -> bool:
    """Whether the store of this plan is in `folder`, after repairing it where it is damaged.

    Raises:
        UserError: `not-writable` where `folder` is something else than a store; as `repair`.
    """
    artefact.recover(folder)
    if plan in plans_in(folder):
        shutil.rmtree(partial_of(folder), ignore_errors=True)
        for name in repair(manifest, folder, workers, progress):
            say("prepare", f"{folder / name} was damaged and is made again")
        return True
    if (
        folder.exists()
        and not artefact.contents_file(folder).exists()
        and not (folder.is_dir() and not any(folder.iterdir()))
    ):
        raise UserError(
            "not-writable",
            f"cannot write {folder}",
            "something that is not a store has this name",
            "choose another name, or move it away",
        )
    return False
