"""Time masks: ranges of frames set to zero, the mean of a normalised fbank."""

from beatline.train import masks
from beatline.train.augmentation import Augmentation, Change, Rows


class TimeMasks(Augmentation):
    """Masks frames of each fbank; a mask is at most a share of the batch's frames long."""

    on = "fbank"

    def change(self, rows: Rows) -> Change | None:
        if not self.settings.time_masks:
            return None
        longest = int(self.settings.time_mask_fraction * rows.frames)
        masked = masks.within(
            [
                masks.ranges(masks.draw(rng, self.settings.time_masks), rows.frames, longest)
                for rng in rows.of_clip
            ],
            rows.frames,
        )
        return lambda fbank: fbank.masked_fill(masked.to(fbank.device)[:, :, None], 0.0)
