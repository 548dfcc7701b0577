"""The head `neighbours`: logits by stored examples, for who has few of them.

In: embeddings `(..., width)`. Out: logits `(..., labels)`. It has no parameters, and nothing in it is
trained: `probe` stores the examples.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from beatline.model.heads import Task
from beatline.model.heads import neighbours as described
from beatline.model.heads.base import Head

LEAST = 1e-30  # share of the weights that a label is taken to have at least, so that its logit is finite


class Neighbours(Head):
    """Weighted nearest neighbours. An example weighs exp(cosine / temperature). A label's score is the share
    of the weight whose examples have it.

    Both hold of every task: the logits are those of which the sigmoid, or the softmax, is that share. The
    colder, the more the nearest example alone decides.
    Source: Wu et al., arXiv 1805.01978, section 3.4, over all examples and for several labels. Cosines are of
    what is left without the examples' mean.

    Args:
        width: Of an embedding.
        labels: Number of labels.
        task: As `Tagger`.
        examples: Number of examples, at least 1.
    """

    examples: Tensor
    """`(examples, width)`, without their mean, of length 1."""
    targets: Tensor
    """`(examples, labels)`, 1 where an example has the label, else 0."""
    centre: Tensor
    """Their mean, `(width,)`."""
    temperature: Tensor
    """`()`, above 0."""

    name = "neighbours"

    def __init__(self, width: int, labels: int, task: Task, examples: int):
        super().__init__()
        self.out_features = labels
        self.task = task
        for name, shape in {
            "examples": (examples, width),
            "targets": (examples, labels),
            "centre": (width,),
            "temperature": (),
        }.items():
            self.register_buffer(name, torch.ones(shape))

    def forward(self, features: Tensor) -> Tensor:
        """Logits `(..., labels)` float32."""
        directions = F.normalize(features.float() - self.centre, dim=-1)
        weights = (directions @ self.examples.t() / self.temperature).softmax(dim=-1)
        logits = (weights @ self.targets).clamp_min(LEAST).log()
        return (
            logits
            if self.task == "single-label"
            else logits - (weights @ (1 - self.targets)).clamp_min(LEAST).log()
        )

    def settings(self) -> dict[str, Any]:
        """The number of examples."""
        return dict(described(len(self.examples)))

    def float32_weights(self) -> list[tuple[int, ...]]:
        """Both tables: a cosine or a share in int8 would not be this head's."""
        return [tuple(self.examples.t().shape), tuple(self.targets.shape)]


HEAD = Neighbours
