"""Measurements in pairs, and the two files they end in: `results.json` and `RESULTS.md`.

A benchmark is a file with a function `rows(options)` that yields `Row`s and ends in `harness.main(rows,
__doc__)`. Pairs are interleaved (ours, theirs, ours, theirs, ...) after a warm-up, so that whatever else the
machine does meets both; a row holds the median of the ratios and its quartiles. Memory is measured in a
process of its own. Rows are merged by name, so one benchmark may be run again alone; `RESULTS.md` is always
written anew from `results.json`. Import this before torch: it sets the threads.
"""

import argparse
import dataclasses
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # a thread that waits spinning takes the core from the other side
os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
THREADS = int(os.environ["OMP_NUM_THREADS"])
PAIRS = 7
PACKAGES = (
    "torch",
    "numpy",
    "onnxruntime",
    "openvino",
    "openbeats",
    "espnet",
    "transformers",
    "torchaudio",
    "kaldi-native-fbank",
    "scikit-learn",
    "torchmetrics",
    "torcheval",
    "soundfile",
    "soxr",
)

Work = Callable[[], Any]


@dataclass(frozen=True)
class Goal:
    """What a value must reach."""

    relation: str
    """`at least`, `at most`, or `below`."""
    limit: float

    def met(self, value: float) -> bool:
        """Whether the value reaches it."""
        return bool(
            {"at least": value >= self.limit, "at most": value <= self.limit, "below": value < self.limit}[
                self.relation
            ]
        )

    def __str__(self) -> str:
        return f"{self.relation} {self.limit:g}"


def at_least(limit: float) -> Goal:
    """The goal of a value that is better when higher."""
    return Goal("at least", limit)


def at_most(limit: float) -> Goal:
    """The goal of a value that is better when lower."""
    return Goal("at most", limit)


def below(limit: float) -> Goal:
    """As `at_most`, the limit itself excluded."""
    return Goal("below", limit)


@dataclass(frozen=True)
class Row:
    """One line of the results."""

    name: str
    """`<file>/<what>`; the part before the slash is the benchmark that makes it."""
    what: str
    value: float
    unit: str
    quartiles: tuple[float, float] | None = None
    """Of the pairs' ratios, or of repeated measurements."""
    pairs: int = 1
    goal: str = ""
    met: bool | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)
    """Device, versions, commit and date, filled when it is saved."""

    @property
    def command(self) -> str:
        """What makes this row again."""
        return f"./bench.sh {self.name.split('/')[0]}"


def state(name: str, what: str, value: float, unit: str, goal: Goal | None = None, **facts: Any) -> Row:
    """A row of one measured value."""
    return Row(
        name,
        what,
        float(value),
        unit,
        goal=str(goal or ""),
        met=goal.met(value) if goal else None,
        facts=facts,
    )


def summarise(
    name: str, what: str, values: Sequence[float], unit: str, goal: Goal | None = None, **facts: Any
) -> Row:
    """A row of the median of repeated measurements, with its quartiles."""
    low, middle, high = (float(v) for v in np.percentile(values, (25, 50, 75)))
    return Row(
        name,
        what,
        middle,
        unit,
        (low, high),
        len(values),
        str(goal or ""),
        goal.met(middle) if goal else None,
        facts,
    )


def seconds(work: Work) -> float:
    """How long `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def interleave(works: dict[str, Work], rounds: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Seconds of each of several works, taken in turn `rounds` times after one untimed round."""
    if warm_up:
        for work in works.values():
            work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    return times


def ratio(
    name: str,
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    goal: Goal | None = None,
    **facts: Any,
) -> Row:
    """A row of how many times longer theirs takes, from seconds taken in pairs."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return summarise(
        name,
        what,
        ratios,
        "x",
        goal,
        ours_s=round(float(np.median(ours)), 4),
        theirs_s=round(float(np.median(theirs)), 4),
        **facts,
    )


def compare(
    name: str, what: str, ours: Work, peer: Work, pairs: int = PAIRS, goal: Goal | None = None, **facts: Any
) -> Row:
    """A row of how many times faster `ours` is than `peer`, measured in interleaved pairs after a warm-up of
    both.
    """
    times = interleave({"ours": ours, "peer": peer}, pairs)
    return ratio(name, what, times["ours"], times["peer"], goal, **facts)


# ------------------------------------------------------------------ in a process of its own

PLAIN = {"THP_MEM_ALLOC_ENABLE": "0"}
"""For a peer's process: without the pages that `import beatline` asks for, which its users do not have."""


class Apart:
    """Some work in a process of its own, done each time it is called, so that neither side's settings and
    memory are the other's.

    Args:
        function: "file:name" of this folder; called with the arguments (which JSON can say), it returns the
            work.
        settings: Environment variables of the process.
    """

    def __init__(self, function: str, settings: dict[str, str] | None = None, **arguments: Any):
        call = (
            f"import sys; sys.path.insert(0, {str(HERE)!r}); import harness; "
            f"harness.work_when_told({function!r}, {json.dumps(arguments)!r})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", call],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (settings or {}),
        )

    def __call__(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        while (line := self._process.stdout.readline()) != "done\n":
            if not line:
                raise RuntimeError("the process of the other side ended")

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def work_when_told(function: str, arguments: str) -> None:
    """Makes the work that `Apart` names, and does it for each line that comes in."""
    file, name = function.split(":")
    work = getattr(importlib.import_module(file), name)(**json.loads(arguments))
    for _ in sys.stdin:
        work()
        print("done", flush=True)


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process, MB."""

    before: float
    """When the work began, its inputs and programs loaded."""
    peak: float
    """At its highest during the work."""


def memory_of(function: str, settings: dict[str, str] | None = None, **arguments: Any) -> Memory:
    """What some work needs, measured in a fresh process.

    Args:
        function: As for `Apart`; it makes the inputs and returns the work to watch.
        settings: As for `Apart`.
    """
    call = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import harness; "
        f"harness.watch_memory({function!r}, {json.dumps(arguments)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", call],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | (settings or {}),
    )
    if done.returncode:
        raise RuntimeError(f"{function} failed:\n{done.stderr}")
    return Memory(*map(float, done.stdout.splitlines()[-1].split()))


def watch_memory(function: str, arguments: str) -> None:
    """Does the work that `memory_of` names and prints resident memory before it and at its highest."""
    file, name = function.split(":")
    work = getattr(importlib.import_module(file), name)(**json.loads(arguments))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    work()
    print(before, resident("VmHWM"))


def resident(what: str) -> float:
    """This process's `VmRSS` or `VmHWM` (peak), MB. Not getrusage's peak, which a child inherits from the
    process that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024 / 1e6


# ------------------------------------------------------------------ where it ran

WIDEST = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 with bfloat16", "avx512f": "AVX-512", "avx2": "AVX2"}


def processor() -> str:
    """The processor's name, and the widest arithmetic it has, for many machines hide which processor it
    is.
    """
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next(
        (line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")),
        platform.processor(),
    )
    widest = next((called for flag, called in WIDEST.items() if f" {flag} " in text), "")
    return f"{name} ({widest})" if widest else name


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    ).stdout.strip()


@cache
def place() -> dict[str, Any]:
    """Device, versions, commit and date of this run."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    but_results = (".", *(f":(exclude,glob)benchmarks/**/{file}" for file in ("results.json", "RESULTS.md")))
    commit = os.environ.get("BEATLINE_COMMIT") or _git("rev-parse", "--short", "HEAD") + (
        "-dirty" if _git("status", "--porcelain", "--untracked-files=no", "--", *but_results) else ""
    )
    device = f"{processor()}, {os.cpu_count()} cores, {THREADS} threads"
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        device = f"{sys.modules['torch'].cuda.get_device_name()}, beside {device}"
    return {"device": device, "commit": commit, "date": time.strftime("%Y-%m-%d"), "versions": versions}


def profile(work: Callable[[], object]) -> dict[str, float]:
    """Share of the GPU's time (of the calling thread's where there is none) of each kernel or operation, the
    largest eight first.
    """
    import torch

    time_of = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    with torch.profiler.profile() as seen:
        work()
    times = sorted(
        ((getattr(event, time_of), event.key.removeprefix("aten::")[:60]) for event in seen.key_averages()),
        reverse=True,
    )
    return {name: round(took / sum(time for time, _ in times), 3) for took, name in times[:8]}


# ------------------------------------------------------------------ results.json and RESULTS.md


def save(rows: Iterable[Row], folder: Path = HERE) -> None:
    """Puts rows into the folder's `results.json`, in place of those of the same names, and writes
    `RESULTS.md` from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for row in rows:
        content = dataclasses.asdict(row) | {"command": row.command, "where": row.where or place()}
        known[content.pop("name")] = content
    ordered = dict(
        sorted(known.items(), key=lambda item: item[0].split("/")[0])
    )  # within a benchmark as it yields them
    path.write_text(json.dumps(ordered, indent=1) + "\n")
    (folder / "RESULTS.md").write_text(markdown(ordered))


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _line(row: dict[str, Any]) -> str:
    spread = (
        f"{_number(row['quartiles'][0])} to {_number(row['quartiles'][1])}, n = {row['pairs']}"
        if row["quartiles"]
        else ""
    )
    met = {None: "", True: "yes", False: "**no**"}[row["met"]]
    facts = "; ".join(f"{name.replace('_', ' ')} {_fact(value)}" for name, value in row["facts"].items())
    return (
        f"| {row['what']} | {_number(row['value'])} {row['unit']} | {spread} | {row['goal']} | {met} | "
        f"{facts} |"
    )


def _fact(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return ", ".join(map(_fact, value)) if isinstance(value, list | tuple) else str(value)


def markdown(known: dict[str, dict[str, Any]]) -> str:
    """The text of `RESULTS.md`."""
    judged = [row for row in known.values() if row["met"] is not None]
    lines = [
        "# Measurements",
        "",
        f"Written by `./bench.sh` from `results.json`; do not edit. {sum(row['met'] for row in judged)} of "
        f"{len(judged)} goals met.",
        "",
        "A ratio (x) says how many times longer the other program takes, or how many times more it needs: "
        "the median of interleaved pairs, with quartiles. Seconds and the like are medians too where they "
        "have quartiles, else they were measured once.",
    ]
    places = list({json.dumps(row["where"], sort_keys=True): row["where"] for row in known.values()}.values())
    for topic in dict.fromkeys(name.split("/")[0] for name in known):
        rows = [row for name, row in known.items() if name.split("/")[0] == topic]
        numbers = sorted({places.index(row["where"]) for row in rows})
        runs = "; ".join(
            f"run {number + 1} below, on {places[number]['device'].split(', ')[0]}" for number in numbers
        )
        lines += ["", f"## {topic}", "", f"`{rows[0]['command']}` ({runs})", ""]
        lines += [
            "| what | result | quartiles | goal | met | facts |",
            "|---|---|---|---|---|---|",
            *map(_line, rows),
        ]
    lines += ["", "## Runs", ""]
    for number, where in enumerate(places, 1):
        versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
        lines.append(f"{number}. {where['date']}, commit {where['commit']}, on {where['device']}; {versions}")
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------ command line


@dataclass(frozen=True)
class Options:
    """How a benchmark is run."""

    smoke: bool
    """Tiny sizes, two pairs: does the benchmark itself work?"""
    pairs: int


def main(
    rows: Callable[[Options], Iterator[Row]], description: str | None, argv: Sequence[str] | None = None
) -> None:
    """Runs one benchmark, prints each row as it comes, and saves them (under `--smoke` only where `--results`
    says).
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="tiny sizes and two pairs, to see that it works; measures nothing worth keeping",
    )
    parser.add_argument("--pairs", type=int, help=f"interleaved pairs of each comparison ({PAIRS})")
    parser.add_argument("--results", type=Path, help="folder of results.json and RESULTS.md (this one)")
    given = parser.parse_args(argv)
    options = Options(given.smoke, given.pairs or (2 if given.smoke else PAIRS))
    folder = given.results or (None if given.smoke else HERE)
    count = 0
    for row in rows(options):
        count += 1
        spread = f" ({_number(row.quartiles[0])} to {_number(row.quartiles[1])})" if row.quartiles else ""
        verdict = f", goal {row.goal}: {'met' if row.met else 'NOT met'}" if row.goal else ""
        print(f"{row.name:36} {_number(row.value)} {row.unit}{spread}{verdict}", flush=True)
        if folder:
            save([row], folder)
    if not count:
        raise SystemExit("no row was measured")


def conclude(result: dict[str, Any], path: Path | None) -> int:
    """Prints a result that is judged as a whole, keeps it as JSON where there is a path, and returns the exit
    status: 1 where something under `wrong`.
    """
    line = json.dumps(result)
    print("\n".join([*result["wrong"], line]))
    if path:
        path.write_text(line + "\n")
    return 1 if result["wrong"] else 0


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """A temporary folder for models and audio, for a `with`."""
    return tempfile.TemporaryDirectory(prefix="beatline-bench-")
