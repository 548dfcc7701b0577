"""Pull the plug: a run killed anywhere and resumed ends with the same bits as one that was not."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from beatline import recipe
from beatline.core import artefact
from beatline.core.console import read_log
from beatline.data.store import Store
from beatline.model.checkpoints.own import load_tensors
from beatline.train import checkpoints
from beatline.train import loop as train
from beatline.train.batches import epoch_batches
from beatline.train.start import new_tagger
from tests.helpers.runs import assert_same_figures, newest
from tests.helpers.stores import die_at, in_child
from tests.helpers.tiny import arguments, tiny, write_data

KILLS = 200


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared store, an uninterrupted run on it, and how many named points that run passes."""
    folder = tmp_path_factory.mktemp("resume")
    csv = write_data(folder / "data")
    reference = tiny(csv, folder / "reference")
    recipe.prepare(reference)
    points = 0

    def count(name: str) -> None:
        nonlocal points
        points += 1

    artefact.checkpoint_hook, hook = count, artefact.checkpoint_hook
    try:
        train.Trainer(reference, Store.open(reference.store_folder)).run()
    finally:
        artefact.checkpoint_hook = hook
    again = tiny(csv, folder / "again")  # warm: how long a child takes
    started = time.monotonic()
    train.Trainer(again, Store.open(again.store_folder)).run()
    assert result(again.out) == result(reference.out)
    return folder, csv, result(reference.out), points, time.monotonic() - started


def result(out: Path) -> dict[str, str]:
    """Hashes of what a run ends with: weights, the last checkpoint with its optimiser state, and the log."""
    last = newest(out)
    artefact.verify(out / "model")
    artefact.verify(last)
    names = [
        out / "model/model.safetensors",
        *(last / n for n in ("model.safetensors", "optimiser.safetensors", "loop.json")),
        out / "train/log.jsonl",
    ]
    return {f"{path.parent.name}/{path.name}": artefact.sha256_file(path) for path in names}


def killed_run(config, rng: random.Random, points: int, seconds: float, kills: int) -> int:
    """Kills a run `kills` times, at named points and at random moments, then lets it end; the number of kills
    that hit.
    """
    hits = 0
    for attempt in range(kills + 1):
        point = rng.randrange(1, points) if attempt % 2 else None

        def work(point=point, last=attempt == kills):
            if point and not last:
                artefact.checkpoint_hook = die_at(point)
            train.Trainer(config, Store.open(config.store_folder)).run()

        moment = rng.uniform(0, seconds) if point is None and attempt < kills else None
        status = in_child(work, moment)
        hits += status == -signal.SIGKILL
        assert status in (0, -signal.SIGKILL), f"the child failed with {status}"
    return hits


@pytest.mark.parametrize("seed", range(4))  # four tests, which workers share
def test_two_hundred_kills_end_with_the_same_bits(data, tmp_path, seed):
    _, csv, expected, points, seconds = data
    rng, hits, run = random.Random(seed), 0, 0
    while hits < KILLS // 4:
        config = tiny(csv, tmp_path / f"run{run}")
        hits += killed_run(config, rng, points // 3, seconds / 3, kills=12)
        assert result(config.out) == expected, f"run {run}"
        assert not [*config.out.rglob("*.partial"), *config.out.rglob("*.old")]
        run += 1
    print(f"{hits} kills in {run} runs")


def test_kills_where_the_best_epoch_is_the_model(data, tmp_path):
    _, csv, _, points, seconds = data
    whole, config = (tiny(csv, tmp_path / name, train__average="0") for name in ("whole", "killed"))
    train.Trainer(whole, Store.open(whole.store_folder)).run()
    assert killed_run(config, random.Random(1), points // 6, seconds / 2, kills=8) >= 5
    assert result(config.out) == result(whole.out)


def test_a_full_disk_leaves_the_last_checkpoint(data, tmp_path):
    _, csv, expected, points, _ = data
    config = tiny(csv, tmp_path / "run")

    def work():
        artefact.checkpoint_hook = die_at(points // 2)
        train.Trainer(config, Store.open(config.store_folder)).run()

    in_child(work)
    before = newest(config.out)
    full = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, "
        f"({(before / 'model.safetensors').stat().st_size},) * 2); from beatline import cli; "
        f"sys.exit(cli.main(sys.argv[1:]))"
    )
    stopped = subprocess.run(
        [sys.executable, "-c", full, "train", "mini", *arguments(csv, config.out)],
        capture_output=True,
        text=True,
    )
    assert stopped.returncode == 5 and "resuming at step" in stopped.stdout, stopped
    assert len(stopped.stderr.splitlines()) == 1 and stopped.stderr.endswith("[disk-full]\n"), stopped.stderr
    assert newest(config.out) == before and artefact.verify(before)
    recipe.train(config)
    assert result(config.out) == expected


def test_a_planted_fault_is_seen(data, tmp_path, monkeypatch):
    """If resuming forgot the optimiser's state, the kill test would be red."""
    _, csv, expected, points, _ = data
    monkeypatch.setattr(checkpoints, "load_state_tensors", lambda *_: None)
    config = tiny(csv, tmp_path / "run")
    for point in (points // 3, points // 3):

        def work(point=point):
            artefact.checkpoint_hook = die_at(point)
            train.Trainer(config, Store.open(config.store_folder)).run()

        in_child(work)
    assert in_child(lambda: train.Trainer(config, Store.open(config.store_folder)).run()) == 0
    assert result(config.out) != expected


@pytest.mark.parametrize("workers", ["1", "2", "4"])
def test_the_number_of_workers_changes_nothing(data, tmp_path, workers):
    _, csv, expected, _, _ = data
    config = tiny(csv, tmp_path / "run", train__workers=workers)
    train.Trainer(config, Store.open(config.store_folder)).run()
    assert result(config.out) == expected


def test_layers_computed_again_change_no_bit(data, tmp_path):
    _, csv, expected, _, _ = data
    config = tiny(csv, tmp_path / "run", train__recompute="true")
    train.Trainer(config, Store.open(config.store_folder)).run()
    assert result(config.out) == expected


def test_sigterm_saves_at_the_next_step_and_exits_143(data, tmp_path):
    _, csv, _, _, _ = data
    reference = tiny(csv, tmp_path / "whole", train__epochs="30", train__average="0")
    train.Trainer(reference, Store.open(reference.store_folder)).run()
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "beatline",
        "train",
        "mini",
        *arguments(csv, out, train__epochs="30", train__average="0", train__save_every="1000"),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        log = out / "train/log.jsonl"
        while child.poll() is None and (not log.exists() or log.stat().st_size < 2000):
            time.sleep(0.01)
        child.terminate()
        errors = child.communicate()[1]
    assert child.returncode == 143, errors
    assert 0 < len(log.read_text().splitlines()) < 90
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    assert result(out) == result(reference.out)


TOLD = """
import os, signal, sys
from beatline import cli
from beatline.train import loop as train

whole = getattr(train.Trainer, sys.argv[1])

def told(trainer):
    if trainer.loop.epoch == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return whole(trainer)

setattr(train.Trainer, sys.argv[1], told)
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("moment", ["validate", "publish_model"])
def test_sigterm_after_the_last_step_is_not_lost(data, tmp_path, moment):
    _, csv, expected, _, _ = data
    out = tmp_path / "run"
    command = [sys.executable, "-c", TOLD, moment, "run", "mini", *arguments(csv, out)]
    stopped = subprocess.run(command, capture_output=True, text=True)
    assert stopped.returncode == 143, stopped
    assert (out / "model").exists() == (moment == "publish_model") and not (out / "predictions").exists()
    recipe.train(tiny(csv, out))
    assert result(out) == expected


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "loop.json", "contents.json"])
def test_a_damaged_last_checkpoint_is_named_and_the_one_before_is_used(data, tmp_path, capsys, name):
    _, csv, expected, points, _ = data
    config = tiny(csv, tmp_path / "run")

    def work():
        artefact.checkpoint_hook = die_at(points * 2 // 3)
        train.Trainer(config, Store.open(config.store_folder)).run()

    in_child(work)
    last = newest(config.out)
    damaged = bytearray((last / name).read_bytes())
    damaged[len(damaged) // 2] ^= 4
    (last / name).write_bytes(damaged)
    train.Trainer(config, Store.open(config.store_folder)).run()
    said = capsys.readouterr().out
    assert str(last) in said and "checkpoint before it" in said
    assert result(config.out) == expected


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(data, tmp_path):
    """torchrun with two gloo processes on the same global batches; sums in another order, so 1e-4. The first
    does alone what is not training.
    """
    _, csv, _, _, _ = data
    changes = {
        "model__encoder__dropout": "0.0",
        "train__accumulate": "2",
        "train__batch": "3",
    }  # of the last batch, one clip, the second gets none
    one = tiny(csv, tmp_path / "one", **changes)
    train.Trainer(one, Store.open(one.store_folder)).run()
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "beatline",
        "run",
        "mini",
    ]
    done = subprocess.run(
        [*command, *arguments(csv, tmp_path / "two", **changes, store=str(tmp_path / "store"))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for once in ("12 inputs", "3 test clips with", "95 % interval", "report.html"):
        assert done.stdout.count(once) == 1, done.stdout
    single, double = (read_log(tmp_path / name / "train/log.jsonl") for name in ("one", "two"))
    assert_same_figures(single, double)


def test_accumulated_microsteps_have_the_losses_of_a_whole_step(data, tmp_path):
    _, csv, _, _, _ = data
    logs = []
    for parts in ("1", "3"):
        config = tiny(csv, tmp_path / parts, train__accumulate=parts, model__encoder__dropout="0.0")
        train.Trainer(config, Store.open(config.store_folder)).run()
        logs.append(read_log(config.out / "train/log.jsonl"))
    assert_same_figures(*logs)


def test_bfloat16_trains_near_float32(data, tmp_path):
    folder, csv, _, _, _ = data
    config = tiny(csv, tmp_path / "run", train__precision="bfloat16")
    train.Trainer(config, Store.open(config.store_folder)).run()
    logs = [read_log(out / "train/log.jsonl") for out in (folder / "reference", config.out)]
    exact, rounded = ([r["loss"] for r in log if r["event"] == "step"] for log in logs)
    assert rounded == pytest.approx(exact, rel=0.02) and rounded != exact
    assert {t.dtype for t in load_tensors(config.out / "model/model.safetensors").values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch.compile itself
def test_compiled_layers_train_alike(data, monkeypatch):
    """As torch.compile takes the layers apart, forward and backward; its code generator needs a minute of g++
    here, `./bench.sh --smoke gpu_train` asks it.
    """
    folder, csv, _, _, _ = data
    compiled, results = [], []
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda layer: compiled.append(layer) or compile_module(layer, backend="aot_eager"),
    )
    for name in ("false", "true"):
        config = tiny(csv, folder / "compiled", train__compile=name, model__encoder__dropout="0.0")
        tagger = new_tagger(config, Store.open(config.store_folder).labels)
        logits = tagger.from_fbank(
            torch.randn(3, 48, 128, generator=torch.Generator().manual_seed(0)),
            torch.arange(24) >= torch.tensor([24, 16, 8])[:, None],
        )
        logits.square().sum().backward()
        assert compiled == (list(tagger.encoder.layers) if name == "true" else [])
        results.append([logits, *(parameter.grad for parameter in tagger.parameters())])
    for plain, compiled in zip(*results, strict=True):
        assert torch.allclose(plain, compiled, rtol=1e-4, atol=1e-6)


def test_the_model_is_the_mean_of_the_last_epochs(data):
    folder, _, _, _, _ = data
    epochs = [
        load_tensors(path / "model.safetensors")
        for path in sorted((folder / "reference/train/epochs").glob("epoch-*"))[-2:]
    ]
    model = load_tensors(folder / "reference/model/model.safetensors")
    assert all(
        torch.allclose(model[name], (epochs[0][name] + epochs[1][name]) / 2, atol=1e-7) for name in model
    )
    assert any(not torch.equal(epochs[0][name], epochs[1][name]) for name in model)


def test_a_resumed_run_may_not_change_its_settings(data, tmp_path):
    folder, csv, _, _, _ = data
    config = tiny(csv, folder / "reference", optim__lr="5e-4")
    settings = (folder / "reference/config.yaml").read_text()
    with pytest.raises(recipe.UserError, match=r"optim.lr is 0.0005, was 0.002") as caught:
        train.Trainer(config, Store.open(config.store_folder)).run()
    assert caught.value.code == "run-differs" and caught.value.exit_code == 2
    assert (folder / "reference/config.yaml").read_text() == settings


def test_a_loss_that_is_not_finite_stops_with_the_clips(data, tmp_path, monkeypatch):
    _, csv, _, _, _ = data
    config = tiny(csv, tmp_path / "run")
    trainer = train.Trainer(config, Store.open(config.store_folder))
    steps = trainer.step

    def poisoned(batches):
        if trainer.loop.step == 3:
            with torch.no_grad():
                trainer.tagger.head.weight.fill_(float("inf"))
        return steps(batches)

    monkeypatch.setattr(trainer, "step", poisoned)
    with pytest.raises(recipe.UserError) as caught:
        trainer.run()
    text = str(caught.value)
    assert caught.value.code == "not-finite-loss" and "step 4" in text and ".wav" in text
    artefact.verify(newest(config.out))


@pytest.mark.slow
def test_of_two_processes_the_clips_of_both_are_named(data, tmp_path):
    _, csv, _, _, _ = data
    config = tiny(csv, tmp_path / "run", optim__lr="1e38", optim__warmup_steps="0")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "beatline",
        "train",
        "mini",
    ]
    done = subprocess.run(
        [*command, *arguments(csv, config.out, optim__lr="1e38", optim__warmup_steps="0")],
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stderr.split("beatline: ") if "not-finite-loss" in line]
    store, step = Store.open(config.store_folder), len(read_log(config.out / "train/log.jsonl"))
    named = epoch_batches(store, store.splits["train"], config.train, 0)[step]
    assert lines and all(store.ids[i] in line for line in lines for i in named), done.stderr


def test_the_best_epoch_of_the_checkpoint_before_the_last_is_kept(data, tmp_path, monkeypatch):
    """Should the last be damaged, and what is done again not be the best again, as on a machine that rounds
    otherwise.
    """
    _, csv, _, _, _ = data
    config = tiny(csv, tmp_path / "run", train__average="0", train__epochs="4")
    figures, validate = [0.1, 0.5, 0.2, 0.6], train.Trainer.validate
    monkeypatch.setattr(
        train.Trainer, "validate", lambda self: validate(self) | {"mAP": figures[self.loop.epoch - 1]}
    )
    train.Trainer(config, Store.open(config.store_folder)).run()
    shutil.rmtree(config.out / "model")
    shutil.rmtree(newest(config.out))
    figures[3] = 0.4
    train.Trainer(config, Store.open(config.store_folder)).run()
    assert (
        json.loads((config.out / "model/config.json").read_text())["about"]["chosen"]
        == "epoch 2, the best on validation"
    )
