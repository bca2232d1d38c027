"""What the student shall see: in each picture, the union of each cluster's masks.

n masks of a picture; K clusters; M mask resolution.
"""

import torch
from torch import Tensor


def cluster_unions(masks: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """Masks (n, M, M) with labels (n,) -> unions (K, M, M), float32, 0 or 1. A pixel may be in several."""
    unions = torch.zeros(clusters, *masks.shape[1:], device=masks.device)
    return unions.index_add_(0, labels, masks.float()).clamp_(max=1)
