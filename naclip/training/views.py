"""Which part of a picture a step looks at, how it gets there, and the picture's masks under the same view.

H, W pixels of the picture; M mask resolution. Sizes are (height, width), boxes (top, left, height, width).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from PIL import Image
from pycocotools import mask as coco

from naclip.data import run_lengths

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Framing:
    """How views are drawn: the short side that pictures get, unless the long side were longer than this; the crop."""

    short: int = 1024
    longest: int = 1333
    crop: int = 640
    cutout: tuple[float, float] = (0.1, 0.5)  # sides of the black rectangle, in parts of the crop's

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size that a picture gets."""
        scale = min(self.short / min(size), self.longest / max(size))
        return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


@dataclass(frozen=True)
class View:
    """A part of a resized picture, maybe mirrored, with a rectangle that is taken out of the strong picture."""

    size: tuple[int, int]
    resized: tuple[int, int]
    crop: Box
    flipped: bool
    cutout: Box

    @classmethod
    def draw(cls, size: tuple[int, int], framing: Framing, rng: Generator) -> 'View':
        """A random view of a picture of a size."""
        resized = framing.resized(size)
        height, width = (min(side, framing.crop) for side in resized)
        top, left = (int(rng.integers(0, side - own + 1)) for side, own in zip(resized, (height, width), strict=True))
        flipped = bool(rng.random() < 0.5)
        # The rectangle's width comes from the height and its height from the width, as published.
        wide, high = (max(int(side * rng.uniform(*framing.cutout)), 1) for side in (height, width))
        wide, high = min(wide, width), min(high, height)
        cutout = (int(rng.integers(0, height - high + 1)), int(rng.integers(0, width - wide + 1)), high, wide)
        return cls(size, resized, (top, left, height, width), flipped, cutout)

    def cropped(self, picture: Image.Image) -> np.ndarray:
        """The part of a picture, uint8 (h, w, 3), not yet mirrored."""
        top, left, height, width = self.crop
        resized = picture.resize(self.resized[::-1], Image.Resampling.BILINEAR)
        return np.asarray(resized)[top : top + height, left : left + width]

    def mirrored(self, part: np.ndarray) -> np.ndarray:
        """A part, mirrored if the view is."""
        return np.ascontiguousarray(part[:, ::-1]) if self.flipped else part

    def masks(
        self, segmentations: Sequence[Mapping], side: int, resolution: int, with_cutout: bool = True
    ) -> np.ndarray:
        """The picture's masks under the view, padded to a square of a side: bool (n, M, M); empty ones are left out.

        They are sampled where they are needed: masks beside the crop are not decoded.

        Raises:
            ValueError: run lengths that cannot be read, or are of another size.
        """
        top, left, height, width = self.crop
        y, x = (nearest(side, resolution) for _ in range(2))
        inside = (y < height)[:, None] & (x < width)
        if with_cutout:
            hole_top, hole_left, hole_height, hole_width = self.cutout
            rows, columns = (
                (y >= hole_top) & (y < hole_top + hole_height),
                (x >= hole_left) & (x < hole_left + hole_width),
            )
            inside &= ~(rows[:, None] & columns)
        x = width - 1 - x if self.flipped else x
        rows, columns = (
            pillow_nearest(of, to)[first + at.clip(0, own - 1)]
            for of, to, first, at, own in zip(
                self.size, self.resized, (top, left), (y, x), (height, width), strict=True
            )
        )
        found = []
        for segmentation in segmentations:
            encoded = run_lengths.compressed(segmentation, *self.size)
            box_left, box_top, box_width, box_height = coco.toBbox(encoded)
            if box_left > columns.max() or box_top > rows.max():
                continue
            if box_left + box_width <= columns.min() or box_top + box_height <= rows.min():
                continue
            found.append(coco.decode(encoded)[rows[:, None], columns].astype(bool) & inside)
        kept = [mask for mask in found if mask.any()]
        return np.stack(kept) if kept else np.zeros((0, resolution, resolution), bool)


@lru_cache(maxsize=256)
def pillow_nearest(old: int, new: int) -> np.ndarray:
    """Which of `old` pixels Pillow's nearest takes for each of `new`."""
    return np.asarray(Image.fromarray(np.arange(old, dtype=np.int32)[None]).resize((new, 1), Image.Resampling.NEAREST))[
        0
    ]


@lru_cache(maxsize=16)
def nearest(old: int, new: int) -> np.ndarray:
    """Which of `old` pixels PyTorch's nearest takes for each of `new`."""
    return F.interpolate(torch.arange(old, dtype=torch.float64)[None, None], new, mode='nearest')[0, 0].long().numpy()
