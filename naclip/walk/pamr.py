"""Pixel-adaptive mask refinement (PAMR): maps follow the picture's edges.

Source: Araslanov and Roth, 'Single-Stage Semantic Segmentation from Image Labels', CVPR 2020, section 3.3.
Shapes: B pictures; M maps; H, W pixels; P = 8 * len(dilations) neighbours.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 10
DILATIONS = (8, 16)
# Working memory for a group of maps. On a CPU, groups this small stay in the cache through all steps.
SCRATCH_BYTES = {'cpu': 16 << 20, 'cuda': 256 << 20}

Refiner = Callable[[Tensor, Tensor, int, Sequence[int], int], None]  # as `refine`


def pamr(
    image: Tensor,
    maps: Tensor,
    steps: int = STEPS,
    dilations: Sequence[int] = DILATIONS,
    scratch_bytes: int | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Refine maps (B, M, H, W) along a picture (B, 3, H, W) of the same size: (B, M, H, W), float32.

    The neighbours' weights are computed once, or are `weights` (B, P, H, W), what `affinity` gave for the picture and
    these dilations. Then the maps take all steps in groups whose working memory is at most `scratch_bytes` (that of the
    smallest group, if that is more; default: what suits the device). The grouping changes nothing.

    Raises:
        ValueError: picture and maps differ in size; negative steps; no dilation, or one below 1; weights of another
            shape.
    """
    return pamr_(image, maps.to(torch.float32, copy=True), steps, dilations, scratch_bytes, weights)


def pamr_(
    image: Tensor,
    maps: Tensor,
    steps: int = STEPS,
    dilations: Sequence[int] = DILATIONS,
    scratch_bytes: int | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """As `pamr`, in place: `maps` are float32, are overwritten, and are returned.

    `weights` (B, P, H, W) are the picture's affinities, where they are known.
    """
    if image.shape[-2:] != maps.shape[-2:] or len(image) != len(maps):
        raise ValueError(f'PAMR needs picture and maps of one size, got {tuple(image.shape)} and {tuple(maps.shape)}')
    if steps < 0 or not dilations or min(dilations) < 1:
        raise ValueError(f'PAMR needs steps >= 0 and dilations >= 1, got steps {steps}, dilations {tuple(dilations)}')
    expected = (len(maps), 8 * len(dilations), *maps.shape[-2:])
    if weights is not None and weights.shape != expected:
        raise ValueError(f'PAMR needs weights {expected}, got {tuple(weights.shape)}: give what affinity() does')
    if scratch_bytes is None:
        scratch_bytes = SCRATCH_BYTES.get(maps.device.type, SCRATCH_BYTES['cuda'])
    if weights is None:
        weights = affinity(image.float(), dilations)
    in_order = maps.contiguous()  # as kernels need them
    refiner(in_order)(in_order, weights.contiguous(), steps, dilations, scratch_bytes)
    return maps if in_order is maps else maps.copy_(in_order)


def refiner(maps: Tensor) -> Refiner:
    """What takes maps through the steps: the kernel of their device, where its package is installed, or `refine`."""
    kernel = {'cpu': _numba_refine, 'cuda': _triton_refine}.get(maps.device.type)
    return (kernel and kernel()) or refine


@cache
def _numba_refine() -> Refiner | None:
    """The kernel for the CPU; None without numba."""
    try:
        from naclip.walk.pamr_numba import refine
    except ImportError:
        return None
    return refine


@cache
def _triton_refine() -> Refiner | None:
    """The kernel for CUDA; None where PyTorch came without Triton."""
    try:
        from naclip.walk.pamr_triton import step
    except ImportError:
        return None
    return partial(refine_fused, step=step)


def refine(maps: Tensor, weights: Tensor, steps: int, dilations: Sequence[int], scratch_bytes: int) -> None:
    """Take maps (B, M, H, W) through all steps, in place, in plain PyTorch."""
    reach = max(dilations)
    padded_size = (maps.shape[-2] + 2 * reach, maps.shape[-1] + 2 * reach)
    group = max(scratch_bytes // (2 * 4 * padded_size[0] * padded_size[1]), 1)
    scratch = maps.new_empty(2, 1, min(group, maps.shape[1]), *padded_size)  # a step's input and output
    for picture, picture_weights in zip(maps.split(1), weights.split(1), strict=True):  # of one, weights stay near
        for part in picture.split(group, dim=1):
            x, y = scratch[:, :, : part.shape[1]]  # (1, m, H + 2 reach, W + 2 reach)
            _inside(x, reach).copy_(part)
            for _ in range(steps):
                _replicate_border(x, reach)
                result = _inside(y, reach)
                for i, neighbour in enumerate(_neighbours(x, reach, dilations)):
                    weight = picture_weights[:, i : i + 1]
                    torch.mul(neighbour, weight, out=result) if i == 0 else result.addcmul_(neighbour, weight)
                x, y = y, x
            part.copy_(_inside(x, reach))


def refine_fused(
    maps: Tensor, weights: Tensor, steps: int, dilations: Sequence[int], scratch_bytes: int, step: Callable
) -> None:
    """As `refine`, with one kernel a step: `naclip.walk.pamr_triton.step`, or one of its signature."""
    offsets = _offsets_on(maps.device, tuple(dilations))
    group = max(scratch_bytes // (4 * maps.shape[-2] * maps.shape[-1]), 1)
    scratch = maps.new_empty(min(group, maps.shape[1]), *maps.shape[-2:])
    for picture, picture_weights in zip(maps, weights, strict=True):
        for part in picture.split(group):
            x, y = part, scratch[: len(part)]  # (m, H, W)
            for _ in range(steps):
                step(x, picture_weights, offsets, y)
                x, y = y, x
            if steps % 2:
                part.copy_(x)


@cache
@torch.inference_mode(False)
def _offsets_on(device: torch.device, dilations: tuple[int, ...]) -> Tensor:
    """`neighbour_offsets` on a device (P, 2), int32; kept, so that no picture waits for their copy."""
    return torch.tensor(neighbour_offsets(dilations), dtype=torch.int32, device=device)


def neighbour_offsets(dilations: Sequence[int]) -> list[tuple[int, int]]:
    """Rows and columns from a pixel to its P neighbours, dilation by dilation, row by row."""
    return [(y, x) for d in dilations for y in (-d, 0, d) for x in (-d, 0, d) if y or x]


def affinity(image: Tensor, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """The weight of each neighbour of each pixel of a picture (B, 3, H, W): (B, P, H, W), summing to 1 over P.

    A neighbour's affinity is the channels' mean of -|I_p - I_n| / (1e-8 + 0.1 σ_p), where σ_p is the standard
    deviation over the 3x3 neighbourhoods, centre included, of all dilations together; softmax over P.
    """
    kernel = {'cpu': _numba_affinity, 'cuda': _triton_affinity}.get(image.device.type)
    fits = image.dtype == torch.float32 and image.shape[1] == 3 and not image.requires_grad
    return ((fits and kernel and kernel()) or plain_affinity)(image, dilations)


@cache
def _numba_affinity() -> Callable | None:
    """The kernel for the CPU; None without numba."""
    try:
        from naclip.walk.pamr_numba import affinity
    except ImportError:
        return None
    return affinity


@cache
def _triton_affinity() -> Callable | None:
    """The kernel for CUDA; None where PyTorch came without Triton."""
    try:
        from naclip.walk.pamr_triton import affinity
    except ImportError:
        return None

    def on_device(image: Tensor, dilations: Sequence[int]) -> Tensor:
        offsets = _offsets_on(image.device, tuple(dilations))
        return torch.stack([affinity(picture.contiguous(), offsets, len(dilations)) for picture in image])

    return on_device


def plain_affinity(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """As `affinity`, in plain PyTorch."""
    values = 9 * len(dilations)
    reach = max(dilations)
    padded = F.pad(image, (reach, reach, reach, reach), mode='replicate')
    mean = len(dilations) * image
    for neighbour in _neighbours(padded, reach, dilations):
        mean += neighbour
    mean /= values
    variance = len(dilations) * (image - mean).square()
    difference = torch.empty_like(image)
    for neighbour in _neighbours(padded, reach, dilations):
        variance += torch.sub(neighbour, mean, out=difference).square_()
    scale = 1e-8 + 0.1 * (variance / (values - 1)).sqrt()
    batch, _, height, width = image.shape
    result = image.new_empty(batch, 8 * len(dilations), height, width)
    for i, neighbour in enumerate(_neighbours(padded, reach, dilations)):
        torch.sub(image, neighbour, out=difference).abs_().div_(scale)
        torch.mean(difference, dim=1, out=result[:, i])
    return torch.softmax(result.neg_(), dim=1, out=result)


def _neighbours(padded: Tensor, reach: int, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Views of the P neighbours of every pixel, in the order of `neighbour_offsets`: each (B, M, H, W).

    `padded` (B, M, H + 2 reach, W + 2 reach) has a border as wide as the largest dilation.
    """
    height, width = padded.shape[-2] - 2 * reach, padded.shape[-1] - 2 * reach
    for y, x in neighbour_offsets(dilations):
        yield padded[..., reach + y : reach + y + height, reach + x : reach + x + width]


def _inside(padded: Tensor, reach: int) -> Tensor:
    """What the border encloses."""
    return padded[..., reach:-reach, reach:-reach]


def _replicate_border(padded: Tensor, reach: int) -> None:
    """Fill the border with the nearest pixels inside, in place."""
    padded[..., :reach, :] = padded[..., reach : reach + 1, :]
    padded[..., -reach:, :] = padded[..., -reach - 1 : -reach, :]
    padded[..., :reach] = padded[..., reach : reach + 1]
    padded[..., -reach:] = padded[..., -reach - 1 : -reach]
