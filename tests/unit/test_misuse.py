"""What a program gives by mistake gets one line, whatever its type."""

from dataclasses import replace

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


@pytest.mark.parametrize("value", [3, None, "runs/mini", 1j], ids=repr)
def test_what_takes_a_tagger_or_an_engine_says_what_to_give(value):
    for made in (beatline.AudioTagger, beatline.create_app, lambda given: beatline.Stream(given, 16000)):
        with pytest.raises(UserError, match=rf"{type(value).__name__} does not fit; give .*beatline\.load"):
            made(value)


@pytest.mark.parametrize("name, value", [("window", "a"), ("hop", "a"), ("hop", [1]), ("merge", 3)])
def test_a_tagger_and_load_refuse_options_that_are_none(tiny_tagger, name, value):
    with pytest.raises(UserError, match=f"^{name}"):
        beatline.AudioTagger(tiny_tagger.engine, **{name: value})
    with pytest.raises(UserError, match=f"^{name}"):
        beatline.load("/no/model", **{name: value})


@pytest.mark.parametrize("events", [True, 0.5, "steps"], ids=repr)
def test_a_tagger_refuses_events_that_are_no_options(tiny_tagger, events):
    with pytest.raises(UserError, match=r"events: .* does not fit"):
        tiny_tagger(np.zeros(16000, np.float32), 16000, events)
    with pytest.raises(UserError, match=r"events: .* does not fit"):
        beatline.BatchTagger("model", events=events)


@pytest.mark.parametrize(
    "options",
    [{"rate": value} for value in (None, "a", -1, 0, 1e12, float("nan"))]
    + [{"channels": value} for value in (0, -1, 1.5, "a", 10**6)]
    + [{"window": value} for value in ("a", 0, float("inf"), float("nan"))]
    + [{"hop": value} for value in ("a", 0, -1, float("inf"), float("nan"))],
    ids=repr,
)
def test_a_stream_refuses_what_it_cannot_hear(tiny_tagger, options):
    with pytest.raises(UserError):
        beatline.Stream(tiny_tagger, **{"rate": 16000} | options)


def test_event_options_take_the_numbers_of_numpy():
    assert beatline.EventOptions(threshold=np.float32(0.5), gap=np.int64(1)).threshold == 0.5


@pytest.mark.parametrize("options", [{"level": "step"}, {"gap": None}, {"median": None}], ids=repr)
def test_event_options_refuse_what_has_no_meaning(options):
    with pytest.raises(UserError, match="of events"):
        beatline.EventOptions(**options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": ["a", "b"]},
        {"thresholds": [0.5]},
        {"thresholds": np.zeros(99, np.float32)},
        {"thresholds": np.array(["a"] * len(LABELS))},
        {"positives": np.zeros((len(LABELS), 2), np.int64)},
        {"states": ("learned",)},
        {"temperature": "x"},
        {"temperature": 0.0},
        {"temperature": float("nan")},
    ],
    ids=lambda wrong: f"{next(iter(wrong))}-{type(next(iter(wrong.values()))).__name__}",
)
def test_a_calibration_refuses_what_does_not_fit_its_labels(wrong):
    count = len(LABELS)
    good = beatline.Calibration(
        LABELS, np.full(count, 0.5, np.float32), 1.0, ("learned",) * count, np.ones(count, np.int64)
    )
    with pytest.raises(UserError, match="of a calibration"):
        replace(good, **wrong)


@pytest.mark.parametrize("value", [3, None, ["a"]], ids=repr)
def test_what_takes_a_path_refuses_what_is_none(value):
    with pytest.raises(UserError, match=r"source.*does not fit"):
        beatline.Calibration.load(value)
    with pytest.raises(UserError, match=r"model.*does not fit"):
        beatline.BatchTagger(value)


def test_a_tagger_answers_an_empty_list_with_an_empty_list(tiny_tagger):
    assert tiny_tagger([]) == []
