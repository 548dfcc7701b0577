"""AudioSet's clips -> a folder, from an ordered list of sources, with a ledger over them all.

In: a folder with AudioSet's tables, and sources: folders that are already there, copies on the Hugging Face
Hub, YouTube. Out: below the folder whatever is needed to have each clip once, and `fetch-ledger.jsonl`. These
are links to local folders, shards of copies as they are, and single files from YouTube. Every source is asked
only for what the sources before it do not have. Stopped anywhere, the same command goes on.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from beatline.audio import archives
from beatline.core.artefact import FolderLock, disk_errors, write_atomic
from beatline.core.console import say
from beatline.core.errors import UserError
from beatline.fetch import http, hub, ledger, services, youtube
from beatline.fetch.ledger import Answer, Key, Wanted

HUB_PREFIX = "hub:"
YOUTUBE_BYTES = 170_000  # of ten seconds at the usual 130 kbit/s


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to ask."""

    tables: tuple[str, ...] = ("balanced", "eval")
    """Tables whose clips are wanted: `balanced`, `eval`, `unbalanced`, or names of files of the same form in
    the folder.
    """
    cookies: Path | None = None
    """For YouTube: file of a browser's cookies."""
    rate: float = 250.0
    """For YouTube: videos asked for in an hour."""
    jobs: int = 4
    """For YouTube: videos asked for at the same time."""
    service: youtube.Service = youtube.SERVICE
    """YouTube itself."""
    policy: http.Policy = http.POLICY
    """How patiently."""


@dataclass
class _Run:
    """What is known while the sources are asked."""

    folder: Path
    options: Options
    wanted: list[Wanted]
    said: dict[Key, Answer]
    found: dict[Key, tuple[str, str]]

    def look(self) -> None:
        """Reads from the files what is there."""
        self.found = ledger.present(self.folder, self.wanted)

    def open(self) -> Iterator[Wanted]:
        """Rows without audio, of each clip the first."""
        seen: set[Key] = set()
        for row in self.wanted:
            key = row.recording, row.start
            if not row.problem and key not in self.found and key not in seen:
                seen.add(key)
                yield row


def fetch(folder: Path, sources: Sequence[str] = (), options: Options = Options()) -> str:
    """Gets what the sources have; a summary of the ledger, which is written however this ends.

    Args:
        folder: With AudioSet's tables; audio that is in it already counts as present.
        sources: In this order: folders, `hub:owner/name` or `hub:owner/name/folder`, `youtube`.

    Raises:
        UserError: `missing-file` (the tables), `busy-folder`, and what the sources raise.
    """
    for source in sources:
        _check(source)
    with FolderLock(folder):
        run = _Run(folder, options, ledger.rows(folder, options.tables), ledger.answers(folder), {})
        for source in sources:
            if not _is_service(source):
                _link(folder, Path(source))
        try:
            run.look()
            for source in filter(_is_service, sources):
                if source == ledger.YOUTUBE:
                    _from_youtube(run)
                else:
                    _from_hub(run, *_repository_of(source))
                run.look()
        except BaseException:
            run.look()
            say(
                "fetch",
                "stopped; so far:\n" + ledger.summary(ledger.write(folder, run.wanted, run.found, run.said)),
            )
            raise
        return ledger.summary(ledger.write(folder, run.wanted, run.found, run.said))


def _is_service(source: str) -> bool:
    return source == ledger.YOUTUBE or source.startswith(HUB_PREFIX)


def _repository_of(source: str) -> tuple[str, str]:
    """Repository and folder of a source on the Hugging Face Hub."""
    owner, _, rest = source.removeprefix(HUB_PREFIX).partition("/")
    name, _, below = rest.partition("/")
    return f"{owner}/{name}", below.rstrip("/")


def _check(source: str) -> None:
    if source.startswith(HUB_PREFIX):
        name, below = _repository_of(source)
        if not hub.is_repository(name) or not (below == "" or hub.is_plain(below)):
            raise UserError(
                "bad-usage",
                f"source {source!r}",
                "it is not of the form hub:owner/name or hub:owner/name/folder",
                f"known copies: {', '.join(HUB_PREFIX + copy.repository for copy in services.COPIES)}",
            )
    elif source != ledger.YOUTUBE and not Path(source).is_dir():
        raise UserError(
            "missing-file",
            f"source {source!r}",
            "there is no such folder",
            "a source is a folder, hub:owner/name, or youtube",
        )


def _link(folder: Path, source: Path) -> None:
    """Makes a local folder's audio part of the folder, without copying it."""
    real = source.resolve()
    if real.is_relative_to(folder.resolve()):
        return
    if folder.resolve().is_relative_to(real):
        raise UserError(
            "bad-usage", f"source {source}", f"it holds {folder} itself", "name the folder with the audio"
        )
    links = folder / "local"
    with disk_errors(links):
        links.mkdir(exist_ok=True)
        if not any(os.path.realpath(link) == str(real) for link in links.iterdir()):
            plain = real.name.lstrip(".") or "folder"  # what is hidden is not looked at
            names = (plain + (f"-{number}" if number else "") for number in range(1000))
            os.symlink(real, links / next(name for name in names if not os.path.lexists(links / name)))


# --- Hugging Face copies


def _from_hub(run: _Run, name: str, below: str) -> None:
    policy = run.options.policy
    target = run.folder / ledger.HUB / name.replace("/", "--")
    missing: dict[str, set[str]] = {}
    for row in run.open():
        missing.setdefault(row.table, set()).add(row.recording)
    if not missing:
        return
    folders = (
        [below]
        if below
        else [
            folder
            for copy in services.COPIES
            if copy.repository == name
            for folder, table in copy.folders
            if table in missing
        ]
    )
    only = "".join(f" --include '{folder}/*'" for folder in folders)
    remedy = (
        f"on another machine run `hf download {name} --repo-type dataset{only} --local-dir copy`, "
        f"carry the folder copy over, and name it here instead: --from copy"
    )
    repository = hub.listing(name, "dataset", _commit(target), remedy, policy)
    with disk_errors(target):
        target.mkdir(parents=True, exist_ok=True)
    write_atomic(target / "commit.txt", repository.commit + "\n")
    shards = [
        shard for shard in _needed(repository, below, missing, policy) if not (target / shard.path).exists()
    ]
    size = sum(shard.size for shard in shards)
    http.check_room(
        target,
        size
        - sum(path.stat().st_size for shard in shards if (path := target / f"{shard.path}.partial").exists()),
    )
    say("fetch", f"{name}: {len(shards)} shards, {size / 1e9:,.1f} GB")
    for shard in shards:  # in turn: polite, and a run can be stopped at any moment
        hub.download(repository, shard, target / shard.path, remedy, policy)
        say("fetch", f"{shard.path} ({shard.size / 1e6:,.0f} MB)")


def _commit(target: Path) -> str | None:
    """The commit that every file of this folder is of; None where there is none yet."""
    path = target / "commit.txt"
    text = path.read_text().strip() if path.is_file() else ""
    return text if text.isalnum() else None


def _needed(
    repository: hub.Repository, below: str, missing: dict[str, set[str]], policy: http.Policy
) -> list[hub.File]:
    """The shards that may hold a missing clip. Of a copy that is known, those of each table's folder, unless
    a folder is named.
    """
    folders = (
        ()
        if below
        else next((copy.folders for copy in services.COPIES if copy.repository == repository.name), ())
    )
    needed = []
    for file in repository.files:
        if below and not file.path.startswith(f"{below}/"):
            continue
        own = [table for folder, table in folders if file.path.startswith(f"{folder}/")]
        if own:
            tables = own + [table for table in missing if table not in ledger.FILES]  # of the user: from all
        else:
            tables = [] if folders else list(missing)
        ids = set().union(*(missing.get(table, ()) for table in tables))
        if archives.kind(file.path) and ids and hub.holds_any(repository, file, ids, policy):
            needed.append(file)
    return needed


# --- YouTube


def _from_youtube(run: _Run) -> None:
    options = run.options
    target = run.folder / ledger.YOUTUBE
    settled = set(youtube.PERMANENT) | {"age-restricted"}
    if options.cookies is not None:
        settled -= set(youtube.COOKIES_MAY_HELP)
    rows = [
        row
        for row in run.open()
        if run.said.get((row.recording, row.start), Answer("", "")).because not in settled
    ]
    http.check_room(target, YOUTUBE_BYTES * len(rows))
    say("fetch", f"youtube: {len(rows):,} clips to ask for, at most {options.rate:,.0f} an hour")
    with ledger.open_answers(run.folder) as journal:

        def record(excerpt: youtube.Excerpt, because: str, reason: str) -> None:
            answer = Answer(because, reason)
            run.said[excerpt.recording, excerpt.start] = answer
            with disk_errors(run.folder):
                journal.write(ledger.answer_line(excerpt.recording, excerpt.start, answer))

        jobs = ((target / row.table, youtube.Excerpt(row.recording, row.start, row.end)) for row in rows)
        count = youtube.fetch(
            jobs,
            record,
            cookies=options.cookies,
            rate=options.rate,
            jobs=options.jobs,
            service=options.service,
            policy=options.policy,
        )
    say("fetch", f"youtube: {count:,} clips")
    _sweep(target)


def _sweep(target: Path) -> None:
    """Removes what a killed run left unfinished."""
    for leftover in target.glob("*/.whole"):
        shutil.rmtree(leftover, ignore_errors=True)
    for leftover in target.glob("*/*.partial"):
        leftover.unlink(missing_ok=True)
