"""Stage 4: one batch of windows as an image tower sees it, read lazily, block by block.

Shapes: B windows; H, W pixels; h, w patch grid; N = 1 + h*w tokens, CLS first; D tower width; d head width; C joint
width; Q names.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.convnext import ConvNeXt
from clip.guides import Guide
from clip.model import Resample, ResidualAttentionBlock, VisionTransformer, resample_by_scale
from naclip.walk.attention import Term, attend, attention_weights
from naclip.walk.guide import GuideReading
from naclip.walk.windows import NO_MARGINS, Margins, Window

Tower = VisionTransformer | ConvNeXt


class Reading:
    """One batch of windows (B, 3, H, W) as a ViT sees it.

    Each block runs once, when something first asks for its output, and what was read is kept: methods that share a
    reading share that work. Layers count from 1; `tokens(0)` is what enters the first block. What a reading gives out
    belongs to all its readers: nobody may change it in place.

    Args:
        visual: the image tower.
        windows: normalised pixels.
        resample: how the positional embedding gets to the grid.
        margins: pixels that were put around each window, which stage 6 cuts off again.

    Raises:
        ValueError: the windows are smaller than one patch.
    """

    def __init__(
        self,
        visual: VisionTransformer,
        windows: Tensor,
        resample: Resample = resample_by_scale,
        margins: Margins = NO_MARGINS,
    ):
        self.visual = visual
        self.windows = windows
        self.margins = margins
        first, self.grid = visual.embed(windows, resample)
        self._tokens: dict[int, Tensor] = {0: first}
        self._qkv: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._guide: Guide | None = None
        self._regions: Tensor | None = None
        self._boxes: Sequence[Window] | None = None

    def attach(
        self, guide: Guide | None = None, regions: Tensor | None = None, boxes: Sequence[Window] | None = None
    ) -> None:
        """What else there is of these windows: a second tower, region masks, and where each picture's windows lie.

        `regions` (B, H, W), at the size of the windows without margins. `boxes` are those of one picture; the batch
        has the windows of one picture or of several, picture by picture.
        """
        self._guide, self._regions, self._boxes = guide, regions, boxes

    @cached_property
    def guide(self) -> GuideReading:
        """The same windows, margins included, as the second tower sees them.

        Raises:
            ValueError: there is none.
        """
        if self._guide is None:
            raise ValueError('this reading has no guide: name one in the method, and give the pipeline its tower')
        return GuideReading(self._guide, self.windows)

    @property
    def regions(self) -> Tensor:
        """The windows' region masks (B, H, W), whole numbers, without margins.

        Raises:
            ValueError: there are none.
        """
        if self._regions is None:
            raise ValueError('this reading has no region masks: give those of the pictures (--regions DIR)')
        return self._regions

    @property
    def boxes(self) -> Sequence[Window]:
        """Where the windows of each picture lie in it; by default each window is a picture of its own."""
        if self._boxes is not None:
            return self._boxes
        height, width = self.windows.shape[-2:]
        margins = self.margins
        return [Window(0, 0, height - margins.top - margins.bottom, width - margins.left - margins.right)]

    @property
    def depth(self) -> int:
        """The number of blocks, and so the last layer."""
        return len(self.visual.transformer.resblocks)

    def block(self, layer: int) -> ResidualAttentionBlock:
        """The block of a layer."""
        return self.visual.transformer.resblocks[layer - 1]

    def tokens(self, layer: int) -> Tensor:
        """The output of a layer's block, the input of the next (B, N, D)."""
        if layer not in self._tokens:
            x, block = self.tokens(layer - 1), self.block(layer)
            if layer in self._qkv:  # somebody has looked inside before: half of the block is done
                q, k, v = self._qkv[layer]
                self._tokens[layer] = block.feed_forward(x + block.attn.merge(attend([Term(q, k)], v)))
            else:
                self._tokens[layer] = block(x)
        return self._tokens[layer]

    def normed(self, layer: int) -> Tensor:
        """What a layer's attention gets: LN1 of the layer's input (B, N, D)."""
        return self.block(layer).ln_1(self.tokens(layer - 1))

    def qkv(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of a layer, each (B, heads, N, d)."""
        if layer not in self._qkv:
            self._qkv[layer] = self.block(layer).attn.qkv(self.normed(layer))
        return self._qkv[layer]

    def attention(self, layer: int) -> Tensor:
        """The attention weights of a layer, softmax(s q k^T), written out (B, heads, N, N)."""
        q, k, _ = self.qkv(layer)
        return attention_weights([Term(q, k)])

    def project(self, tokens: Tensor) -> Tensor:
        """(..., D) tokens after the last block -> (..., C) in the joint space, not normalised."""
        return self.visual.project(tokens)

    def patches(self, tokens: Tensor) -> Tensor:
        """Tokens with CLS (B, N, ...) -> those of the patches, in their places (B, h, w, ...)."""
        return tokens[:, 1:].unflatten(1, self.grid)


class ConvNeXtReading:
    """One batch of windows (B, 3, H, W) as a ConvNeXt sees it: there are no blocks of tokens to look into."""

    margins = NO_MARGINS

    def __init__(self, visual: ConvNeXt, windows: Tensor):
        self.visual = visual
        self.windows = windows

    def features(self) -> Tensor:
        """The features of the last map's positions (B, h, w, C), not normalised.

        Raises:
            ValueError: the windows are smaller than one position.
        """
        return self.visual.read(self.windows)[1]


def cosine(features: Tensor, texts: Tensor) -> Tensor:
    """Cosines of features (B, h, w, C) and texts, unit vectors (Q, C): (B, Q, h, w), float32."""
    return torch.einsum('bhwc,qc->bqhw', F.normalize(features, dim=-1).float(), texts)
