"""What a stranger adds to training is one class, and a tiny training runs with it; and runs that an older
beatline began are finished.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from beatline import load_config, recipe
from beatline.core.artefact import read_contents
from beatline.core.console import read_log
from beatline.core.errors import UserError
from beatline.data.store import Store
from beatline.model.checkpoints.load import load_tagger
from beatline.model.heads import HEADS
from beatline.train import draws
from beatline.train.augment import AUGMENTATIONS
from beatline.train.augmentation import Augmentation
from beatline.train.identity import check_identity, identity
from beatline.train.loop import Trainer
from beatline.train.objective import Objective
from beatline.train.objectives import OBJECTIVES
from beatline.train.observers import Observer
from tests.helpers.tiny import tiny, write_data

GOLDEN = Path(__file__).parents[1] / "golden"


class Noise(Augmentation):
    """White noise, as loud as `augment.more` says."""

    on = "waveforms"

    def change(self, rows):
        level = self.settings.more["noise"]["level"]
        noises = [
            torch.from_numpy(level * rng.standard_normal(n))
            for rng, n in zip(rows.of_clip, rows.lengths, strict=True)
        ]

        def add(waveforms):
            noisy = waveforms.clone()
            for row, noise in zip(noisy, noises, strict=True):
                row[: len(noise)] += noise
            return noisy

        return add


class Quiet(Objective):
    """Logits near zero."""

    best = "calm"

    def __init__(self, config, store):
        self.store = store

    def outputs(self, tagger, fbank, is_padding, skip):
        return tagger.from_fbank(fbank, is_padding, skip)

    def loss(self, outputs, batch):
        return outputs.square().mean(dim=1).sum()

    def validate(self, tagger, clips, processes):
        return {"calm": 1 / (1 + float(tagger.head.weight.detach().norm())), "clips": float(len(clips))}


class Losses(Observer):
    """Every loss, in a list."""

    def __init__(self):
        self.losses, self.ended = [], False

    def hear(self, event, step, epoch, figures):
        if event == "step":
            self.losses.append((step, figures["loss"]))

    def end(self):
        self.ended = True


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    csv = write_data(tmp_path_factory.mktemp("parts") / "data")
    recipe.prepare(tiny(csv, csv.parent / "run"))
    return csv


def steps_of(settings) -> list[dict]:
    recipe.train(settings)
    return [record for record in read_log(settings.out / "train/log.jsonl") if record["event"] == "step"]


def test_an_augmentation_is_one_class(csv, tmp_path, monkeypatch):
    monkeypatch.setitem(AUGMENTATIONS, "noise", Noise)
    names = {"plain": "[mixup, roll]", "noisy": "[mixup, roll, noise]"}
    plain, noisy = (
        steps_of(tiny(csv, tmp_path / name, augment__order=order, augment__more="{noise: {level: 0.1}}"))
        for name, order in names.items()
    )
    assert len(plain) == len(noisy) == 6 and plain[0]["loss"] != noisy[0]["loss"]
    about = read_contents(tmp_path / "noisy/model")
    assert about["identity"]["augment"]["more"] == {"noise": {"level": 0.1}}


def test_an_objective_is_one_class(csv, tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "quiet", Quiet)
    changes = {"train__average": "0", "train__epochs": "10", "optim__lr": "0.02"}
    settings = tiny(csv, tmp_path / "run", train__objective="quiet", **changes)
    losses = [record["loss"] for record in steps_of(settings)]
    assert sum(losses[-5:]) < sum(losses[:5])
    validation = [r for r in read_log(settings.out / "train/log.jsonl") if r["event"] == "validation"]
    assert validation[0].keys() == {"event", "step", "epoch", "calm", "clips"}
    about = json.loads((settings.out / "model/config.json").read_text())["about"]
    assert about["best_validation_calm"] == max(record["calm"] for record in validation)


def test_a_head_is_one_class(csv, tmp_path, monkeypatch):
    monkeypatch.setitem(HEADS, "gained", "tests.helpers.toys.head")
    settings = tiny(csv, tmp_path / "run", model__head="gained")
    steps_of(settings)
    trained = load_tagger(settings.out / "model").tagger()
    assert trained.head.settings() == {"name": "gained", "start": 2.0} and (trained.head.gain != 2).any()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"train__objective": "clip"}, "did you mean clips"),
        ({"augment__order": "[gian]"}, "did you mean gain"),
        ({"model__head": "liner"}, "did you mean linear"),
    ],
)
def test_a_part_that_there_is_not_is_named_with_the_nearest(csv, tmp_path, setting, said):
    with pytest.raises(UserError, match=said):
        recipe.train(tiny(csv, tmp_path / "run", **setting))
    assert not (tmp_path / "run/model").exists()


def test_an_observer_hears_every_step(csv, tmp_path):
    settings, observer = tiny(csv, tmp_path / "run"), Losses()
    trainer = Trainer(settings, Store.open(settings.store_folder))
    trainer.observers.append(observer)
    trainer.run()
    written = [(r["step"], r["loss"]) for r in read_log(trainer.log.path) if r["event"] == "step"]
    assert observer.losses == written and len(written) == 6 and observer.ended


def test_a_part_of_the_model_may_stand_still(csv, tmp_path):
    settings = tiny(csv, tmp_path / "run", optim__rates="{encoder: 0}", optim__weight_decay="0.0")
    trainer = Trainer(settings, Store.open(settings.store_folder))
    before = {name: tensor.clone() for name, tensor in trainer.tagger.state_dict().items()}
    trainer.run()
    changed = {
        name for name, tensor in trainer.tagger.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"head.weight", "head.bias"}


def test_asking_for_an_identity_builds_no_trainer(csv, tmp_path, monkeypatch):
    settings = tiny(csv, tmp_path / "run")
    recipe.train(settings)
    monkeypatch.setattr(Trainer, "__init__", None)
    recipe.train(settings)
    now = identity(settings, Store.open(settings.store_folder))
    check_identity(settings.out, read_contents(settings.out / "model")["identity"], now)


@pytest.fixture
def old_run(tmp_path, monkeypatch):
    """A run of commit 0306210, killed in its third epoch of four; and the log of the same run, not killed."""
    with tarfile.open(GOLDEN / "unfinished_run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path / "run")
    return load_config("settings.yaml", ["--out", "unfinished"])


def test_an_older_beatlines_run_is_finished(old_run, capsys):
    recipe.train(old_run)
    assert "resuming at step 5 of 8" in capsys.readouterr().out
    here, there = (read_log(Path(name)) for name in ("unfinished/train/log.jsonl", "finished/log.jsonl"))
    assert [record["step"] for record in here] == [record["step"] for record in there]
    for mine, theirs in zip(here, there, strict=True):
        assert mine.keys() == theirs.keys()
        np.testing.assert_allclose(
            [v for v in mine.values() if v != mine["event"]],
            [v for v in theirs.values() if v != theirs["event"]],
            rtol=1e-3,  # on the same machine they are the same bits
        )

    assert read_contents(Path("unfinished/model"))["identity"]["draws"] == draws.SHARED
    recipe.train(old_run)
    assert "unfinished/model is there already" in capsys.readouterr().out


def test_a_new_run_names_the_rule_of_its_draws(csv, tmp_path):
    settings = tiny(csv, tmp_path / "run")
    recipe.train(settings)
    assert read_contents(settings.out / "model")["identity"]["draws"] == draws.NAMED


def test_a_run_of_a_rule_that_is_not_known_is_refused_in_one_line(csv, tmp_path):
    settings = tiny(csv, tmp_path / "run")
    now = identity(settings, Store.open(settings.store_folder))
    check_identity(settings.out, now | {"draws": draws.SHARED}, now)
    with pytest.raises(UserError, match="draw by rule 3") as caught:
        check_identity(settings.out, now | {"draws": 3}, now)
    assert caught.value.code == "run-differs" and "\n" not in str(caught.value)


def test_a_setting_that_the_older_beatline_did_not_have_counts(old_run):
    for changed in (
        ["--augment.order", "[mixup]"],
        ["--train.objective", "other"],
        ["--optim.rates", "{head: 2}"],
    ):
        given = load_config("settings.yaml", ["--out", "unfinished", *changed])
        with pytest.raises(UserError, match=changed[0].removeprefix("--")):
            recipe.train(given)
