"""CLIP Surgery: value-value attention in a second stream, and names freed of what all of them share.

Shapes: B windows; h, w patch grid; N = 1 + h*w tokens, CLS first; d head width; C joint width; Q names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clip.model import VisionTransformer, resample_bilinear
from naclip.methods.method import About, Method
from naclip.methods.two_streams import check_depth, min_max, two_streams
from naclip.walk.attention import Term, attend
from naclip.walk.gathering import Gathered, Place, gathered_by_terms
from naclip.walk.reading import Reading, cosine, kept_in_reading


def value_value_terms(v: Tensor) -> list[Term]:
    """softmax(s v v^T) of values (B, heads, N, d)."""
    return [Term(v, v)]


def value_value_attention(reading: Reading, layer: int) -> Tensor:
    """softmax(s v v^T) v of a layer (B, heads, N, d)."""
    _, _, v = reading.qkv(layer)
    return attend(value_value_terms(v), v)


def feature_surgery(cosines: Tensor, cls_cosines: Tensor) -> Tensor:
    """Cosines (B, Q, h, w), weighted by how well each name fits CLS (B, Q, 1, 1), less the mean over names.

    The weights are softmax(2 cls_cosines) over their mean, which is 1 / Q.
    """
    weighted = cosines.shape[1] * torch.softmax(2 * cls_cosines, dim=1) * cosines
    return weighted - weighted.mean(dim=1, keepdim=True)


@dataclass(frozen=True)
class CLIPSurgery(Method):
    """Architecture surgery, then feature surgery, then maps stretched to [0, 1].

    Raises:
        ValueError: no block.
    """

    name: ClassVar[str] = 'clip_surgery'
    about: ClassVar[About] = About(
        title='CLIP Surgery',
        paper='arXiv:2304.05653, Pattern Recognition 2025',
        code='xmed-lab/CLIP_Surgery d4696d47',
        licence='none stated',
        reads='values of the last six blocks, beside the blocks, and the CLS token',
    )
    protocol: ClassVar[str] = 'clip_surgery'
    companions: ClassVar[tuple[str, ...]] = ('',)  # what one name alone is freed of
    by_depth: ClassVar[Mapping[int, Mapping[str, object]]] = {2: {'depth': 1}}
    depth: int = 6  # blocks, the last ones; of twelve
    surgery: bool = True  # feature surgery; False: cosines
    min_max: bool = True

    def __post_init__(self):
        check_depth(self.depth)

    def read(self, visual: VisionTransformer, windows: Tensor) -> Reading:
        return Reading(visual, windows, resample_bilinear)

    def features(self, reading: Reading, texts: Tensor) -> Tensor:
        return reading.patches(self.tokens(reading))

    @kept_in_reading
    def tokens(self, reading: Reading) -> Tensor:
        """Projected tokens (B, N, C), CLS first, not normalised."""
        return reading.project(two_streams(reading, value_value_attention, self.depth))

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """Those of the last layer in the second stream, which is a sum over layers."""
        _, _, v = reading.qkv(reading.depth)
        return gathered_by_terms(value_value_terms(v), reading.grid, place, len(v))

    def cls(self, reading: Reading) -> Tensor:
        """The original stream's CLS token, projected (B, 1, C), not normalised."""
        return reading.project(reading.tokens(reading.depth)[:, :1])

    def maps(self, reading: Reading, texts: Tensor) -> Tensor:
        names, empty = texts[:-1], texts[-1:]
        features = self.features(reading, texts).float()  # what names share is much, what is left is little
        if not self.surgery:
            maps = cosine(features, names)
        elif len(names) == 1:
            maps = cosine(features, names - empty)
        else:
            cls = self.cls(reading).float()
            maps = feature_surgery(cosine(features, names), cosine(cls[:, :, None], names))
        return min_max(maps) if self.min_max else maps  # on the patch grid, before upsampling: as published
