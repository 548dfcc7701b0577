"""A starting checkpoint -> a file on disk, by the release's name, by Hugging Face repository, or by path.

In: what the user named. Out: the path for `--model.init`. The folder itself and the given folders come first, then copies on the Hugging Face Hub. A known
hash that does not match is refused; where none is known, the file's own is printed. Nothing is opened here: reading checkpoints is `model/checkpoint`'s.
"""

from collections.abc import Sequence
from pathlib import Path

from beatline.artefact import FolderLock, sha256_file
from beatline.errors import UserError
from beatline.fetch import http, hub, services
from beatline.fetch.audioset import copy
from beatline.runlog import say

WEIGHTS = (".pt", ".pth", ".safetensors", ".ckpt", ".bin")
BESIDE = (".yaml", ".yml", ".json", ".txt", ".csv", ".md")
MOST_BESIDE = 16 << 20  # bytes of a file beside the weights


def fetch(name: str, folder: Path = Path("checkpoints"), sources: Sequence[Path] = (), policy: http.Policy = http.POLICY) -> Path:
    """The checkpoint's path.

    Args:
        name: `BEATs_iter3_plus_AS20K` and the like; `owner/name` or `owner/name/path/of/the/file` on the Hugging Face Hub; or a path.
        folder: Where files go.
        sources: Folders to look in first.

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
        raise UserError("missing-file", f"checkpoint {name!r}", "there is no such file, and it is no known name", f"known: {known}; or owner/name on the Hugging Face Hub")
    with FolderLock(folder):
        return _by_repository(repository, name[len(repository) + 1 :], folder, policy)


def _by_name(name: str, folder: Path, sources: Sequence[Path], policy: http.Policy) -> Path:
    target, sha256 = folder / f"{name}.pt", services.CHECKPOINTS[name]
    if target.exists():
        return _said(target, sha256)
    for source in sources:
        if (source / target.name).is_file():
            copy(source / target.name, target, sha256)
            return _said(target, sha256)
    remedy = f"get {target.name} on another machine (from {' or '.join(services.CHECKPOINT_COPIES)} on the Hugging Face Hub), put it at {target}, and run this again"
    trouble: UserError | None = None
    for repository in services.CHECKPOINT_COPIES:
        try:
            listed = hub.listing(repository, "model", remedy=remedy, policy=policy)
            file = next((file for file in listed.files if file.path.split("/")[-1] == target.name), None)
            if file is None:
                continue
            if sha256 and file.sha256 not in ("", sha256):
                raise UserError("hash-mismatch", f"refused {repository}/{file.path}", f"its SHA-256 is {file.sha256}, not {sha256}", remedy)
            hub.download(listed, hub.File(file.path, file.size, sha256 or file.sha256), target, remedy, policy)
            return _said(target, sha256)
        except UserError as error:
            if error.code not in (*http.NETWORK, "hash-mismatch"):
                raise
            say("fetch", str(error))
            trouble = error
    raise UserError(trouble.code if trouble else "missing-file", f"cannot get {name}", trouble.cause if trouble else "no known copy has it", remedy)


def _by_repository(name: str, path: str, folder: Path, policy: http.Policy) -> Path:
    """One file of weights, and the small files of the repository, which say how to read it."""
    place = folder / name.replace("/", "--")
    remedy = f"on another machine: `hf download {name}`, put its files below {place}, and run this again"
    if path and (place / path).is_file():
        return _said(place / path, "")
    weights = [file for file in sorted(place.rglob("*")) if file.suffix in WEIGHTS and file.is_file()] if place.is_dir() and not path else []
    if len(weights) == 1:
        return _said(weights[0], "")
    repository = hub.listing(name, "model", remedy=remedy, policy=policy)
    chosen = [file for file in repository.files if (file.path == path if path else file.path.endswith(WEIGHTS))]
    if len(chosen) != 1:
        there = ", ".join(f"{name}/{file.path}" for file in repository.files if file.path.endswith(WEIGHTS))
        raise UserError("bad-usage", f"checkpoint {name}{'/' * bool(path)}{path}", f"it has {len(chosen)} files of weights of that name", f"name one of: {there or '(none)'}")
    beside = [file for file in repository.files if file.path.endswith(BESIDE) and file.size <= MOST_BESIDE]
    http.check_room(folder, sum(file.size for file in (*beside, *chosen)))
    for file in (*beside, *chosen):  # the weights last: they say that everything is there
        if not (place / file.path).exists():
            hub.download(repository, file, place / file.path, remedy, policy)
    return _said(place / chosen[0].path, "")


def _said(path: Path, sha256: str) -> Path:
    """The path, its hash checked where one is known and printed where not."""
    if path.is_file():
        digest = sha256_file(path)
        if sha256 and digest != sha256:
            raise UserError("hash-mismatch", f"refused {path}", f"its SHA-256 is {digest}, not {sha256}", "delete or rename it, and run this again")
        say("fetch", f"{path} (SHA-256 {digest}, {'as known' if sha256 else 'none is known to compare'})")
    return path
