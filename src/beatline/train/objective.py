"""What an objective is: what the loss of a batch is, and what validation measures."""

from collections.abc import Collection
from typing import ClassVar, Protocol

import numpy as np
from torch import Tensor

from beatline.config import Config
from beatline.data.store import Store
from beatline.model.tagger import Tagger
from beatline.train.batches import Batch
from beatline.train.parallel import Processes


class Objective(Protocol):
    """What a run is trained towards; one file of `train/objectives` each.

    Args:
        config: The run's.
        store: Its clips.

    Raises:
        UserError: `bad-config` where the clips do not suit.
    """

    best: ClassVar[str]
    """The figure of `validate` whose highest value says which epoch is the best."""

    crop_hop: int
    """Samples between the begins that a crop of a clip may have."""

    def __init__(self, config: Config, store: Store) -> None: ...

    def extend(self, tagger: Tagger, fresh: bool) -> None:
        """Adds to a new tagger what training needs and the published model does not, as a module `objective`.

        Args:
            fresh: Whether the head has random weights.
        """
        ...

    def outputs(
        self, tagger: Tagger, fbank: Tensor, is_padding: Tensor | None, skip: Collection[int]
    ) -> Tensor:
        """What the model says of augmented fbanks `(rows, frames, 128)`; runs in `train.precision`.

        Args:
            is_padding: `(rows, tokens)` bool; None where nothing is padded.
            skip: Layers to leave out (layerdrop).
        """
        ...

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The losses of the batch's clips, summed, a float32 scalar; runs in float32."""
        ...

    def validate(self, tagger: Tagger, clips: np.ndarray, processes: Processes) -> dict[str, float]:
        """Figures of the validation clips, by name; every process takes part and gets all of them.

        Args:
            clips: Indices into the store.
        """
        ...
