"""FLOSS: a text classifier for each class, made of the templates that suit it, and which of them is heard where.

Shapes: B windows; H, W pixels; h, w grid of the maps; Q names; K classes; C joint width.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from naclip.methods.last_block import LastBlock
from naclip.methods.method import Method
from naclip.walk.reading import Reading, cosine

SCALE = 100.0  # of cosines, before each softmax


def maps_of_each(method: Method, reading: Reading, classifiers: Tensor) -> Iterator[Tensor]:
    """A method's maps (B, Q, h, w) under each of several sets of text embeddings (E, Q, C)."""
    if isinstance(method, LastBlock):  # whose features do not depend on texts
        features = method.features(reading, classifiers[0])
        yield from (cosine(features, texts) for texts in classifiers)
    else:
        yield from (method.maps(reading, texts) for texts in classifiers)


def at_pixels(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Names' probabilities on the grid, upsampled to a window's pixels: (B, Q, h, w) -> (B, Q, H, W)."""
    return F.interpolate(torch.softmax(SCALE * maps, dim=1), size, mode='bilinear', align_corners=False)


def fused(method: Method, reading: Reading, experts: Tensor, default: Tensor, query_idx: Tensor) -> Tensor:
    """Probabilities of names at the pixels of windows (B, Q, H, W).

    `experts` (K, Q, C) has a classifier for each class, which is its names' expert, `default` (Q, C) is the one of all
    templates. Where experts find their own name the best, the one that is most sure counts, the first of equals;
    elsewhere the default does.
    """
    size = tuple(reading.windows.shape[-2:])
    names = len(query_idx)
    of_default, *of_experts = maps_of_each(method, reading, torch.cat([default[None], experts]))
    result = at_pixels(of_default, size)[:, :names]
    surest = torch.full_like(result[:, 0], -torch.inf)
    for k, maps in enumerate(of_experts):
        probabilities = at_pixels(maps, size)
        sure, best = probabilities.max(dim=1)
        speaks = (query_idx[best] == k) & (sure > surest)
        surest = torch.where(speaks, sure, surest)
        result = torch.where(speaks[:, None], probabilities, result)
    return result
