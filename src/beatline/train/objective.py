"""What an objective is: what the loss of a batch is, and what validation measures."""

from collections.abc import Collection, Mapping
from typing import ClassVar

import numpy as np
from torch import Tensor

from beatline.config import Config
from beatline.data.store import Store
from beatline.model.geometry import STEP_SAMPLES
from beatline.model.tagger import Tagger
from beatline.train.batches import Batch
from beatline.train.parallel import Processes

ADDED = "objective"
"""The tagger's module that an objective adds for training alone."""


def without_added(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a tagger in training that its model has too."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(f"{ADDED}.")}


class Objective:
    """What a run is trained towards; one file of `train/objectives` each.

    Args:
        config: The run's.
        store: Its clips.

    Raises:
        UserError: `bad-config` where the clips do not suit.
    """

    best: ClassVar[str]
    """The figure of `validate` whose highest value says which epoch is the best."""
    crop_hop: int = STEP_SAMPLES
    """A crop of a clip begins at a multiple of so many samples."""

    @classmethod
    def check(cls, config: Config) -> None:
        """Raises `bad-config` for settings that do not suit, before anything is prepared."""

    def __init__(self, config: Config, store: Store) -> None:
        raise NotImplementedError

    def begin(self, tagger: Tagger, is_new: bool) -> None:
        """Makes a tagger ready to be trained; a module that training needs and the model does not becomes its
        `ADDED`.

        Args:
            is_new: Whether its weights are random, and no checkpoint's.
        """

    def outputs(
        self, tagger: Tagger, fbank: Tensor, is_padding: Tensor | None, skip: Collection[int]
    ) -> Tensor:
        """What the model says of augmented fbanks `(rows, frames, 128)`; runs in `train.precision`.

        Args:
            is_padding: `(rows, tokens)` bool; None where nothing is padded.
            skip: Layers to leave out (layerdrop).
        """
        raise NotImplementedError

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The losses of the batch's clips, summed, a float32 scalar; runs in float32."""
        raise NotImplementedError

    def validate(self, tagger: Tagger, clips: np.ndarray, processes: Processes) -> dict[str, float]:
        """Figures of the validation clips, by name; every process takes part and gets all of them.

        Args:
            clips: Indices into the store.
        """
        raise NotImplementedError
