"""One step of PAMR as one CUDA kernel, in Triton; `naclip.walk.pamr` holds the plain form it must agree with."""

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS, MAPS = 128, 8  # of a program's tile


@triton.jit
def _step_kernel(
    source,  # (M, H, W)
    weights,  # (P, H, W)
    target,  # (M, H, W)
    offsets,  # (P, 2): rows, columns
    maps,
    height,
    width,
    neighbours: tl.constexpr,
    tile_pixels: tl.constexpr,
    tile_maps: tl.constexpr,
):
    pixel = tl.program_id(0) * tile_pixels + tl.arange(0, tile_pixels)
    m = tl.program_id(1) * tile_maps + tl.arange(0, tile_maps)
    area = height * width
    inside = pixel < area
    mask = (m < maps)[:, None] & inside[None, :]
    row, column = pixel // width, pixel % width
    first = m.to(tl.int64)[:, None] * area
    total = tl.zeros((tile_maps, tile_pixels), dtype=tl.float32)
    for n in range(neighbours):
        # Clamping the neighbour's place is what padding with replicas does.
        r = tl.minimum(tl.maximum(row + tl.load(offsets + 2 * n), 0), height - 1)
        c = tl.minimum(tl.maximum(column + tl.load(offsets + 2 * n + 1), 0), width - 1)
        weight = tl.load(weights + n * area + pixel, mask=inside, other=0.0)
        total += weight[None, :] * tl.load(source + first + (r * width + c)[None, :], mask=mask, other=0.0)
    tl.store(target + first + pixel[None, :], total, mask=mask)


def step(source: Tensor, weights: Tensor, offsets: Tensor, target: Tensor) -> None:
    """Write the weighted sum of each pixel's neighbours in `source` (M, H, W) to `target`, likewise.

    `weights` (P, H, W) belong to the neighbours at `offsets` (P, 2), int32 rows and columns. All are contiguous, on
    one device; maps and weights are float32.
    """
    maps, height, width = source.shape
    grid = (triton.cdiv(height * width, PIXELS), triton.cdiv(maps, MAPS))
    with torch.cuda.device_of(source):
        _step_kernel[grid](source, weights, target, offsets, maps, height, width, len(weights), PIXELS, MAPS)
