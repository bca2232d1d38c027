"""A second stream of tokens beside the tower's last blocks: GEM and CLIP Surgery.

Shapes: B windows or pictures; H, W pixels; N = 1 + h*w tokens, CLS first; D tower width; d head width; Q names.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from naclip.walk.reading import Reading

# What the second stream's attention makes of the inside of a layer's block: (reading, layer) -> (B, heads, N, d).
Attend = Callable[[Reading, int], Tensor]


def two_streams(reading: Reading, attend: Attend, depth: int) -> Tensor:
    """The sum of the input of the last `depth` blocks and of each one's other attention: tokens (B, N, D).

    The blocks are fed by the original stream; the new one gathers what `attend` makes of them, without FFN.

    Raises:
        ValueError: the tower has fewer blocks.
    """
    if depth > reading.depth:
        raise ValueError(
            f'a second stream beside the last {depth} blocks of a tower with {reading.depth}: '
            f'use a larger tower, or depth <= {reading.depth}'
        )
    first = reading.depth - depth
    stream = reading.tokens(first)
    for layer in range(first + 1, reading.depth + 1):
        stream = stream + stream_step(reading, attend, layer)
    return stream


def stream_step(reading: Reading, attend: Attend, layer: int) -> Tensor:
    """What a layer adds to the second stream (B, N, D): its other attention, projected."""
    return reading.block(layer).attn.merge(attend(reading, layer))


def min_max(maps: Tensor) -> Tensor:
    """Each map of (B, Q, H, W) stretched to [0, 1], for itself; a map of one value everywhere becomes 0."""
    low, high = torch.aminmax(maps.flatten(2), dim=-1, keepdim=True)  # (B, Q, 1)
    span = torch.where(high > low, high - low, 1)
    return (maps - low[..., None]) / span[..., None]


def check_depth(depth: int) -> None:
    """Make sure that there is a second stream.

    Raises:
        ValueError: there is not.
    """
    if depth < 1:
        raise ValueError(f'depth is {depth}, expected a number of blocks >= 1')
