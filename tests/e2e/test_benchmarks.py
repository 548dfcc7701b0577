"""The benchmarks work: their arithmetic on known values, and each that needs no peer once with tiny sizes, as
a program.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import flops  # noqa: E402
import harness  # noqa: E402
import models  # noqa: E402

from beatline.config import EncoderConfig  # noqa: E402


def test_compare_takes_turns_after_a_warm_up_and_gives_the_median_ratio():
    calls = []
    row = harness.compare(
        "a/b",
        "what",
        lambda: calls.append("ours"),
        lambda: calls.append("peer"),
        pairs=3,
        goal=harness.at_least(0),
    )
    assert calls == ["ours", "peer"] * 4
    assert row.pairs == 3 and row.met and row.quartiles[0] <= row.value <= row.quartiles[1]
    ratio = harness.ratio("a/b", "what", [1.0, 2.0, 4.0], [2.0, 2.0, 20.0], harness.at_least(2.5))
    assert (ratio.value, ratio.quartiles, ratio.met, ratio.unit) == (2.0, (1.5, 3.5), False, "x")
    assert ratio.facts == {"ours_s": 2.0, "theirs_s": 2.0}


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (harness.at_least(2), 2.0, True),
        (harness.at_most(2), 2.0, True),
        (harness.below(2), 2.0, False),
        (harness.at_least(2), 1.9, False),
    ],
)
def test_goals(goal, value, met):
    row = harness.state("a/b", "what", value, "x", goal)
    assert row.met is met and row.goal == str(goal)


def test_saving_replaces_rows_of_the_same_name_and_writes_the_page_from_all(tmp_path):
    harness.save(
        [
            harness.state("b/one", "first", 1.0, "x", harness.at_least(2)),
            harness.state("b/two", "second", 2.0, "s"),
        ],
        tmp_path,
    )
    harness.save([harness.state("a/one", "other", 3.0, "MB")], tmp_path)
    harness.save([harness.state("b/one", "first", 2.5, "x", harness.at_least(2), why=0.1234)], tmp_path)
    known = json.loads((tmp_path / "results.json").read_text())
    assert list(known) == ["a/one", "b/one", "b/two"]
    assert known["b/one"]["value"] == 2.5 and known["b/one"]["command"] == "./bench.sh b"
    assert {"device", "commit", "date", "versions"} <= known["a/one"]["where"].keys()
    page = (tmp_path / "RESULTS.md").read_text()
    assert "1 of 1 goals met" in page and "| first | 2.5 x |  | at least 2 | yes | why 0.123 |" in page
    assert page == harness.markdown(known)


def test_memory_is_that_of_the_work_alone(tmp_path, monkeypatch):
    """Neither what the work's process held before counts, nor what this process holds."""
    probe = (
        "def take(megabytes):\n    bytearray(b'x') * (3 * megabytes * 10**6)\n    return lambda: "
        "bytearray(b'x') * (megabytes * 10**6)\n"
    )
    (tmp_path / "memory_probe.py").write_text(probe)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    held = bytearray(b"x") * 300_000_000
    memory = harness.memory_of("memory_probe:take", megabytes=100)
    del held
    assert 90 < memory.peak - memory.before < 130
    assert memory.before < 200


def test_operations_are_those_that_pytorch_counts():
    assert flops.token_count(EncoderConfig(), 10) == 496
    tagger = models.random_tagger(
        smoke=True
    ).double()  # in float32 on a CPU the products are not PyTorch's own, and its attention is not counted
    fbank = tagger.fbank(torch.from_numpy(models.waveforms(2, 4))).double()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        tagger.from_fbank(fbank)
    counted = sum(counter.get_flop_counts()["Global"].values())
    assert counted == pytest.approx(
        flops.operations(tagger.config, 2, 4), rel=0.01
    )  # the gate is not in ours
    assert flops.operations(tagger.config, 2, 4, training=True) == 3 * flops.operations(tagger.config, 2, 4)


def run(name: str, tmp_path: Path) -> dict:
    """A benchmark's rows under `--smoke`."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
    }  # torch.compile would take a minute; test_resume.py has it
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--smoke", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "results.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["metrics", "filter_bank", "communication", "store", "decode", "gpu_train", "gpu_infer", "gpu_agreement"],
)
def test_smoke(name, tmp_path):
    rows = run(name, tmp_path)
    assert rows and all(row.split("/")[0] == name for row in rows)
    assert all(row["value"] == row["value"] for row in rows.values())  # no NaN


def test_every_benchmark_of_the_bench_command_is_there():
    script = (ROOT / "bench.sh").read_text()
    (names,) = (
        line.split("names=(")[1].rstrip(")\n").split() for line in script.splitlines() if "|| names=(" in line
    )
    assert len(names) >= 10
    for name in names:
        assert (BENCHMARKS / f"{name}.py").exists(), name


def test_peers_are_pinned_as_the_constraints_pin_them():
    """The bench's environment takes beatline's packages from one file and the peers' from the other."""
    constraints, peers = (
        {
            re.sub("[-_.]+", "-", name).lower(): version
            for name, version in re.findall("^([^#=\\n]+)==(.+)$", (ROOT / file).read_text(), re.M)
        }
        for file in ("constraints.txt", "benchmarks/peers.txt")
    )
    assert {"espnet", "openbeats", "torchaudio"} <= peers.keys() and "torch" in constraints
    assert {
        name: version for name, version in peers.items() if constraints.get(name, version) != version
    } == {}


def test_bench_names_an_unknown_benchmark():
    done = subprocess.run([str(ROOT / "bench.sh"), "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "there is no benchmarks/nothing.py" in done.stderr
