"""The head `linear`: a product and a bias, as the BEATs release and ESPnet have it."""

import torch
from torch import nn

from beatline.model.heads import Task
from beatline.model.heads.base import Head


class Linear(nn.Linear, Head):
    """A linear layer.

    Args:
        width: Of an embedding.
        labels: Number of labels.
        task: As `Tagger`; a linear head is the same for both.
    """

    name = "linear"

    def __init__(self, width: int, labels: int, task: Task):
        super().__init__(width, labels)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Xavier-normal weights and a bias of zero."""
        nn.init.xavier_normal_(self.weight, generator=generator)
        self.bias.zero_()


HEAD = Linear
