"""MaskCLIP, as ClearCLIP's code has it, and as its own.

Shapes: B windows; H, W pixels; h, w patch grid; n = h*w patches; N = 1 + n tokens, CLS first; D tower width; Q names.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.model import LayerNorm, QuickGELU, VisionTransformer, resample_by_size
from naclip.methods.clearclip import padded_reading
from naclip.methods.last_block import LastBlock, vanilla
from naclip.methods.method import About, Method
from naclip.walk.gathering import Gathered, Place, in_window, itself, patch_index
from naclip.walk.reading import Reading, cosine
from naclip.walk.windows import pad_end

SCALE = 100.0  # of cosines, before the softmax over names that both refinements look at
RULED_OUT = -100.0  # the cosine of a name that is nowhere
EPS = 1e-6  # of the original's LayerNorms


def as_original(module: nn.Module) -> nn.Module:
    """A tower as the original's code runs it: exact GELU, and another eps of LayerNorms.

    It shares the parameters of the one given, which stays as it is.
    """
    if isinstance(module, QuickGELU):
        return nn.GELU()
    twin = copy.copy(module)
    twin._modules = {name: as_original(child) for name, child in module.named_children()}
    if isinstance(twin, LayerNorm):
        twin.eps = EPS
    return twin


def value_tokens(reading: Reading) -> Tensor:
    """The last block's output (B, N, D) where each token attends to itself alone, with residual and FFN."""
    block = reading.block(reading.depth)
    _, _, v = reading.qkv(reading.depth)
    return vanilla(block, reading.tokens(reading.depth - 1), block.attn.merge(v))


def last_keys(reading: Reading) -> Tensor:
    """The last block's keys through its output projection, at the patches (B, n, D)."""
    _, k, _ = reading.qkv(reading.depth)
    return reading.block(reading.depth).attn.merge(k)[:, 1:]


def denoise_prompts(cosines: Tensor, threshold: float) -> Tensor:
    """Cosines (B, Q, h, w) without the names that are nowhere as probable as the threshold."""
    best = (SCALE * cosines).softmax(dim=1).amax(dim=(2, 3), keepdim=True)  # (B, Q, 1, 1)
    return cosines.masked_fill(best < threshold, RULED_OUT)


def smooth_by_keys(cosines: Tensor, keys: Tensor, threshold: float) -> Tensor:
    """Cosines (B, Q, h, w) and keys (B, n, D) -> probabilities, a sum over like patches where none is high enough.

    As in the published code, each of the D channels is normalised over the patches, not each patch's key: so the
    weights of a sum are no cosines, and sums can be above 1.
    """
    p = (SCALE * cosines).softmax(dim=1)
    k = normalised_keys(keys.to(p.dtype))  # float32: sums over all patches need more digits than half precision has
    sums = k @ (k.mT @ p.flatten(2).mT)  # (B, n, Q); in this order no n x n weights are needed
    return torch.where(unsure(p, threshold), sums.mT.unflatten(2, p.shape[2:]), p)


def normalised_keys(keys: Tensor) -> Tensor:
    """Keys (B, n, D), each channel of length 1 over the patches."""
    return F.normalize(keys, dim=1)


def unsure(p: Tensor, threshold: float) -> Tensor:
    """Where no name's probability (B, Q, h, w) is high enough (B, 1, h, w)."""
    return p.amax(dim=1, keepdim=True) < threshold


@dataclass(frozen=True)
class MaskCLIP(LastBlock):
    """Each token attends to itself, with residual and FFN, in CLIP's own tower; windows are padded as by ClearCLIP."""

    about: ClassVar[About] = About(
        title='MaskCLIP',
        paper='arXiv:2112.01071, ECCV 2022',
        code='mc-lan/ClearCLIP ad68a404',
        licence='S-Lab licence',
        reads="the last block's values",
    )
    protocol: ClassVar[str] = 'clearclip'
    attention: str = 'identity'
    architecture: str = 'vanilla'

    def read(self, visual: VisionTransformer, windows: Tensor) -> Reading:
        return padded_reading(visual, windows)


@dataclass(frozen=True)
class MaskCLIPOriginal(Method):
    """As MaskCLIP, in a tower with other activations, and with two refinements, which published settings leave off.

    Pictures are padded to whole patches, and the padded grid's maps are stretched over the picture. With key
    smoothing the maps are no cosines, but probabilities or sums of such.

    Raises:
        ValueError: a threshold that is no probability.
    """

    name: ClassVar[str] = 'maskclip_original'
    about: ClassVar[About] = About(
        title='MaskCLIP (original)',
        paper='arXiv:2112.01071, ECCV 2022',
        code='chongzhou96/MaskCLIP 245d31f8',
        licence='Apache-2.0',
        reads="the last block's values; its keys for key smoothing",
    )
    protocol: ClassVar[str] = 'maskclip_original'
    pd: float = 0.0  # prompt denoising: names less probable than this everywhere are ruled out; 0: off
    ks: float = 0.0  # key smoothing: patches whose best name is less probable than this are smoothed; 0: off

    def __post_init__(self):
        for name in ('pd', 'ks'):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f'{name} is {value}, expected a probability from 0 (off) to 1')

    def read(self, visual: VisionTransformer, windows: Tensor) -> Reading:
        return Reading(as_original(visual), pad_end(windows, visual.patch_size), resample_by_size)

    def features(self, reading: Reading, texts: Tensor) -> Tensor:
        return reading.patches(reading.project(value_tokens(reading)))

    def maps(self, reading: Reading, texts: Tensor) -> Tensor:
        maps = self.unsmoothed(reading, texts)
        return smooth_by_keys(maps, last_keys(reading), self.ks) if self.ks else maps

    def unsmoothed(self, reading: Reading, texts: Tensor) -> Tensor:
        """Cosines (B, Q, h, w) before key smoothing."""
        maps = cosine(self.features(reading, texts), texts)
        return denoise_prompts(maps, self.pd) if self.pd else maps

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """Each patch takes its own value; with key smoothing, those that are not sure sum up probabilities."""
        at = place.window, slice(None), place.row, place.column
        probabilities = (SCALE * self.unsmoothed(reading, texts)).softmax(dim=1)
        if not unsure(probabilities, self.ks)[at]:
            return itself(reading.grid, place, len(reading.windows))
        k = normalised_keys(last_keys(reading).float())[place.window]
        return in_window(k @ k[patch_index(place, reading.grid)], reading.grid, place, len(reading.windows))
