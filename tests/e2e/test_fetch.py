"""From an empty disk: the commands as a stranger types them, and a hundred runs through broken networks and
kills that all end with the same bytes.
"""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from beatline.fetch import audioset, checkpoints, clips, http, known, youtube
from tests.helpers.audioset_files import EVAL, TRAIN, WEIGHTS, rows, table, tables, tar, write
from tests.helpers.servers import Server
from tests.helpers.sounds import chord, contained
from tests.helpers.stores import in_child

ROOT = Path(__file__).parents[2]
SCRIPTS, PARTS = 100, 4
QUICK = http.Policy(tries=40, first_wait=0.001, longest_wait=0.01, timeout=0.3, slowest=10_000)
COPIES = ("hub:confit/audioset-16khz-wds", "hub:agkphysics/AudioSet")


NAME = "BEATs_iter3_plus_AS20K"
PROGRAM = f"""
import sys
from dataclasses import replace
from beatline import cli
from beatline.fetch import known
known.RELEASE[{NAME!r}] = replace(known.RELEASE[{NAME!r}], sha256={hashlib.sha256(WEIGHTS).hexdigest()!r})
sys.exit(cli.main())
"""
"""The program, for which what stands for a checkpoint here is the release's."""


@pytest.fixture(scope="module", autouse=True)
def release():
    """The same for what this process does."""
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(known.RELEASE, NAME, replace(known.RELEASE[NAME], sha256=digest))
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    tables(root / "files")
    write(
        root / "files",
        {"balanced_train_segments.csv": table(TRAIN).encode(), "eval_segments.csv": table(EVAL).encode()},
    )
    write(
        root / "hub",
        {
            "datasets/confit/audioset-16khz-wds/20k/train/0.tar": tar(TRAIN[:4]),
            "datasets/confit/audioset-16khz-wds/20k/test/0.tar": tar(EVAL[:3]),
            "datasets/agkphysics/AudioSet/data/bal_train/00.parquet": rows(TRAIN[3:9]),
            "datasets/agkphysics/AudioSet/data/eval/00.parquet": rows(EVAL[2:7]),
            f"models/lpepino/beats_ckpts/{NAME}.pt": WEIGHTS,
        },
    )
    sound = contained("webm", "libopus", 48_000, chord(48_000, 1, 45))
    write(root / "videos", {name: sound for name in (*TRAIN[9:], EVAL[7])})
    server = Server(root)
    yield server
    server.close()


def tree(folder):
    """Path and hash of every file; links would be followed."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def everything(server, folder, only_quick=False):
    """All three commands."""
    audioset.fetch(folder, [server.address + "/files"], policy=QUICK)
    checkpoints.locate(NAME, folder / "checkpoints", policy=QUICK)
    service = youtube.Service(address=server.address + "/watch/{id}", extractors=("generic",))
    clips.fetch(
        folder,
        COPIES if only_quick else (*COPIES, "youtube"),
        clips.Options(rate=1e6, jobs=2, service=service, policy=QUICK),
    )


FAULTS = [
    {"do": "reset"},
    {"do": "status", "status": 503, "after": "0"},
    {"do": "status", "status": 429},
    {"do": "status", "status": 500},
    {"do": "cut", "bytes": 20_000},
    {"do": "cut", "bytes": 90_000},
    {"do": "cut", "bytes": 100},
    {"do": "ignore"},
    {"do": "old", "bytes": 30_000},
    {"do": "old", "bytes": 80},
    {"do": "wrong"},
    {"do": "drip", "bytes": 40_000, "pause": 0.01},
    {"do": "chunked"},
    {"do": "chunked", "bytes": 1},
    {"do": "silent", "seconds": 0.4},
    {"do": "lie", "bytes": 50_000, "path": "/resolve/"},
    {"do": "status", "status": 503, "place": "api"},
]
OF_VIDEOS = [
    {"do": do, "path": "/watch/", **more}
    for do, more in (
        ("reset", {}),
        ("cut", {"bytes": 30_000}),
        ("ignore", {}),
        ("ignore", {}),
        ("status", {"status": 500}),
        ("status", {"status": 429}),
    )
]
HERE = [
    fault | {"path": "/files/|/resolve/"} if "path" not in fault and "place" not in fault else fault
    for fault in FAULTS
]


@pytest.fixture(scope="module")
def reference(server, tmp_path_factory):
    """What runs without faults end with and how long they take, without YouTube and with it; until the last
    test, the services are the server.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        patch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            server.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        patch.setattr(http, "SPARE", 0)
        patch.setattr(
            audioset,
            "TABLES",
            tuple(
                audioset.Table(t.name, "http://127.0.0.1:9/" + t.name, t.check, "", t.large)
                for t in audioset.TABLES
            ),
        )
        made = {}
        for only_quick in (True, False):
            server.faults()
            folder = tmp_path_factory.mktemp("reference")
            everything(server, folder / "warm", only_quick)
            started = time.monotonic()
            everything(server, folder / "whole", only_quick)
            made[only_quick] = tree(folder / "whole"), time.monotonic() - started
        assert len(made[False][0]) == len(made[True][0]) + 4
        yield made


def a_script(number, server, folder, took, only_quick):
    """One run through random faults and kills, until it ends well; how many kills it took.

    Where YouTube has its part, the last run is without faults: one that failed there is reported, not
    repeated.
    """
    draw = random.Random(number)
    kills = 0
    for attempt in range(30):
        faults = draw.choices(HERE, k=draw.randrange(8)) + (
            [] if only_quick or attempt >= 3 else draw.choices(OF_VIDEOS, k=3)
        )
        lie = next((place for place, fault in enumerate(faults) if fault["do"] == "lie"), None)
        faults = [
            fault for place, fault in enumerate(faults) if fault["do"] != "lie" or place == lie
        ]  # a second one about a file would end its download
        server.faults(*(faults if only_quick or attempt < 4 else ()))
        kill_after = draw.uniform(0, took) if attempt < 3 and draw.random() < 0.7 else None
        status = in_child(lambda: everything(server, folder, only_quick), kill_after)
        kills += status == -signal.SIGKILL
        if status == 0 and (only_quick or attempt >= 4):
            return kills
        assert status <= 0 or not only_quick, f"script {number} ended with {status}"
    raise AssertionError(f"script {number} does not end")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_hundred_broken_networks_and_kills_end_with_the_same_bytes(server, reference, tmp_path, part):
    kills = 0
    for number in range(part, SCRIPTS, PARTS):
        only_quick = number % 5 != 0
        expected, took = reference[only_quick]
        kills += a_script(number, server, tmp_path / f"{number}", took, only_quick)
        assert tree(tmp_path / f"{number}") == expected, f"script {number}"
    assert kills > SCRIPTS / PARTS / 2


# --- the commands


def beatline(*arguments, cwd=None, **environment):
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        cwd=cwd,
    )
    return found.returncode, found.stdout, found.stderr


def test_from_an_empty_disk(server, tmp_path):
    server.faults()
    code, out, err = beatline("fetch", "clips", tmp_path / "as")
    assert code == 3 and f"run `beatline fetch audioset {tmp_path}/as` first" in err
    made = tmp_path / "mine"
    tables(made)
    code, out, err = beatline(
        "fetch", "audioset", tmp_path / "as", "--from", made, HTTPS_PROXY="http://127.0.0.1:9"
    )
    assert code == 3 and "[hash-mismatch]" in err, (
        err
    )  # the hashes of the release's files are known, and these are not they
    write(
        tmp_path / "as",
        {"balanced_train_segments.csv": table(TRAIN).encode(), "eval_segments.csv": table(EVAL).encode()},
    )
    code, out, err = beatline("fetch", "audioset", tmp_path / "as", "--from", made)
    assert code == 0 and "not the release's" in out and len(list((tmp_path / "as").glob("*.*sv"))) == 7, err
    code, out, err = beatline(
        "fetch",
        "clips",
        tmp_path / "as",
        "--from",
        COPIES[0],
        "--from",
        COPIES[1],
        HF_ENDPOINT=server.address,
    )
    assert (
        code == 0 and "present         9: hub agkphysics/AudioSet 5, hub confit/audioset-16khz-wds 4" in out
    ), out + err
    code, out, err = beatline(
        "fetch", "checkpoint", NAME, "--to", tmp_path / "ckpt", HF_ENDPOINT=server.address
    )
    assert code == 0 and f"--model.init {tmp_path}/ckpt/{NAME}.pt" in out, err


def test_the_page_s_lines_lead_from_an_empty_disk_to_a_verified_store(server, tmp_path):
    """As they stand there, in a folder of their own; what only AudioSet's own servers have is put where the
    first line says.
    """
    server.faults()
    section = (ROOT / "docs/audioset.md").read_text().split("## The AudioSet-20K recipe")[1].split("```")[1]
    lines = [
        re.split(r"  +", line)[0].split()[1:] for line in section.splitlines() if line.startswith("beatline ")
    ]
    assert [line[0] for line in lines] == ["fetch", "fetch", "fetch", "prepare", "verify", "inspect"]
    hub = {"HF_ENDPOINT": server.address, "HTTPS_PROXY": "http://127.0.0.1:9"}
    code, out, err = beatline(*lines[0], cwd=tmp_path, **hub)
    assert code == 5 and "put them into DIR or name their folder with --from, and run this again" in err
    tables(tmp_path / "DIR")
    write(
        tmp_path / "DIR",
        {"balanced_train_segments.csv": table(TRAIN).encode(), "eval_segments.csv": table(EVAL).encode()},
    )
    said = []
    for line in lines:
        code, out, err = beatline(*line, cwd=tmp_path, **hub)
        assert code == 0, (line, out, err)
        said.append(out)
    assert (
        "balanced   present         4: hub confit/audioset-16khz-wds 4\nbalanced   missing         8: "
        "not-found 8" in said[1]
    )
    assert "7 clips (train 3, val 1, test 3)" in said[3] and "13 rejected (missing-file 13)" in said[3]
    assert said[4].endswith("whole    runs/as20k/store (store)\n") and "clips     7 of 20 inputs" in said[5]
    page = (tmp_path / "inspection.html").read_text()
    assert "missing-file" in page and not re.search(r'(src|href)="?(https?:)?//', page)


@pytest.mark.slow
def test_without_a_network_each_step_says_what_to_put_where(tmp_path):
    nobody = {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "",
        "NO_PROXY": "",
    }
    folder = tmp_path / "as"
    code, _, err = beatline("fetch", "audioset", folder, **nobody)
    assert (
        code == 5
        and f"put them into {folder} or name their folder with --from" in err
        and err.count("\n") == 1
    )
    write(
        folder,
        {"balanced_train_segments.csv": table(TRAIN).encode(), "eval_segments.csv": table(EVAL).encode()},
    )
    code, _, err = beatline("fetch", "clips", folder, "--from", COPIES[0], **nobody)
    assert (
        code == 5
        and "--include '20k/train/*' --include '20k/test/*' --local-dir copy`, carry the folder copy over, "
        "and name it here instead: --from copy"
        in err
        and err.count("\n") == 1
    )
    code, _, err = beatline("fetch", "checkpoint", "BEATs_iter3", "--to", tmp_path / "ckpt", **nobody)
    assert code == 5 and f"put it at {tmp_path}/ckpt/BEATs_iter3.pt" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["fetch"],
        ["fetch", "everything"],
        ["fetch", "clips"],
        ["fetch", "clips", "a", "b"],
        ["fetch", "clips", "a", "--rate", "0"],
        ["fetch", "clips", "a", "--rate", "nan"],
        ["fetch", "clips", "a", "--jobs", "x"],
        ["fetch", "clips", "a", "--exec", "touch x"],
        ["fetch", "clips", "a", "--proxy", "x"],
        ["fetch", "clips", "a", "--from"],
        ["fetch", "checkpoint"],
        ["fetch", "audioset", "a", "--cookies", "x"],
    ],
)
def test_usage(arguments, capsys, tmp_path, monkeypatch):
    from beatline.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2 and capsys.readouterr().err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_help(capsys):
    from beatline.cli import main

    assert main(["fetch", "--help"]) == main(["fetch", "clips", "--help"]) == 0
    assert "--cookies FILE" in capsys.readouterr().out
