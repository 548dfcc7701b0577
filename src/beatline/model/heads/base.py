"""What every head is: pooled tokens -> logits."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Head(nn.Module, ABC):
    """Embeddings in, logits out; a subclass takes `(width, labels, task, **settings)`."""

    name: ClassVar[str]
    """In `HEADS`, and in the configuration of a checkpoint."""
    out_features: int
    """Number of labels."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Logits `(..., labels)` float32 of embeddings `(..., width)` float32."""

    def settings(self) -> dict[str, Any]:
        """What `make_head` needs to make an empty head like this: JSON values."""
        return {"name": self.name}

    def float32_weights(self) -> list[tuple[int, ...]]:
        """Shapes of weights, as an exported product has them, that an int8 export leaves in float32."""
        return []

    def initialise(self, generator: torch.Generator) -> None:
        """Fills every parameter and buffer, which hold anything before, for training."""
        raise TypeError(f"a head of kind {self.name} is not trained")
