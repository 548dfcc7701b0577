"""Roll: each clip shifted circularly within its length."""

import torch
from torch import Tensor

from beatline.model.geometry import SAMPLE_RATE
from beatline.train.augmentation import Augmentation, Change, Rows


def shift_samples(fraction: float, length: int, step_seconds: float) -> int:
    """The roll of a clip of `length` samples: any number below it, or a multiple of the step.

    Args:
        fraction: The draw, [0, 1).
        step_seconds: Shifts are multiples of it; 0 allows any.
    """
    step = max(1, round(step_seconds * SAMPLE_RATE))
    return int(fraction * max(1, length // step)) * step if step > 1 else int(fraction * length)


def roll(waveforms: Tensor, lengths: Tensor, shifts: Tensor) -> Tensor:
    """Shifts each clip circularly within its length by its number of samples; `(rows, samples)`, what is
    after the end stays.
    """
    index = torch.arange(waveforms.shape[1], device=waveforms.device)
    source = torch.where(index < lengths[:, None], (index - shifts[:, None]) % lengths[:, None], index)
    return waveforms.gather(1, source)


class Roll(Augmentation):
    """Shifts each waveform by a random share of its length."""

    on = "waveforms"

    def change(self, rows: Rows) -> Change | None:
        fractions = [rng.random() for rng in rows.of_clip]
        if not self.settings.roll:
            return None
        lengths = torch.from_numpy(rows.lengths)
        shifts = torch.tensor(
            [
                shift_samples(fraction, int(length), self.settings.roll_step)
                for fraction, length in zip(fractions, rows.lengths, strict=True)
            ]
        )
        return lambda waveforms: roll(waveforms, lengths.to(waveforms.device), shifts.to(waveforms.device))
