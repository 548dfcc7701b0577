"""Hugging Face repositories: what is in them, and one file of them.

In: a repository's name. Out: its files with length and SHA-256, at one commit, and each of them on disk. `huggingface_hub` answers what there is, where, and with which
token; the bytes come through `http`, because that library begins a download again from nothing after a kill. Its settings hold (HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE). File names in a repository are a stranger's: one that is not plain is never used.
"""

import io
import re
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from beatline import archives
from beatline.archives.common import ID_KEYS
from beatline.errors import UserError
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
    """As the repository states it for large files, empty for small ones."""


@dataclass(frozen=True)
class Repository:
    """What a repository holds at one commit."""

    name: str
    kind: Kind
    commit: str
    files: tuple[File, ...]


def is_repository(name: str) -> bool:
    """Whether this is of the form `owner/name`."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII) is not None and ".." not in name


def is_plain(path: str) -> bool:
    """Whether a path in a repository may name a file on disk: below its folder, nothing hidden, nothing that a program reads as an option."""
    return all(re.fullmatch(r"\w[\w.+=-]*", part, re.ASCII) for part in path.split("/"))


def listing(name: str, kind: Kind, commit: str | None = None, remedy: str = "run the same command again", policy: http.Policy = http.POLICY) -> Repository:
    """The repository at a commit, by default the newest; files whose names are not plain are left out.

    Raises:
        UserError: `missing-package`, `bad-usage`, and as `http.patiently`.
    """
    if not is_repository(name):
        raise UserError("bad-usage", f"repository {name!r}", "it is not of the form owner/name", "check the spelling")
    hub = _package()
    api = hub.HfApi()
    if commit is None:
        commit = _ask(name, lambda: api.repo_info(name, repo_type=kind).sha, remedy, policy)
    tree = _ask(name, lambda: list(api.list_repo_tree(name, recursive=True, repo_type=kind, revision=commit)), remedy, policy)
    files = [File(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else "") for entry in tree if isinstance(entry, hub.RepoFile) if is_plain(entry.path)]
    return Repository(name, kind, str(commit), tuple(sorted(files, key=lambda file: file.path)))


def download(repository: Repository, file: File, target: Path, remedy: str = "run the same command again; it goes on from here", policy: http.Policy = http.POLICY) -> str:
    """SHA-256 of the file, which is now at `target`.

    Raises:
        UserError: as `http.download`.
    """
    address, headers = _address(repository, file)
    return http.download(address, target, size=file.size, sha256=file.sha256, headers=headers, remedy=remedy, policy=policy)


def holds_any(repository: Repository, file: File, wanted: Container[str], policy: http.Policy = http.POLICY) -> bool:
    """Whether an archive may hold a wanted id: of Parquet the column of ids is read, a few hundred kilobytes; of a tar file it is not known before it is here."""
    if archives.kind(file.path) != "parquet":
        return True
    try:
        from pyarrow import ArrowException, PythonFile, parquet
    except ImportError:
        return True
    address, headers = _address(repository, file)
    try:
        stream = io.BufferedReader(http.RangeStream(lambda first, count: http.read_range(address, first, count, headers, policy)))
        with stream, parquet.ParquetFile(PythonFile(stream, mode="r")) as table:
            key = next((key for key in ID_KEYS if key in table.schema_arrow.names), None)
            return key is None or any(name in wanted for name in table.read([key]).column(0).to_pylist())
    except (http.NoRanges, ArrowException, OSError):
        return True


def _address(repository: Repository, file: File) -> tuple[str, dict[str, str]]:
    hub = _package()
    address = hub.hf_hub_url(repository.name, file.path, repo_type=repository.kind, revision=repository.commit)
    return address, {name: value for name, value in hub.utils.build_hf_headers().items() if name.lower() == "authorization"}


def _package() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("missing-package", "cannot ask the Hugging Face Hub", "it needs the package huggingface_hub", "pip install 'beatline[download]'") from error
    return huggingface_hub


def _ask(name: str, question: Callable[[], Value], remedy: str, policy: http.Policy) -> Value:
    """The library's answer; its own tries are few, so it is asked again as `http` asks."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    def attempt() -> Value:
        try:
            return question()
        except OfflineModeIsEnabled as error:
            raise UserError("no-network", f"cannot ask for {name}", "HF_HUB_OFFLINE is set", remedy) from error
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in request.PASSING:
                raise request.Again(f"the server answers {status}", request.retry_after(error.response.headers)) from error
            cause = {401: "there is no such repository, or it needs a token", 403: "it needs a consent or another token", 404: "there is no such repository"}.get(status, f"the server answers {status}")
            raise UserError("download-failed", f"cannot use {name}", cause, "check the name; log in with `hf auth login`; accept its terms in a browser") from error
        except (httpx2.TransportError, ValueError) as error:
            raise request.Again(f"the Hugging Face Hub does not answer ({error})", answered=not isinstance(error, httpx2.ConnectError)) from error

    return http.patiently(name, attempt, remedy, policy)
