"""LPOSS: CLIP's scores spread over a graph of all patches of a picture; LPOSS+: then over a graph of its pixels.

Shapes: B windows; H, W pixels; h, w patch grid of the guide; n patches of all windows of a picture; D widths; C joint
width; Q names; K classes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import MEAN, STD
from clip.model import resample_by_size
from naclip.methods.guided import to_grid, values
from naclip.methods.label_spreading import (
    lab,
    patch_graph,
    patch_response,
    pixel_graph,
    positions,
    spread_over_patches,
    spread_over_pixels,
)
from naclip.methods.method import About, Method
from naclip.walk.attention import Grid
from naclip.walk.gathering import Gathered, Place, patch_index
from naclip.walk.reading import Reading, Tower
from naclip.walk.vocabulary import merge_synonyms


def maskclip_features(reading: Reading) -> Tensor:
    """Projected patches (B, n, C): each token attends to itself in the last block, whose residual and FFN stay."""
    last, x = reading.block(reading.depth), reading.tokens(reading.depth - 1)
    y = last.feed_forward(x + last.attn.out_proj(values(last, x)))
    return reading.project(y[:, 1:])


@dataclass(frozen=True)
class LPOSS(Method):
    """(I - alpha W)^-1 Y, ten steps of conjugate gradients of it, over the patches of all windows of a picture.

    The steps do not converge, and it is with ten that the published numbers were reached. Names of a class are merged
    at the network's size, before maps go to the picture's.

    Raises:
        ValueError: a constant that makes no sense.
    """

    about: ClassVar[About] = About(
        title='LPOSS',
        paper='arXiv:2503.19777, CVPR 2025',
        code='vladan-stojnic/LPOSS e489a74',
        licence='see there',
        reads="the last block's values; a DINO's last values; all windows of a picture at once",
    )
    protocol: ClassVar[str] = 'lposs'
    whole: ClassVar[bool] = True
    by_depth: ClassVar[Mapping[int, Mapping[str, object]]] = {2: {'guide': 'shapes'}}
    guide: str = 'dino_vitb16'  # a name of clip.guides.available_guides(), or a checkpoint file
    neighbours: int = 400  # the most alike patches that each is tied to, itself among them; at most all
    decay: float = 0.01  # of the ties, a pixel
    alpha: float = 0.95  # how far labels spread
    steps: int = 10  # of conjugate gradients

    def __post_init__(self):
        if not 0 <= self.alpha < 1:
            raise ValueError(f'alpha is {self.alpha}, expected a number from 0 to below 1')
        if self.decay < 0:
            raise ValueError(f'decay is {self.decay}, expected a number >= 0')
        for constant in ('neighbours', 'steps'):
            if getattr(self, constant) < 1:
                raise ValueError(f'{constant} is {getattr(self, constant)}, expected a whole number >= 1')

    def read(self, visual: Tower, windows: Tensor) -> Reading:
        return Reading(visual, windows, resample_by_size)

    def features(self, reading: Reading, texts: Tensor) -> Tensor:
        """Before labels spread: unit patches on the guide's grid (B, h, w, C)."""
        unit = F.normalize(maskclip_features(reading).float(), dim=-1)
        unit = F.normalize(to_grid(unit, reading.grid, reading.guide.grid), dim=-1)
        return unit.unflatten(1, reading.guide.grid)

    def maps(self, reading: Reading, texts: Tensor) -> Tensor:
        """Maps of the windows of each picture (B, Q, h, w), float32, from all its windows together."""
        solved = []
        for of_picture, graph in self.graphs(reading, texts):
            spread = spread_over_patches(graph, of_picture.flatten(0, 2), self.alpha, self.steps)
            solved.append(spread.view(of_picture.shape))
        return torch.cat(solved).float().movedim(-1, 1)

    def graphs(self, reading: Reading, texts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each picture its windows' scores (windows, h, w, Q), and the graph of their patches (n, n)."""
        guide, boxes = reading.guide, reading.boxes
        scores = self.features(reading, texts) @ texts.T  # (B, h, w, Q)
        alike = F.normalize(guide.v.float(), dim=-1)
        places = positions(boxes, guide.grid, guide.tower.patch_size).to(alike.device)
        for of_picture, features in zip(scores.split(len(boxes)), alike.split(len(boxes)), strict=True):
            yield of_picture, patch_graph(features.flatten(0, 2), places, self.neighbours, self.decay)

    def patch_grid(self, reading: Reading) -> Grid:
        return reading.guide.grid

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """With which weights labels spread to a patch, from all windows of its picture; mean over names.

        They can be a little negative, and have no fixed sum: the steps do not converge. A picture's own pixels, over
        which LPOSS+ spreads them after that, do not count.
        """
        grid = self.patch_grid(reading)
        number, window = divmod(place.window, len(reading.boxes))
        scores, graph = next(islice(self.graphs(reading, texts), number, None))
        patch = window * grid[0] * grid[1] + patch_index(place, grid)
        row = patch_response(graph, scores.flatten(0, 2), self.alpha, self.steps, patch).mean(dim=-1)
        before = number * len(scores)
        after = len(reading.windows) - before - len(scores)
        return Gathered(F.pad(row.float().view(scores.shape[:3]), (0, 0, 0, 0, before, after)))

    def settle(self, pictures: Tensor, maps: Tensor, query_idx: Tensor) -> Tensor:
        return merge_synonyms(maps, query_idx.cpu())


@dataclass(frozen=True)
class LPOSSPlus(LPOSS):
    """LPOSS, and the same over the pixels of the network's input, which are tied to those near and alike in colour.

    Raises:
        ValueError: a constant that makes no sense.
    """

    name: ClassVar[str] = 'lposs_plus'
    about: ClassVar[About] = replace(LPOSS.about, title='LPOSS+', reads=f'{LPOSS.about.reads}; the picture, in colour')
    reach: int = 6  # rows and columns within which pixels are tied
    tau: float = 0.01  # how fast ties weaken with the distance of colours

    def __post_init__(self):
        super().__post_init__()
        if self.reach < 1:
            raise ValueError(f'reach is {self.reach}, expected a whole number >= 1')
        if not self.tau > 0:
            raise ValueError(f'tau is {self.tau}, expected a number > 0')

    def settle(self, pictures: Tensor, maps: Tensor, query_idx: Tensor) -> Tensor:
        mean, std = (pictures.new_tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))
        colours = lab((pictures * std + mean).clamp(0, 1))
        spread = [
            spread_over_pixels(pixel_graph(c, self.reach, self.tau), m, self.alpha, self.steps)
            for c, m in zip(colours, maps, strict=True)
        ]
        return super().settle(pictures, torch.stack(spread).float(), query_idx)
