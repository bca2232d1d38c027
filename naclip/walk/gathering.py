"""With which weights one patch gathers from all: attention to look at. Evaluations never write it out.

Shapes: B windows; h, w the method's own grid; n = h*w patches; N = 1 + n tokens, CLS first; d head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from naclip.walk.attention import Grid, Term
from naclip.walk.windows import Margins, Window


class Place(NamedTuple):
    """A patch of a reading: its window, and its row and column on the method's own grid."""

    window: int
    row: int
    column: int


class Gathered(NamedTuple):
    """The weights with which a patch gathers, mean over heads, float32.

    `patches` (B, h, w) are those of the patches of all windows, on the method's own grid; `cls` is that of the CLS
    token, 0 where a method does not gather from it.
    """

    patches: Tensor
    cls: float = 0.0

    def own(self, place: Place) -> float:
        """The weight of the patch itself, which is at a place."""
        return float(self.patches[place])

    def highest_other(self, place: Place) -> float:
        """The highest weight of another patch than the one at a place; 0 where nothing else is gathered."""
        others = self.patches.clone()
        others[place] = 0
        return float(others.max())

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self.patches.sum()) + self.cls


def in_window(row: Tensor, grid: Grid, place: Place, windows: int) -> Gathered:
    """Weights of the tokens of the patch's own window, (n,) or with CLS first (N,), as `Gathered`."""
    n = grid[0] * grid[1]
    patches = F.pad(row[-n:].float().view(1, *grid), (0, 0, 0, 0, place.window, windows - place.window - 1))
    return Gathered(patches, float(row[0]) if len(row) > n else 0.0)


def patch_index(place: Place, grid: Grid) -> int:
    """The number of a patch among those of its window."""
    return place.row * grid[1] + place.column


def attention_row(terms: Sequence[Term], window: int, token: int) -> Tensor:
    """A row of `attention_weights`, the one of a token in a window, mean over heads: (N,), float32."""
    row = 0
    for a, b, bias in terms:
        logits = a.shape[-1] ** -0.5 * (a[window, :, token, None].float() @ b[window].mT.float())  # (heads, 1, N)
        if bias is not None:
            n = b.shape[-2]
            logits = logits + bias.expand(*a.shape[:2], n, n)[window, :, token, None].float()
        row = row + torch.softmax(logits, dim=-1)
    return row.mean(dim=(0, 1))


def gathered_by_terms(terms: Sequence[Term], grid: Grid, place: Place, windows: int) -> Gathered:
    """The weights of a patch in an attention among all tokens, CLS included, that is given by its terms."""
    return in_window(attention_row(terms, place.window, 1 + patch_index(place, grid)), grid, place, windows)


def itself(grid: Grid, place: Place, windows: int) -> Gathered:
    """The weights of a patch that takes what it has itself."""
    row = F.one_hot(torch.tensor(patch_index(place, grid)), grid[0] * grid[1])
    return in_window(row, grid, place, windows)


def cells_along(target: int, side: int, span: tuple[int, int], margins: tuple[int, int], cells: int) -> Tensor:
    """The cell of a window in which each of `target` pixels along a picture lies; -1 outside of the window (target,).

    The window goes from span to span on the network's input, of a `side` in pixels, and is seen with margins before and
    after it; its cells cover all that is seen, as when maps are merged.
    """
    first, end = span
    middle = (torch.arange(target, dtype=torch.float64) + 0.5) * side / target
    cell = (middle - first + margins[0]) * cells / (end - first + sum(margins))
    return torch.where((first <= middle) & (middle < end), cell.floor().long(), -1)


@dataclass(frozen=True)
class Placed:
    """Weights with which a patch gathers, where they belong in a picture of any size.

    `size` (H, W) is the network's input, in which `boxes` are the windows whose patches the method gathers from.
    """

    gathered: Gathered
    place: Place
    size: tuple[int, int]
    boxes: Sequence[Window]
    margins: Margins

    def at_size(self, size: tuple[int, int]) -> Tensor:
        """The weights (H, W) at a size: each patch a block, the mean where windows overlap, 0 where there is none."""
        total, count = torch.zeros(size), torch.zeros(size)
        for box, patches in zip(self.boxes, self.gathered.patches.cpu(), strict=True):
            rows, columns = cells_in(box, self.margins, tuple(patches.shape), self.size, size)
            inside = (rows >= 0)[:, None] & (columns >= 0)
            total += inside * patches[rows[:, None], columns]
            count += inside
        return total / count.clamp(min=1)

    def seen(self, size: tuple[int, int]) -> Window:
        """The pixels of a picture of a size that the method gathers from: one window's, or those of all."""
        grid = tuple(self.gathered.patches.shape[1:])
        cells = [cells_in(box, self.margins, grid, self.size, size) for box in self.boxes]
        return _bounds(*(torch.stack(along).amax(dim=0) >= 0 for along in zip(*cells, strict=True)))

    def patch(self, size: tuple[int, int]) -> Window:
        """The pixels of a picture of a size that the patch covers."""
        box, grid = self.boxes[self.place.window], tuple(self.gathered.patches.shape[1:])
        rows, columns = cells_in(box, self.margins, grid, self.size, size)
        return _bounds(rows == self.place.row, columns == self.place.column)


def _bounds(rows: Tensor, columns: Tensor) -> Window:
    """The box from the first to the last of the rows and columns that are marked."""
    (top, bottom), (left, right) = (marked.nonzero().aminmax() for marked in (rows, columns))
    return Window(int(top), int(left), int(bottom) + 1, int(right) + 1)


def cells_in(
    box: Window, margins: Margins, grid: Grid, size: tuple[int, int], target: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The rows and columns of a window's grid in which the pixels of a picture at a target size lie: see above."""
    rows = cells_along(target[0], size[0], (box.top, box.bottom), margins[:2], grid[0])
    columns = cells_along(target[1], size[1], (box.left, box.right), margins[2:], grid[1])
    return rows, columns


def nearest_window(boxes: Sequence[Window], size: tuple[int, int], pixel: tuple[int, int], of: tuple[int, int]) -> int:
    """The window on an input of `size` whose centre is nearest to a pixel (row, column) of a picture of a size `of`.

    The last of several. As windows have one size and leave no gaps, the pixel is in it.
    """
    y, x = ((at + 0.5) * side / length for at, side, length in zip(pixel, size, of, strict=True))
    distances = [(box.top + box.bottom - 2 * y) ** 2 + (box.left + box.right - 2 * x) ** 2 for box in boxes]
    return max(range(len(boxes)), key=lambda i: (-distances[i], i))
