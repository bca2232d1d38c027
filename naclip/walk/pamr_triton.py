"""PAMR's affinities, and each of its steps, as one CUDA kernel each, in Triton.

`naclip.walk.pamr` holds the plain forms that they must agree with.
"""

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from clip.folders import with_spare


def _writable(folder: Path) -> Path:
    """The folder itself, made if need be.

    Raises:
        OSError: nobody can write there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder


# Compiled kernels are kept below the home; Triton cannot do without a place for them.
if not {'TRITON_CACHE_DIR', 'TRITON_HOME'} & os.environ.keys():
    os.environ['TRITON_CACHE_DIR'] = str(with_spare(_writable, Path('~/.triton/cache')))


class Tiling(NamedTuple):
    """How the work is cut into programs. No number depends on it, only seconds do."""

    # The fastest of 18 on an H100 at 21, 59 and 171 maps of 375x500: 0.6, 1.4 and 3.8 ms for ten steps.
    pixels: int = 512  # of a program's tile, a power of two
    maps: int = 2  # likewise; they share the weights that the program loads
    warps: int = 4
    maps_first: bool = False  # whether neighbouring programs have other maps of the same pixels
    unroll: int = 4  # neighbours whose values are on their way at once


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


@triton.jit
def _neighbour(image, offset, row, column, height, width, at, mask):
    """The values (4, pixels) of the neighbours at an offset."""
    r = tl.minimum(tl.maximum(row + tl.load(offset), 0), height - 1)
    c = tl.minimum(tl.maximum(column + tl.load(offset + 1), 0), width - 1)
    return tl.load(image + at + (r * width + c)[None, :], mask=mask, other=0.0)


@triton.jit
def _affinity_kernel(
    image,  # (3, H, W)
    target,  # (P, H, W)
    offsets,  # (P, 2): rows, columns
    height,
    width,
    neighbours: tl.constexpr,
    dilations: tl.constexpr,
    tile_pixels: tl.constexpr,
):
    area = height * width
    pixel = tl.program_id(0) * tile_pixels + tl.arange(0, tile_pixels)
    inside = pixel < area
    row, column = pixel // width, pixel % width
    channel = tl.arange(0, 4)[:, None]  # the fourth is nothing, as tiles have powers of two
    mask = (channel < 3) & inside[None, :]
    at = channel * area
    centre = tl.load(image + at + pixel[None, :], mask=mask, other=0.0)
    mean = dilations * centre
    for n in range(neighbours):
        mean += _neighbour(image, offsets + 2 * n, row, column, height, width, at, mask)
    mean /= 9 * dilations
    variance = dilations * (centre - mean) * (centre - mean)
    for n in range(neighbours):
        apart = _neighbour(image, offsets + 2 * n, row, column, height, width, at, mask) - mean
        variance += apart * apart
    scale = 1e-8 + 0.1 * tl.sqrt(variance / (9 * dilations - 1))
    # The softmax over neighbours goes through them three times: their values are near, and need no memory.
    highest = tl.full((tile_pixels,), -float('inf'), dtype=tl.float32)
    for n in range(neighbours):
        apart = tl.abs(centre - _neighbour(image, offsets + 2 * n, row, column, height, width, at, mask)) / scale
        highest = tl.maximum(highest, -tl.sum(apart, axis=0) / 3)
    total = tl.zeros((tile_pixels,), dtype=tl.float32)
    for n in range(neighbours):
        apart = tl.abs(centre - _neighbour(image, offsets + 2 * n, row, column, height, width, at, mask)) / scale
        total += tl.exp(-tl.sum(apart, axis=0) / 3 - highest)
    for n in range(neighbours):
        apart = tl.abs(centre - _neighbour(image, offsets + 2 * n, row, column, height, width, at, mask)) / scale
        weight = tl.exp(-tl.sum(apart, axis=0) / 3 - highest) / total
        tl.store(target + n * area + pixel, weight, mask=inside)


def affinity(image: Tensor, offsets: Tensor, dilations: int) -> Tensor:
    """The weights (P, H, W) of each pixel's neighbours at `offsets` (P, 2), int32, of so many dilations.

    `image` (3, H, W) is float32 and contiguous; 8 * `dilations` is P.
    """
    _, height, width = image.shape
    target = image.new_empty(len(offsets), height, width)
    with torch.cuda.device_of(image):
        _affinity_kernel[(triton.cdiv(height * width, 256),)](
            image, target, offsets, height, width, len(offsets), dilations, 256
        )
    return target
