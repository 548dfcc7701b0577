"""What training by several processes needs of torch.distributed; a process that is alone needs nothing.

Outside the straight line. `torchrun` sets the environment. Gradients are summed as a single flat buffer.
So parameters without gradient (layerdrop, a cut gradient) need no special case.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = timedelta(days=1)
"""How long processes wait for each other: the first may prepare all of AudioSet meanwhile. A process
that has died is `torchrun`'s to notice.
"""


class Processes(NamedTuple):
    """Which of several processes this is; the default is alone."""

    rank: int = 0
    world: int = 1
    """How many there are."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """This process's part of a sequence."""
        return slice(self.rank, None, self.world)


ALONE = Processes()


@contextmanager
def process_group(device: torch.device) -> Iterator[Processes]:
    """Which process this is; joins the group that `torchrun` announces, unless it is in it already."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    if dist.is_initialized():
        yield Processes(dist.get_rank(), world)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # or collectives without a tensor would take the first for all
        dist.init_process_group("nccl", timeout=PATIENCE, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


def sum_gradients(model: nn.Module) -> None:
    """Replaces every gradient by its sum over all processes."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The tensor itself, summed over all processes."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def wait() -> None:
    """Returns when every process is here."""
    if dist.is_initialized():
        dist.barrier()
