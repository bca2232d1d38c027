"""Sliding windows: where they lie, and how what is seen through them becomes one map.

Shapes: B pictures; H, W pixels; h, w patch grid of a window; Q names.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PIXELS_AT_ONCE = 32 * 224 * 224  # windows go through the tower together up to this many pixels


class Window(NamedTuple):
    """A box in pixels; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


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


def sliding_logits(images: Tensor, boxes: list[Window], logits_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Average over windows, upsampled to the pixel: (B, 3, H, W) -> (B, Q, H, W).

    `logits_of` maps a batch of windows (n, 3, crop, crop) to their logits on the patch grid (n, Q, h, w).
    """
    crops = torch.stack([images[:, :, b.top : b.bottom, b.left : b.right] for b in boxes], dim=1).flatten(0, 1)
    owners = [(picture, box) for picture in range(len(images)) for box in boxes]
    height, width = crops.shape[-2:]
    at_once = max(PIXELS_AT_ONCE // (height * width), 1)
    total = None
    for first in range(0, len(crops), at_once):
        logits = logits_of(crops[first : first + at_once])  # (n, Q, h, w)
        if total is None:
            total = logits.new_zeros(len(images), logits.shape[1], *images.shape[-2:])
        for (picture, box), window in zip(owners[first:], logits, strict=False):
            area = total[picture, :, box.top : box.bottom, box.left : box.right]
            area += F.interpolate(window[None], (height, width), mode='bilinear', align_corners=False)[0]
    return total.div_(coverage(boxes, images.shape[-2:]).to(total))


def coverage(boxes: list[Window], size: tuple[int, int]) -> Tensor:
    """How many windows see each pixel: (H, W)."""
    count = torch.zeros(size)
    for box in boxes:
        count[box.top : box.bottom, box.left : box.right] += 1
    return count
