"""Doubt falls on labels that the neighbours do not carry; people's counts are read as they come."""

import numpy as np
import pytest

from beatline.core.labels import Label, LabelSet
from beatline.data import label_noise
from beatline.data.fingerprint import BANDS
from beatline.data.label_noise import (
    FEATURES,
    NEIGHBOURS,
    agreement,
    features,
    read_quality,
    sample,
    suspicion,
)
from tests.helpers.stores import refused

LABELS = LabelSet((Label("/m/a", "A"), Label("/m/b", "B")))


def clouds(clips: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Two well-separated kinds of sound, each with its label."""
    rng = np.random.default_rng(0)
    kind = np.arange(clips) % 2
    return rng.normal(0, 1, (clips, FEATURES)).astype(np.float32) + 4 * kind[:, None], np.eye(
        2, dtype=np.float32
    )[kind]


def test_right_labels_agree_and_planted_errors_are_doubted_most():
    sounds, targets = clouds()
    found = agreement(sounds, targets, np.arange(60))
    assert (
        np.nanmin(found.own) == 1
        and (found.other_share == 0).all()
        and (found.other == -1).all()
        and (suspicion(found) == -1).all()
    )
    wrong = [3, 10, 41]
    targets[wrong] = 1 - targets[wrong]
    found = agreement(sounds, targets, np.arange(60))
    doubt = suspicion(found)
    assert sorted(np.argsort(-doubt)[:3].tolist()) == wrong and doubt[3] > 0.5 > np.sort(doubt)[-4]
    assert found.other[3] == 1 and found.other_share[3] >= 0.7


def test_chunks_change_nothing(monkeypatch):
    sounds, targets = clouds(70)
    whole = agreement(sounds, targets, np.arange(70))
    monkeypatch.setattr(label_noise, "CHUNK", 9)
    parts = agreement(sounds, targets, np.arange(70))
    assert np.array_equal(whole.own, parts.own, equal_nan=True) and np.array_equal(whole.other, parts.other)


def test_clips_of_one_group_do_not_vouch_for_each_other():
    sounds, targets = clouds()
    sounds[:20:2] = sounds[0] + 50 + 0.01 * np.arange(10)[:, None]  # ten near-copies, far from all others
    assert agreement(sounds, targets, np.arange(60)).own[0, 0] > 0.85
    together = np.arange(60)
    together[:20:2] = 0
    alone = agreement(sounds, targets, together)
    assert alone.own[0, 0] < 0.85
    everything = agreement(sounds, targets, np.zeros(60, int))
    assert np.isnan(everything.own).all() and (suspicion(everything) <= 0).all()


@pytest.mark.parametrize("clips", [1, 2, NEIGHBOURS, NEIGHBOURS + 1])
def test_few_clips(clips):
    sounds, targets = clouds(clips)
    found = agreement(sounds, targets, np.arange(clips))
    assert found.own.shape == (clips, 2) and np.isfinite(suspicion(found)).all()


def test_features_ignore_the_level():
    power = np.random.default_rng(0).random((50, BANDS)).astype(np.float32) + 0.1
    assert features(power).shape == (FEATURES,) and np.allclose(
        features(power), features(9 * power), atol=1e-4
    )
    assert np.isfinite(features(np.zeros((1, BANDS), np.float32))).all()


def test_a_large_store_is_sampled_evenly(monkeypatch):
    assert sample(5).tolist() == [0, 1, 2, 3, 4] and len(sample(0)) == 0
    monkeypatch.setattr(label_noise, "MOST_CLIPS", 4)
    assert sample(10).tolist() == [0, 2, 5, 7]


def test_quality_is_read_in_any_order_of_columns(tmp_path):
    path = tmp_path / "qa_true_counts.csv"
    for content in (
        "label_id,num_rated,num_true\n/m/a,10,9\n/m/zz,5,5\n",
        "/m/a, 9, 10\n/m/zz,5,5\n",
        "\ufeff# counts\nx,y,z\n/m/a,A name,10,9\n/m/zz,Z,5,5\n",
    ):
        path.write_text(content)
        assert read_quality(path, LABELS) == {"/m/a": (10, 9), "/m/zz": (5, 5)}


def test_what_is_no_quality_table_is_refused(tmp_path):
    path = tmp_path / "qa.csv"
    path.write_text("label_id,num_rated,num_true\n/m/a,ten,9\n")
    assert "row 2" in refused("bad-table", read_quality, path, LABELS)
    for content in ("", "/m/zz,3,2\n", "<html>\n"):
        path.write_text(content)
        refused("unknown-label", read_quality, path, LABELS)
    refused("missing-file", read_quality, tmp_path / "nothing.csv", LABELS)
