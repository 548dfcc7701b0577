"""Mixup: a clip plus a clip of its batch, waveforms and targets alike, by a weight of a Beta distribution."""

import numpy as np

from beatline.train.augmentation import Mix, Mixing, Rows


class Mixup(Mixing):
    """Mixes a share of the clips, each with a partner that a permutation of the step's clips gives."""

    def draw(self, rng: np.random.Generator) -> tuple[bool, float]:
        """Whether a clip is mixed, and its own share in the mix, 0 to 1."""
        mixed = rng.random() < self.settings.mixup_probability
        return bool(mixed), float(rng.beta(self.settings.mixup_alpha, self.settings.mixup_alpha))

    def mix(self, rows: Rows) -> Mix:
        permutation = rows.of_batch.permutation(rows.clips)
        draws = [self.draw(rng) for rng in rows.of_clip]
        partners = np.where([mixed for mixed, _ in draws], permutation[rows.positions], rows.positions)
        weights = np.where(partners == rows.positions, 1.0, [weight for _, weight in draws])
        return Mix(partners, weights)
