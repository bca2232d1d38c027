"""How far patches should attend to each other, by the names that a first result gives them: ResCLIP's S.

Source: Yang et al., 'ResCLIP: Residual Attention for Training-free Dense Vision-language Inference', CVPR 2025.
Shapes: B windows; H, W pixels; h, w patch grid; N = 1 + h*w tokens, CLS first; n = h*w patches; Q
names.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from naclip.walk.attention import Grid

ROW_STD, ROW_TAPS = 5.0, 31  # the Gaussian along the rows of S, in patches, and its longest length
TINY = 1e-8


def cell_names(probabilities: Tensor, temp: float, side: int) -> Tensor:
    """The most frequent name in each cell of side² pixels, the smallest of several: (B, Q, H, W) -> (B, h, w).

    A pixel's name is the most probable one; name 0 where even that one's probability is below `temp`. Pixels right of
    and below the last whole cell do not count.
    """
    best, names = probabilities.max(dim=1)
    names = names.masked_fill_(best < temp, 0)  # (B, H, W)
    h, w = (length // side for length in names.shape[1:])
    cells = names[:, : h * side, : w * side].unflatten(2, (w, side)).unflatten(1, (h, side))
    cells = cells.transpose(2, 3).flatten(3)  # (B, h, w, side²)
    votes = cells.new_zeros(*cells.shape[:3], probabilities.shape[1]).scatter_add_(-1, cells, torch.ones_like(cells))
    return votes.argmax(dim=-1)


def steps_apart(grid: Grid, device: torch.device) -> Tensor:
    """How far patches are from each other (n, n): the larger of rows and columns."""
    rows, columns = torch.meshgrid(*(torch.arange(side, device=device) for side in grid), indexing='ij')
    rows, columns = rows.flatten(), columns.flatten()
    return torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())


def path_broken(names: Tensor) -> Tensor:
    """Whether the way from patch i to patch j leaves i's name: names (B, h, w) -> (B, n, n).

    As published, every way has one point for each step of the longest way in the grid, and only as many of them are
    looked at as i and j are apart: of short ways, the beginning alone.
    """
    grid, device = names.shape[1:], names.device
    apart, longest = steps_apart(grid, device), max(grid) - 1
    names = names.flatten(1)  # (B, n)
    broken = torch.zeros(len(names), *apart.shape, dtype=torch.bool, device=device)
    for step in range(1, longest + 1):  # point 0 is i itself
        rows, columns = (_cells_on_the_way(side, step / longest, device) for side in grid)  # (h, h), (w, w)
        places = rows[:, None, :, None] * grid[1] + columns[:, None, :]  # (h, w, h, w)
        there = names.index_select(1, places.flatten()).view_as(broken)  # (B, n, n)
        broken |= (there != names[:, :, None]) & (apart >= step)
    return broken


def _cells_on_the_way(side: int, part: float, device: torch.device) -> Tensor:
    """Where one is after a part of the way between any two cells of a side (side, side); halves go to the even cell."""
    cells = torch.arange(side, dtype=torch.float32, device=device)
    return (cells[:, None] + part * (cells - cells[:, None])).round().long()


def smooth_rows(rows: Tensor) -> Tensor:
    """Rows (B, n, n), none negative, through a Gaussian along the flat patch index, zeros outside; then of sum 1."""
    n = rows.shape[-1]
    reach = min(n, ROW_TAPS) // 2
    taps = torch.arange(-reach, reach + 1, device=rows.device)
    total = torch.exp(-taps.square() / (2 * ROW_STD**2)).sum()
    at = torch.arange(n, device=rows.device)
    apart = at[:, None] - at
    gaussian = torch.exp(-apart.square() / (2 * ROW_STD**2)).masked_fill_(apart.abs() > reach, 0) / total  # (n, n)
    rows = rows @ gaussian
    return rows / (rows.sum(dim=-1, keepdim=True) + TINY)


def semantic_feedback(names: Tensor) -> Tensor:
    """S of names (B, h, w), not yet divided by its maximum: (B, N, N), float32.

    1 between patches of one name; where the way leaves it, less, the farther they are; rows smoothed; 0 for CLS.
    """
    grid, flat = names.shape[1:], names.flatten(1)
    decay = torch.exp(-steps_apart(grid, names.device) / max(max(grid) - 1, 1))  # (n, n)
    alike = (flat[:, :, None] == flat[:, None, :]) * torch.where(path_broken(names), decay, 1.0)
    return F.pad(smooth_rows(alike), (1, 0, 1, 0))
