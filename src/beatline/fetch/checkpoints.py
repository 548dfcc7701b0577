"""A model -> its place on disk, by the release's name, by Hugging Face repository, or by path.

In: what the user named. Out: a path: in huggingface_hub's cache, to be used now (`find`), or in a folder of
the user's (`fetch`). The folder itself and the given folders come first, then copies on the Hugging Face Hub.
A known hash that does not match is refused; where none is known, `fetch` prints the file's own. Nothing is
opened here: reading checkpoints is `model/checkpoint`'s.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from beatline.core.artefact import FolderLock, sha256_file
from beatline.core.console import say
from beatline.core.errors import UserError
from beatline.fetch import http, hub, services
from beatline.fetch.audioset import copy

WEIGHTS = (".pt", ".pth", ".safetensors", ".ckpt", ".bin")
BESIDE = (".yaml", ".yml", ".json", ".txt", ".csv", ".md")
MOST_BESIDE = 16 << 20  # bytes of a file beside the weights
OURS = frozenset(["manifest.json", "config.json", "labels.csv", "model.safetensors"])
"""What makes a repository one of `beatline push`."""
CALIBRATION = "calibration/"
FOLDER = Path("checkpoints")


def find(source: Path | str, policy: http.Policy = http.POLICY) -> Path:
    """Where a model is that somebody wants to use: the path itself, or a file or folder in huggingface_hub's
    cache.

    Args:
        source: A path; `owner/name` or `owner/name/path/of/the/file` on the Hugging Face Hub, with `hub:`
            before it where that is a path too; or `BEATs_iter3_plus_AS20K` and the like. What can be no name
            comes back as it is.

    Raises:
        UserError: `missing-file`, `bad-usage`, `hash-mismatch`, and as `hub.listing`.
    """
    text = str(source)
    name = text.removeprefix("hub:")
    parts, stem = name.split("/"), name.removesuffix(".pt")
    if name == text and (Path(text).exists() or (len(parts) > 1 and Path(parts[0]).exists())):
        return Path(source)
    if stem in services.CHECKPOINTS:
        return _release(stem, policy)
    repository, path = "/".join(parts[:2]), "/".join(parts[2:])
    if not hub.is_repository(repository) or (path and not hub.is_plain(path)):
        return Path(source)
    try:
        remedy = (
            f"with a network run `hf download {name}`, or put what that left in "
            f"{hub.cache_folder(repository)} on another machine there"
        )
        folder, files = hub.cached(repository, lambda listed: _chosen(listed, path), remedy, policy)
    except UserError as error:
        raise UserError(
            error.code,
            f"there is no path {name}, and {error.what}" if name == text else error.what,
            error.cause,
            error.remedy,
        ) from error
    return folder if _is_ours(files, path) else folder / files[-1].path


def _release(name: str, policy: http.Policy) -> Path:
    """A checkpoint of the release: the one in `FOLDER`, or a copy."""
    file, sha256 = f"{name}.pt", services.CHECKPOINTS[name]
    if (FOLDER / file).exists():
        return FOLDER / file
    remedy = (
        f"get {file} on another machine (from {' or '.join(services.CHECKPOINT_COPIES)} on the Hugging "
        f"Face Hub), and put it at {FOLDER / file}"
    )

    def chosen(listed: hub.Repository) -> list[hub.File]:
        found = [entry for entry in listed.files if entry.path.split("/")[-1] == file][:1]
        if not found or sha256 not in ("", found[0].sha256):
            raise UserError(
                "hash-mismatch" if found else "download-failed",
                f"cannot use {listed.name}",
                f"its {file} is not the release's" if found else f"it has no {file}",
                remedy,
            )
        return found

    for repository in services.CHECKPOINT_COPIES:
        try:
            folder, files = hub.cached(repository, chosen, remedy, policy)
            return folder / files[0].path
        except UserError as error:
            if error.code not in (*http.NETWORK, "hash-mismatch"):
                raise
            trouble = error
    raise trouble


def fetch(
    name: str, folder: Path = FOLDER, sources: Sequence[Path] = (), policy: http.Policy = http.POLICY
) -> Path:
    """The checkpoint's path.

    Args:
        name: `BEATs_iter3_plus_AS20K` and the like; `owner/name` or `owner/name/path/of/the/file` on the
            Hugging Face Hub; or a path.
        folder: Where files go.
        sources: Folders to look in first; one may hold a repository's files, or a folder `owner--name` that
            does.

    Raises:
        UserError: `hash-mismatch`, `missing-file`, `bad-usage`, `busy-folder`, and as `hub.download`.
    """
    if Path(name).exists():
        return _said(Path(name), services.CHECKPOINTS.get(Path(name).stem, ""))
    stem = name.removesuffix(".pt")
    if stem in services.CHECKPOINTS:
        with FolderLock(folder):
            return _by_name(stem, folder, sources, policy)
    repository = "/".join(name.split("/")[:2])
    if not hub.is_repository(repository) or not hub.is_plain(name):
        known = ", ".join(services.CHECKPOINTS)
        raise UserError(
            "missing-file",
            f"checkpoint {name!r}",
            "there is no such file, and it is no known name",
            f"known: {known}; or owner/name on the Hugging Face Hub",
        )
    with FolderLock(folder):
        return _by_repository(repository, name[len(repository) + 1 :], folder, sources, policy)


def _by_name(name: str, folder: Path, sources: Sequence[Path], policy: http.Policy) -> Path:
    target, sha256 = folder / f"{name}.pt", services.CHECKPOINTS[name]
    if target.exists():
        return _said(target, sha256)
    for source in sources:
        if (source / target.name).is_file():
            copy(source / target.name, target, sha256)
            return _said(target, sha256)
    remedy = (
        f"get {target.name} on another machine (from {' or '.join(services.CHECKPOINT_COPIES)} on the "
        f"Hugging Face Hub), put it at {target}, and run this again"
    )
    trouble: UserError | None = None
    for repository in services.CHECKPOINT_COPIES:
        try:
            listed = hub.listing(repository, "model", remedy=remedy, policy=policy)
            file = next((file for file in listed.files if file.path.split("/")[-1] == target.name), None)
            if file is None:
                continue
            if sha256 and file.sha256 not in ("", sha256):
                raise UserError(
                    "hash-mismatch",
                    f"refused {repository}/{file.path}",
                    f"its SHA-256 is {file.sha256}, not {sha256}",
                    remedy,
                )
            hub.download(listed, replace(file, sha256=sha256 or file.sha256), target, remedy, policy)
            return _said(target, sha256)
        except UserError as error:
            if error.code not in (*http.NETWORK, "hash-mismatch"):
                raise
            say("fetch", str(error))
            trouble = error
    raise UserError(
        trouble.code if trouble else "missing-file",
        f"cannot get {name}",
        trouble.cause if trouble else "no known copy has it",
        remedy,
    )


def _by_repository(name: str, path: str, folder: Path, sources: Sequence[Path], policy: http.Policy) -> Path:
    """One file of weights, and the small files of the repository, which say how to read it."""
    place = folder / name.replace("/", "--")
    remedy = f"on another machine: `hf download {name}`, put its files below {place}, and run this again"
    if (found := _weights_in(place, path)) is not None:
        return _said(found, "")
    for source in (below for given in sources for below in (given / place.name, given)):
        if (found := _weights_in(source, path)) is not None:
            beside = [
                path
                for path in sorted(source.rglob("*"))
                if path.suffix in BESIDE and path.is_file() and path.stat().st_size <= MOST_BESIDE
            ]
            for one in (*beside, found):
                copy(one, place / one.relative_to(source))
            return _said(place / found.relative_to(source), "")
    repository = hub.listing(name, "model", remedy=remedy, policy=policy)
    chosen = _chosen(repository, path)
    http.check_room(folder, sum(file.size for file in chosen))
    for file in chosen:  # the weights last: they say that everything is there
        if not (place / file.path).exists():
            hub.download(repository, file, place / file.path, remedy, policy)
    return _said(place / chosen[-1].path, "")


def _weights_in(folder: Path, path: str) -> Path | None:
    """The file of weights below a folder: that at `path`, or else the only one."""
    weights = [folder / path] if path else [file for file in folder.rglob("*") if file.suffix in WEIGHTS]
    found = [file for file in weights if file.is_file()]
    return found[0] if len(found) == 1 else None


def _is_ours(files: Sequence[hub.File], path: str) -> bool:
    return not path and {file.path for file in files} >= OURS


def _chosen(repository: hub.Repository, path: str) -> list[hub.File]:
    """The small files that say how to read the weights, then the weights: those at `path`, those of `beatline
    push`, or the only ones there are.

    Raises:
        UserError: `bad-usage`.
    """
    if _is_ours(repository.files, path):
        needed = [file for file in repository.files if file.path in OURS or file.path.startswith(CALIBRATION)]
        return sorted(needed, key=lambda file: file.path.endswith(WEIGHTS))
    weights = [file for file in repository.files if file.path.endswith(WEIGHTS)]
    chosen = [file for file in weights if path in ("", file.path)]
    if len(chosen) != 1:
        there = ", ".join(f"{repository.name}/{file.path}" for file in weights)
        raise UserError(
            "bad-usage",
            f"checkpoint {repository.name}{'/' * bool(path)}{path}",
            f"it has {len(chosen)} files of weights of that name",
            f"name one of: {there or '(none)'}",
        )
    return [
        *(file for file in repository.files if file.path.endswith(BESIDE) and file.size <= MOST_BESIDE),
        *chosen,
    ]


def _said(path: Path, sha256: str) -> Path:
    """The path, its hash checked where one is known and printed where not."""
    if path.is_file():
        digest = sha256_file(path)
        if sha256 and digest != sha256:
            raise UserError(
                "hash-mismatch",
                f"refused {path}",
                f"its SHA-256 is {digest}, not {sha256}",
                "delete or rename it, and run this again",
            )
        say("fetch", f"{path} (SHA-256 {digest}, {'as known' if sha256 else 'none is known to compare'})")
    return path
