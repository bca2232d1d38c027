"""K-means of a picture's tokens, and the masks of its clusters.

n tokens; d width; k clusters; h, w grid; M mask resolution.
"""

import torch
from torch import Tensor

from naclip.training.pooling import shrink

CLUSTERS, ROUNDS, TOLERANCE = 16, 100, 1e-4


def starting_rows(tokens: int, seed: int, clusters: int = CLUSTERS) -> Tensor:
    """Rows that k-means starts from (k,), drawn with replacement."""
    return torch.randint(tokens, (clusters,), generator=torch.Generator().manual_seed(seed))


def kmeans(tokens: Tensor, start: Tensor) -> Tensor:
    """The cluster of each token (n, d) -> (n,), by Euclidean distance, from the rows `start` (k,).

    An empty cluster's centre becomes zero. It ends once the centres have moved by no more than TOLERANCE (the sum of
    squares), or after ROUNDS; labels are those that the last centres were made from. Of ties the lowest index wins.
    """
    tokens = tokens.float()
    centres = tokens[start.to(tokens.device)]
    for _ in range(ROUNDS):
        distances = centres.square().sum(dim=1) - 2 * tokens @ centres.T  # but for a term that all centres share
        labels = distances.argmin(dim=1)
        members = torch.zeros(len(centres), len(tokens), device=tokens.device)
        members.scatter_(0, labels[None], 1.0)
        moved = members @ tokens / members.sum(dim=1, keepdim=True).clamp(min=1)
        shift = (moved - centres).square().sum()
        centres = moved
        if shift <= TOLERANCE:
            break
    return labels


def cluster_masks(labels: Tensor, size: tuple[int, int], clusters: int = CLUSTERS) -> Tensor:
    """The masks of a picture's clusters (k, *size), from labels on its grid (h, w); nearest."""
    masks = labels[None] == torch.arange(clusters, device=labels.device)[:, None, None]
    return torch.nn.functional.interpolate(masks[None].byte(), size, mode='nearest')[0].bool()


def training_masks(tokens: Tensor, grid: tuple[int, int], size: tuple[int, int], seed: int, resolution: int) -> Tensor:
    """The masks of a picture of a size from its tokens (h*w, d), at the resolution of training (k, M, M)."""
    labels = kmeans(tokens, starting_rows(len(tokens), seed)).unflatten(0, grid)
    return shrink(cluster_masks(labels, size), resolution)
