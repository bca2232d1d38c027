"""SC-CLIP: outlier patches are mended, and patches gather what patches like them have, before and after the last block.

Shapes: B windows; h, w patch grid; N = 1 + h*w tokens, CLS first; n = h*w patches; D tower width; C joint width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from naclip.methods.method import About, Method
from naclip.walk.attention import Grid, Term, attend, attention_weights
from naclip.walk.gathering import Gathered, Place, in_window, patch_index
from naclip.walk.reading import Reading, kept_in_reading


def outlier_factor(patches: Tensor, neighbours: int) -> Tensor:
    """How far patches (B, n, D) are from their neighbours, compared with how far these are from theirs: (B, n).

    r is the squared distance to the last of a patch's nearest `neighbours` others; the factor is the mean of r_i / r_j
    over these. Where patches coincide (0 / 0) they are as far as each other: 1.
    """
    centred = patches - patches.mean(dim=1, keepdim=True)  # fewer digits cancel in the distances
    distances = torch.cdist(centred, centred).square()  # (B, n, n)
    distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    nearest, index = distances.topk(neighbours, largest=False)  # (B, n, neighbours)
    reach = nearest[..., -1:]  # (B, n, 1)
    theirs = reach.mT.expand_as(distances).gather(2, index)
    return (reach / theirs).nan_to_num(nan=1, posinf=torch.inf).mean(dim=-1)


def find_outliers(factors: Tensor, quantile: float) -> Tensor:
    """The patches whose factor is above a quantile of their window's (B, n): bool; none where all are alike."""
    return factors > factors.quantile(quantile, dim=1, keepdim=True)


def adjacency(grid: Grid, device: torch.device) -> Tensor:
    """Which patches touch, corners included, themselves not: (n, n), 0 or 1, float32."""
    h, w = grid
    cell = torch.arange(h * w, device=device)
    rows, columns = cell // w, cell % w
    distance = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
    return (distance == 1).float()


def repair(patches: Tensor, outliers: Tensor, grid: Grid) -> Tensor:
    """Each outlier (B, n) of patches (B, n, D) becomes the mean of the others that touch it, if there are any."""
    givers = adjacency(grid, patches.device) * ~outliers[:, None]  # (B, n, n)
    count = givers.sum(dim=-1, keepdim=True)
    return torch.where(outliers[..., None] & (count > 0), givers @ patches / count.clamp_min(1), patches)


def similarity(patches: Tensor) -> Tensor:
    """Cosines of all pairs of patches (B, n, D): (B, n, n)."""
    unit = F.normalize(patches, dim=-1)
    return unit @ unit.mT


def keep_alike(similarity: Tensor, threshold: float) -> Tensor:
    """Cosines below a threshold become 0."""
    return similarity * (similarity >= threshold)


def aggregate(alike: Tensor, tokens: Tensor) -> Tensor:
    """The mean of tokens (B, n, D), weighted by the rows of what `keep_alike` kept (B, n, n)."""
    return alike @ tokens / (alike.sum(dim=-1, keepdim=True) + 1e-6)


def similarity_attention(similarity: Tensor, sharpness: float) -> Tensor:
    """softmax(sharpness (S - mean S)) over patches that are more alike than the window's mean (B, n, n)."""
    centred = similarity - similarity.mean(dim=(1, 2), keepdim=True)
    itself = torch.eye(centred.shape[-1], dtype=torch.bool, device=centred.device)  # rounding must not empty a row
    return torch.softmax((sharpness * centred).masked_fill((centred < 0) & ~itself, -torch.inf), dim=-1)


def last_attention(reading: Reading, patches: Tensor, weights: Tensor) -> Tensor:
    """The last block's attention among patches alone: half by `weights` (B, n, n), half by keys; (B, n, D) -> same."""
    block = reading.block(reading.depth)
    k, v = last_keys_values(reading, patches)
    by_weights = (weights.to(v.dtype) @ v.transpose(1, 2).flatten(2)).unflatten(2, (v.shape[1], -1)).transpose(1, 2)
    return block.attn.merge((by_weights + attend(key_terms(k), v)) / 2).float()


def last_keys_values(reading: Reading, patches: Tensor) -> tuple[Tensor, Tensor]:
    """The last block's keys and values of patches (B, n, D), each (B, heads, n, d)."""
    block = reading.block(reading.depth)
    _, k, v = block.attn.qkv(block.ln_1(patches).to(block.attn.in_proj_weight.dtype))
    return k, v


def key_terms(k: Tensor) -> list[Term]:
    """softmax(s k k^T)."""
    return [Term(k, k)]


class Calibrated(NamedTuple):
    """What an SC-CLIP has before the last block's attention, and how it gathers in and after it."""

    inputs: tuple[Tensor, Tensor]  # of two passes: gathered patches, and the sum of levels, each (B, n, D)
    cls: Tensor  # the sum of both passes' CLS tokens (B, 1, D)
    weights: Tensor  # of the attention's one half (B, n, n)
    alike: Tensor  # by which its result is gathered (B, n, n)


@dataclass(frozen=True)
class SCCLIP(Method):
    """Self-calibrated CLIP. Layers are those of a tower with twelve blocks.

    Raises:
        ValueError: a constant that makes no sense; says which, and what was expected.
    """

    name: ClassVar[str] = 'sc_clip'
    about: ClassVar[About] = About(
        title='SC-CLIP',
        paper='arXiv:2411.15869',
        code='SuleBai/SC-CLIP 0417ba92',
        licence='none stated',
        reads='the patches of blocks 4 to 11, and the last block, twice, without CLS',
    )
    protocol: ClassVar[str] = 'sc_clip'
    by_depth: ClassVar[Mapping[int, Mapping[str, object]]] = {2: {'early': 1, 'middle': 1, 'levels': (1, 1)}}
    neighbours: int = 30  # nearest others, of the outlier factor
    quantile: float = 0.95  # of the outlier factors: what is above is an outlier
    threshold: float = 0.4  # less similar patches give nothing
    sharpness: float = 3.0  # of the attention by similarity
    cls_share: float = 0.3  # of the CLS token, added to each patch
    early: int = 4  # the layer whose similarity gathers the result
    middle: int = 9  # the layer whose similarity gathers the last block's input, and attends in it
    levels: tuple[int, int] = (4, 10)  # first and last of the layers whose sum also passes the last block

    def __post_init__(self):
        if self.neighbours < 1:
            raise ValueError(f'neighbours is {self.neighbours}, expected a number >= 1')
        if not 0 <= self.quantile <= 1:
            raise ValueError(f'quantile is {self.quantile}, expected a number from 0 to 1')
        if not 0 <= self.threshold < 1:
            raise ValueError(f'threshold is {self.threshold}, expected a cosine >= 0 and < 1')
        if not self.sharpness > 0:
            raise ValueError(f'sharpness is {self.sharpness}, expected a number > 0')
        if len(self.levels) != 2 or not 0 <= self.levels[0] <= self.levels[1]:
            raise ValueError(f'levels is {self.levels}, expected two layers, the first and the last')
        if min(self.early, self.middle) < 0:
            raise ValueError(f'early is {self.early}, middle is {self.middle}, expected layers >= 0')

    def check(self, reading: Reading) -> None:
        """Make sure that the tower has the layers, and the windows enough patches.

        Raises:
            ValueError: they have not; says what is needed.
        """
        last = max(self.early, self.middle, self.levels[1])
        if last >= reading.depth:
            raise ValueError(
                f'method {self.name} reads layer {last} before the last block, and the tower has {reading.depth} '
                f'blocks: use a tower with more, or set early, middle and levels below {reading.depth}'
            )
        h, w = reading.grid
        if h * w <= self.neighbours:
            raise ValueError(
                f'method {self.name} compares each patch with its {self.neighbours} nearest others, so windows need at '
                f'least {self.neighbours + 1} patches, and have {h}x{w} = {h * w}: use larger windows (slide_crop)'
            )

    def features(self, reading: Reading, texts: Tensor) -> Tensor:
        return self.patches(reading)

    @kept_in_reading
    def patches(self, reading: Reading) -> Tensor:
        """Projected patches (B, h, w, C), not normalised."""
        inputs, cls, weights, alike = self.calibrated(reading)
        first, second = (last_attention(reading, patches, weights) for patches in inputs)
        y = first + second
        y = y + self.cls_share * cls
        y = aggregate(alike, y)
        return reading.project(y.to(reading.tokens(0).dtype)).unflatten(1, reading.grid)

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """How the result gathers the last block's values: half by similarity, half by keys, and then by `early`.

        The mean over both passes, whose values differ. Without CLS, and without what gathers before the last block.
        """
        inputs, _, weights, alike = self.calibrated(reading)
        of_passes = [attention_weights(key_terms(last_keys_values(reading, patches)[0])) for patches in inputs]
        by_keys = torch.stack([heads.float().mean(dim=1) for heads in of_passes]).mean(dim=0)  # (B, n, n)
        row = aggregate(alike, (weights + by_keys) / 2)[place.window, patch_index(place, reading.grid)]
        return in_window(row, reading.grid, place, len(weights))

    def calibrated(self, reading: Reading) -> Calibrated:
        """What enters the last block, and what gathers in it and after it."""
        self.check(reading)

        def tokens(layer: int) -> Tensor:  # distances, similarities and their products are float32 in every tower
            return reading.tokens(layer).float()

        late = tokens(reading.depth - 1)  # (B, N, D)
        outliers = find_outliers(outlier_factor(late[:, 1:], self.neighbours), self.quantile)  # (B, n)
        middle = similarity(repair(tokens(self.middle)[:, 1:], outliers, reading.grid))  # (B, n, n)
        early = similarity(tokens(self.early)[:, 1:])

        gathered = aggregate(keep_alike(middle, self.threshold), repair(late[:, 1:], outliers, reading.grid))
        first, last = self.levels
        summed = sum(tokens(layer) for layer in range(first, last + 1))
        weights = similarity_attention(middle, self.sharpness)
        cls = late[:, :1] + summed[:, :1]
        return Calibrated((gathered, summed[:, 1:]), cls, weights, keep_alike(early, self.threshold))
