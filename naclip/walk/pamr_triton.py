"""One step of PAMR as one CUDA kernel, in Triton; `naclip.walk.pamr` holds the plain form it must agree with."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Tiling(NamedTuple):
    """How the work is cut into programs. No number depends on it, only seconds do."""

    pixels: int = 128  # of a program's tile, a power of two
    maps: int = 8  # likewise; they share the weights that the program loads
    warps: int = 4
    maps_first: bool = False  # whether neighbouring programs have other maps of the same pixels
    unroll: int = 1  # neighbours whose values are on their way at once


TILING = Tiling()


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
    maps_first: tl.constexpr,
    unroll: tl.constexpr,
):
    area = height * width
    tile = tl.program_id(0)
    if maps_first:
        across = tl.cdiv(maps, tile_maps)
        pixel_tile, map_tile = tile // across, tile % across
    else:
        across = tl.cdiv(area, tile_pixels)
        pixel_tile, map_tile = tile % across, tile // across
    pixel = pixel_tile * tile_pixels + tl.arange(0, tile_pixels)
    m = map_tile * tile_maps + tl.arange(0, tile_maps)
    inside = pixel < area
    mask = (m < maps)[:, None] & inside[None, :]
    row, column = pixel // width, pixel % width
    first = m.to(tl.int64)[:, None] * area
    weight_at = weights + pixel
    total = tl.zeros((tile_maps, tile_pixels), dtype=tl.float32)
    for n in tl.range(neighbours, loop_unroll_factor=unroll):
        # Clamping the neighbour's place is what padding with replicas does.
        r = tl.minimum(tl.maximum(row + tl.load(offsets + 2 * n), 0), height - 1)
        c = tl.minimum(tl.maximum(column + tl.load(offsets + 2 * n + 1), 0), width - 1)
        weight = tl.load(weight_at, mask=inside, other=0.0)
        total += weight[None, :] * tl.load(source + first + (r * width + c)[None, :], mask=mask, other=0.0)
        weight_at += area
    tl.store(target + first + pixel[None, :], total, mask=mask)


def step(source: Tensor, weights: Tensor, offsets: Tensor, target: Tensor, tiling: Tiling = TILING) -> None:
    """Write the weighted sum of each pixel's neighbours in `source` (M, H, W) to `target`, likewise.

    `weights` (P, H, W) belong to the neighbours at `offsets` (P, 2), int32 rows and columns. All are contiguous, on
    one device; maps and weights are float32.
    """
    maps, height, width = source.shape
    grid = (triton.cdiv(height * width, tiling.pixels) * triton.cdiv(maps, tiling.maps),)
    pixels, map_count, warps, maps_first, unroll = tiling
    with torch.cuda.device_of(source):
        _step_kernel[grid](
            source,
            weights,
            target,
            offsets,
            maps,
            height,
            width,
            len(weights),
            pixels,
            map_count,
            maps_first,
            unroll,
            num_warps=warps,
        )
