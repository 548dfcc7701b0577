"""Whether published folders are what was written; and the command that mends a store, with its words.

In: a folder, or a folder with published folders below it. Out: a line for each whole folder and
each damaged file. Nothing is believed that a folder's list of hashes does not say. Imports no torch.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from beatline.config import Config
from beatline.core import artefact
from beatline.core.console import progress, say
from beatline.core.errors import UserError
from beatline.data import manifest, shards
from beatline.data import ray as bulk
from beatline.data import repair as mending


def verify(folder: Path) -> None:
    """Prints which published folders are whole, and which work is unfinished. Of a damaged folder it prints
    every file that is missing, cut, changed or not listed.

    Args:
        folder: Made by a stage, or with such folders anywhere below it.

    Raises:
        UserError: `missing-file`; `corrupt-artefact` after everything was printed.
    """
    if not folder.is_dir():
        raise UserError("missing-file", f"cannot verify {folder}", "no such folder", "check the path")
    unfinished = sorted(path for path in folder.rglob("*.partial") if path.is_dir())
    found = {
        path.parent for name in (*artefact.LISTS, shards.facts_name(0)) for path in folder.rglob(name)
    }  # a store may have lost its list of contents
    below = sorted(path for path in found if not any(path.is_relative_to(partial) for partial in unfinished))
    folders = below if (below or unfinished) and folder not in below and not _is_store(folder) else [folder]
    say(
        "verify",
        f"every file of {len(folders)} folder{'s' * (len(folders) != 1)} in {folder}, against size and "
        f"SHA-256",
    )
    for partial in unfinished:
        print(
            f"unfinished {partial}: its stage was stopped, and goes on or begins anew when it is run again",
            flush=True,
        )
    report(
        [
            (
                str(published),
                (artefact.read_contents(published) or {}).get("kind", "unknown"),
                chain(mending.damage(published), _of_the_run(published)),
            )
            for published in folders
        ]
    )


def _of_the_run(folder: Path) -> Iterator[tuple[str, str]]:
    """As `artefact.damaged`, of the run's configuration and log, by the trained model's list of contents."""
    for name, facts in (artefact.read_contents(folder) or {}).get("run_files", {}).items():
        path = folder.parent / name
        if path.exists() and (
            cause := artefact.changed(path, facts)
        ):  # a model may have been taken out of its run
            yield f"../{name}", cause


def verify_on_ray(address: str) -> None:
    """As `verify` for a folder or address that holds a published folder, hashed by Ray.

    Raises:
        UserError: `corrupt-artefact` after everything was printed; `missing-package`.
    """
    report([(address.rstrip("/"), "hashed on Ray", bulk.damage(address, os.cpu_count() or 1))])


def report(checked: Iterable[tuple[str, str, Iterable[tuple[str, str]]]]) -> None:
    """Prints the damage of folders, each with its name and kind.

    Raises:
        UserError: `corrupt-artefact` after everything was printed.
    """
    found: list[tuple[str, str, str]] = []
    for folder, kind, damage in checked:
        before = len(found)
        for name, cause in damage:
            path = os.path.normpath(f"{folder}/{name}") if "://" not in folder else f"{folder}/{name}"
            print(f"damaged  {path}: {cause}", flush=True)
            found.append((folder, path, cause))
        if len(found) == before:
            print(f"whole    {folder} ({kind})", flush=True)
    if found:
        folder, path, cause = found[0]
        rest = f" and {len(found) - 1} more, named above" if len(found) > 1 else ""
        raise UserError(
            "corrupt-artefact",
            f"cannot use {path}{rest}",
            cause,
            f"`beatline verify {folder} --repair CONFIG` makes a store whole; delete anything else and run "
            f"its stage again",
        )


def repair(folder: Path, config: Config) -> None:
    """Makes a damaged store byte for byte what it was, from the data that `config` names; says what was
    mended.

    Raises:
        UserError: as `repair.repair`; `corrupt-artefact` for a folder that is no store.
    """
    if not _is_store(folder):
        raise UserError(
            "corrupt-artefact",
            f"cannot repair {folder}",
            "only a store can be made again from its sources",
            "delete it and run its stage again",
        )
    table = manifest.read(config.data)
    with artefact.FolderLock(folder.parent), progress("repair", len(table.clips)) as advance:
        mended = mending.repair(table, folder, max(1, config.train.workers), advance)
    for name in mended:
        say("mended", str(folder / name))
    say("whole", f"{folder} (store)")


def _is_store(folder: Path) -> bool:
    about = artefact.read_contents(folder)
    return about.get("kind") == "store" if about else any(folder.glob("shard-*"))
