"""Balanced assignment of masks to clusters, over the masks of all processes (Sinkhorn's iteration).

n masks of this process; K clusters; C joint width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from naclip.training.processes import summed

ROUNDS = 3


def similarity(pooled: Tensor, centres: Tensor) -> Tensor:
    """Cosines of pooled masks (n, C) and cluster centres (K, C): (n, K), float32."""
    with torch.autocast(pooled.device.type, enabled=False):
        return F.normalize(pooled.float(), dim=1) @ F.normalize(centres.float(), dim=1).T


def balanced_assignment(cosines: Tensor, sharpness: float, rounds: int = ROUNDS) -> Tensor:
    """How much each mask belongs to each cluster (n, K); rows sum to 1.

    Softmax of `sharpness` times the cosines (n, K); then in each round the columns are divided by their sums over the
    masks of all processes, and the rows by theirs. Every process must come here, one without a mask as well.
    """
    shares = (sharpness * cosines).softmax(dim=1)
    for _ in range(rounds):
        shares = shares / _not_zero(summed(shares.sum(dim=0)))
        shares = shares / _not_zero(shares.sum(dim=1, keepdim=True))
    return shares


def _not_zero(sums: Tensor) -> Tensor:
    """A cluster whose every share has underflowed stays without masks, where 0/0 would be the highest of all."""
    return torch.where(sums > 0, sums, 1)
