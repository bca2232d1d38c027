"""Stage 4: one batch of windows as an image tower sees it, read lazily, block by block.

Shapes: B windows; H, W pixels; h, w patch grid; N = 1 + h*w tokens, CLS first; D tower width; d head width; C joint
width; Q names.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import wraps

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
    reading, or a pool of readings, share that work. Layers count from 1; `tokens(0)` is what enters the first block.
    What a reading gives out belongs to all its readers: nobody may change it in place.

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
        visual.check_size(windows)
        self.visual = visual
        self.windows = windows
        self.resample = resample
        self.margins = margins
        self._kept: dict[Hashable, object] = {'of': (visual, windows)}  # whose ids are those of a pool's keys
        self._pool: dict[Hashable, dict] = {}
        self._guide: Guide | None = None
        self._regions: Tensor | None = None
        self._boxes: Sequence[Window] | None = None

    def share(self, pool: dict[Hashable, dict]) -> None:
        """Keep what is read in common with the other readings of a pool that see the same windows in the same way.

        Before anything is read.
        """
        self._pool = pool
        key = (id(self.visual), id(self.windows), self.resample, self.margins)
        self._kept = pool.setdefault(key, self._kept)

    def once(self, key: Hashable, compute: Callable[[], object]) -> object:
        """What `compute` gives, of the first reader who asks under that key."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    @property
    def _embedded(self) -> tuple[Tensor, tuple[int, int]]:
        return self.once('embedded', lambda: self.visual.embed(self.windows, self.resample))

    @property
    def grid(self) -> tuple[int, int]:
        """The patch grid (h, w)."""
        return self._embedded[1]

    def attach(
        self, guide: Guide | None = None, regions: Tensor | None = None, boxes: Sequence[Window] | None = None
    ) -> None:
        """What else there is of these windows: a second tower, region masks, and where each picture's windows lie.

        `regions` (B, H, W), at the size of the windows without margins. `boxes` are those of one picture; the batch
        has the windows of one picture or of several, picture by picture.
        """
        self._guide, self._regions, self._boxes = guide, regions, boxes

    @property
    def guide(self) -> GuideReading:
        """The same windows, margins included, as the second tower sees them.

        Raises:
            ValueError: there is none.
        """
        if self._guide is None:
            raise ValueError('this reading has no guide: name one in the method, and give the pipeline its tower')
        key = (id(self._guide), id(self.windows))  # however CLIP reads them
        return self._pool.setdefault(key, {}).setdefault('guide', GuideReading(self._guide, self.windows))

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
        if layer == 0:
            return self._embedded[0]
        return self.once(('tokens', layer), lambda: self._run(layer))

    def _run(self, layer: int) -> Tensor:
        x, block = self.tokens(layer - 1), self.block(layer)
        if ('qkv', layer) not in self._kept:
            return block(x)
        q, k, v = self.qkv(layer)  # somebody has looked inside before: half of the block is done
        return block.feed_forward(x + block.attn.merge(attend([Term(q, k)], v)))

    def normed(self, layer: int) -> Tensor:
        """What a layer's attention gets: LN1 of the layer's input (B, N, D)."""
        return self.block(layer).ln_1(self.tokens(layer - 1))

    def qkv(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of a layer, each (B, heads, N, d)."""
        return self.once(('qkv', layer), lambda: self.block(layer).attn.qkv(self.normed(layer)))

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
        self._kept: dict[Hashable, object] = {'of': (visual, windows)}

    def share(self, pool: dict[Hashable, dict]) -> None:
        """As `Reading.share`."""
        self._kept = pool.setdefault((id(self.visual), id(self.windows)), self._kept)

    def features(self) -> Tensor:
        """The features of the last map's positions (B, h, w, C), not normalised.

        Raises:
            ValueError: the windows are smaller than one position.
        """
        if 'features' not in self._kept:
            self._kept['features'] = self.visual.read(self.windows)[1]
        return self._kept['features']


def kept_in_reading(function: Callable) -> Callable:
    """A method's function of a reading alone, (method, reading) -> Tensor, that runs once for each reading.

    Methods with the same constants have it in common, whatever the texts.
    """

    @wraps(function)
    def kept(self: Hashable, reading: Reading) -> Tensor:
        return reading.once((function.__qualname__, self), lambda: function(self, reading))

    return kept


def cosine(features: Tensor, texts: Tensor) -> Tensor:
    """Cosines of features (B, h, w, C) and texts, unit vectors (Q, C): (B, Q, h, w), float32."""
    return torch.einsum('bhwc,qc->bqhw', F.normalize(features, dim=-1).float(), texts)
