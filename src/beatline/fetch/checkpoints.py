"""A model's name -> its path on disk: the release's name, a Hugging Face repository, or a path.

In: what the user named. Out: a path in huggingface_hub's cache, or in a folder of the user's. What is on disk
comes first, then copies on the Hugging Face Hub. A file that has a known hash must match it. Nothing is
opened here: `model/checkpoints` reads models. Begin with `locate`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from beatline.core.artefact import LISTS, FolderLock, sha256_file
from beatline.core.console import say
from beatline.core.errors import UserError
from beatline.fetch import http, hub, services
from beatline.fetch.local import copy

WEIGHTS = (".pt", ".pth", ".safetensors", ".ckpt", ".bin")
BESIDE = (".yaml", ".yml", ".json", ".txt", ".csv", ".md")
MOST_BESIDE = 16 << 20  # bytes of a file beside the weights
OURS = frozenset(["config.json", "labels.csv", "model.safetensors"])
"""What a repository made by `beatline push` has, beside a list of contents."""
CALIBRATION = "calibration/"
FOLDER = Path("checkpoints")


def locate(
    source: Path | str,
    target: Path | None = None,
    sources: Sequence[Path] = (),
    policy: http.Policy = http.POLICY,
) -> Path:
    """The path of the model that somebody named: a file, or a model folder.

    Args:
        source: A path; `owner/name` or `owner/name/path/of/the/file` on the Hugging Face Hub, or
            `BEATs_iter3_plus_AS20K` and the like. `hub:` goes before a name that is a path too.
        target: Folder into which files go, each resumed and its hash printed. None is huggingface_hub's
            cache; then a source that can be no name comes back as it is.
        sources: Folders to look in before any network, with a target only. A folder may hold a repository's
            files, or a folder `owner--name` that does.

    Raises:
        UserError: `missing-file`, `bad-usage`, `hash-mismatch`, `busy-folder`; as `hub.listing` and
            `hub.download`.
    """
    if not isinstance(source, str | Path) or not str(source):
        given = repr(source) if isinstance(source, str) else f"a value of type {type(source).__name__}"
        raise UserError("bad-usage", "no model", f"{given} names none", "give a path or a name")
    text = str(source)
    name = text.removeprefix("hub:")
    parts = name.split("/")
    wanted = _Wanted("/".join(parts[:2]), "/".join(parts[2:]), target, sources if target else (), policy)
    is_path = name == text and (Path(text).exists() or (len(parts) > 1 and Path(parts[0]).exists()))
    stem = name.removesuffix(".pt")
    if not is_path and stem in services.CHECKPOINTS:
        with wanted.locked():
            found = _release(stem, wanted)
    elif not is_path and hub.is_repository(wanted.repository) and hub.is_plain(wanted.path or "weights"):
        try:
            with wanted.locked():
                found = _from_repository(wanted)
        except UserError as error:
            what = f"there is no path {name}, and {error.what}" if name == text else error.what
            raise UserError(error.code, what, error.cause, error.remedy) from error
    elif target is None or Path(text).exists():
        found = Path(source)
    else:
        raise UserError(
            "missing-file",
            f"checkpoint {text!r}",
            "there is no such file, and it is no known name",
            f"known: {', '.join(services.CHECKPOINTS)}; or hub:owner/name on the Hugging Face Hub",
        )
    return found if target is None else _checked(found)


@dataclass(frozen=True)
class _Wanted:
    """What of the Hugging Face Hub is asked for, and where it goes."""

    repository: str
    path: str
    """Of the weights in the repository; empty where it has no other weights."""
    target: Path | None
    sources: Sequence[Path]
    policy: http.Policy

    def locked(self) -> AbstractContextManager[Any]:
        """Keeps other runs out of the target; huggingface_hub's cache has locks of its own."""
        return nullcontext() if self.target is None else FolderLock(self.target)


def _release(name: str, wanted: _Wanted) -> Path:
    """A checkpoint of the release: the file in the target, or else in `FOLDER`; or a copy."""
    sha256 = services.CHECKPOINTS[name]
    target = (wanted.target or FOLDER) / f"{name}.pt"
    if target.exists():
        return target
    for source in wanted.sources:
        if (source / target.name).is_file():
            copy(source / target.name, target, sha256)
            return target
    remedy = (
        f"get {target.name} on another machine (from {' or '.join(services.CHECKPOINT_COPIES)} on the "
        f"Hugging Face Hub), put it at {target}, and run this again"
    )

    def chosen(listed: hub.Repository) -> list[hub.File]:
        file = next((file for file in listed.files if file.path.split("/")[-1] == target.name), None)
        if file is None:
            raise UserError(
                "download-failed", f"cannot use {listed.name}", f"it has no {target.name}", remedy
            )
        if sha256 and file.sha256 not in ("", sha256):
            cause = f"its SHA-256 is {file.sha256}, not {sha256}: it is not the release's"
            raise UserError("hash-mismatch", f"refused {listed.name}/{file.path}", cause, remedy)
        return [replace(file, sha256=sha256 or file.sha256)]

    for repository in services.CHECKPOINT_COPIES:
        try:
            if wanted.target is None:
                folder, files = hub.cached(repository, chosen, remedy, wanted.policy)
                return folder / files[0].path
            listed = hub.listing(repository, "model", remedy=remedy, policy=wanted.policy)
            hub.download(listed, chosen(listed)[0], target, remedy, wanted.policy)
            return target
        except UserError as error:
            if error.code not in (*http.NETWORK, "hash-mismatch"):
                raise
            if wanted.target is not None:
                say("fetch", str(error))
            trouble = error
    raise UserError(trouble.code, f"cannot get {name}", trouble.cause, remedy)


def _from_repository(wanted: _Wanted) -> Path:
    """The weights of a repository, with the small files beside them that say how to read them. For a model
    that `beatline push` made, its folder in the cache.
    """
    name = wanted.repository
    path = wanted.path
    policy = wanted.policy
    if wanted.target is None:
        remedy = (
            f"with a network run `hf download {'/'.join(filter(None, (name, path)))}`, or put what that left "
            f"in {hub.cache_folder(name)} on another machine there"
        )
        cache, files = hub.cached(name, lambda listed: _chosen(listed, path), remedy, policy)
        return cache if _is_ours(files, path) else cache / files[-1].path
    folder = wanted.target / name.replace("/", "--")
    remedy = f"on another machine: `hf download {name}`, put its files below {folder}, and run this again"
    if (weights := _weights_in(folder, path)) is not None:
        return weights
    for source in (below for given in wanted.sources for below in (given / folder.name, given)):
        if (weights := _weights_in(source, path)) is not None:
            beside = [
                file
                for file in sorted(source.rglob("*"))
                if file.suffix in BESIDE and file.is_file() and file.stat().st_size <= MOST_BESIDE
            ]
            for file in (*beside, weights):
                copy(file, folder / file.relative_to(source))
            return folder / weights.relative_to(source)
    repository = hub.listing(name, "model", remedy=remedy, policy=policy)
    chosen = _chosen(repository, path)
    http.check_room(wanted.target, sum(file.size for file in chosen))
    for listed in chosen:  # the weights last: they say that everything is there
        if not (folder / listed.path).exists():
            hub.download(repository, listed, folder / listed.path, remedy, policy)
    return folder / chosen[-1].path


def _weights_in(folder: Path, path: str) -> Path | None:
    """The file of weights below a folder: that at `path`, or else the only such file."""
    weights = [folder / path] if path else [file for file in folder.rglob("*") if file.suffix in WEIGHTS]
    found = [file for file in weights if file.is_file()]
    return found[0] if len(found) == 1 else None


def _is_ours(files: Sequence[hub.File], path: str) -> bool:
    there = {file.path for file in files}
    return not path and there >= OURS and not there.isdisjoint(LISTS)


def _chosen(repository: hub.Repository, path: str) -> list[hub.File]:
    """The small files that say how to read the weights, then the weights. These are those at `path`, those of
    `beatline push`, or the only weights.

    Raises:
        UserError: `bad-usage`.
    """
    if _is_ours(repository.files, path):
        ours = OURS.union(LISTS)
        needed = [file for file in repository.files if file.path in ours or file.path.startswith(CALIBRATION)]
        return sorted(needed, key=lambda file: file.path.endswith(WEIGHTS))
    weights = [file for file in repository.files if file.path.endswith(WEIGHTS)]
    chosen = [file for file in weights if path in ("", file.path)]
    if len(chosen) != 1:
        there = ", ".join(f"{repository.name}/{file.path}" for file in weights)
        raise UserError(
            "bad-usage",
            f"checkpoint {repository.name}{'/' * bool(path)}{path}",
            f"it has {len(chosen)} files of weights of that name",
            f"name a file of these: {there or '(none)'}",
        )
    return [
        *(file for file in repository.files if file.path.endswith(BESIDE) and file.size <= MOST_BESIDE),
        *chosen,
    ]


def _checked(path: Path) -> Path:
    """The path, its hash compared where it is known by the file's name, and printed.

    Raises:
        UserError: `hash-mismatch`.
    """
    if path.is_file():
        digest = sha256_file(path)
        known = services.CHECKPOINTS.get(path.stem, "")
        if known and digest != known:
            raise UserError(
                "hash-mismatch",
                f"refused {path}",
                f"its SHA-256 is {digest}, not {known}",
                "delete or rename it, and run this again",
            )
        say("fetch", f"{path} (SHA-256 {digest}, {'as known' if known else 'none is known to compare'})")
    return path
