"""What a program gives by mistake gets one line, whatever its type."""

import numpy as np
import pytest

import beatline
from beatline.core.errors import UserError
from beatline.model.engines.pytorch import TorchEngine
from tests.helpers.models import LABELS, make_tagger


@pytest.fixture(scope="module")
def tiny_tagger():
    return beatline.AudioTagger(TorchEngine(make_tagger(), LABELS))


WRONG = [3, None, "", b"x", ["a"], 1j]


@pytest.mark.parametrize("value", [value for value in WRONG if value is not None], ids=repr)
def test_load_refuses_what_names_no_model(value):
    with pytest.raises(UserError, match=r"no model: .* names none"):
        beatline.load(value)


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_load_checkpoint_refuses_what_is_no_path(value):
    with pytest.raises(UserError, match="no checkpoint"):
        beatline.load_checkpoint(value)


@pytest.mark.parametrize("value", [3, None, ["a"]], ids=repr)
def test_load_config_refuses_what_is_no_name(value):
    with pytest.raises(UserError, match="names none"):
        beatline.load_config(value)


def test_load_config_refuses_overrides_that_are_no_words():
    with pytest.raises(UserError, match="type int names none"):
        beatline.load_config("mini", 3)


def test_load_config_does_not_print_a_file_that_is_no_yaml(tmp_path):
    (tmp_path / "secret.txt").write_text("root:x:0:0\nmore words\n")
    with pytest.raises(UserError, match="holds no settings") as refused:
        beatline.load_config(str(tmp_path / "secret.txt"))
    assert "root:x" not in str(refused.value)


@pytest.mark.parametrize("value", [None, "mini", 3], ids=repr)
def test_run_refuses_what_is_no_configuration(value):
    with pytest.raises(UserError, match="no configuration"):
        beatline.run(value)


@pytest.mark.parametrize("value", ["x", 5, True, float("nan")], ids=repr)
def test_event_options_refuse_what_is_no_number_in_range(value):
    with pytest.raises(UserError, match="no number from 0 to 1"):
        beatline.EventOptions(threshold=value)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((2, 16000, 3)),
        np.zeros(0),
        np.array(["a"]),
        np.zeros(16000, np.complex64),
        np.array([object()] * 10),
    ],
    ids=["3-D", "empty", "text", "complex", "objects"],
)
def test_a_tagger_refuses_arrays_that_are_no_sound(tiny_tagger, samples):
    with pytest.raises(UserError, match="cannot use"):
        tiny_tagger(samples, 16000)


@pytest.mark.parametrize("rate", [-1, 0, "a", 1e12, float("nan")], ids=repr)
def test_a_tagger_refuses_rates_that_are_none(tiny_tagger, rate):
    with pytest.raises(UserError):
        tiny_tagger(np.zeros(16000, np.float32), rate)
