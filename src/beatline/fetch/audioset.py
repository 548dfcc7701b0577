"""AudioSet's tables -> a folder: segment CSVs, label table, ontology, the strongly labelled set, and how good
each label is.

In: a folder and an ordered list of sources. A source is a folder or web address that holds the files under
their official names. Out: the files, each whole and of the right content; what is in the folder already
stays. After the given sources come the package's own label table and the official addresses.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from beatline.core.artefact import FolderLock, sha256_file
from beatline.core.console import say
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet, audioset
from beatline.data.manifest import read_text
from beatline.data.manifest.audioset import STRONG_HEADER, segments
from beatline.fetch import http, services
from beatline.fetch.local import copy

Check = Callable[[Path], None]
_WEB = ("http://", "https://")


@dataclass(frozen=True)
class Table:
    """An official file."""

    name: str
    address: str
    check: Check
    sha256: str = ""
    """Of the release's file, where it was at hand."""
    large: bool = False
    """Whether it is fetched only when asked for."""


def fetch(
    folder: Path, sources: Sequence[str] = (), unbalanced: bool = False, policy: http.Policy = http.POLICY
) -> list[Path]:
    """The files, which are now in the folder.

    Args:
        sources: Folders or web addresses, asked in this order before the official addresses.
        unbalanced: Whether to get the table of all two million clips too, 101 MB.

    Raises:
        UserError: `busy-folder`, `disk-full`, `not-writable`; what the last source said about the files that
            no source gave.
    """
    for source in sources:
        if not source.startswith(_WEB) and not Path(source).is_dir():
            raise UserError(
                "missing-file",
                f"source {source!r}",
                "there is no such folder",
                "a web address begins with https://",
            )
    wanted = [table for table in TABLES if unbalanced or not table.large]
    failed: list[tuple[str, UserError]] = []
    unreachable: set[str] = set()
    with FolderLock(folder):
        for table in wanted:
            target = folder / table.name
            try:
                _fetch(table, target, sources, unreachable, policy)
            except UserError as error:
                if error.code in ("disk-full", "not-writable"):
                    raise
                failed.append((table.name, error))
    if failed:
        if lasting := next((error for _, error in failed if error.code not in http.NETWORK), None):
            raise lasting
        names = ", ".join(name for name, _ in failed)
        last = failed[-1][1]
        enough = (
            ""
            if any(name.endswith("_segments.csv") for name, _ in failed)
            else "; the recipe goes on without them"
        )
        raise UserError(
            last.code,
            f"cannot get {names}",
            last.cause,
            f"get them on another machine (addresses: docs/audioset.md), put them into {folder} or name "
            f"their folder with --from, and run this again{enough}",
        )
    return [folder / table.name for table in wanted]


def _fetch(
    table: Table, target: Path, sources: Sequence[str], unreachable: set[str], policy: http.Policy
) -> None:
    if target.exists():
        _keep(table, target)
        return
    trouble: UserError | None = None
    for source in [*sources, "the package", table.address.removesuffix(table.name)]:
        if urlsplit(source).netloc in unreachable:
            continue
        try:
            if digest := _from(table, source, target, policy):
                say(
                    "fetch",
                    f"{table.name} from {source}"
                    + ("" if table.sha256 else f" (SHA-256 {digest}, none is known to compare)"),
                )
                return
        except UserError as error:
            if error.code in ("disk-full", "not-writable"):
                raise
            if error.code in ("no-network", "missing-package"):
                unreachable.add(urlsplit(source).netloc)
            trouble = error
            say("fetch", str(error))
    raise trouble or UserError(
        "no-network", f"cannot get {table.name}", "no source can be reached", "see above"
    )


def _from(table: Table, source: str, target: Path, policy: http.Policy) -> str:
    """Gets the file from a source; its SHA-256, or nothing where the source does not have it."""
    if source.startswith(_WEB):
        return http.download(
            source.rstrip("/") + "/" + table.name,
            target,
            sha256=table.sha256,
            check=table.check,
            policy=policy,
        )
    found = (
        Path(str(files("beatline") / "assets/audioset")) / table.name
        if source == "the package"
        else Path(source) / table.name
    )
    return copy(found, target, table.sha256, table.check) if found.is_file() else ""


def _keep(table: Table, path: Path) -> None:
    """Accepts a file that is there already: it may be the user's own, so nothing ever replaces it."""
    if not path.is_file():
        raise UserError(
            "not-writable", f"cannot write {path}", "something else has this name", "move it away"
        )
    digest = sha256_file(path)
    if digest == table.sha256:
        say("fetch", f"{table.name} is there")
        return
    try:
        table.check(path)
    except UserError as error:
        raise UserError(
            error.code, f"cannot use {path}", error.cause, "delete it, and run this again to get it"
        ) from error
    say(
        "fetch",
        f"{table.name} is there"
        + (
            f", but not the release's (SHA-256 {digest}); delete it to get the release's"
            if table.sha256
            else f" (SHA-256 {digest})"
        ),
    )


# --- what each file must look like: a login page under the right name is common


def _bad(path: Path, cause: str) -> UserError:
    return UserError(
        "bad-table", f"refused {path.name.removesuffix('.partial')}", cause, "get it from another source"
    )


def _check_segments(path: Path) -> None:
    first = next(segments(path, "row"), None)
    if first is None or first.problem:
        raise _bad(path, "it is no table of clips")


def _check_labels(path: Path) -> None:
    if LabelSet.from_csv(read_text(path), path.name).hash != audioset().hash:
        raise _bad(path, "it is not AudioSet's table of 527 labels")


def _check_ontology(path: Path) -> None:
    try:
        known = {node["id"] for node in json.loads(read_text(path))}
    except (ValueError, TypeError, KeyError) as error:
        raise _bad(path, "it is not AudioSet's ontology") from error
    if not known >= set(audioset().mids):
        raise _bad(path, "labels of AudioSet are not in it")


def _check_strong(path: Path) -> None:
    if not read_text(path).startswith(STRONG_HEADER):
        raise _bad(path, "it is no table of the strongly labelled set")


def _lines(path: Path, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(read_text(path).splitlines(), delimiter=delimiter)


def _check_names(path: Path) -> None:
    if not all(len(row) == 2 and row[0].startswith(("/m/", "/t/", "/g/")) for row in _lines(path, "\t")):
        raise _bad(path, "it is no table of mids and names")


def _check_quality(path: Path) -> None:
    rows = list(_lines(path, ","))
    if len(rows) < 2 or len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        raise _bad(path, "it is no table")


_CSV = services.AUDIOSET + "v1/csv/"
_STRONG = services.AUDIOSET + "strong/"
TABLES = (
    Table(
        "class_labels_indices.csv",
        _CSV + "class_labels_indices.csv",
        _check_labels,
        "cdd1049833c4b86127c2773ac0d14a2754b6a6d0d1798002ed5c66e699708429",
    ),
    Table(
        "balanced_train_segments.csv",
        _CSV + "balanced_train_segments.csv",
        _check_segments,
        "3b83e5ff9ed72cfda37d4e36ce08250e107c1ea70f109f6ab6668ac200db5e94",
    ),
    Table(
        "eval_segments.csv",
        _CSV + "eval_segments.csv",
        _check_segments,
        "f7055f53935f70e74e39494a5c8c4c78f1700fce275028bd36e31186f33d45db",
    ),
    Table(
        "unbalanced_train_segments.csv", _CSV + "unbalanced_train_segments.csv", _check_segments, large=True
    ),
    Table("qa_true_counts.csv", services.AUDIOSET + "v1/qa/qa_true_counts.csv", _check_quality),
    Table("ontology.json", services.ONTOLOGY + "ontology.json", _check_ontology),
    Table("audioset_train_strong.tsv", _STRONG + "audioset_train_strong.tsv", _check_strong),
    Table("audioset_eval_strong.tsv", _STRONG + "audioset_eval_strong.tsv", _check_strong),
    Table("mid_to_display_name.tsv", _STRONG + "mid_to_display_name.tsv", _check_names),
)
