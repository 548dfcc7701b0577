"""A head that multiplies the logits of a linear layer by a gain of its own for each label."""

import torch
from torch import Tensor, nn

from beatline.model.heads.base import Head


class Gained(Head):
    name = "gained"

    def __init__(self, width: int, labels: int, task: str, start: float = 2.0):
        super().__init__()
        self.out_features, self.start = labels, start
        self.linear = nn.Linear(width, labels)
        self.gain = nn.Parameter(torch.full((labels,), start))

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features) * self.gain

    def settings(self) -> dict:
        return {"name": self.name, "start": self.start}

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.xavier_normal_(self.linear.weight, generator=generator)
        nn.init.zeros_(self.linear.bias)
        nn.init.constant_(self.gain, self.start)


HEAD = Gained
