"""What training cannot use is refused before anything is prepared."""

import pytest
import torch

import beatline
from beatline.core.errors import UserError
from beatline.model.heads import HEADS
from beatline.train import start
from beatline.train.augment import AUGMENTATIONS
from beatline.train.augmentation import Augmentation
from beatline.train.objectives import OBJECTIVES
from beatline.train.objectives.clips import Clips


@pytest.mark.parametrize(
    "option, named",
    [
        ("--train.objective=clip", "did you mean clips?"),
        ("--augment.order=[mixup, gian]", "did you mean gain?"),
        ("--model.head=liner", "did you mean linear?"),
        ("--optim.rates={heads: 2}", "head"),
        ("--train.device=cuda", "no GPU"),
    ],
)
def test_run_refuses_it_before_prepare(tmp_path, option, named):
    if "cuda" in option and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    config = beatline.load_config("mini", (f"--out={tmp_path / 'run'}", option))
    with pytest.raises(UserError, match="bad-config") as refused:
        beatline.run(config)
    assert named in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_run_refuses_a_rate_of_no_part_though_it_starts_from_a_checkpoint(tmp_path):
    options = (f"--out={tmp_path / 'run'}", "--model.init=/no/checkpoint", "--optim.rates={heads: 2}")
    with pytest.raises(UserError, match="no parameter's name begins with heads"):
        beatline.run(beatline.load_config("mini", options))
    assert not (tmp_path / "run").exists()


def test_names_from_outside_the_package_are_known_at_once(monkeypatch):
    monkeypatch.setitem(AUGMENTATIONS, "hush", type("Hush", (Augmentation,), {"on": "waveforms"}))
    monkeypatch.setitem(OBJECTIVES, "own", Clips)
    monkeypatch.setitem(HEADS, "mine", "beatline.model.heads.linear")
    options = (
        "--augment.order=[hush]",
        "--train.objective=own",
        "--model.head=mine",
        "--optim.rates={head: 2}",
    )
    start.check(beatline.load_config("mini", options))


def test_a_rate_of_a_checkpoints_layer_is_left_to_training():
    options = ("--model.init=/no/checkpoint", "--optim.rates={encoder.layers.23: 2}")
    start.check(beatline.load_config("mini", options))
