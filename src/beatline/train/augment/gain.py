"""Gain: each clip louder or softer by a random number of decibels."""

import numpy as np
import torch

from beatline.train.augmentation import Augmentation, Change, Rows


class Gain(Augmentation):
    """Multiplies each waveform by a factor, uniform in decibels."""

    on = "waveforms"

    def draw(self, rng: np.random.Generator) -> float:
        """The factor of a clip."""
        return float(10 ** (rng.uniform(-self.settings.gain, self.settings.gain) / 20))

    def change(self, rows: Rows) -> Change | None:
        factors = torch.tensor([self.draw(rng) for rng in rows.of_clip], dtype=torch.float32)
        if not self.settings.gain:
            return None
        return lambda waveforms: waveforms * factors.to(waveforms.device)[:, None]
