"""CLIPtrase's second code base: larger pictures, and each region's maps are their mean in it.

Shapes: B pictures; H, W pixels; h, w patch grid; N = 1 + h*w tokens, CLS first; C joint width; Q names; R regions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.model import VisionTransformer
from naclip.methods.cliptrase import token_affinity
from naclip.methods.last_block import LastBlock
from naclip.methods.method import About
from naclip.methods.regions import SCIKIT_LEARN, check_clustering, find_regions
from naclip.walk.gathering import Gathered, Place
from naclip.walk.reading import Reading
from naclip.walk.windows import pad_end

MULTIPLE = 32  # pixels that the sides of a picture are padded to


def halved(pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) with zeros right and below up to multiples of 32 pixels, at half the size."""
    return F.interpolate(pad_end(pictures, MULTIPLE), scale_factor=0.5, mode='bilinear', align_corners=False)


def products(features: Tensor, texts: Tensor) -> Tensor:
    """Products of features as they are (B, h, w, C) and texts, unit vectors (Q, C): (B, Q, h, w), float32."""
    return torch.einsum('bhwc,qc->bqhw', features.float(), texts)


def region_means(maps: Tensor, regions: Tensor) -> Tensor:
    """The mean of each map (Q, H, W) in each region (H, W), numbered 0 to R - 1: (Q, R); 0 where one is empty.

    Sums run along rows first: over all pixels at once float32 would lose digits. As products, and not by scattering,
    they are the same each time on a GPU, too.
    """
    numbers = torch.arange(int(regions.max()) + 1, device=maps.device)
    inside = (regions[..., None] == numbers).to(maps.dtype)  # (H, W, R)
    sums = (maps.transpose(0, 1) @ inside).sum(dim=0)  # (Q, R)
    return sums / inside.sum(dim=1).sum(dim=0).clamp(min=1)


@dataclass(frozen=True)
class CLIPtraseD2(LastBlock):
    """CLIPtrase's last block on pictures at half the size; patches that are not normalised; means in regions.

    The published maps are exp(logit_scale) times as high, with `cls_weight` its square: a positive factor that
    neither means nor the best name depend on.
    """

    name: ClassVar[str] = 'cliptrase_d2'
    about: ClassVar[About] = About(
        title='CLIPtrase (second code base)',
        paper='arXiv:2407.08268, ECCV 2024',
        code='leaves162/CLIPtrase',
        licence='see there',
        reads='the last block, and queries, keys and values of the last but one',
    )
    protocol: ClassVar[str] = 'cliptrase_d2'
    requires: ClassVar[Mapping[str, str]] = SCIKIT_LEARN
    attention: str = 'qkv'
    architecture: str = 'vanilla'
    eps: float = 1.1  # of the clustering (DBSCAN)
    min_samples: int = 7
    cls_weight: bool = False  # names count by how well they fit CLS, too

    def __post_init__(self):
        super().__post_init__()
        check_clustering(self.eps, self.min_samples)

    def read(self, visual: VisionTransformer, windows: Tensor) -> Reading:
        return Reading(visual, halved(windows))

    def maps(self, reading: Reading, texts: Tensor) -> Tensor:
        tokens = self.tokens(reading)
        maps = products(reading.patches(tokens), texts)
        return maps * products(tokens[:, :1, None], texts) if self.cls_weight else maps

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """Those of the last block, three softmaxes; maps are averaged in regions after that."""
        return super().weights(reading, texts, place)

    def vote(self, reading: Reading, labels: Tensor, maps: Tensor, query_idx: Tensor) -> Tensor:
        """The class of the name that is highest on average in each region; without a region the labels stand."""
        affinity = token_affinity(reading)[0]
        regions = find_regions(affinity, reading.grid, tuple(labels.shape[-2:]), self.eps, self.min_samples)
        if regions is None:
            return labels
        regions = regions.to(maps.device)
        best = region_means(maps[0], regions).argmax(dim=0)  # (R,)
        return query_idx[best][regions][None, None]
