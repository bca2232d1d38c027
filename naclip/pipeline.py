"""The walk from pictures to labels, in order. Nothing here knows MMSegmentation.

Shapes: B pictures; H, W pixels; h, w patch grid; Q names; K classes; C joint width.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import CLIP, ConvNeXtCLIP
from naclip.methods.last_block import Method
from naclip.methods.regions import check_dependencies, find_regions, vote
from naclip.walk.decision import BACKGROUND, class_probabilities, decide, suppress_small_classes
from naclip.walk.pamr import DILATIONS, pamr_
from naclip.walk.reading import check_tower, features, patch_features, token_affinity
from naclip.walk.vocabulary import Vocabulary
from naclip.walk.windows import Window, look_through, merge_windows, window_boxes


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
    cls_weight: bool = False  # names count by how well they fit CLS, too
    dbscan_eps: float = 1.1  # for methods that vote in regions; these fit pictures of short side 336
    dbscan_min_samples: int = 7
    background: bool = False  # class 0 is background: it loses ties of such votes
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
        if not self.dbscan_eps > 0 or self.dbscan_min_samples < 1:
            raise ValueError(
                f'dbscan_eps {self.dbscan_eps}, dbscan_min_samples {self.dbscan_min_samples}: expected > 0 and >= 1'
            )
        if not 0 < self.logit_scale < math.inf:
            raise ValueError(f'logit_scale is {self.logit_scale}, expected > 0')
        for name in ('prob_thd', 'area_thd'):
            value = getattr(self, name)
            if value is None and name == 'area_thd':
                continue
            if value is None or not 0 <= value <= 1:
                raise ValueError(f'{name} is {value}, expected a number from 0 to 1')


def check_fit(method: Method, settings: Settings) -> None:
    """Make sure, before anything is loaded, that a method can do its work under the settings.

    Raises:
        ValueError: the method votes in regions, and the settings do not allow that or scikit-learn is missing.
    """
    if method.regions:
        check_dependencies()
        if settings.slide_crop or settings.area_thd is not None:
            raise ValueError('a method that votes in regions reads whole pictures: set slide_crop=0, area_thd=None')


class Pipeline(nn.Module):
    """CLIP, a method, a vocabulary's text embeddings and settings: normalised pictures in, labels out.

    Inference only: no gradients are kept.

    Raises:
        ValueError: method and settings, or method and image tower, do not go together: see `check_fit`, `check_tower`.
    """

    def __init__(
        self,
        net: CLIP | ConvNeXtCLIP,
        method: Method,
        vocabulary: Vocabulary,
        query_features: Tensor,
        settings: Settings,
    ):
        super().__init__()
        check_fit(method, settings)
        check_tower(net.visual, method)
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
        cls, patches = features(self.net.visual, images, self.method)
        cosines = self.compare(patches)
        return cosines * self.compare(cls[:, None, None]) if self.settings.cls_weight else cosines

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

        Works in place: `logits` become the names' probabilities.
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

    def label_(self, images: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """As `probabilities_`, and the labels (B, 1, *size) that follow: labels, probabilities."""
        probabilities = self.probabilities_(images, logits)
        labels = self.decide(probabilities)
        if self.method.regions:
            labels = self.vote_in_regions(images, labels, logits)
        return labels, probabilities

    @torch.no_grad()
    def vote_in_regions(self, images: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
        """Labels (B, 1, H, W) -> same: the class of the most frequent name in each region of the picture.

        Names are those of the highest scores (B, Q, H, W); where a label is not their class, the label's first name.
        """
        first = torch.searchsorted(self.query_idx, torch.arange(len(self.vocabulary), device=scores.device))  # (K,)
        names = scores.argmax(dim=1, keepdim=True)
        names = torch.where(self.query_idx[names] == labels, names, first[labels])
        behind = int((self.query_idx == BACKGROUND).sum()) if self.settings.background else 0
        names = (names - behind) % len(self.query_idx)  # the smallest wins a tie
        affinity, grid = token_affinity(self.net.visual, images, self.method)
        for i, picture in enumerate(names[:, 0]):
            eps, min_samples = self.settings.dbscan_eps, self.settings.dbscan_min_samples
            regions = find_regions(affinity[i], grid, tuple(picture.shape), eps, min_samples)
            if regions is not None:
                picture.copy_(vote(picture, regions.to(picture.device)))
        return self.query_idx[(names + behind) % len(self.query_idx)]

    def forward(self, images: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Normalised pictures (B, 3, H, W) -> labels (B, 1, *size) and class probabilities (B, K, *size)."""
        return self.label_(images, self.logits(images, size))
