"""Augmentations: their distributions, their exactness, and that they are functions of seed, epoch and
clip.
"""

import numpy as np
import pytest
import torch

from beatline.config import AugmentConfig
from beatline.train import augment

RECIPE = AugmentConfig()


@pytest.fixture(scope="module")
def draws():
    return [augment.clip_draws(RECIPE, 0, 0, f"clip-{i}") for i in range(4000)]


def test_mixup_rate_and_weights(draws):
    mixed = np.mean([d.mixed for d in draws])
    assert abs(mixed - 0.8) < 4 * np.sqrt(0.16 / 4000)
    weights = np.array([d.weight for d in draws])
    assert abs(weights.mean() - 0.5) < 0.025  # Beta(0.8, 0.8): mean 1/2, variance 1 / (4 * 2.6)
    assert abs(weights.var() - 1 / 10.4) < 0.006
    assert np.mean((weights < 0.05) | (weights > 0.95)) > 0.12  # U-shaped, not uniform (0.1)


def test_roll_is_uniform_within_the_clip(draws):
    shifts = np.array([augment.shift_samples(d.shift, 160_000, 0.0) for d in draws])
    assert shifts.min() >= 0 and shifts.max() < 160_000
    counts = np.histogram(shifts, bins=10, range=(0, 160_000))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 30  # chi-squared, 9 degrees: p < 0.0005
    whole = {augment.shift_samples(d.shift, 160_000, 1.0) for d in draws}
    assert whole == {16_000 * k for k in range(10)}


def test_time_masks_are_up_to_their_share_and_anywhere(draws):
    ranges = [augment.mask_ranges(d.time_masks, 998, int(0.059 * 998))[0] for d in draws]
    widths = np.array([end - begin for begin, end in ranges])
    assert widths.min() == 0 and widths.max() == 58 and abs(widths.mean() - 29) < 1.1
    assert min(b for b, _ in ranges) == 0 and 970 < max(e for _, e in ranges) <= 998
    assert all(not d.mel_masks for d in draws)


def test_warp_stays_within_its_window():
    targets = set()
    for batch in range(3000):
        centre, target = augment.warp_frames(augment.batch_draws(0, 0, batch, 4).warp, 998, 5)
        assert 5 <= centre < 993 and -5 < target - centre <= 5
        targets.add(target - centre)
    assert targets == set(range(-4, 6))
    assert augment.warp_frames((0.5, 0.5), 10, 5) is None and augment.warp_frames((0.5, 0.5), 998, 0) is None


def test_draws_are_functions_of_seed_epoch_and_clip():
    assert augment.clip_draws(RECIPE, 1, 2, "a") == augment.clip_draws(RECIPE, 1, 2, "a")
    others = [
        augment.clip_draws(RECIPE, *key) for key in ((2, 2, "a"), (1, 3, "a"), (1, 2, "b"), (12, 2, "a"))
    ]
    assert len({d.shift for d in others} | {augment.clip_draws(RECIPE, 1, 2, "a").shift}) == 5
    partners = augment.batch_draws(1, 2, 3, 40).partners
    assert sorted(partners) == list(range(40)) and np.array_equal(
        partners, augment.batch_draws(1, 2, 3, 40).partners
    )


def test_roll_turns_each_clip_within_its_length():
    waveforms = torch.tensor([[1.0, 2, 3, 4, 5], [1, 2, 3, 0, 0]])
    rolled = augment.roll(waveforms, torch.tensor([5, 3]), torch.tensor([2, 1]))
    assert rolled.tolist() == [[4, 5, 1, 2, 3], [3, 1, 2, 0, 0]]
    assert torch.equal(rolled[0], torch.roll(waveforms[0], 2))


def test_mixup_weighs_each_row_by_itself():
    mixed = augment.mixup(
        torch.tensor([[1.0, 1.0], [4.0, 4.0]]),
        torch.tensor([[0.0, 2.0], [8.0, 0.0]]),
        torch.tensor([0.25, 1.0]),
    )
    assert mixed.tolist() == [[0.25, 1.75], [4.0, 4.0]]


def test_warp_moves_the_centre_and_keeps_the_shape():
    ramp = torch.arange(100.0)[None, :, None].expand(2, 100, 4).contiguous()
    warped = augment.time_warp(ramp, 50, 55)
    assert (
        warped.shape == ramp.shape
        and abs(float(warped[0, 54, 0]) - 49.5) < 1
        and abs(float(warped[0, 0, 0])) < 1
    )
    assert torch.equal(augment.time_warp(ramp, 50, 50), ramp)


def test_masks_set_zero_and_nothing_else():
    fbank = torch.ones(2, 20, 128)
    masked = augment.apply_masks(fbank, [[(3, 5)], []], [[], [(0, 10), (120, 128)]])
    assert float(masked.sum()) == 2 * 20 * 128 - 2 * 128 - 18 * 20
    assert masked[0, 3:5].sum() == 0 and masked[1, :, :10].sum() == 0 and fbank.sum() == 2 * 20 * 128
