"""Sums over all processes of a run; of one process alone, its own."""

import torch.distributed as dist
from torch import Tensor


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, each of which must come here; without gradients."""
    total = values.detach().clone()
    if count() > 1:
        dist.all_reduce(total)
    return total
