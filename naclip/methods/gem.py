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
from naclip.walk.gathering import Gathered, Place, attention_row, in_window, patch_index
from naclip.walk.reading import Reading, kept_in_reading


def mean_length(normed: Tensor) -> Tensor:
    """The mean length of a layer's normed tokens (B, N, D), CLS included: (B,), float32.

    Times s = d^-1/2 it is the temperature τ of all heads.
    """
    return normed.float().norm(dim=-1).mean(dim=-1)


def self_self_attention(q: Tensor, k: Tensor, v: Tensor, length: Tensor, iterations: int) -> Tensor:
    """The mean over p in q, k, v of softmax(τ p p^T) v; all are (B, heads, N, d)."""
    term = self_self_term(q, k, v, length, iterations)
    return attend([term], v.repeat(3, 1, 1, 1)).unflatten(0, (3, -1)).mean(dim=0)


def self_self_term(q: Tensor, k: Tensor, v: Tensor, length: Tensor, iterations: int) -> Term:
    """softmax(τ p p^T) for p in q, k, v, one after the other: vectors (3B, heads, N, d), p of length 1.

    Before that each p is `iterations` times replaced by softmax(τ p p^T) p. τ = s * length (B,), where s is in a Term.
    """
    scale = length.to(q.dtype).repeat(3)[:, None, None, None]
    p = F.normalize(torch.cat([q, k, v]), dim=-1)  # (3B, heads, N, d)
    for _ in range(iterations):
        p = F.normalize(attend([Term(scale * p, p)], p), dim=-1)
    return Term(scale * p, p)


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
        return self_self_attention(*self.parts(reading, layer))

    def parts(self, reading: Reading, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """What its attention in a layer is made of: q, k, v, the tokens' mean length, iterations."""
        return *reading.qkv(layer), mean_length(reading.normed(layer)), self.iterations

    @kept_in_reading
    def tokens(self, reading: Reading) -> Tensor:
        """Projected tokens (B, N, C), CLS first, not normalised."""
        if self.last_only:
            return reading.project(stream_step(reading, self.attend, reading.depth))
        return reading.project(two_streams(reading, self.attend, self.depth))

    def features(self, reading: Reading, texts: Tensor) -> Tensor:
        return reading.patches(self.tokens(reading))

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """Those of the last layer in the second stream, which is a sum over layers; mean over q, k and v."""
        term = self_self_term(*self.parts(reading, reading.depth))
        windows, token = len(reading.windows), 1 + patch_index(place, reading.grid)
        rows = [attention_row([term], i * windows + place.window, token) for i in range(3)]
        return in_window(torch.stack(rows).mean(dim=0), reading.grid, place, windows)

    def refine(self, pictures: Tensor, maps: Tensor, texts: Tensor) -> Tensor:
        """Each name's map of the whole picture, stretched to [0, 1]."""
        return min_max(maps) if self.min_max else maps
