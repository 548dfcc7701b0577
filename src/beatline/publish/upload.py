"""Files -> a repository on the Hugging Face Hub, as a single commit that is checked once it has arrived.

In: files by their path in the repository. Out: the commit's address. The library huggingface_hub sends them;
how patiently, and what its refusals mean, is `fetch.hub`'s.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from beatline.core.errors import UserError
from beatline.fetch import http, hub

COMMIT_TIMEOUT = 300.0  # seconds: a commit of large files is checked before it is answered


def upload(
    name: str,
    files: Mapping[str, Path],
    stale: Callable[[str], bool],
    private: bool,
    message: str,
    policy: http.Policy = http.POLICY,
) -> str:
    """The address of a commit that makes a model repository hold these files, and none that are stale.

    The repository is made where there is none. Whoever reads meanwhile sees the whole commit or nothing.

    Args:
        files: Each file on disk, by its path in the repository.
        stale: Whether another file of the repository goes, by its path there.
        private: Whether only its owner may see it.
        message: Of the commit.

    Raises:
        UserError: `no-token`; `bad-usage` where a public repository should be private; `upload-failed`
            where what arrived is not what was sent; as `hub.listing`.
    """
    if not hub.is_repository(name):
        raise UserError(
            "bad-usage", f"repository {name!r}", "it is not of the form owner/name", "check the spelling"
        )
    library = hub.package()
    remedy = "run the same command again; what has arrived is not sent twice"
    if library.get_token() is None:
        raise UserError(
            "no-token",
            f"cannot push to {name}",
            "no token of the Hugging Face Hub is known here",
            "log in with `hf auth login`, or set HF_TOKEN to a token that may write",
        )
    api = library.HfApi()
    patient = replace(policy, timeout=max(policy.timeout, COMMIT_TIMEOUT))
    hub.ask(name, lambda: api.create_repo(name, private=private or None, exist_ok=True), remedy, policy)
    if private and not hub.ask(name, lambda: api.repo_info(name).private, remedy, policy):
        raise UserError(
            "bad-usage",
            f"cannot push to {name} as private",
            "it is there already, and public",
            "leave --private out, or make it private in its settings first",
        )
    there = hub.listing(name, "model", remedy=remedy, policy=policy)
    old = [file.path for file in there.files if file.path not in files and stale(file.path)]

    def commit() -> Any:
        changes = [library.CommitOperationAdd(path, str(source)) for path, source in files.items()] + [
            library.CommitOperationDelete(path) for path in old
        ]
        try:
            return api.create_commit(name, changes, commit_message=message)
        except RuntimeError as error:  # raised for a large file, by a thread of the client's
            raise error.__cause__ or error from None
        except ValueError as error:  # what the hub says of the card's front matter, or of a file
            raise UserError(
                "upload-failed",
                f"cannot push to {name}",
                str(error),
                "correct that and run the same command again",
            ) from error

    done = hub.ask(name, commit, remedy, patient)
    arrived = {file.path: file for file in hub.listing(name, "model", done.oid, remedy, policy).files}
    for path, source in files.items():
        if path not in arrived or not arrived[path].is_in(source):
            raise UserError("upload-failed", f"{name}/{path}", "what arrived is not what was sent", remedy)
    return str(done.commit_url)
