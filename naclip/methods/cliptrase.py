"""CLIPtrase: patches that the last block but one finds alike form regions, and each region has one label.

Shapes: B pictures; H, W pixels; h, w patch grid; N = 1 + h*w tokens, CLS first; d head width; C joint width; Q names;
K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from naclip.methods.last_block import LastBlock
from naclip.methods.method import About
from naclip.methods.regions import SCIKIT_LEARN, check_clustering, find_regions, majority
from naclip.walk.decision import BACKGROUND
from naclip.walk.gathering import Gathered, Place
from naclip.walk.reading import Reading, cosine


def token_affinity(reading: Reading) -> Tensor:
    """How alike tokens are in the last block but one: (B, N, N), float32.

    The mean over q, k and v, and over the heads, of the cosines of their vectors.
    """
    unit = F.normalize(torch.stack(reading.qkv(reading.depth - 1)).float(), dim=-1)  # (3, B, heads, N, d)
    return (unit @ unit.mT).mean(dim=(0, 2))


@dataclass(frozen=True)
class CLIPtrase(LastBlock):
    """softmax(s q q^T) + softmax(s k k^T) + softmax(s v v^T), a sum, with residual and FFN; then a vote in regions."""

    about: ClassVar[About] = About(
        title='CLIPtrase',
        paper='arXiv:2407.08268, ECCV 2024',
        code='leaves162/CLIPtrase',
        licence='see there',
        reads='the last block, and queries, keys and values of the last but one',
    )
    protocol: ClassVar[str] = 'cliptrase'
    requires: ClassVar[Mapping[str, str]] = SCIKIT_LEARN
    attention: str = 'qkv'
    architecture: str = 'vanilla'
    eps: float = 1.1  # of the clustering (DBSCAN); these two fit pictures of short side 336
    min_samples: int = 7
    cls_weight: bool = False  # names count by how well they fit CLS, too
    background: bool = False  # class 0 is background: it loses ties of the vote

    def __post_init__(self):
        super().__post_init__()
        check_clustering(self.eps, self.min_samples)

    def maps(self, reading: Reading, texts: Tensor) -> Tensor:
        tokens = self.tokens(reading)
        maps = cosine(reading.patches(tokens), texts)
        return maps * cosine(tokens[:, :1, None], texts) if self.cls_weight else maps

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """Those of the last block, three softmaxes; names vote in regions after that."""
        return super().weights(reading, texts, place)

    def vote(self, reading: Reading, labels: Tensor, maps: Tensor, query_idx: Tensor) -> Tensor:
        """The class of the most frequent name in each region of the picture.

        Names are those of the highest maps; where a label is not their class, the label's first name.
        """
        affinity = token_affinity(reading)[0]
        regions = find_regions(affinity, reading.grid, tuple(labels.shape[-2:]), self.eps, self.min_samples)
        if regions is None:
            return labels
        classes = torch.arange(int(query_idx[-1]) + 1, device=labels.device)
        first = torch.searchsorted(query_idx, classes)  # (K,)
        names = maps.argmax(dim=1)[0]  # (H, W)
        names = torch.where(query_idx[names] == labels[0, 0], names, first[labels[0, 0]])
        behind = int((query_idx == BACKGROUND).sum()) if self.background else 0
        names = (names - behind) % len(query_idx)  # the smallest wins a tie
        voted = majority(names, regions.to(names.device))
        return query_idx[(voted + behind) % len(query_idx)][None, None]
