"""samples -> what a careful reader should know of a whole recording: silence, clipping, a narrow band.

In: blocks of int16 samples. Out: clauses for a note, none for most recordings. Imports no torch.
"""

import numpy as np

from beatline.audio.samples import FULL_SCALE, SAMPLE_RATE

CLIPPED = 0.005
"""Share of samples at full scale from which on a recording is called clipped."""
FAINT = 16
"""Highest sample, of 32 768, up to which a recording is called faint: 66 dB below full scale."""


class Doubts:
    """What the blocks of a recording have shown so far."""

    def __init__(self) -> None:
        self._count = self._full = self._peak = 0

    def hear(self, block: np.ndarray) -> None:
        """Takes the next block, `(samples,)` int16."""
        highest = int(block.max(initial=0))
        lowest = int(block.min(initial=0))
        self._peak = max(self._peak, highest, -lowest)
        self._count += len(block)
        if highest == FULL_SCALE - 1 or lowest == -FULL_SCALE:
            self._full += int(np.count_nonzero((block == FULL_SCALE - 1) | (block == -FULL_SCALE)))

    def clauses(self, rate: int) -> list[str]:
        """What there is to say.

        Args:
            rate: Of the source, Hz.
        """
        found = []
        if self._peak == 0:
            found.append("every sample is 0: digital silence, or far too faint")
        elif self._peak <= FAINT:
            below = 20 * np.log10(FULL_SCALE / self._peak)
            found.append(f"its loudest sample is {below:.0f} dB below full scale")
        elif self._full >= CLIPPED * self._count:
            share = 100 * self._full / self._count
            found.append(
                f"{share:.2g} % of its samples are at full scale: it is clipped, or of another scale"
            )
        if rate < SAMPLE_RATE:
            found.append(f"sampled at {rate} Hz: nothing above {rate / 2000:g} kHz is there to hear")
        return found
