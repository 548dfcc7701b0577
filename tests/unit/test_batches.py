"""Batches: a pure function of seed and epoch, ESPnet's folding, mixing across shares, and the augmented
fbank.
"""

import dataclasses

import numpy as np
import pytest
import torch

from beatline import load_config
from beatline import recipe as stages
from beatline.config import AugmentConfig, TrainConfig
from beatline.core.threads import in_order
from beatline.data.store import Store
from beatline.model.geometry import frame_count, tile_short, tiled_length
from beatline.model.tagger import Tagger, initialise_tagger
from beatline.train import augment
from beatline.train.augmentation import Augmentation, generator
from beatline.train.batches import (
    COMMON,
    Crop,
    augmented_fbank,
    augmented_waveforms,
    drawn_by_rarity,
    epoch_batches,
    make_batch,
    read_clips,
    steps_of_epochs,
)
from beatline.train.draws import NAMED, SHARED
from tests.helpers.tiny import tiny, write_data

CPU = torch.device("cpu")
PLAIN = augment.named(AugmentConfig(order=()))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    settings = tiny(write_data(folder / "data"), folder / "run")
    stages.prepare(settings)
    return Store.open(settings.store_folder)


@pytest.fixture(scope="module")
def tagger(store):
    settings = load_config("mini", ["--model.encoder.encoder_layers", "1"]).model.encoder
    return initialise_tagger(Tagger(settings, len(store.labels)), torch.Generator().manual_seed(0)).eval()


def test_short_clips_are_repeated_as_the_recipe_does():
    assert np.array_equal(tile_short(np.arange(1500)), np.tile(np.arange(1500), 3))
    assert len(tile_short(np.arange(3200))) == 3200
    assert tiled_length(np.array([1, 1500, 3199, 3200, 5000])).tolist() == [3200, 4500, 6398, 3200, 5000]


def test_fresh_order_covers_all_clips_and_changes_with_seed_and_epoch(store):
    clips = store.splits["train"]
    settings = TrainConfig(batch=3)
    epochs = [epoch_batches(store, clips, settings, epoch) for epoch in (0, 1)]
    for batches in epochs:
        assert sorted(np.concatenate(batches)) == sorted(clips) and [len(b) for b in batches] == [3, 3, 1]
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))
    again = epoch_batches(store, clips, settings, 0)
    assert all(np.array_equal(a, b) for a, b in zip(epochs[0], again, strict=True))
    other = epoch_batches(store, clips, dataclasses.replace(settings, seed=1), 0)
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(other))


def test_fixed_batches_fold_by_length_and_only_their_order_changes():
    class Lengths:
        lengths = np.array([160_000] * 100 + [80_000] * 30)

    settings = TrainConfig(batch=80, fold_seconds=10.0, order="fixed-batches")
    first, second = (epoch_batches(Lengths, np.arange(130), settings, epoch) for epoch in (0, 1))
    assert sorted(len(b) for b in first) == [10, 40, 80]  # 30 short and 50 long, then 40, then the rest
    assert {frozenset(b.tolist()) for b in first} == {frozenset(b.tolist()) for b in second}


def test_shares_of_a_step_add_up_to_the_whole(store):
    clips = store.splits["train"]
    recipe = augment.named(AugmentConfig(mixup_probability=1.0, gain=3.0, time_masks=2, mel_masks=1))
    whole = make_batch(store, clips, slice(None), recipe, 0, 0, 0)
    parts = [make_batch(store, clips, slice(rank, None, 2), recipe, 0, 0, 0) for rank in (0, 1)]
    for rank, part in enumerate(parts):
        for name in ("weights", "lengths", "targets"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[rank::2]), name
        assert torch.equal(part.samples[part.rows], whole.samples[whole.rows][rank::2])
        assert torch.equal(part.samples[part.partners], whole.samples[whole.partners][rank::2])
        assert torch.equal(augmented_waveforms(part, CPU), augmented_waveforms(whole, CPU)[rank::2])
        fbank = torch.rand(len(clips), frame_count(whole.samples.shape[1]), 128)
        for of_part, of_whole in zip(part.of_fbank, whole.of_fbank, strict=True):
            assert torch.allclose(of_part(fbank[rank::2]), of_whole(fbank)[rank::2], atol=1e-6)
    assert sum(part.share for part in parts) == pytest.approx(1.0)
    assert bool((whole.targets.sum(1) > 0).all()) and float(whole.targets.max()) <= 1.0


def test_mixed_targets_and_lengths(store):
    clips = store.splits["train"]
    batch = make_batch(
        store, clips, slice(None), augment.named(AugmentConfig(mixup_probability=1.0)), 0, 0, 0
    )
    targets, lengths = (
        torch.from_numpy(store.targets(clips)),
        torch.from_numpy(tiled_length(store.lengths[clips])),
    )
    for row in range(len(clips)):
        partner = int(batch.partners[row])
        # the whole step is read, in its own order, so a row's place is its number
        w = float(batch.weights[row])
        assert torch.allclose(batch.targets[row], w * targets[row] + (1 - w) * targets[partner])
        assert int(batch.lengths[row]) == int(min(lengths[row], lengths[partner]))


@pytest.mark.parametrize(
    "off",
    [PLAIN, augment.named(AugmentConfig(mixup_probability=0.0, roll=False, time_warp=0, time_masks=0))],
    ids=["no list", "all off"],
)
def test_without_augmentation_the_fbank_is_the_clips(store, tagger, off):
    clips = store.splits["train"]
    batch = make_batch(store, clips, slice(None), off, 0, 0, 0)
    fbank, is_padding = augmented_fbank(batch, tagger, CPU)
    waveforms = read_clips(store, clips, int(batch.lengths.max())).float() / 32768
    assert torch.equal(fbank, tagger.fbank(waveforms))
    assert torch.equal(is_padding, tagger.is_padding(batch.lengths, waveforms.shape[1]))


class Curious(Augmentation):
    """Draws much and changes nothing."""

    on = "waveforms"

    def change(self, rows):
        for rng in [*rows.of_clip, rows.of_batch]:
            rng.random(100)


@pytest.mark.parametrize(("rule", "alike"), [(NAMED, True), (SHARED, False)])
def test_one_more_augmentation_shifts_no_others_draws(store, monkeypatch, rule, alike):
    monkeypatch.setitem(augment.AUGMENTATIONS, "curious", Curious)
    monkeypatch.setattr(
        "beatline.train.draws.IN_TURN", ("curious", "mixup")
    )  # by the shared rule it counts who is first
    names = AugmentConfig().order
    clips, settings = store.splits["train"], {"gain": 3.0, "mel_masks": 1}
    few, many = (
        make_batch(
            store,
            clips,
            slice(None),
            augment.named(AugmentConfig(order=order, **settings)),
            seed=0,
            epoch=0,
            number=0,
            rule=rule,
        )
        for order in (names, ("curious", *names))
    )
    fbank = torch.rand(len(clips), frame_count(few.samples.shape[1]), 128)
    pairs = [(few.weights, many.weights), (augmented_waveforms(few, CPU), augmented_waveforms(many, CPU))]
    pairs += [(a(fbank), b(fbank)) for a, b in zip(few.of_fbank, many.of_fbank, strict=True)]
    assert all(torch.equal(a, b) == alike for a, b in pairs)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_in_order_keeps_order_and_passes_errors_on(workers):
    assert list(in_order(range(20), lambda job: job * job, workers)) == [n * n for n in range(20)]

    def fail(job):
        if job == 3:
            raise OSError("gone")
        return job

    reader = in_order(range(20), fail, workers)
    assert [next(reader) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="gone"):
        next(reader)


def test_mixed_clips_are_their_weighted_sum_up_to_the_shorter_end(store):
    clips = store.splits["train"]
    only = augment.named(AugmentConfig(order=("mixup",), mixup_probability=1.0))
    batch = make_batch(store, clips, slice(None), only, 0, 0, 0)
    waveforms, clean = augmented_waveforms(batch, CPU), batch.samples.float() / 32768
    for row, (own, partner, weight, length) in enumerate(
        zip(batch.rows, batch.partners, batch.weights, batch.lengths, strict=True)
    ):
        mixed = weight * clean[own] + (1 - weight) * clean[partner]
        assert torch.allclose(waveforms[row, :length], mixed[:length], atol=1e-6)
        assert not waveforms[row, length:].any()


def test_crops_come_first_in_batches_of_their_own_size(store):
    clips = store.splits["train"]
    settings = TrainConfig(batch=2, crop_seconds=0.3, crop_epochs=2, crop_batch=4, epochs=3)
    assert steps_of_epochs(store, clips, settings) == [2, 2, 4]
    assert [len(batch) for batch in epoch_batches(store, clips, settings, 1)] == [4, 3]
    for_all = dataclasses.replace(settings, crop_epochs=0)
    assert steps_of_epochs(store, clips, for_all) == [2, 2, 2]
    assert steps_of_epochs(store, clips, TrainConfig(batch=2, epochs=2)) == [4, 4]


def test_a_crop_is_a_function_of_seed_epoch_and_clip(store):
    lengths, crop = np.full(3, 8000), Crop(3200, 160)
    begins = crop.begins(lengths, 0, 5, names=["a", "b", "c"])
    assert np.array_equal(begins, crop.begins(lengths, 0, 5, names=["c", "b", "a"])[::-1])
    assert (begins % 160 == 0).all() and (begins <= 4800).all()
    many = crop.begins(np.full(2000, 8000), 0, 5, names=[str(i) for i in range(2000)])
    assert set(many) == set(range(0, 4801, 160))
    assert not Crop(3200, 160).begins(np.array([3000, 3200, 3300]), 0, 5, names=["a", "b", "c"]).any()


class Labelled:
    """A store of 90 clips of one label, 9 of another, and one without."""

    ids = tuple(map(str, range(100)))
    label_totals = staticmethod(
        lambda clips: np.array([(clips < 90).sum(), ((clips >= 90) & (clips < 99)).sum()])
    )
    label_sums = staticmethod(lambda values: np.repeat([values[0], values[1], 0.0], [90, 9, 1]))


def test_clips_are_drawn_by_their_rarity():
    clips = np.arange(100)
    drawn = drawn_by_rarity(Labelled, clips, 1.0, generator(0))
    assert len(drawn) == 100 and not np.array_equal(drawn, np.sort(drawn))
    every = 1 / (COMMON + 100)
    rarity = np.repeat([1 / (COMMON + 90) + every, 1 / (COMMON + 9) + every, every], [90, 9, 1])
    expected = 100 * rarity / rarity.sum()
    counts = np.bincount(drawn, minlength=100)
    assert ((counts == np.floor(expected)) | (counts == np.ceil(expected))).all()
    mean = np.mean(
        [np.bincount(drawn_by_rarity(Labelled, clips, 0.5, generator(i)), minlength=100) for i in range(400)],
        axis=0,
    )
    wanted = 100 * rarity**0.5 / (rarity**0.5).sum()
    assert np.allclose(mean[90:], wanted[90:], atol=0.1) and mean[:90].mean() == pytest.approx(
        wanted[0], abs=0.01
    )


def test_a_clip_that_comes_again_is_drawn_for_anew(store):
    clips = np.repeat(store.splits["train"][:1], 4)
    recipe = augment.named(AugmentConfig(order=("gain",), gain=6.0))
    whole, one = (
        make_batch(store, clips, share, recipe, 0, 0, 0, again=True)
        for share in (slice(None), slice(1, None, 2))
    )
    waveforms = augmented_waveforms(whole, CPU)
    assert len({float(row.abs().max()) for row in waveforms}) == 4
    assert torch.equal(augmented_waveforms(one, CPU), waveforms[1::2])
    other = augmented_waveforms(make_batch(store, clips, slice(None), recipe, 0, 0, 1, again=True), CPU)
    assert not torch.equal(waveforms, other)
