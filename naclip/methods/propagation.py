"""Maps of whole pictures that spread where neighbours look alike, and hold where they are sure: PEARL's propagation.

Source: arXiv:2603.21528. Shapes: B pictures; H, W pixels; y, x rows and columns of cells; Q names; C joint width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-6
GRAY = (0.299, 0.587, 0.114)
SHARPNESS = 5.0  # of edges
LEAST_CONFIDENCE = 0.05
TEMPERATURE, SELF = 0.5, 10.0  # of the names' affinity, and what a name's own gets on top


class System(NamedTuple):
    """The symmetric equations of all cells: a diagonal, and -1 times an edge for each pair of neighbours."""

    diagonal: Tensor  # (B, 1, y, x)
    down: Tensor  # edges to the cell below (B, 1, y - 1, x)
    across: Tensor  # edges to the cell on the right (B, 1, y, x - 1)

    def times(self, maps: Tensor) -> Tensor:
        """(B, Q, y, x) -> same."""
        result = self.diagonal * maps
        result[..., 1:, :].addcmul_(self.down, maps[..., :-1, :], value=-1)
        result[..., :-1, :].addcmul_(self.down, maps[..., 1:, :], value=-1)
        result[..., 1:].addcmul_(self.across, maps[..., :-1], value=-1)
        result[..., :-1].addcmul_(self.across, maps[..., 1:], value=-1)
        return result


def text_affinity(texts: Tensor) -> Tensor:
    """How near the names of texts (Q, C) are to each other, rows of sum 1: (Q, Q)."""
    affinity = torch.softmax(texts @ texts.T / TEMPERATURE, dim=-1)
    affinity = affinity + SELF * torch.eye(len(texts), device=texts.device)
    return affinity / (affinity.sum(dim=-1, keepdim=True) + TINY)


def agreement(p: Tensor, other: Tensor, near: Tensor) -> Tensor:
    """Whether two cells' probabilities (B, Q, y, x) are for the same names, from 0 to 1: (B, 1, y, x).

    As published, of the names' affinity only the diagonal counts, `near` (Q,).
    """
    return torch.einsum('q,bqyx,bqyx->byx', near, p, other).clamp_(0, 1)[:, None]


def edges(gray: Tensor, p: Tensor, near: Tensor, dim: int) -> Tensor:
    """How strongly each cell is tied to the next one along a dimension: (B, 1, y - 1, x) or (B, 1, y, x - 1).

    By the difference of their gray (B, 1, y, x), beside the picture's mean difference, and by their agreement.
    """
    cells = gray.shape[dim] - 1
    difference = gray.diff(dim=dim).abs()
    look = torch.exp(-SHARPNESS * difference / (difference.mean(dim=(1, 2, 3), keepdim=True) + TINY))
    return (look * (1 + agreement(p.narrow(dim, 0, cells), p.narrow(dim, 1, cells), near))).clamp_(0, 1)


def equations(gray: Tensor, logits: Tensor, texts: Tensor) -> tuple[System, Tensor]:
    """The system, and its right side (B, Q, y, x), of cells' gray (B, 1, y, x) and logits (B, Q, y, x)."""
    near, p = text_affinity(texts).diagonal(), torch.softmax(logits, dim=1)
    confidence = p.amax(dim=1, keepdim=True).clamp_(min=LEAST_CONFIDENCE).square() * (1 + agreement(p, p, near))
    down, across = edges(gray, p, near, -2), edges(gray, p, near, -1)
    diagonal = confidence + F.pad(down, (0, 0, 1, 0)) + F.pad(down, (0, 0, 0, 1))
    diagonal = diagonal + F.pad(across, (1, 0)) + F.pad(across, (0, 1))
    return System(diagonal, down, across), confidence * logits


def conjugate_gradients(system: System, right: Tensor, start: Tensor, steps: int) -> Tensor:
    """Some steps towards the solution (B, Q, y, x); a picture's names share their step lengths."""

    def total(maps: Tensor) -> Tensor:
        return maps.square().sum(dim=(1, 2, 3), keepdim=True)

    least = torch.finfo(right.dtype).tiny  # nothing is left to do: steps of length 0
    x, rest = start, right - system.times(start)
    direction, size = rest, total(rest)
    for _ in range(steps):
        moved = system.times(direction)
        length = size / (direction * moved).sum(dim=(1, 2, 3), keepdim=True).clamp(min=least)
        x, rest = x + length * direction, rest - length * moved
        before, size = size, total(rest)
        direction = rest + size / before.clamp(min=least) * direction
    return x


def propagate(pictures: Tensor, maps: Tensor, texts: Tensor, grid: int, steps: int) -> Tensor:
    """Maps (B, Q, H, W) along normalised pictures (B, 3, H, W), on about grid x grid cells: (B, Q, H, W), float32.

    Pixels right of and below the last whole cell do not count.
    """
    size = tuple(maps.shape[-2:])
    cell = tuple(max(1, round(side / grid)) for side in size)
    weights = torch.tensor(GRAY, device=pictures.device)[:, None, None]
    gray = F.avg_pool2d((weights * pictures.float()).sum(dim=1, keepdim=True), cell)
    logits = F.avg_pool2d(maps.float(), cell)
    system, right = equations(gray, logits, texts.float())
    solved = conjugate_gradients(system, right, logits, steps)
    return F.interpolate(solved, size, mode='bilinear', align_corners=False)
