"""The recipe of the tagger in the box takes free files alone, leaves out what must be, and makes the same
clips from the same files, however often it is stopped.
"""

import csv
import hashlib
import json
import multiprocessing
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes/box"))

import attribution
import clips
import compose
import duplicates
import licences
import make
import played
import score
import unpack
import yamnet
from sound import RATE, SAMPLES, print_of

from beatline.train.augmentation import generator

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: game

Files: *
Copyright: 2001 The Team
License: GPL-2+

Files: data/sfx/* ./data/music/theme.ogg
Copyright: 2010, Ann Author <ann@example.org>
           2012  Bob Author
License: CC-BY-SA-3.0
Comment: from the team's own microphones

Files: data/karts/*/horn.wav
       data/sfx/clock.wav
Copyright: 2011 Cid
License: GPL-3 or CC-BY-3.0

Files: data/karts/nolok/horn.wav
Copyright: 2011 Dee
License: CC-BY-NC-3.0

Files: data/sfx/bell.wav
Copyright: 2011 Eve
License:
 Public Domain

License: CC-BY-SA-3.0
 THE WORK IS PROVIDED UNDER THE TERMS OF THIS LICENSE.
"""
INSTALLED = "usr/share/games/game"


def tone(seed: int, seconds: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE)
    wave = np.sin(np.cumsum(rng.uniform(0.05, 0.9) + 0.2 * np.sin(np.arange(count) / rng.uniform(300, 3000))))
    return (0.4 * wave * np.exp(-np.arange(count) / rng.uniform(2000, 9000))).astype(np.float32)


def package(folder: Path) -> Path:
    """An unpacked package with free files and others."""
    (folder / "usr/share/doc/game").mkdir(parents=True)
    (folder / "usr/share/doc/game/copyright").write_text(COPYRIGHT)
    names = ["sfx/clock.wav", "sfx/bell.wav", "sfx/door_1.wav", "sfx/door_2.wav", "sfx/long.wav"]
    names += ["karts/tux/horn.wav", "karts/nolok/horn.wav", "levels/boom.wav"]
    for seed, name in enumerate(names):
        path = folder / INSTALLED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(seed, 9 if "long" in name else 0.4 + 0.3 * seed), RATE)
    return folder


def files_of(folder: Path) -> list[tuple[str, str, str]]:
    return list(clips.free_files("game", folder, "", ""))


def bytes_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.parent.iterdir()) if path.suffix != ".npz"}


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("CC0-1.0", True),
        ("CC-BY-SA-3.0 or GPL-2", True),
        ("GPL-3 | CC-BY-4.0", True),
        ("Expat and CC-BY-3.0", True),
        ("public-domain", True),
        ("GPL-2+", False),
        ("CC-BY-3.0 and GPL-2+", False),
        ("CC-BY-NC-4.0", False),
        ("CC-BY-NC-SA-3.0 or GPL-2+", False),
        ("CC-BY-ND-3.0", False),
        ("Sampling-Plus-1.0", False),
        ("", False),
    ],
)
def test_which_licences_are_free(licence, free):
    assert licences.is_free(licence) is free


def test_a_file_has_the_licence_and_authors_of_its_own_stanza():
    stanzas = licences.parse(COPYRIGHT)

    def of(name: str) -> tuple[str, str]:
        found = licences.of_file(stanzas, f"{INSTALLED}/{name}")
        return found.licence, found.author

    assert of("sfx/door_1.wav") == ("CC-BY-SA-3.0", "2010, Ann Author <ann@example.org>; 2012 Bob Author")
    assert of("music/theme.ogg")[0] == "CC-BY-SA-3.0"
    assert of("sfx/clock.wav") == ("GPL-3 or CC-BY-3.0", "2011 Cid")
    assert of("sfx/bell.wav") == ("Public Domain", "2011 Eve")
    assert of("levels/boom.wav") == ("GPL-2+", "2001 The Team")
    assert licences.parse("This package was debianized by Kari.\n\nIt is free.\n") == []


def test_of_two_stanzas_that_match_the_one_with_more_folders_holds():
    text = "Files: a/default/sounds/*\nCopyright: A\nLicense: CC-BY-3.0\n\n"
    text += "Files: a/tnt/sounds/*\nCopyright: B\nLicense: GPL-2\n"
    assert licences.of_file(licences.parse(text), "usr/a/default/sounds/dig.ogg").author == "A"
    assert licences.of_file(licences.parse(text), "usr/a/tnt/sounds/dig.ogg").author == "B"


def test_free_files_alone_are_taken_and_each_content_once(tmp_path):
    folder = package(tmp_path / "game")
    bell = folder / INSTALLED / "sfx/bell.wav"
    (bell.parent / "copy.wav").write_bytes(bell.read_bytes())
    names = {Path(name).relative_to(INSTALLED).as_posix() for name, _, _ in files_of(folder)}
    assert names == {f"sfx/{name}.wav" for name in ("bell", "clock", "door_1", "door_2", "long")} | {
        "karts/tux/horn.wav"
    }


def test_clips_are_the_same_for_the_same_package(tmp_path):
    folder = package(tmp_path / "game")
    outs = [tmp_path / name / "game" for name in ("first", "second")]
    for out, files in zip(outs, (files_of(folder), files_of(folder)), strict=True):
        out.parent.mkdir()
        clips.cut("game", folder, files, out, set())
    assert bytes_of(outs[0]) == bytes_of(outs[1])
    samples = score.samples_of(outs[0])
    assert samples.shape == (len(score.rows_of(outs[0])), SAMPLES) and len(samples) >= 6
    levels = 20 * np.log10(np.sqrt(np.mean((samples / 32768) ** 2, axis=1)))
    assert levels.max() < -10 and levels.min() > -60


def test_what_is_left_out_is_in_no_clip_and_its_print_is_kept(tmp_path):
    folder = package(tmp_path / "game")
    out = tmp_path / "out"
    clips.cut("game", folder, files_of(folder), out, {"door_1.wav"})
    assert not any("door_1.wav" in row["recordings"] for row in score.rows_of(out))
    with np.load(f"{out}.npz") as arrays:
        assert any(name.endswith("door_1.wav") for name in arrays["names"])


def test_a_copy_of_a_left_out_recording_is_found_and_other_short_takes_are_not():
    rng = np.random.default_rng(0)
    takes = [tone(seed, 0.5) for seed in range(8)]
    copy = 0.3 * takes[2] + rng.normal(0, 1e-4, len(takes[2])).astype(np.float32)
    best = duplicates.alike(np.stack([print_of(take) for take in [*takes, copy]]), np.array([2]))
    assert set(np.flatnonzero(best > duplicates.ALIKE)) == {2, 8}


def test_recordings_of_mini_audiosets_test_clips_are_known_by_name():
    assert "cattle_02.ogg" in make.mini_recordings("0ad-data")
    assert not make.mini_recordings("0ad-data") & make.mini_recordings("0ad-data", "train")
    assert clips.file_name("36 _Horn_. By X.wav") == "36.wav" and "36.wav" in make.mini_recordings(
        "openttd-opensfx"
    )


def test_families_that_differ_by_a_number_are_on_one_side():
    assert len({clips.split_of("p", f"a/door_{number:02d}.ogg") for number in range(30)}) == 1
    assert {clips.split_of("p", f"a/{number}x.ogg") for number in range(99)} == {"train", "val"}


def test_the_tables_name_each_package_once_and_what_is_left_out_is_in_them():
    rows = make.packages()
    assert len({row.name for row in rows}) == len(rows)
    assert all(len(row.sha256) == 64 and row.use in ("train", "unseen", "tool") for row in rows)
    assert all(row.author for row in rows if row.licence)
    forbidden = {"widelands-data", "wesnoth-1.16-data", "ufoai-sound", "lincity-ng-data", "hedgewars-data"}
    forbidden |= {
        "tuxpaint-stamps-default",
        "flightgear-data-base",
        "torcs-data",
        "simutrans-pak64",
        "alsa-utils",
    }
    forbidden |= {"hydrogen-data", "lmms-common", "gcompris-qt-data", "timgm6mb-soundfont", "csound"}
    assert not forbidden & {row.name for row in rows}
    assert make.doubtful("davegnukem-data", "usr/music/eric_matyas/a.ogg")
    assert not make.doubtful("davegnukem-data", "usr/sounds/jump.wav")


def test_compositions_are_a_function_of_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(compose, "BLOCK", 3)
    takes = np.zeros((4, SAMPLES), np.int16)
    for seed, take in enumerate(takes):
        take[: RATE // 2] = 20000 * tone(seed, 0.5)
    np.save(tmp_path / "sources.npy", takes)
    rows = [{"recordings": f"r{index}", "licence": "CC0"} for index in range(4)]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        for block in range(2):
            out = tmp_path / name / f"composed-{block:03d}"
            compose.compose(out, block, tmp_path / "sources.npy", np.full(4, 0.25), rows)
    outs = [tmp_path / name / "composed-000" for name in ("first", "second")]
    assert bytes_of(outs[0]) == bytes_of(outs[1])
    samples = score.samples_of(outs[0])
    assert samples.shape == (3, SAMPLES) and len({clip.tobytes() for clip in samples}) == 3


def test_rare_labels_draw_and_silence_does_not():
    mids = ["/m/a", compose.SILENCE, "/m/b"]
    weights = compose.rarity(
        np.array([[0.9, 0, 0]] * 50 + [[0, 1, 0]] * 5 + [[0, 0.9, 0.8]], np.float32), mids
    )
    assert weights.sum() == pytest.approx(1) and weights[-1] > 4 * weights[0] > 0 and weights[51] < 1e-6


def test_quiet_clips_are_quiet(tmp_path):
    played.quiet(tmp_path / "quiet", 12)
    rows = score.rows_of(tmp_path / "quiet")
    samples = score.samples_of(tmp_path / "quiet")
    silent = [row["recordings"] == "made:silence" for row in rows]
    assert sum(silent) == 2 and np.abs(samples[silent].astype(int)).max() < 340
    assert {row["recordings"].removeprefix("made:") for row in rows} == set(played.KINDS)


class Teacher:
    """Scores that depend on the clip alone; ends its process at a call, where that is asked for."""

    calls = 0
    end_at = 0

    def __init__(self, *_: object):
        pass

    def __call__(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Teacher.calls += 1
        if Teacher.calls == Teacher.end_at:
            os._exit(9)
        level = np.abs(samples).mean(1, dtype=np.float64) / 32768
        scores = np.stack([level * 2, 1 - level, level * 0], 1)
        return np.repeat(scores[:, None], 7, 1), np.repeat(level[:, None, None], 7, 1) * np.ones(yamnet.WIDTH)


def _scored(folder: Path, end_at: int) -> None:
    Teacher.end_at = end_at
    for name in ("game", "quiet"):
        score.score(folder / name, folder / f"{name}.scores.npz", folder)


@pytest.fixture
def teacher(monkeypatch):
    monkeypatch.setattr(yamnet, "Yamnet", Teacher)
    monkeypatch.setattr(yamnet, "labels", lambda folder: ["/m/09x0r", compose.SILENCE, "/m/04rlf"])
    monkeypatch.setattr(score, "AT_ONCE", 4)


@pytest.fixture
def cut(tmp_path):
    """The clips of a package and quiet ones; recordings of the package."""
    folder = package(tmp_path / "unpacked")
    clips.cut("game", folder, files_of(folder), tmp_path / "game", set())
    played.quiet(tmp_path / "quiet", 12)
    return files_of(folder)


def test_scoring_goes_on_after_a_kill_and_gives_the_same(tmp_path, teacher, cut):
    killed = multiprocessing.get_context("fork").Process(target=_scored, args=(tmp_path, 5))
    killed.start()
    killed.join()
    assert killed.exitcode == 9
    assert (tmp_path / "game.scores.npz").exists() and not (tmp_path / "quiet.scores.npz").exists()
    before = (tmp_path / "game.scores.npz").stat().st_mtime_ns
    _scored(tmp_path, 0)
    assert (tmp_path / "game.scores.npz").stat().st_mtime_ns == before
    with np.load(tmp_path / "quiet.scores.npz") as arrays:
        resumed = {name: arrays[name] for name in arrays}
    (tmp_path / "quiet.scores.npz").unlink()
    _scored(tmp_path, 0)
    with np.load(tmp_path / "quiet.scores.npz") as arrays:
        assert all(np.array_equal(arrays[name], resumed[name]) for name in arrays)
    assert not list(tmp_path.glob(".*.part*"))


def test_a_corpus_leaves_out_names_licences_and_replaces_the_old_one(tmp_path, teacher, cut):
    _scored(tmp_path, 0)
    whose = {name: ("game", "1.0", licence, author) for name, licence, author in cut}
    whose |= {f"made:{kind}": attribution.OURS for kind in played.KINDS}
    labels = [("/m/09x0r", "Speech"), (compose.SILENCE, "Silence"), ("/m/04rlf", "Music")]
    parts = [(tmp_path / name, tmp_path / f"{name}.scores.npz") for name in ("game", "quiet")]
    given = labels, {name: row[2] for name, row in whose.items()}
    left_out = {name for name in whose if name.endswith("bell.wav")}
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/old").write_text("of another run")
    counts = score.corpus(tmp_path / "corpus", parts, *given, left_out, {"game"})
    assert counts["train"] == 12 and counts["test"] > 3 and not (tmp_path / "corpus/old").exists()
    with (tmp_path / "corpus/manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    ids = (tmp_path / "corpus/teacher/ids.txt").read_text().split()
    scores = np.load(tmp_path / "corpus/teacher/scores.npy")
    assert [row["id"] for row in rows] == ids and scores.shape == (len(rows), 7, 3)
    assert not any("bell.wav" in row["recording"] for row in rows)
    row = rows[-1]
    samples, _ = soundfile.read(row["file"], dtype="int16")
    clip = samples[int(row["start"]) * RATE : int(row["end"]) * RATE]
    assert np.array_equal(scores[-1], np.float16(Teacher()(clip[None])[0][0]))
    assert json.loads((tmp_path / "corpus/teacher/teacher.json").read_text())["labels"] == [
        x[0] for x in labels
    ]

    used = score.recordings_of(tmp_path / "corpus/manifest.csv", ("train", "test"))
    attribution.write(tmp_path / "attribution.csv", used, whose)
    with (tmp_path / "attribution.csv").open() as file:
        table = list(csv.DictReader(file))
    named = {f"{row['folder']}/{name}".lstrip("/") for row in table for name in row["files"].split("|")}
    assert named == used and all(row["licence"] and row["author"] for row in table)
    with pytest.raises(SystemExit, match="unknown has no licence and author"):
        attribution.write(tmp_path / "attribution.csv", {"unknown"}, whose)


def test_another_file_than_the_tables_is_refused_in_a_line(tmp_path):
    row = make.Package("game-data", "deb", "1.0", "0" * 64, "", "", "", "train")
    (tmp_path / "game-data_1.0_all.deb").write_bytes(b"something else")
    digest = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(
        SystemExit, match=rf"game-data_1\.0_all\.deb is not the file .* SHA-256 is {digest}"
    ) as told:
        make.fetch(row, tmp_path)
    assert "\n" not in str(told.value)


def test_a_package_that_is_not_to_be_had_is_told_in_a_line_and_leaves_nothing(tmp_path, monkeypatch):
    def failing(command, cwd, **_):
        (cwd / "half.deb").write_bytes(b"ha")
        return subprocess.CompletedProcess(command, 100)

    monkeypatch.setattr(subprocess, "run", failing)
    row = make.Package("game-data", "deb", "1.0", "0" * 64, "", "", "", "train")
    with pytest.raises(SystemExit, match=r"game-data 1\.0 \(deb\) is not to be had here; write the version"):
        make.fetch(row, tmp_path)
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_a_download_is_checked_and_not_repeated(tmp_path, monkeypatch):
    commands = []

    def downloading(command, cwd, **_):
        commands.append(command)
        (cwd / "game-data_1%3a1.0_all.deb").write_bytes(b"package")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", downloading)
    row = make.Package(
        "game-data", "deb", "1:1.0", hashlib.sha256(b"package").hexdigest(), "", "", "", "train"
    )
    found = {make.fetch(row, tmp_path) for _ in range(2)}
    assert found == {tmp_path / "game-data_1%3a1.0_all.deb"} and len(commands) == 1
    assert commands[0] == ["apt-get", "download", "-qq", "game-data=1:1.0"]


def test_opensfx_is_unpacked():
    wav = b"RIFF" + struct.pack("<I", 4) + b"WAVE"
    entry = bytes([5]) + b"Horn\0" + wav
    archive = struct.pack("<II", 8, len(wav)) + entry
    assert list(unpack.opensfx(archive)) == [("00 Horn.wav", wav)]


def test_draws_are_functions_of_their_keys():
    assert generator("cut", "p", 1).random() == generator("cut", "p", 1).random()
    assert generator("cut", "p", 1).random() != generator("cut", "p", 2).random()
