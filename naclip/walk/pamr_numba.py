"""PAMR on the CPU in numba: all steps in one kernel, the affinities in another.

`naclip.walk.pamr` holds the plain forms that they must agree with.

Maps are refined in groups that stay in the cache through all steps, each thread a group of its own. Shapes: m maps of a
group; H, W pixels; P neighbours; L = LANES pixels that are computed together.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

LANES = 16  # pixels; the compiler makes of it what the processor has
SCRATCH_BYTES = 4 << 20  # a thread's: more leaves the caches
TOGETHER = 3  # steps in one pass over the rows; of more, the rows leave the second-level cache in between
MAPS = 4  # refined together: a weight is loaded once for so many, and their sums fit in the registers


def refine(maps: Tensor, weights: Tensor, steps: int, dilations: Sequence[int], scratch_bytes: int) -> None:
    """As `naclip.walk.pamr.refine`, in as many threads as PyTorch has; maps and weights are contiguous.

    Each thread has working memory for MAPS maps, even if all together is then more than `scratch_bytes`; it takes no
    more than SCRATCH_BYTES unless these do.
    """
    threads, reach = torch.get_num_threads(), max(dilations)
    height, width = maps.shape[-2:]
    rows = height + TOGETHER * (reach + 1)
    stride = 2 * _whole(reach) + _whole(width)  # of a map's row: rows begin at multiples of LANES
    at_once = min(scratch_bytes // threads, SCRATCH_BYTES) // (4 * rows * stride)
    groups = shares(maps.shape[1], max(at_once, MAPS), threads)
    bands = shares(height, max(height, MAPS), threads)
    steps_of = np.array(dilations)
    for picture, picture_weights in zip(maps.numpy(), weights.numpy(), strict=True):
        packed = _room(height, _whole(width) // LANES, len(picture_weights), LANES)

        def pack(band: slice, source: np.ndarray = picture_weights, target: np.ndarray = packed) -> None:
            _pack(source, target, band.start, band.stop)

        def work(group: slice, maps: np.ndarray = picture, packed: np.ndarray = packed) -> None:
            part = maps[group]
            scratch = _room(rows, len(part), stride)
            _refine_group(part, packed, steps_of, steps, scratch, np.empty(packed.shape[2], np.intp))

        _in_threads(pack, bands, threads)
        _in_threads(work, groups, threads)


def shares(count: int, most: int, threads: int) -> list[slice]:
    """`count` things in groups of at most `most` (>= MAPS): multiples of MAPS, but for the last.

    They are of much the same size, and as many as the threads or a multiple of that, where there are so many.
    """
    units = -(-count // MAPS)
    groups = -(-units // (most // MAPS))
    groups = max(min(-(-groups // threads) * threads, units), 1)
    edges = [min(MAPS * (i * units // groups), count) for i in range(groups + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


def _in_threads(work: Callable[[slice], None], parts: Sequence[slice], threads: int) -> None:
    """Do the parts of a work; the kernels leave Python's lock to others.

    Not numba's own threads: these take one caller at a time, and do not live on in a forked process.
    """
    if min(threads, len(parts)) == 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, parts):
            pass


def _room(*shape: int) -> np.ndarray:
    """Room for float32s that begins where a line of the cache does, so that LANES of them lie in one line."""
    line, size = 4 * LANES, math.prod(shape)
    room = np.empty(size + LANES, np.float32)
    first = -room.ctypes.data % line // 4
    return room[first : first + size].reshape(shape)


def _whole(pixels: int) -> int:
    """The next multiple of LANES."""
    return -(-pixels // LANES) * LANES


def _compiled(function: Callable) -> Callable:
    """Compiled at the first call, and kept on disk for the next process where there is a folder to write to."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither beside this file nor in the user's folder
        return njit(nogil=True)(function)


def _weighted_sums(maps: int) -> Callable:
    """For LANES pixels of so many maps: their neighbours' weighted sums.

    Written in vectors, since numba cannot tell the compiler that a dozen arrays do not overlap, and without that the
    compiler does one pixel at a time. `source`, `weights` and `target` are addresses of float32; a neighbour lies
    `offsets` (P,) float32s from a pixel, the next map's pixel `next_map`, the next neighbour's weight LANES.
    """
    single = ir.FloatType()
    vector = ir.VectorType(single, LANES)

    @intrinsic
    def sums(_, source, weights, target, offsets, neighbours, next_map):
        def generate(context, builder, signature, arguments):
            source, weights, target, offsets, neighbours, next_map = arguments
            source, weights, target = (builder.inttoptr(x, single.as_pointer()) for x in (source, weights, target))
            offsets = builder.inttoptr(offsets, next_map.type.as_pointer())
            places = [builder.mul(next_map, ir.Constant(next_map.type, i)) for i in range(maps)]
            totals = [cgutils.alloca_once(builder, vector) for _ in range(maps)]
            for total in totals:
                builder.store(ir.Constant(vector, [0.0] * LANES), total)

            def vector_at(pointer: ir.Value, place: ir.Value) -> ir.Value:
                return builder.bitcast(builder.gep(pointer, [place]), vector.as_pointer())

            with cgutils.for_range(builder, neighbours) as loop:
                weight = builder.load(
                    vector_at(weights, builder.mul(loop.index, ir.Constant(next_map.type, LANES))), align=4
                )
                neighbour = builder.gep(source, [builder.load(builder.gep(offsets, [loop.index]))])
                for place, total in zip(places, totals, strict=True):
                    value = builder.load(vector_at(neighbour, place), align=4)
                    product = builder.fmul(value, weight, flags=['contract'])  # one multiply-add with what follows
                    builder.store(builder.fadd(product, builder.load(total), flags=['contract']), total)
            for place, total in zip(places, totals, strict=True):
                builder.store(builder.load(total), vector_at(target, place), align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6), generate

    return sums


_sums_of_some = _weighted_sums(MAPS)
_sums_of_one = _weighted_sums(1)


@_compiled
def _pack(weights, packed, first_row, end_row):
    """Some rows of weights (P, H, W) in the order of their use: (H, W / L, P, L), zeros beyond the last column."""
    for y in range(first_row, end_row):
        for block in range(packed.shape[1]):
            first = block * LANES
            lanes = min(weights.shape[2] - first, LANES)
            for p in range(weights.shape[0]):
                for x in range(lanes):
                    packed[y, block, p, x] = weights[p, y, first + x]
                for x in range(lanes, LANES):
                    packed[y, block, p, x] = 0


@_compiled
def _set_border(row, left, width):
    """Fill what is left and right of the pixels in a map's row with the nearest of them."""
    for x in range(left):
        row[x] = row[left]
    for x in range(left + width, len(row)):
        row[x] = row[left + width - 1]


@_compiled
def _refine_group(maps, packed, dilations, steps, scratch, offsets):
    """Take maps (m, H, W) through all steps, in place.

    One pass over the rows does TOGETHER steps, each `lag` rows behind the one before, so that all it reads is there:
    maps and weights come from memory once a pass. What a step reads at some rows of `scratch` it writes `lag` rows
    further up, where nothing is needed any more; the next pass goes from the last row to the first, and down.
    `scratch` (H + TOGETHER * lag, m, stride) and `offsets` (P,), for neighbours' places, are room for that.
    """
    count, height, width = maps.shape
    blocks, neighbours = packed.shape[1], packed.shape[2]
    stride = scratch.shape[2]
    left = (stride - blocks * LANES) // 2
    lag = (len(scratch) - height) // TOGETHER
    row_bytes = 4 * count * stride
    first = len(scratch) - height  # the row of `scratch` that has row 0 of the maps
    for y in range(height):
        for m in range(count):
            row = scratch[first + y, m]
            for x in range(width):
                row[left + x] = maps[m, y, x]
            _set_border(row, left, width)
    up = True
    while steps:
        together = min(steps, TOGETHER)
        for i in range(height + (together - 1) * lag):
            for step in range(max((i - height) // lag + 1, 0), min(i // lag + 1, together)):
                y = i - step * lag if up else height - 1 - i + step * lag
                n = 0
                for d in dilations:
                    for dy in (-d, 0, d):
                        down = min(max(y + dy, 0), height - 1) - y  # what padding with replicas does
                        for dx in (-d, 0, d):
                            if dy or dx:
                                offsets[n] = down * count * stride + dx
                                n += 1
                source_row = first + y - step * lag if up else first + y + step * lag
                target_row = source_row - lag if up else source_row + lag
                source = scratch.ctypes.data + source_row * row_bytes + 4 * left
                target = scratch.ctypes.data + target_row * row_bytes + 4 * left
                m = 0
                while m < count:
                    some = count - m >= MAPS
                    for block in range(blocks):
                        place = 4 * (m * stride + block * LANES)
                        weights = packed.ctypes.data + 4 * LANES * neighbours * (y * blocks + block)
                        if some:
                            _sums_of_some(
                                source + place, weights, target + place, offsets.ctypes.data, neighbours, stride
                            )
                        else:
                            _sums_of_one(
                                source + place, weights, target + place, offsets.ctypes.data, neighbours, stride
                            )
                    m += MAPS if some else 1
                for m in range(count):
                    _set_border(scratch[target_row, m], left, width)
        first += -together * lag if up else together * lag
        up = not up
        steps -= together
    for y in range(height):
        for m in range(count):
            row = scratch[first + y, m]
            for x in range(width):
                maps[m, y, x] = row[left + x]


def affinity(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """As `naclip.walk.pamr.plain_affinity`, of float32 pictures, in as many threads as PyTorch has."""
    threads, reach = torch.get_num_threads(), max(dilations)
    height, width = image.shape[-2:]
    padded = F.pad(image, (reach,) * 4, mode='replicate').numpy()
    result = image.new_empty(len(image), 8 * len(dilations), height, width)
    steps_of, bands = np.array(dilations), shares(height, max(height, MAPS), threads)
    for picture, target in zip(padded, result.numpy(), strict=True):

        def work(band: slice, picture: np.ndarray = picture, target: np.ndarray = target) -> None:
            _distances(picture, steps_of, target, band.start, band.stop)

        _in_threads(work, bands, threads)
    return torch.softmax(result, dim=1, out=result)


@_compiled
def _distances(padded, dilations, target, first_row, end_row):
    """Some rows of what the softmax over neighbours gets (P, H, W), of a picture (3, H, W) padded with replicas."""
    width = target.shape[2]
    reach = (padded.shape[2] - width) // 2
    values = 9 * len(dilations)
    centres, one, small, tenth = np.float32(len(dilations)), np.float32(1), np.float32(1e-8), np.float32(0.1)
    share, spread, third = one / np.float32(values), one / np.float32(values - 1), one / np.float32(3)
    mean, scale = np.empty((3, width), np.float32), np.empty((3, width), np.float32)
    for y in range(first_row, end_row):
        for c in range(3):
            centre, of_mean, of_scale = padded[c, y + reach, reach : reach + width], mean[c], scale[c]
            for x in range(width):
                of_mean[x] = centres * centre[x]
            for d in dilations:
                for dy in (-d, 0, d):
                    for dx in (-d, 0, d):
                        if dy or dx:
                            near = padded[c, y + reach + dy, reach + dx : reach + dx + width]
                            for x in range(width):
                                of_mean[x] += near[x]
            for x in range(width):
                of_mean[x] *= share
                of_scale[x] = centres * (centre[x] - of_mean[x]) ** 2
            for d in dilations:
                for dy in (-d, 0, d):
                    for dx in (-d, 0, d):
                        if dy or dx:
                            near = padded[c, y + reach + dy, reach + dx : reach + dx + width]
                            for x in range(width):
                                of_scale[x] += (near[x] - of_mean[x]) ** 2
            for x in range(width):
                of_scale[x] = -third / (small + tenth * math.sqrt(of_scale[x] * spread))
        n = 0
        for d in dilations:
            for dy in (-d, 0, d):
                for dx in (-d, 0, d):
                    if dy or dx:
                        result = target[n, y]
                        result[:] = 0
                        for c in range(3):
                            centre, of_scale = padded[c, y + reach, reach : reach + width], scale[c]
                            near = padded[c, y + reach + dy, reach + dx : reach + dx + width]
                            for x in range(width):
                                result[x] += abs(centre[x] - near[x]) * of_scale[x]
                        n += 1
