"""Mel masks: ranges of mels set to zero, the mean of a normalised fbank."""

from beatline.model.geometry import MELS
from beatline.train import masks
from beatline.train.augmentation import Augmentation, Change, Rows


class MelMasks(Augmentation):
    """Masks mels of each fbank."""

    on = "fbank"

    def change(self, rows: Rows) -> Change | None:
        if not self.settings.mel_masks:
            return None
        masked = masks.within(
            [
                masks.ranges(masks.draw(rng, self.settings.mel_masks), MELS, self.settings.mel_mask_bins)
                for rng in rows.of_clip
            ],
            MELS,
        )
        return lambda fbank: fbank.masked_fill(masked.to(fbank.device)[:, None, :], 0.0)
