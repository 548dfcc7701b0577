"""Hugging Face repositories: what is in them, and their files on disk.

In: a repository's name. Out: its files with length and hash at a commit, in a folder or in a cache. The
library huggingface_hub answers what there is, and with which token. A file for a folder comes through `http`,
because that library begins again from nothing after a kill. Models to be used at once lie in its cache. Its
settings hold (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE). A stranger chose the names of a repository's files: a
name that is not plain is never used. Begin with `listing`; `publish.upload` sends files.
"""

import hashlib
import io
import re
import sys
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from beatline.audio import archives
from beatline.audio.archives.common import ID_KEYS
from beatline.core.artefact import sha256_file
from beatline.core.errors import UserError
from beatline.fetch import http, request

Kind = Literal["dataset", "model"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class File:
    """A file of a repository."""

    path: str
    """Plain names joined by `/`."""
    size: int
    sha256: str
    """As the repository states it for large files; empty for small files."""
    blob: str = ""
    """Of small files: git's own hash, SHA-1 of a header and the content."""

    def is_in(self, path: Path) -> bool:
        """Whether a file on disk is what the repository states, as far as it does."""
        if self.sha256:
            return sha256_file(path) == self.sha256
        content = path.read_bytes()
        return not self.blob or hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == self.blob


@dataclass(frozen=True)
class Repository:
    """What a repository holds at a commit."""

    name: str
    kind: Kind
    commit: str
    files: tuple[File, ...]


def is_repository(name: str) -> bool:
    """Whether this is of the form `owner/name`."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII) is not None and ".." not in name


def is_plain(path: str) -> bool:
    """Whether a path in a repository may name a file on disk. The path must lie below its folder, with
    nothing hidden, and nothing that a program reads as an option.
    """
    return all(re.fullmatch(r"\w[\w.+=-]*", part, re.ASCII) for part in path.split("/"))


def listing(
    name: str,
    kind: Kind,
    commit: str | None = None,
    remedy: str = "run the same command again",
    policy: http.Policy = http.POLICY,
) -> Repository:
    """The repository at a commit, by default the newest; files whose names are not plain are left out.

    Raises:
        UserError: `missing-package`, `bad-usage`, and as `http.patiently`.
    """
    if not is_repository(name):
        raise UserError(
            "bad-usage", f"repository {name!r}", "it is not of the form owner/name", "check the spelling"
        )
    hub = package()
    api = hub.HfApi()
    if commit is None:
        commit = ask(name, lambda: api.repo_info(name, repo_type=kind).sha, remedy, policy)
    tree = ask(
        name,
        lambda: list(api.list_repo_tree(name, recursive=True, repo_type=kind, revision=commit)),
        remedy,
        policy,
    )
    return Repository(
        name, kind, str(commit), _files(entry for entry in tree if isinstance(entry, hub.RepoFile))
    )


def _files(entries: Iterable[Any]) -> tuple[File, ...]:
    files = [
        File(
            entry.path, entry.size, entry.lfs.sha256 if entry.lfs else "", "" if entry.lfs else entry.blob_id
        )
        for entry in entries
        if is_plain(entry.path)
    ]
    return tuple(sorted(files, key=lambda file: file.path))


def download(
    repository: Repository,
    file: File,
    target: Path,
    remedy: str = "run the same command again; it goes on from here",
    policy: http.Policy = http.POLICY,
) -> str:
    """SHA-256 of the file, which is now at `target`.

    Raises:
        UserError: as `http.download`.
    """
    address, headers = _address(repository, file)

    def check(path: Path) -> None:
        if file.blob and not file.is_in(path):
            raise UserError(
                "hash-mismatch",
                f"refused {address}",
                "it is not what the repository states",
                "run the same command again; if it stays so, ask whoever keeps the repository",
            )

    return http.download(
        address,
        target,
        size=file.size,
        sha256=file.sha256,
        headers=headers,
        check=check,
        remedy=remedy,
        policy=policy,
    )


def cached(
    name: str, choose: Callable[[Repository], Sequence[File]], remedy: str, policy: http.Policy = http.POLICY
) -> tuple[Path, Sequence[File]]:
    """The folder in huggingface_hub's cache with the newest version of a model repository's chosen files, and
    these files. Where the hub cannot be asked, it is the version fetched last.

    A file that is not what the repository states is fetched once more.

    Raises:
        UserError: `hash-mismatch`, what `choose` raises, and as `listing`.
    """
    hub = package()
    alone = False
    try:
        repository = listing(name, "model", remedy=remedy, policy=policy)
    except UserError as error:
        known = _known(name) if error.code in http.NETWORK else None
        if known is None:
            raise
        repository = known
        alone = True
        if not hub.constants.is_offline_mode():
            print(f"beatline: {error.what}: {error.cause}; what the cache has of it is used", file=sys.stderr)
    files = choose(repository)
    folder = Path(
        ask(
            name,
            lambda: hub.snapshot_download(
                name, allow_patterns=[file.path for file in files], local_files_only=alone
            ),
            remedy,
            policy,
        )
    )
    for file in files:
        if not file.is_in(folder / file.path):
            ask(
                name,
                partial(hub.hf_hub_download, name, file.path, force_download=True),
                remedy,
                policy,
            )
            if not file.is_in(folder / file.path):
                raise UserError(
                    "hash-mismatch",
                    f"refused {name}/{file.path}",
                    "it is not what the repository states, twice in a row",
                    "run the same command again; if it stays so, ask whoever keeps the repository",
                )
    return folder, files


def cache_folder(name: str) -> Path:
    """Where huggingface_hub's cache keeps a model repository."""
    return Path(package().constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"


def _known(name: str) -> Repository | None:
    """What the cache says of the version of a model repository that was fetched last."""
    hub = package()
    try:
        tree = hub.get_cached_repo_tree(name)
    except hub.errors.CachedRepoTreeNotFoundError:
        return None
    return Repository(name, "model", "", _files(tree))


def holds_any(
    repository: Repository, file: File, wanted: Container[str], policy: http.Policy = http.POLICY
) -> bool:
    """Whether an archive may hold a wanted id. Of Parquet the column of ids is read, a few hundred kilobytes.
    Of a tar file this is not known before it is here.
    """
    if archives.kind(file.path) != "parquet":
        return True
    try:
        from pyarrow import ArrowException, PythonFile, parquet
    except ImportError:
        return True
    address, headers = _address(repository, file)
    try:
        stream = io.BufferedReader(
            http.RangeStream(lambda first, count: http.read_range(address, first, count, headers, policy))
        )
        with stream, parquet.ParquetFile(PythonFile(stream, mode="r")) as table:
            key = next((key for key in ID_KEYS if key in table.schema_arrow.names), None)
            return key is None or any(name in wanted for name in table.read([key]).column(0).to_pylist())
    except (http.NoRanges, ArrowException, OSError):
        return True


def _address(repository: Repository, file: File) -> tuple[str, dict[str, str]]:
    hub = package()
    address = hub.hf_hub_url(
        repository.name, file.path, repo_type=repository.kind, revision=repository.commit
    )
    return address, {
        name: value for name, value in hub.utils.build_hf_headers().items() if name.lower() == "authorization"
    }


def package() -> Any:
    """The library huggingface_hub.

    Raises:
        UserError: `missing-package`.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants  # not there by itself in every order of imports
    except ImportError as error:
        raise UserError(
            "missing-package",
            "cannot ask the Hugging Face Hub",
            "it needs the package huggingface_hub",
            "pip install 'beatline[hub]'",
        ) from error
    return huggingface_hub


def ask(name: str, question: Callable[[], Value], remedy: str, policy: http.Policy) -> Value:
    """The library's answer about a repository, asked for as patiently as `http` asks. The library's own tries
    are few, and its waits have no bound.

    Raises:
        UserError: as `http.patiently`; `download-failed` where the hub refuses.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    def attempt() -> Value:
        try:
            with _bounded(policy), request.trouble("the Hugging Face Hub"):
                return question()
        except OfflineModeIsEnabled as error:
            raise UserError(
                "no-network", f"cannot ask for {name}", "HF_HUB_OFFLINE is set", remedy
            ) from error
        except LocalEntryNotFoundError as error:
            raise UserError(
                "no-network", f"cannot use {name}", "the cache has not all of its files", remedy
            ) from error
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in request.PASSING:
                raise request.Again(
                    f"the server answers {status}", request.retry_after(error.response.headers)
                ) from error
            cause = {
                401: "there is no such repository, or it needs a token",
                403: "it needs a consent or another token",
                404: "there is no such repository",
            }.get(status, f"the server answers {status}")
            raise UserError(
                "download-failed",
                f"cannot use {name}",
                cause,
                "check the name; log in with `hf auth login`; accept its terms in a browser",
            ) from error
        except ValueError as error:
            raise request.Again(f"the Hugging Face Hub's answer is none ({error})") from error

    return http.patiently(name, attempt, remedy, policy)


_CLIENT = threading.Lock()


@contextmanager
def _bounded(policy: http.Policy) -> Iterator[None]:
    """Inside, huggingface_hub's client does not wait for a silent server for ever. Nor does it sleep as long
    as a server asks: such a wait is `Again`. It is quiet, too.
    """
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        get_session,
        logging,
        parse_ratelimit_headers,
    )

    def hook(response: Any) -> None:
        limit = parse_ratelimit_headers(response.headers) if response.status_code == 429 else None
        wait = request.retry_after(response.headers) if limit is None else float(limit.reset_in_seconds)
        if response.status_code in request.PASSING and wait is not None:
            raise request.Again(f"the server answers {response.status_code}", wait)

    with _CLIENT:  # all threads share the client
        with request.environment():
            session = get_session()
        loud = logging.get_verbosity()
        bars = not (are_progress_bars_disabled() or sys.stderr.isatty())
        hooks, timeout = session.event_hooks, session.timeout
        session.event_hooks = {**hooks, "response": [*hooks["response"], hook]}
        session.timeout = policy.timeout
        logging.set_verbosity_error()
        if bars:
            disable_progress_bars()
        try:
            yield
        finally:
            session.event_hooks, session.timeout = hooks, timeout
            logging.set_verbosity(loud)
            if bars:
                enable_progress_bars()
