"""PixelCLIP: the dense reading under which its weights were trained, and are evaluated."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from clip.convnext import ConvNeXt
from clip.model import resample_by_size
from naclip.methods.last_block import LastBlock
from naclip.methods.method import BOTH_TOWERS, About
from naclip.walk.gathering import Gathered, Place
from naclip.walk.reading import ConvNeXtReading, Reading, Tower


@dataclass(frozen=True)
class PixelCLIP(LastBlock):
    """Each token attends to itself; the CLS token's residual, and FFN; features resampled to a grid of their own.

    Of a ConvNeXt, the features of the last map's positions are read.
    """

    about: ClassVar[About] = About(
        title='PixelCLIP',
        paper='arXiv:2409.19846, NeurIPS 2024',
        code='cvlab-kaist/PixelCLIP',
        licence='see there',
        reads="the last block's values",
    )
    protocol: ClassVar[str] = 'pixelclip'
    published_on: ClassVar[tuple[str, ...]] = ('ViT-B/16', 'ConvNeXt-B')
    towers: ClassVar[tuple[type, ...]] = BOTH_TOWERS
    attention: str = 'identity'
    architecture: str = 'cls_residual'
    feature_grid: tuple[int, int] = (64, 64)  # rows, columns

    def __post_init__(self):
        super().__post_init__()
        if len(self.feature_grid) != 2 or min(self.feature_grid) < 1:
            raise ValueError(f'feature_grid is {self.feature_grid}, expected rows and columns above 0')

    def read(self, visual: Tower, windows: Tensor) -> Reading | ConvNeXtReading:
        if isinstance(visual, ConvNeXt):
            return ConvNeXtReading(visual, windows)
        return Reading(visual, windows, resample_by_size)

    def positions(self, reading: Reading | ConvNeXtReading) -> Tensor:
        """Features on the tower's own grid (B, h, w, C), as training compares them; not normalised."""
        return reading.features() if isinstance(reading, ConvNeXtReading) else reading.patches(self.tokens(reading))

    def features(self, reading: Reading | ConvNeXtReading, texts: Tensor) -> Tensor:
        planes = self.positions(reading).movedim(-1, 1)
        return F.interpolate(planes, self.feature_grid, mode='bilinear', align_corners=False).movedim(1, -1)

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """On the tower's own grid, before features are resampled."""
        return super().weights(reading, texts, place)
