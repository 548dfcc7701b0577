"""weights after each step -> their running mean, which is validated and published in their stead."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from beatline.train.objective import without_added


class Ema:
    """The exponential mean of a model's weights, float32; nothing of what an objective added.

    Args:
        model: The weights on its device, `state_dict` by name.
        decay: What a step leaves of the mean, below 1; less in the first steps. 0 is off: there is no mean.
    """

    def __init__(self, model: torch.nn.Module, decay: float):
        self.decay = decay
        self.current = without_added(model.state_dict()) if decay else {}
        self.mean = {name: tensor.clone() for name, tensor in self.current.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after so many steps."""
        if self.decay:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self.mean.values()), list(self.current.values()), 1 - decay)

    @torch.no_grad()
    def load(self, mean: Mapping[str, Tensor]) -> None:
        """Puts a mean back that was saved."""
        for name, tensor in self.mean.items():
            tensor.copy_(mean[name])

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The model has the mean's weights inside the block, and its own again afterwards."""
        own = {name: tensor.clone() for name, tensor in self.current.items()}
        with torch.no_grad():
            for name, tensor in self.current.items():
                tensor.copy_(self.mean[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in self.current.items():
                    tensor.copy_(own[name])
