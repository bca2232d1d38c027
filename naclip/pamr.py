"""Pixel-adaptive mask refinement (PAMR): maps follow the picture's edges.

Source: Araslanov and Roth, 'Single-Stage Semantic Segmentation from Image Labels', CVPR 2020, section 3.3.
Shapes: B pictures; M maps; H, W pixels; P = 8 * len(dilations) neighbours.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 10
DILATIONS = (8, 16)
SCRATCH_BYTES = 4 << 20  # of one group of maps; groups this small stay in a CPU's cache through all steps


def pamr(
    image: Tensor,
    maps: Tensor,
    steps: int = STEPS,
    dilations: Sequence[int] = DILATIONS,
    scratch_bytes: int = SCRATCH_BYTES,
) -> Tensor:
    """Refine maps (B, M, H, W) along a picture (B, 3, H, W) of the same size: (B, M, H, W), float32.

    The neighbours' weights are computed once; then the maps take all steps in groups whose working memory is
    about `scratch_bytes` (at least one map a group). The grouping changes nothing.

    Raises:
        ValueError: picture and maps differ in size; negative steps; no dilation, or one below 1.
    """
    return pamr_(image, maps.to(torch.float32, copy=True), steps, dilations, scratch_bytes)


def pamr_(
    image: Tensor,
    maps: Tensor,
    steps: int = STEPS,
    dilations: Sequence[int] = DILATIONS,
    scratch_bytes: int = SCRATCH_BYTES,
) -> Tensor:
    """As `pamr`, in place: `maps` are float32, are overwritten, and are returned."""
    if image.shape[-2:] != maps.shape[-2:] or len(image) != len(maps):
        raise ValueError(f'PAMR needs picture and maps of one size, got {tuple(image.shape)} and {tuple(maps.shape)}')
    if steps < 0 or not dilations or min(dilations) < 1:
        raise ValueError(f'PAMR needs steps >= 0 and dilations >= 1, got steps {steps}, dilations {tuple(dilations)}')
    weights = affinity(image.float(), dilations)  # (B, P, H, W)
    bytes_per_map = 4 * 3 * maps[:, :1].numel()  # a map, its padded copy and its successor
    for group in maps.split(max(scratch_bytes // bytes_per_map, 1), dim=1):
        x = group
        for _ in range(steps):
            x = _step(x, weights, dilations)
        group.copy_(x)
    return maps


def affinity(image: Tensor, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """The weight of each neighbour of each pixel of a picture (B, 3, H, W): (B, P, H, W), summing to 1 over P.

    A neighbour's affinity is the channels' mean of -|I_p - I_n| / (1e-8 + 0.1 σ_p), where σ_p is the standard
    deviation over the 3x3 neighbourhoods, centre included, of all dilations together; softmax over P.
    """
    values = 9 * len(dilations)
    mean = len(dilations) * image
    for neighbour in _neighbours(image, dilations):
        mean = mean + neighbour
    mean = mean / values
    variance = len(dilations) * (image - mean).square()
    for neighbour in _neighbours(image, dilations):
        variance = variance + (neighbour - mean).square()
    scale = 1e-8 + 0.1 * (variance / (values - 1)).sqrt()
    affinities = [-((image - n).abs() / scale).mean(dim=1) for n in _neighbours(image, dilations)]
    return torch.softmax(torch.stack(affinities, dim=1), dim=1)


def _step(x: Tensor, weights: Tensor, dilations: Sequence[int]) -> Tensor:
    """Each map becomes the weighted sum of its neighbours: (B, m, H, W) -> same."""
    result = torch.zeros_like(x)
    for i, neighbour in enumerate(_neighbours(x, dilations)):
        result.addcmul_(neighbour, weights[:, i : i + 1])
    return result


def _neighbours(x: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """The P neighbours of every pixel, replicate-padded: views of (B, M, H, W), dilation by dilation, row by row."""
    height, width = x.shape[-2:]
    reach = max(dilations)
    padded = F.pad(x, (reach, reach, reach, reach), mode='replicate')
    for dilation in dilations:
        for dy in (-dilation, 0, dilation):
            for dx in (-dilation, 0, dilation):
                if dy or dx:
                    yield padded[..., reach + dy : reach + dy + height, reach + dx : reach + dx + width]
