"""Sliding windows: where they lie, and how what is seen through them becomes one map.

Shapes: B pictures; H, W pixels; h, w patch grid of a window; R, C rows and columns of windows; Q names.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PIXELS_AT_ONCE = 32 * 224 * 224  # windows go through the tower together up to this many pixels
CUDA_TIMES = 8  # on a GPU, which small batches do not fill, so many times as many


class Window(NamedTuple):
    """A box in pixels; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


class Margins(NamedTuple):
    """Pixels around a window that are seen with it, but are no part of it."""

    top: int
    bottom: int
    left: int
    right: int


NO_MARGINS = Margins(0, 0, 0, 0)


def pad_centred(windows: Tensor, multiple: int) -> tuple[Tensor, Margins]:
    """Zeros around windows (B, 3, H, W) so that their sides are multiples of some pixels, and how many.

    An odd pixel goes to the bottom or the right.
    """
    down, across = (-side % multiple for side in windows.shape[-2:])
    margins = Margins(down // 2, down - down // 2, across // 2, across - across // 2)
    if margins == NO_MARGINS:
        return windows, margins  # the same, so that readings of it can be shared
    return F.pad(windows, (margins.left, margins.right, margins.top, margins.bottom)), margins


def pad_end(windows: Tensor, multiple: int) -> Tensor:
    """Zeros right of and below windows (B, 3, H, W) so that their sides are multiples of some pixels."""
    down, across = (-side % multiple for side in windows.shape[-2:])
    return F.pad(windows, (0, across, 0, down)) if down or across else windows


def window_boxes(size: tuple[int, int], crop: int, stride: int) -> list[Window]:
    """The windows that cover a picture of `size` (H, W), all of one size, row by row.

    Along each side there are ceil(max(side - crop, 0) / stride) + 1, at multiples of the stride, the last ones
    pulled back inside. A side shorter than the crop has one, as long as the side. crop = 0: the whole picture.

    Raises:
        ValueError: negative crop, stride below 1, or a stride above the crop, which would leave gaps.
    """
    if crop == 0:
        return [Window(0, 0, *size)]
    if crop < 0 or not 1 <= stride <= crop:
        raise ValueError(
            f'slide_crop {crop} and slide_stride {stride}: expected crop 0 (whole picture), or 1 <= stride <= crop'
        )
    rows, columns = (_spans(side, crop, stride) for side in size)
    return [Window(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def _spans(side: int, crop: int, stride: int) -> list[tuple[int, int]]:
    count = -(-max(side - crop, 0) // stride) + 1
    ends = [min(i * stride + crop, side) for i in range(count)]
    return [(max(end - crop, 0), end) for end in ends]


def cut(images: Tensor, boxes: list[Window]) -> Tensor:
    """What is seen through the windows: (B, 3, H, W) -> (B * len(boxes), 3, crop, crop)."""
    return torch.stack([images[:, :, b.top : b.bottom, b.left : b.right] for b in boxes], dim=1).flatten(0, 1)


def look_through(
    images: Tensor, boxes: list[Window], logits_of: Callable[[Tensor], Tensor], at_once: int | None = None
) -> Tensor:
    """The logits of all windows, laid side by side in their rows and columns: (B, 3, H, W) -> (B, Q, R*h, C*w).

    `logits_of` maps a batch of windows (n, 3, crop, crop) to their logits on the patch grid (n, Q, h, w); it gets
    `at_once` of them, or as many as suits the memory.
    """
    crops = cut(images, boxes)
    logits = torch.cat([logits_of(some) for some in crops.split(at_once or windows_at_once(crops))])
    return side_by_side(logits, boxes)


def windows_at_once(windows: Tensor) -> int:
    """How many windows of the size of these (n, 3, crop, crop) go through the tower together."""
    return max(pixels_at_once(windows.device) // windows[0, 0].numel(), 1)


def pixels_at_once(device: torch.device) -> int:
    """How many pixels of windows go through the tower together on a device."""
    return PIXELS_AT_ONCE * (CUDA_TIMES if device.type == 'cuda' else 1)


def side_by_side(logits: Tensor, boxes: list[Window]) -> Tensor:
    """Logits of the windows of pictures, picture by picture, in their places: (B*R*C, Q, h, w) -> (B, Q, R*h, C*w)."""
    by_place = logits.unflatten(0, (-1, len(row_spans(boxes)), len(column_spans(boxes))))
    return by_place.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def merge_windows(
    logits: Tensor,
    boxes: list[Window],
    size: tuple[int, int],
    target: tuple[int, int] | None = None,
    margins: Margins = NO_MARGINS,
) -> Tensor:
    """What `look_through` saw of pictures of `size` (H, W), as maps: (B, Q, R*h, C*w) -> (B, Q, *target).

    Upsampling, averaging and resizing are linear, and treat rows and columns apart. So each is one matrix for rows
    and one for columns, and their products do all three at once, without maps of any size in between. All
    interpolation is bilinear, with align_corners off. `target` is `size` if not given. What was seen
    of `margins` around each window is cut off.
    """
    target = target or size
    down, across = margins[:2], margins[2:]
    kind = (logits.device, logits.dtype)
    # (target H, R*h), (target W, C*w)
    rows = _merging_matrix(tuple(row_spans(boxes)), logits.shape[-2], size[0], target[0], *down, *kind)
    columns = _merging_matrix(tuple(column_spans(boxes)), logits.shape[-1], size[1], target[1], *across, *kind)
    return rows @ logits @ columns.T


def row_spans(boxes: list[Window]) -> list[tuple[int, int]]:
    """First row and the one after the last, of each of the R rows of windows."""
    return list(dict.fromkeys((box.top, box.bottom) for box in boxes))


def column_spans(boxes: list[Window]) -> list[tuple[int, int]]:
    """First column and the one after the last, of each of the C columns of windows."""
    return list(dict.fromkeys((box.left, box.right) for box in boxes))


@lru_cache(maxsize=16)  # pictures of one size have the same
@torch.inference_mode(False)  # what is kept may be used with gradients, too
@torch.no_grad()
def _merging_matrix(
    spans: tuple[tuple[int, int], ...],
    cells: int,
    side: int,
    target: int,
    before: int,
    after: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Along one side: the windows' cells -> pixels, averaged over windows, resized: (target, cells), not to be changed.

    Windows are seen with so many pixels before and after them.
    """
    each, length = cells // len(spans), spans[0][1] - spans[0][0]
    upsample = _interpolation_matrix(each, before + length + after)[before : before + length]
    merge, seen = torch.zeros(side, cells), torch.zeros(side, 1)
    for i, (first, end) in enumerate(spans):
        merge[first:end, i * each : (i + 1) * each] = upsample
        seen[first:end] += 1
    merge /= seen
    return (merge if target == side else _interpolation_matrix(side, target) @ merge).to(device, dtype)


def _interpolation_matrix(source: int, target: int) -> Tensor:
    """Linear interpolation of `source` values to `target` ones, align_corners off: (target, source)."""
    return F.interpolate(torch.eye(source)[None], target, mode='linear', align_corners=False)[0].T
