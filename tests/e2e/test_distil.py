"""Learning from a teacher: exact on resume, alike in two processes, from any model, to a plain model."""

import json
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

import beatline
from beatline import recipe
from beatline.core import artefact
from beatline.core.console import read_log
from beatline.core.errors import UserError
from beatline.data.store import Store
from beatline.model.checkpoints.load import load_tagger
from beatline.model.checkpoints.own import load_tensors
from beatline.model.geometry import tile_short
from beatline.train import checkpoints, teach
from beatline.train.loop import Trainer
from beatline.train.teacher import TeacherTable
from tests.helpers.runs import assert_same_figures, newest
from tests.helpers.stores import die_at, in_child
from tests.helpers.teachers import write_table
from tests.helpers.tiny import arguments, tiny, write_data

ALL = {
    "train__objective": "teacher",
    "train__precision": "bfloat16",
    "train__own_attention": "true",
    "train__crop_seconds": "0.22",
    "train__crop_epochs": "2",
    "train__crop_batch": "3",
    "train__balance": "0.5",
    "train__ema": "0.9",
    "train__average": "0",
    "optim__decay_vectors": "false",
    "augment__gain": "6",
    "model__encoder__attention_dropout": "0.0",
}
"""Everything that a long training of a small model has."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distil")
    csv = write_data(folder / "data")
    plain = tiny(csv, folder / "plain")
    recipe.prepare(plain)
    recipe.train(plain)
    table = write_table(folder / "table", Store.open(plain.store_folder))
    return csv, table, plain.out


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that nobody stops, and how many named points it passes."""
    csv, table, _ = data
    config = tiny(csv, tmp_path_factory.mktemp("whole") / "run", train__teacher=str(table), **ALL)
    points = []
    artefact.checkpoint_hook, hook = points.append, artefact.checkpoint_hook
    try:
        Trainer(config, Store.open(config.store_folder)).run()
    finally:
        artefact.checkpoint_hook = hook
    return config, len(points)


def ended(out):
    """Hashes of what a run ends with."""
    names = [
        out / "model/model.safetensors",
        out / "train/log.jsonl",
        *sorted(newest(out).glob("*.safetensors")),
    ]
    return {path.name: artefact.sha256_file(path) for path in names}


def killed(config, points: list[int]) -> int:
    """Kills a run at named points, then lets it end; how many kills hit."""
    hits = 0
    for point in [*points, None]:

        def work(point=point):
            if point:
                artefact.checkpoint_hook = die_at(point)
            Trainer(config, Store.open(config.store_folder)).run()

        status = in_child(work)
        hits += status == -signal.SIGKILL
        assert status in (0, -signal.SIGKILL)
    return hits


def test_kills_end_with_the_same_bits(data, whole, tmp_path):
    csv, table, _ = data
    reference, points = whole
    rng, hits = random.Random(0), 0
    for run in range(3):
        config = tiny(csv, tmp_path / f"run{run}", train__teacher=str(table), **ALL)
        hits += killed(config, [rng.randrange(1, points // 4) for _ in range(6)])
        assert ended(config.out) == ended(reference.out)
    assert hits >= 12


@pytest.mark.parametrize("forgotten", ["ema.load", "load_tensors"])
def test_a_planted_fault_is_seen(data, whole, tmp_path, monkeypatch, forgotten):
    csv, table, _ = data
    reference, points = whole
    if forgotten == "ema.load":
        monkeypatch.setattr("beatline.train.ema.Ema.load", lambda *_: None)
    else:
        real = checkpoints.load_tensors

        def lost(path):
            return {k: v * 1.5 if path.name == checkpoints.BESIDE else v for k, v in real(path).items()}

        monkeypatch.setattr(checkpoints, "load_tensors", lost)
    config = tiny(csv, tmp_path / "run", train__teacher=str(table), **ALL)
    assert killed(config, [points // 3]) == 1
    assert ended(config.out) != ended(reference.out)


@pytest.mark.parametrize("workers", ["1", "3"])
def test_the_number_of_workers_changes_nothing(data, whole, tmp_path, workers):
    csv, table, _ = data
    config = tiny(csv, tmp_path / "run", train__teacher=str(table), **ALL, train__workers=workers)
    recipe.train(config)
    assert ended(config.out) == ended(whole[0].out)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(data, tmp_path):
    csv, table, _ = data
    changes = ALL | {
        "train__teacher": str(table),
        "train__precision": "float32",
        "train__accumulate": "2",
        "model__encoder__dropout": "0.0",
    }
    one = tiny(csv, tmp_path / "one", **changes)
    recipe.train(one)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "beatline"]
    command = [sys.executable, *torchrun, "train", "mini", *arguments(csv, tmp_path / "two", **changes)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    logs = (read_log(tmp_path / name / "train/log.jsonl") for name in ("one", "two"))
    assert_same_figures(*logs)


def test_what_is_published_is_a_plain_model_of_the_mean(whole):
    config, _ = whole
    model = load_tensors(config.out / "model/model.safetensors")
    assert not [name for name in model if name.startswith("objective")]
    tagger = beatline.load(config.out)
    assert len(tagger.labels) == 3
    about = json.loads((config.out / "model/config.json").read_text())["about"]
    assert "running mean of the weights by 0.9" in about["chosen"] and about["best_validation_mAP"] >= 0
    checkpoint = newest(config.out)
    weights, mean = (load_tensors(checkpoint / name) for name in ("model.safetensors", "ema.safetensors"))
    assert weights.keys() == mean.keys() == model.keys() and not torch.equal(
        weights["head.weight"], mean["head.weight"]
    )
    assert load_tagger(checkpoint).state.keys() == model.keys()


def test_a_run_from_a_checkpoint_goes_on_with_its_map(data, whole, tmp_path):
    csv, table, _ = data
    start = newest(whole[0].out)
    config = tiny(csv, tmp_path / "run", train__teacher=str(table), model__init=str(start), **ALL)
    tagger = Trainer(config, Store.open(config.store_folder)).tagger
    saved = load_tensors(start / checkpoints.BESIDE)
    assert all(torch.equal(tagger.state_dict()[name], tensor) for name, tensor in saved.items())


def test_a_run_without_teacher_has_no_files_more(data):
    names = {path.name for path in newest(data[2]).iterdir()}
    assert not names & {"ema.safetensors", "objective.safetensors"}


def test_a_model_is_a_teacher(data, tmp_path, capsys):
    csv, _, model = data
    changes = {"train__objective": "teacher", "train__teacher": str(model), "train__epochs": "20"}
    config = tiny(csv, tmp_path / "run", **changes, train__average="1", optim__lr="0.01")
    recipe.train(config)
    losses = [r["loss"] for r in read_log(config.out / "train/log.jsonl") if r["event"] == "step"]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    store = Store.open(config.store_folder)
    clips = store.splits["train"]
    table = TeacherTable(config.out / "teacher", store)
    assert table.patches == 1 and table.width == 16
    loaded = load_tagger(model).tagger().eval()
    for clip in clips[:3]:
        samples = tile_short(store.samples(int(clip)))[None]
        with torch.no_grad():
            scores = loaded.score(loaded(torch.from_numpy(samples / np.float32(32768))))
        assert np.allclose(table.scores(np.array([clip]))[0, 0], scores[0].numpy(), atol=2e-3)
    recipe.train(config)
    assert "is there already" in capsys.readouterr().out


def test_teaching_goes_on_after_the_last_whole_piece(data, tmp_path, monkeypatch):
    csv, _, model = data
    store = Store.open(tiny(csv, tmp_path / "run").store_folder)
    monkeypatch.setattr(teach, "PIECE", 2)

    def write(folder):
        teach.write_table(model, store, folder, torch.device("cpu"), "float32")

    write(tmp_path / "once/teacher")

    def work():
        artefact.checkpoint_hook = die_at(3)
        write(tmp_path / "twice/teacher")

    assert in_child(work) == -signal.SIGKILL
    assert len([*(tmp_path / "twice").rglob("*.npz")]) == 3 and not (tmp_path / "twice/teacher").exists()
    points = []
    monkeypatch.setattr(artefact, "checkpoint_hook", points.append)
    write(tmp_path / "twice/teacher")
    assert points.count("piece") == 2
    for name in ("scores.npy", "embeddings.npy", "ids.txt", "teacher.json"):
        once, twice = ((tmp_path / run / "teacher" / name).read_bytes() for run in ("once", "twice"))
        assert once == twice, name
    assert not [*(tmp_path / "twice").glob("*.pieces")]


def test_clips_without_a_label_learn_from_a_teacher_alone(data, tmp_path):
    csv, _, model = data
    bare = tmp_path / "data/clips.csv"
    shutil.copytree(csv.parent, bare.parent)
    lines = csv.read_text().splitlines()
    bare.write_text(
        "\n".join([lines[0], *(f"{line.split(',')[0]},,{line.split(',')[2]}" for line in lines[1:])])
    )
    changes = {
        "data__unlabelled": "true",
        "data__labels": str(model / "model/labels.csv"),
        "train__objective": "teacher",
        "train__teacher": str(model),
        "train__balance": "0.5",
    }
    config = tiny(bare, tmp_path / "run", **changes)
    recipe.run(config)
    assert len(beatline.load(config.out).labels) == 3
    strict = tiny(bare, tmp_path / "strict", store=str(tmp_path / "other"), data__strict="true")
    with pytest.raises(UserError, match="rejected"):
        recipe.prepare(strict)


def test_an_objective_without_a_teacher_is_refused_before_anything_is_prepared(data, tmp_path):
    csv, _, _ = data
    config = tiny(csv, tmp_path / "run", train__objective="teacher")
    with pytest.raises(UserError, match=r"train\.teacher: .*none is given"):
        recipe.run(config)
    assert not config.out.exists()
