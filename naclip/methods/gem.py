"""GEM: tokens that attend to their own likes, in a second stream beside the tower's last blocks.

Shapes: B windows or pictures; H, W pixels; h, w patch grid; N = 1 + h*w tokens, CLS first; D tower width; d head width;
C joint width; Q names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.model import VisionTransformer, resample_by_size_antialiased
from naclip.methods.method import About, Method
from naclip.methods.two_streams import check_depth, min_max, stream_step, two_streams
from naclip.walk.attention import Term, attend
from naclip.walk.reading import Reading, kept_in_reading


def mean_length(normed: Tensor) -> Tensor:
    """The mean length of a layer's normed tokens (B, N, D), CLS included: (B,), float32.

    Times s = d^-1/2 it is the temperature τ of all heads.
    """
    return normed.float().norm(dim=-1).mean(dim=-1)


def self_self_attention(q: Tensor, k: Tensor, v: Tensor, length: Tensor, iterations: int) -> Tensor:
    """The mean over p in q, k, v of softmax(τ p p^T) v, with unit vectors p; all are (B, heads, N, d).

    Before that each p is `iterations` times replaced by softmax(τ p p^T) p. τ = s * length (B,), where s is in a Term.
    """
    scale = length.to(q.dtype).repeat(3)[:, None, None, None]
    p = F.normalize(torch.cat([q, k, v]), dim=-1)  # (3B, heads, N, d)
    for _ in range(iterations):
        p = F.normalize(attend([Term(scale * p, p)], p), dim=-1)
    seen = attend([Term(scale * p, p)], v.repeat(3, 1, 1, 1))
    return seen.unflatten(0, (3, -1)).mean(dim=0)


@dataclass(frozen=True)
class GEM(Method):
    """Self-self attention of queries, keys and values, gathered over the last blocks; maps stretched to [0, 1].

    Raises:
        ValueError: no block, or negative iterations.
    """

    name: ClassVar[str] = 'gem'
    about: ClassVar[About] = About(
        title='GEM',
        paper='arXiv:2312.00878, CVPR 2024',
        code='WalBouss/GEM 5fa677ca',
        licence='Apache-2.0',
        reads='queries, keys and values of the last six blocks, beside the blocks',
    )
    protocol: ClassVar[str] = 'gem'
    by_depth: ClassVar[Mapping[int, Mapping[str, object]]] = {2: {'depth': 1}}
    depth: int = 6  # blocks, the last ones; of twelve
    iterations: int = 1
    last_only: bool = False  # only what the last block adds: ClearCLIP's variant
    min_max: bool = True  # False: cosines, as ClearCLIP's variant has them

    def __post_init__(self):
        check_depth(self.depth)
        if self.iterations < 0:
            raise ValueError(f'iterations is {self.iterations}, expected a number >= 0')

    def read(self, visual: VisionTransformer, windows: Tensor) -> Reading:
        return Reading(visual, windows, resample_by_size_antialiased)

    def attend(self, reading: Reading, layer: int) -> Tensor:
        """What the second stream sees in a layer (B, heads, N, d)."""
        return self_self_attention(*reading.qkv(layer), mean_length(reading.normed(layer)), self.iterations)

    @kept_in_reading
    def tokens(self, reading: Reading) -> Tensor:
        """Projected tokens (B, N, C), CLS first, not normalised."""
        if self.last_only:
            return reading.project(stream_step(reading, self.attend, reading.depth))
        return reading.project(two_streams(reading, self.attend, self.depth))

    def features(self, reading: Reading, texts: Tensor) -> Tensor:
        return reading.patches(self.tokens(reading))

    def refine(self, pictures: Tensor, maps: Tensor, texts: Tensor) -> Tensor:
        """Each name's map of the whole picture, stretched to [0, 1]."""
        return min_max(maps) if self.min_max else maps
