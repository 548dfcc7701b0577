"""Augmentations: their distributions, their exactness, that they are functions of seed, epoch and clip, and
that one more is one class.
"""

import numpy as np
import pytest
import torch

from beatline.config import AugmentConfig
from beatline.core.errors import UserError
from beatline.train import augment, masks
from beatline.train.augment.gain import Gain
from beatline.train.augment.mixup import Mixup
from beatline.train.augment.roll import roll, shift_samples
from beatline.train.augment.time_warp import time_warp, warp_frames
from beatline.train.augmentation import Rows, generator

RECIPE = AugmentConfig()


def generators(count: int, *key: object) -> list[np.random.Generator]:
    return [generator(*key, number) for number in range(count)]


def rows(lengths: tuple[int, ...] = (16_000,) * 4, seed: int = 0, frames: int = 98) -> Rows:
    """A whole step of clips of these lengths."""
    count = len(lengths)
    return Rows(
        generators(count, seed, "clip"),
        generator(seed, "batch"),
        np.arange(count),
        count,
        np.array(lengths),
        frames,
    )


def test_mixup_rate_and_weights():
    draws = [Mixup(RECIPE).draw(rng) for rng in generators(4000)]
    mixed = np.mean([mixed for mixed, _ in draws])
    assert abs(mixed - 0.8) < 4 * np.sqrt(0.16 / 4000)
    weights = np.array([weight for _, weight in draws])
    assert abs(weights.mean() - 0.5) < 0.025  # Beta(0.8, 0.8): mean 1/2, variance 1 / (4 * 2.6)
    assert abs(weights.var() - 1 / 10.4) < 0.006
    assert np.mean((weights < 0.05) | (weights > 0.95)) > 0.12  # U-shaped, not uniform (0.1)


def test_mixup_takes_partners_from_a_permutation_of_the_step():
    mix = Mixup(AugmentConfig(mixup_probability=1.0)).mix(rows((16_000,) * 40))
    assert sorted(mix.partners) == list(range(40))
    assert (mix.weights[mix.partners == np.arange(40)] == 1.0).all()
    alone = Mixup(AugmentConfig(mixup_probability=0.0)).mix(rows())
    assert alone.partners.tolist() == [0, 1, 2, 3] and (alone.weights == 1.0).all()


def test_roll_is_uniform_within_the_clip():
    fractions = [rng.random() for rng in generators(4000)]
    shifts = np.array([shift_samples(fraction, 160_000, 0.0) for fraction in fractions])
    assert shifts.min() >= 0 and shifts.max() < 160_000
    counts = np.histogram(shifts, bins=10, range=(0, 160_000))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 30  # chi-squared, 9 degrees: p < 0.0005
    whole = {shift_samples(fraction, 160_000, 1.0) for fraction in fractions}
    assert whole == {16_000 * k for k in range(10)}


def test_gain_is_uniform_in_decibels():
    decibels = 20 * np.log10([Gain(AugmentConfig(gain=6.0)).draw(rng) for rng in generators(4000)])
    counts = np.histogram(decibels, bins=10, range=(-6, 6))[0]
    assert counts.sum() == 4000 and ((counts - 400) ** 2 / 400).sum() < 30


def test_time_masks_are_up_to_their_share_and_anywhere():
    ranges = [masks.ranges(masks.draw(rng, 1), 998, int(0.059 * 998))[0] for rng in generators(4000)]
    widths = np.array([end - begin for begin, end in ranges])
    assert widths.min() == 0 and widths.max() == 58 and abs(widths.mean() - 29) < 1.1
    assert min(b for b, _ in ranges) == 0 and 970 < max(e for _, e in ranges) <= 998


def test_warp_stays_within_its_window():
    targets = set()
    for rng in generators(3000):
        centre, target = warp_frames((rng.random(), rng.random()), 998, 5)
        assert 5 <= centre < 993 and -5 < target - centre <= 5
        targets.add(target - centre)
    assert targets == set(range(-4, 6))
    assert warp_frames((0.5, 0.5), 10, 5) is None and warp_frames((0.5, 0.5), 998, 0) is None


def test_generators_are_functions_of_their_keys():
    assert generator(1, 2, "a").random() == generator(1, 2, "a").random()
    keys = ((1, 2, "a"), (2, 2, "a"), (1, 3, "a"), (1, 2, "b"), (12, 2, "a"), (1, 22, "a"))
    assert len({generator(*key).random() for key in keys}) == len(keys)


@pytest.mark.parametrize("name", [name for name in RECIPE.order if name != "mixup"])
def test_a_change_is_a_function_of_its_draws(name):
    settings = AugmentConfig(gain=6.0, mel_masks=1)
    inputs = (
        torch.rand(4, 98, 128) if name.startswith("time") or name == "mel_masks" else torch.rand(4, 16_000)
    )
    first, again, other = (
        augment.named(settings)[name].change(rows(seed=seed))(inputs) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first, inputs)


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("gain", {}),
        ("roll", {"roll": False}),
        ("time_warp", {"time_warp": 0}),
        ("time_masks", {"time_masks": 0}),
    ],
)
def test_what_is_off_changes_nothing(name, off):
    assert augment.named(AugmentConfig(**off))[name].change(rows()) is None


def test_roll_turns_each_clip_within_its_length():
    waveforms = torch.tensor([[1.0, 2, 3, 4, 5], [1, 2, 3, 0, 0]])
    rolled = roll(waveforms, torch.tensor([5, 3]), torch.tensor([2, 1]))
    assert rolled.tolist() == [[4, 5, 1, 2, 3], [3, 1, 2, 0, 0]]
    assert torch.equal(rolled[0], torch.roll(waveforms[0], 2))


def test_warp_moves_the_centre_and_keeps_the_shape():
    ramp = torch.arange(100.0)[None, :, None].expand(2, 100, 4).contiguous()
    warped = time_warp(ramp, 50, 55)
    assert (
        warped.shape == ramp.shape
        and abs(float(warped[0, 54, 0]) - 49.5) < 1
        and abs(float(warped[0, 0, 0])) < 1
    )
    assert torch.equal(time_warp(ramp, 50, 50), ramp)


def test_ranges_are_taken_and_nothing_else():
    taken = masks.within([[(3, 5)], [(0, 10), (18, 20)], []], 20)
    assert taken.sum(1).tolist() == [2, 12, 0]
    assert taken[0, 3:5].all() and taken[1, :10].all() and taken[1, 18:].all()


def test_masks_set_zero_and_nothing_else():
    fbank = torch.ones(2, 98, 128)
    settings = AugmentConfig(time_masks=2, time_mask_fraction=0.5, mel_masks=2)
    for name, other in (("time_masks", 2), ("mel_masks", 1)):
        masked = augment.named(settings)[name].change(rows((16_000,) * 2))(fbank)
        gone = masked == 0
        assert gone.any() and (masked[~gone] == 1).all() and fbank.sum() == 2 * 98 * 128
        assert torch.equal(gone.any(other), gone.all(other))  # whole frames, or whole mels


def test_the_order_is_the_configurations():
    assert list(augment.named(AugmentConfig(order=("roll", "gain")))) == ["roll", "gain"]


@pytest.mark.parametrize(
    ("order", "said"), [(("rol",), "did you mean roll"), (("gain", "gain"), "a name twice")]
)
def test_a_wrong_order_is_refused_in_one_line(order, said):
    with pytest.raises(UserError, match=said) as caught:
        augment.named(AugmentConfig(order=order))
    assert caught.value.code == "bad-config" and "\n" not in str(caught.value)


def test_two_that_mix_are_refused(monkeypatch):
    monkeypatch.setitem(augment.AUGMENTATIONS, "blend", type("Blend", (Mixup,), {}))
    with pytest.raises(UserError, match="mixup and blend both mix clips"):
        augment.named(AugmentConfig(order=("mixup", "blend")))
