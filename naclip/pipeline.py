"""The walk from pictures to labels, in order. Nothing here knows MMSegmentation.

Shapes: B pictures; H, W pixels; h, w patch grid; Q names; K classes; C joint width.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.model import CLIP
from naclip.decision import class_probabilities, decide, suppress_small_classes
from naclip.dense import patch_features
from naclip.methods import Method
from naclip.pamr import DILATIONS, pamr_
from naclip.vocabulary import Vocabulary
from naclip.windows import Window, look_through, merge_windows, window_boxes


@dataclass(frozen=True)
class Settings:
    """How patch features become labels. Defaults: one sliding-window pass without refinement or thresholds.

    Raises:
        ValueError: a value that makes no sense; says which, and what was expected.
    """

    input_size: tuple[int, int] | None = None  # pictures are resized to this height and width, any aspect
    slide_crop: int = 224  # pixels; 0 takes the whole picture at once
    slide_stride: int = 112  # pixels
    pamr_steps: int = 0  # 0: no refinement
    pamr_stride: tuple[int, ...] = DILATIONS
    logit_scale: float = 40.0
    prob_thd: float = 0.0  # pixels less sure than this become class 0
    area_thd: float | None = None  # classes with a smaller share of the foreground vanish

    def __post_init__(self):
        window_boxes((1, 1), self.slide_crop, self.slide_stride)
        if self.input_size is not None and (len(self.input_size) != 2 or min(self.input_size) < 1 or self.slide_crop):
            raise ValueError(
                f'input_size {self.input_size} with slide_crop {self.slide_crop}: expected (height, width) and crop 0'
            )
        if self.pamr_steps < 0 or not self.pamr_stride or min(self.pamr_stride) < 1:
            raise ValueError(
                f'pamr_steps {self.pamr_steps}, pamr_stride {self.pamr_stride}: expected steps >= 0, dilations >= 1'
            )
        if not 0 < self.logit_scale < math.inf:
            raise ValueError(f'logit_scale is {self.logit_scale}, expected > 0')
        for name in ('prob_thd', 'area_thd'):
            value = getattr(self, name)
            if value is None and name == 'area_thd':
                continue
            if value is None or not 0 <= value <= 1:
                raise ValueError(f'{name} is {value}, expected a number from 0 to 1')


class Pipeline(nn.Module):
    """CLIP, a method, a vocabulary's text embeddings and settings: normalised pictures in, labels out.

    Inference only: no gradients are kept.
    """

    def __init__(self, net: CLIP, method: Method, vocabulary: Vocabulary, query_features: Tensor, settings: Settings):
        super().__init__()
        self.net = net
        self.method = method
        self.vocabulary = vocabulary
        self.settings = settings
        self.register_buffer('query_features', query_features.float(), persistent=False)  # (Q, C)
        self.register_buffer('query_idx', torch.tensor(vocabulary.query_idx), persistent=False)  # (Q,)

    @torch.no_grad()
    def patch_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> unit vectors (B, h, w, C)."""
        return patch_features(self.net.visual, images, self.method)

    @torch.no_grad()
    def similarity(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> cosines of patches and names (B, Q, h, w), float32."""
        return self.compare(self.patch_features(images))

    def compare(self, features: Tensor) -> Tensor:
        """Unit vectors of patches (B, h, w, C) -> their cosines with the names (B, Q, h, w), float32."""
        return torch.einsum('bhwc,qc->bqhw', features.float(), self.query_features)

    def logits(self, images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Cosines per pixel, averaged over the windows, at `size`: (B, 3, H, W) -> (B, Q, *size), default (H, W)."""
        return self.merge(self.look(images), images.shape[-2:], size)

    @torch.no_grad()
    def look(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> cosines of all windows' patches, side by side (B, Q, R*h, C*w)."""
        if self.settings.input_size:
            return self.similarity(F.interpolate(images, self.settings.input_size, mode='bilinear'))
        return look_through(images, self._boxes(images.shape[-2:]), self.similarity)

    def merge(self, seen: Tensor, size: tuple[int, int], target: tuple[int, int] | None = None) -> Tensor:
        """What `look` saw of pictures of `size` (H, W) -> cosines per pixel (B, Q, *target), default (H, W)."""
        if self.settings.input_size:  # one look at the whole picture, which has no size of its own
            size = target or size
        return merge_windows(seen, self._boxes(size), size, target)

    def _boxes(self, size: tuple[int, int]) -> list[Window]:
        return window_boxes(size, self.settings.slide_crop, self.settings.slide_stride)

    @torch.no_grad()
    def probabilities_(self, images: Tensor, logits: Tensor) -> Tensor:
        """Class probabilities at the logits' size: (B, 3, H, W), (B, Q, *size) -> (B, K, *size).

        Works in place: `logits` are overwritten.
        """
        if self.settings.pamr_steps:
            images = F.interpolate(images, logits.shape[-2:], mode='bilinear', align_corners=False)
            pamr_(images, logits, self.settings.pamr_steps, self.settings.pamr_stride)
        probabilities = class_probabilities(logits, self.vocabulary.query_idx, self.settings.logit_scale)
        if self.settings.area_thd is not None:
            probabilities = suppress_small_classes(probabilities, self.settings.area_thd)
        return probabilities

    def decide(self, probabilities: Tensor) -> Tensor:
        """Class probabilities (B, K, H, W) -> labels (B, 1, H, W)."""
        return decide(probabilities, self.settings.prob_thd)

    def forward(self, images: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Normalised pictures (B, 3, H, W) -> labels (B, 1, *size) and class probabilities (B, K, *size)."""
        probabilities = self.probabilities_(images, self.logits(images, size))
        return self.decide(probabilities), probabilities
