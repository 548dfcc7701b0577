"""The program, as a user runs it: every stage, again, on single-label folders, on foreign checkpoints, and
with wrong commands.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from beatline import cli
from beatline.core import artefact
from beatline.core.labels import LabelSet
from beatline.evaluate.predictions import Predictions
from beatline.model.checkpoints.load import load_checkpoint
from tests.helpers.tiny import arguments, write_data

GOLDEN = Path(__file__).parents[1] / "golden"


def beatline(capsys, *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("main") / "data")


def test_run_then_run_again_then_repair(csv, tmp_path, capsys):
    words = ["run", "mini", *arguments(csv, tmp_path / "run", score__baseline="true")]
    code, out, err = beatline(capsys, *words)
    assert code == 0, err
    for expected in (
        "12 clips (train 7, val 2, test 3)",
        "mAP",
        "chance",
        "95 % interval",
        "logistic regression",
        "report.html",
    ):
        assert expected in out
    folder = tmp_path / "run"
    whole = {m.parent.name for m in folder.rglob(artefact.CONTENTS)}
    assert {"model", "predictions", "score", "report"} <= whole
    assert {"RESULTS.md", "labels.csv", "report.html"} <= {p.name for p in (folder / "report").iterdir()}
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".pth", ".pkl")]
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}

    code, out, _ = beatline(capsys, *words)
    assert code == 0 and "epoch" not in out and out.count("is there already") == 5
    assert times == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}

    converted = tmp_path / "converted"
    assert beatline(capsys, "convert", str(folder / "model"), str(converted / "model"))[0] == 0
    code, _, err = beatline(capsys, "run", "mini", *arguments(csv, converted))
    assert code == 2 and "run-differs" in err and "no run has trained here" in err and err.count("\n") == 1

    damaged = folder / "predictions/scores.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00")
    code, out, _ = beatline(capsys, *words)
    assert code == 0 and str(damaged) in out and "making it again" in out and "epoch" not in out
    assert artefact.verify(folder / "predictions")

    assert beatline(capsys, "doctor", str(folder))[0] == 0
    with (folder / "model/labels.csv").open("a") as file:
        file.write("x")
    code, out, err = beatline(capsys, "doctor", str(folder))
    assert code == 4 and "labels.csv" in err and err.count("\n") == 1
    assert beatline(capsys, *words)[0] == 4  # a damaged model is never used


UNCHECKED = ("speed.jsonl", ".lock", "events.out.tfevents")  # what a run says on the side; nothing reads them


def test_a_flipped_bit_in_any_file_of_a_run_is_named(csv, tmp_path, capsys):
    folder = tmp_path / "run"
    assert beatline(capsys, "run", "mini", *arguments(csv, folder, store=str(folder / "store")))[0] == 0
    assert beatline(capsys, "verify", str(folder))[0] == 0
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(UNCHECKED)]
    assert len(files) > 40 and {
        "config.yaml",
        "log.jsonl",
        "loop.json",
        "report.html",
        "figures.json",
        "shard-00000.i16",
    } < {p.name for p in files}
    for path in files:
        content = path.read_bytes()
        path.write_bytes(
            content[: len(content) // 2]
            + bytes([content[len(content) // 2] ^ 4])
            + content[len(content) // 2 + 1 :]
            if content
            else b"x"
        )
        code, _, err = beatline(capsys, "verify", str(folder))
        path.write_bytes(content)
        assert code == 4 and str(path) in err and err.count("\n") == 1, path
    log = folder / "train/log.jsonl"
    log.write_bytes(log.read_bytes()[:-1])
    shutil.rmtree(folder / "report")
    code, _, err = beatline(capsys, "report", "mini", *arguments(csv, folder, store=str(folder / "store")))
    assert code == 4 and str(log) in err and err.count("\n") == 1


def test_rejected_inputs_have_a_line_each_and_an_exit_code_where_wanted(tmp_path, capsys):
    csv = write_data(tmp_path / "data")
    missing = [f"missing-{number}.wav" for number in range(12)]
    csv.write_text(csv.read_text() + "".join(f"{name},Tone,train\n" for name in missing))
    words = ["prepare", "mini", *arguments(csv, tmp_path / "run")]
    code, out, _ = beatline(capsys, *words)
    assert code == 0 and "12 rejected (missing-file 12)" in out and "2 more" in out and "ledger.jsonl" in out
    assert [
        line
        for line in out.splitlines()
        if line.startswith(f"rejected {missing[0]}: ") and line.endswith("[missing-file]")
    ]
    code, out, err = beatline(capsys, *words, "--data.strict", "true")
    assert code == 3 and "is there already" in out and "12 of 24 inputs" in err and err.count("\n") == 1


def test_stages_out_of_order_say_what_to_do(csv, tmp_path, capsys):
    for stage, before in (
        ("train", "prepare"),
        ("predict", "prepare"),
        ("score", "prepare"),
        ("report", "prepare"),
    ):
        code, _, err = beatline(
            capsys, stage, "mini", *arguments(csv, tmp_path / "run"), "--store", str(tmp_path / "nothing")
        )
        assert code == 2 and f"beatline {before}" in err and err.count("\n") == 1


def test_folders_of_classes_single_label(tmp_path, capsys):
    data = write_data(tmp_path / "source")
    for number in range(12):
        target = tmp_path / "classes" / ("tone" if number % 2 else "noise") / f"{number}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data.parent / f"c{number}.wav", target)
    words = arguments(data, tmp_path / "run")
    place = words.index("--data.csv")
    words[place : place + 2] = ["--data.csv", "null", "--data.folder", str(tmp_path / "classes")]
    code, _, err = beatline(
        capsys,
        "run",
        "mini",
        *words,
        "--model.task",
        "single-label",
        "--data.validation",
        "clean",
        "--data.validation_fraction",
        "0.3",
    )
    assert code == 0, err
    scores = torch.from_numpy(np.load(tmp_path / "run/predictions/scores.npy"))
    assert torch.allclose(scores.sum(1), torch.ones(len(scores)), atol=1e-5)

    several = arguments(data, tmp_path / "several", store=str(tmp_path / "store"))
    assert beatline(capsys, "prepare", "mini", *several)[0] == 0
    code, _, err = beatline(capsys, "train", "mini", *several, "--model.task", "single-label")
    assert (
        code == 2
        and "4 clips of train and val have several labels, the first is c0.wav" in err
        and err.count("\n") == 1
    )


def test_fine_tuning_starts_from_a_foreign_checkpoint(csv, tmp_path, capsys):
    words = arguments(
        csv,
        tmp_path / "run",
        model__init=str(GOLDEN / "unilm_pretrained.pt"),
        train__epochs="1",
        train__average="0",
    )
    assert beatline(capsys, "prepare", "mini", *words)[0] == 0
    code, out, err = beatline(capsys, "train", "mini", *words)
    assert code == 0 and "BEATs release, pre-trained" in out and "new head" in out, err
    assert load_checkpoint(tmp_path / "run").config.encoder_embed_dim == 48


def test_convert_both_ways(tmp_path, capsys):
    code, out, _ = beatline(capsys, "convert", str(GOLDEN / "espnet_tiny"), str(tmp_path / "own"))
    assert code == 0 and "ESPnet, 7 labels" in out
    assert (
        beatline(capsys, "convert", str(tmp_path / "own"), str(tmp_path / "back"), "--to", "espnet")[0] == 0
    )
    a, b = (load_checkpoint(p).state for p in (GOLDEN / "espnet_tiny", tmp_path / "back"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    code, _, err = beatline(capsys, "convert", str(GOLDEN / "unilm_pretrained.pt"), str(tmp_path / "x"))
    assert code == 3 and "no head" in err
    code, _, err = beatline(capsys, "convert", str(GOLDEN / "espnet_tiny"), str(tmp_path / "own"))
    assert code == 5 and "already" in err


def test_score_of_espnets_own_files(tmp_path, capsys):
    (tmp_path / "score").write_text("a 0.9 0.1\nb 0.2 0.8\nc 0.6 0.3\n")
    (tmp_path / "text").write_text("a Speech\nb Music\nc Music\n")
    (tmp_path / "token_list").write_text("Music\nSpeech\n<unk>\n")
    words = [
        "score",
        "--scores",
        str(tmp_path / "score"),
        "--text",
        str(tmp_path / "text"),
        "--tokens",
        str(tmp_path / "token_list"),
    ]
    code, out, err = beatline(capsys, *words)
    assert code == 0 and "on 3 clips" in out and "convention" not in out, err
    (tmp_path / "score").write_text("a 0.9 0.1 0.2\nb 0.2 0.8 0.1\nc 0.6 0.3 0.4\n")
    (tmp_path / "token_list").write_text("Music\nSpeech\nDog\n<unk>\n")
    code, out, err = beatline(capsys, *words, "--to", str(tmp_path / "to"))
    table = [line.split(",") for line in (tmp_path / "to/labels.csv").read_text().splitlines()[1:]]
    ap = [float(row[3]) for row in table if row[3]]
    assert (
        code == 0
        and [row[2] for row in table] == ["Music", "Speech", "Dog"]
        and table[2][3] == ""
        and len(ap) == 2
    ), err
    assert f"0 for a label without a positive: mAP {100 * sum(ap) / 3:.2f}, " in out


def test_predictions_leave_and_return_as_espnets_files(tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels = LabelSet.from_names(["Door slam", "Music", "Rain"])
    Predictions(
        tuple(f"clip{i}" for i in range(40)),
        rng.random((40, 3), dtype=np.float32),
        rng.random((40, 3)) < 0.5,
        labels,
    ).save(tmp_path / "predictions", {"kind": "predictions"})
    code, out, err = beatline(
        capsys, "score", "--predictions", str(tmp_path / "predictions"), "--to", str(tmp_path / "espnet")
    )
    assert code == 0, err
    again = [
        word
        for name, file in (("scores", "score"), ("text", "reference_text"), ("tokens", "token_list"))
        for word in (f"--{name}", str(tmp_path / "espnet" / file))
    ]
    assert beatline(capsys, "score", *again)[1].splitlines() == out.splitlines()[:-2]
    assert (
        beatline(
            capsys, "score", "--predictions", str(tmp_path / "predictions"), "--to", str(tmp_path / "espnet")
        )[0]
        == 5
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tran"], "did you mean train"),
        (["run", "nothere.yaml"], "no such file"),
        (["run", "mini", "--optim.lrr", "1"], "did you mean --optim.lr"),
        (["convert", "x"], "missing: TARGET"),
        (["score", "--scores"], "value is missing"),
        (["score", "--scores", "x"], "all of"),
        (["prepare", "as20k"], "no data is named"),
    ],
)
def test_wrong_commands_are_one_line(capsys, words, expected):
    code, _, err = beatline(capsys, *words)
    assert code in (2, 3) and expected in err and err.count("\n") == 1


def test_help_imports_no_torch_and_lists_every_setting():
    code = (
        "import sys, beatline.cli; beatline.cli.main(['--help']); beatline.cli.main(['run', '--help']); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    for words in (
        "Highest learning rate, above 0 (3e-05)",
        "Folder of the run; made if missing",
        "Transformer layers, at least 1",
    ):
        assert words in said
    for setting in (
        "--optim.lr",
        "--data.audioset",
        "--model.encoder.encoder_layers",
        "--train.workers",
        "convert ",
    ):
        assert setting in done.stdout


def test_the_log_is_readable(csv, tmp_path, capsys):
    words = arguments(csv, tmp_path / "run")
    for stage in ("prepare", "train"):
        assert beatline(capsys, stage, "mini", *words)[0] == 0
    records = [json.loads(line) for line in (tmp_path / "run/train/log.jsonl").read_text().splitlines()]
    assert [r["event"] for r in records] == ["step", "step", "validation"] * 3
    assert {"step", "epoch", "loss", "lr", "grad_norm"} < set(records[0]) and {
        "mAP",
        "mean_auc",
        "loss",
    } < set(records[2])
    board = EventAccumulator(str(tmp_path / "run/train/tensorboard")).Reload()
    steps, validations = ([r for r in records if r["event"] == event] for event in ("step", "validation"))
    for event, names, group in (
        (steps, ("loss", "lr", "grad_norm"), "train"),
        (validations, ("mAP", "mean_auc", "loss"), "validation"),
    ):
        for name in names:
            assert [(p.step, p.value) for p in board.Scalars(f"{group}/{name}")] == [
                (r["step"], pytest.approx(r[name], rel=1e-6)) for r in event
            ]
