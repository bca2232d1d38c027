"""The walk from pictures to labels, in order. Nothing here knows MMSegmentation.

Shapes: B pictures; H, W pixels; h, w grid of the maps; Q names; K classes; C joint width.
"""

import hashlib
import importlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import CLIP, ConvNeXtCLIP
from clip.convnext import ConvNeXt
from clip.guides import Guide
from naclip.methods.method import Method
from naclip.walk.decision import class_probabilities, decide, suppress_small_classes
from naclip.walk.gathering import Place, Placed, cells_in, nearest_window
from naclip.walk.pamr import DILATIONS, affinity, pamr_
from naclip.walk.reading import Reading, Tower
from naclip.walk.vocabulary import Vocabulary
from naclip.walk.windows import NO_MARGINS, Margins, Window, cut, look_through, merge_windows, window_boxes


@dataclass(frozen=True)
class Settings:
    """How maps become labels. Defaults: one sliding-window pass without refinement or thresholds.

    Raises:
        ValueError: a value that makes no sense; says which, and what was expected.
    """

    input_size: tuple[int, int] | None = None  # pictures are resized to this height and width, any aspect
    slide_crop: int = 224  # pixels; 0 takes the whole picture at once
    straight: bool = False  # then maps go to the target size at once, not by way of the picture's own
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


def check_fit(method: Method, settings: Settings) -> None:
    """Make sure, before anything is loaded, that a method can do its work under the settings.

    Raises:
        ValueError: the method votes, and the settings do not allow that; or a package that it requires is missing.
    """
    for module, package in method.requires.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(f'method {method.name} needs {package} ({error}): pip install {package}') from None
    if method.votes and (settings.slide_crop or settings.area_thd is not None):
        raise ValueError(f'method {method.name} votes over whole pictures: set slide_crop=0, area_thd=None')


def check_tower(visual: Tower, method: Method) -> None:
    """Make sure that a method can read a tower.

    Raises:
        ValueError: it cannot; says what it reads.
    """
    if not isinstance(visual, method.towers):
        raise ValueError(
            f'method {method.name} reads the blocks of a ViT, and the backbone has a {type(visual).__name__} image '
            'tower: use --method pixelclip'
        )


def check_weights(visual: Tower, method: Method) -> None:
    """Make sure that there are weights with which patches gather.

    Raises:
        ValueError: there are none; says why.
    """
    if isinstance(visual, ConvNeXt):
        raise ValueError(
            'there is no attention to show: a ConvNeXt gathers by convolutions, expected a backbone with a ViT image '
            'tower'
        )
    if not method.has_weights:
        raise ValueError(
            f'there is no attention to show of method {method.name}: it does not say with which weights its patches '
            'gather; give it a function weights (naclip/methods/method.py says how)'
        )


def queries_of(vocabulary: Vocabulary, method: Method) -> Sequence[str | tuple[str, ...]]:
    """All that needs a text embedding: the vocabulary's Q queries, then the method's companions."""
    return (*vocabulary.queries, *method.companions)


@dataclass(frozen=True)
class Seen:
    """What was seen of pictures of one size (H, W) through their windows.

    `maps` (B, Q, R*h, C*w) are those of all windows, side by side in their R rows and C columns; `margins` are what
    was seen around each window. `readings`, one a picture, are there for methods that vote; `regions`, one mask a
    picture, for methods that need them; `pictures` (B, 3, H, W) for methods that settle their maps there.
    """

    maps: Tensor
    size: tuple[int, int]
    margins: Margins
    readings: Sequence[Reading] = ()
    regions: Sequence[Tensor] = ()
    pictures: Tensor | None = None

    def __getitem__(self, i: int) -> 'Seen':
        """What was seen of picture i alone."""
        one = slice(i, i + 1)
        pictures = None if self.pictures is None else self.pictures[one]
        return Seen(self.maps[one], self.size, self.margins, self.readings[one], self.regions[one], pictures)


class AtSize:
    """Pictures (B, 3, H, W) at the size (H', W') of their maps, and their affinities; made when first asked for."""

    def __init__(self, images: Tensor, size: tuple[int, int]):
        self._images, self._size = images, size
        self._affinities: dict[tuple[int, ...], Tensor] = {}

    @cached_property
    def images(self) -> Tensor:
        """(B, 3, H', W')."""
        return F.interpolate(self._images, self._size, mode='bilinear', align_corners=False)

    def affinity(self, dilations: tuple[int, ...]) -> Tensor:
        """PAMR's weights of each pixel's P neighbours (B, P, H', W')."""
        if dilations not in self._affinities:
            self._affinities[dilations] = affinity(self.images.float(), dilations)
        return self._affinities[dilations]


def digest(tensor: Tensor) -> str:
    """A hash of a tensor's values and shape."""
    values = tensor.detach().cpu().contiguous().numpy()
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()


class Pipeline(nn.Module):
    """CLIP, a method, a vocabulary's text embeddings and settings: normalised pictures in, labels out.

    Inference only: no gradients are kept. `query_features` are the text embeddings of `queries_of` vocabulary and
    method, `guide` is the second tower of methods that name one. Methods that need region masks get them with the
    pictures, as one (H, W) of whole numbers a picture, of any size.

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
        guide: Guide | None = None,
    ):
        super().__init__()
        check_fit(method, settings)
        check_tower(net.visual, method)
        if method.second_tower and guide is None:
            raise ValueError(f'method {method.name} reads guide {method.second_tower}, and the pipeline was given none')
        if len(query_features) != len(queries_of(vocabulary, method)):
            raise ValueError(
                f'{len(query_features)} text embeddings for {len(vocabulary.queries)} names and '
                f'{len(method.companions)} companions of method {method.name}'
            )
        self.net = net
        self.guide = guide if method.second_tower else None
        self.method = method
        self.vocabulary = vocabulary
        self.settings = settings
        self.register_buffer('query_features', query_features.float(), persistent=False)  # (Q + companions, C)
        self.register_buffer('query_idx', torch.tensor(vocabulary.query_idx), persistent=False)  # (Q,)
        # Pipelines of one key make the same maps of the same windows and region masks.
        kind = (type(self), type(method), repr(method))
        self.maps_key: Hashable = (*kind, id(net), id(self.guide), digest(self.query_features))

    @property
    def alone(self) -> bool:
        """Whether the method gets the windows of one picture at a time."""
        return self.method.votes or self.method.whole or self.method.needs_regions

    def read(
        self,
        windows: Tensor,
        boxes: Sequence[Window] | None = None,
        regions: Tensor | None = None,
        pool: dict[Hashable, dict] | None = None,
    ) -> Reading:
        """Stage 4: windows (B, 3, H, W) as the tower sees them, with what `Reading.attach` tells of them.

        Readings of one `pool` share what they read.
        """
        reading = self.method.read(self.net.visual, windows)
        if pool is not None:
            reading.share(pool)
        if self.guide is not None or boxes is not None or regions is not None:
            reading.attach(self.guide, regions, boxes)
        return reading

    def maps(self, reading: Reading) -> Tensor:
        """Stage 5: how well each name fits where (B, Q, h, w), float32."""
        return self.method.maps(reading, self.query_features)

    @torch.no_grad()
    def patch_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> unit vectors (B, h, w, C), for methods that compare features."""
        return F.normalize(self.method.features(self.read(images), self.query_features), dim=-1)

    @torch.no_grad()
    def similarity(self, images: Tensor) -> Tensor:
        """Stage 5, without windows: (B, 3, H, W) -> how well each name fits where (B, Q, h, w), float32."""
        return self.maps(self.read(images))

    def logits(self, images: Tensor, size: tuple[int, int] | None = None, regions: Sequence[Tensor] = ()) -> Tensor:
        """Stages 3 to 6: maps averaged over the windows, at `size`: (B, 3, H, W) -> (B, Q, *size), default (H, W).

        Of methods that settle their maps before, these are of K classes.
        """
        return self.merge(self.look(images, regions), size)

    @torch.no_grad()
    def look(self, images: Tensor, regions: Sequence[Tensor] = ()) -> Seen:
        """Stages 3 to 5: pictures (B, 3, H, W) through their windows, or all at once at the size of the input.

        Raises:
            ValueError: the method needs region masks, and there is not one for each picture.
        """
        self.check_regions(len(images), len(regions))
        method, pictures = self.method, images
        size = tuple(images.shape[-2:])
        images = self.as_input(images)
        boxes = self.boxes(tuple(images.shape[-2:]))
        masks = iter([self.cut_regions(mask, images, boxes) for mask in regions] if method.needs_regions else ())
        margins, readings = NO_MARGINS, []

        def maps_of(windows: Tensor) -> Tensor:
            nonlocal margins
            reading = self.read(windows, self.told_boxes(boxes), next(masks, None))
            margins = reading.margins  # those of all windows, as these have one size
            if method.votes:
                readings.append(reading)
            return self.maps(reading)

        maps = look_through(images, boxes, maps_of, len(boxes) if self.alone else None)
        return self.seen(maps, size, margins, readings, regions, pictures)

    @torch.no_grad()
    def gathered(
        self, image: Tensor, pixel: tuple[int, int], of: tuple[int, int], regions: Sequence[Tensor] = ()
    ) -> Placed:
        """Stage 5 of one patch: with which weights it gathers from where, in a picture (1, 3, H, W).

        It is the patch under a pixel (row, column) of the picture at a size `of`, in the window whose centre is nearest
        to the pixel; methods for which the windows of a picture belong together gather from all of them.

        Raises:
            ValueError: no such weights, or no region mask where one is needed; says why.
        """
        method = self.method
        check_weights(self.net.visual, method)
        self.check_regions(1, len(regions))
        image = self.as_input(image)
        size = tuple(image.shape[-2:])
        boxes = self.boxes(size)
        window = nearest_window(boxes, size, pixel, of)
        if not method.whole:
            boxes, window = [boxes[window]], 0
        masks = [self.cut_regions(mask, image, boxes) for mask in regions] if method.needs_regions else [None]
        reading = self.read(cut(image, boxes), self.told_boxes(boxes), *masks)
        cells = cells_in(boxes[window], reading.margins, method.patch_grid(reading), size, of)
        row, column = (int(along[at]) for along, at in zip(cells, pixel, strict=True))
        place = Place(window, row, column)
        weights = method.weights(reading, self.query_features, place)
        return Placed(weights, place, size, boxes, reading.margins)

    def check_regions(self, pictures: int, masks: int) -> None:
        """Make sure that there is a region mask for each picture, where the method needs them.

        Raises:
            ValueError: there is not.
        """
        if self.method.needs_regions and masks != pictures:
            raise ValueError(
                f'method {self.method.name} needs a region mask for each picture (--regions DIR): got {masks} for '
                f'{pictures}'
            )

    def as_input(self, images: Tensor) -> Tensor:
        """Stage 3: pictures (B, 3, H, W) at the size at which they are cut into windows."""
        return F.interpolate(images, self.settings.input_size, mode='bilinear') if self.settings.input_size else images

    def told_boxes(self, boxes: Sequence[Window]) -> Sequence[Window] | None:
        """Where a picture's windows lie, if its readings are to know."""
        return boxes if self.method.whole or self.method.needs_regions else None

    def seen(
        self,
        maps: Tensor,
        size: tuple[int, int],
        margins: Margins,
        readings: Sequence[Reading],
        regions: Sequence[Tensor],
        pictures: Tensor,
    ) -> Seen:
        """What is kept of pictures (B, 3, H, W) for the stages after the tower."""
        kept = pictures if self.method.settles else None
        return Seen(maps, size, margins, readings, regions if self.method.needs_regions else (), kept)

    @staticmethod
    def cut_regions(mask: Tensor, images: Tensor, boxes: list[Window]) -> Tensor:
        """What the windows of a picture show of its region mask (H, W): (windows, crop, crop)."""
        # Ids are exact in float64; nearest, as the published code has it, takes the upper left of equals.
        resized = F.interpolate(mask[None, None].double().to(images.device), images.shape[-2:], mode='nearest')
        return cut(resized, boxes)[:, 0].long()

    @torch.no_grad()
    def merge(self, seen: Seen, target: tuple[int, int] | None = None) -> Tensor:
        """Stage 6: what was seen of pictures of a size (H, W) -> maps (B, Q, *target), default (H, W)."""
        target = target or seen.size
        size = seen.size
        if self.settings.input_size:  # one look at the whole picture, which has no size of its own
            size = target if seen.margins == NO_MARGINS else self.settings.input_size
        elif self.settings.straight and not self.settings.slide_crop:
            size = target
        if self.method.settles:
            maps = merge_windows(seen.maps, self.boxes(size), size, size, seen.margins)
            pictures = F.interpolate(seen.pictures, size, mode='bilinear') if size != seen.size else seen.pictures
            maps = self.method.settle(pictures, maps, self.query_idx)
            return F.interpolate(maps, target, mode='bilinear', align_corners=False)
        return merge_windows(seen.maps, self.boxes(size), size, target, seen.margins)

    def boxes(self, size: tuple[int, int]) -> list[Window]:
        """The windows of a picture of a size (H, W)."""
        return window_boxes(size, self.settings.slide_crop, self.settings.slide_stride)

    @torch.no_grad()
    def refine_(self, images: Tensor, maps: Tensor, at_size: AtSize | None = None) -> Tensor:
        """Stage 7: maps (B, Q, *size) along the pictures (B, 3, H, W) -> same; works in place where it can.

        `at_size` has these pictures at the size of the maps, where others need that, too.
        """
        at_size = at_size or AtSize(images, tuple(maps.shape[-2:]))
        if self.method.refines:
            maps = self.method.refine(at_size.images, maps, self.query_features)
        if self.settings.pamr_steps:
            dilations = self.settings.pamr_stride
            pamr_(at_size.images, maps, self.settings.pamr_steps, dilations, weights=at_size.affinity(dilations))
        return maps

    @torch.no_grad()
    def probabilities_(self, maps: Tensor) -> Tensor:
        """Stages 8 and 9: maps (B, Q, *size) -> class probabilities (B, K, *size).

        Works in place: `maps` become the names' probabilities.
        """
        probabilities = class_probabilities(maps, self.vocabulary.query_idx, self.settings.logit_scale)
        if self.settings.area_thd is not None:
            probabilities = suppress_small_classes(probabilities, self.settings.area_thd)
        return probabilities

    def decide(self, probabilities: Tensor) -> Tensor:
        """Stage 9: class probabilities (B, K, H, W) -> labels (B, 1, H, W)."""
        return decide(probabilities, self.settings.prob_thd)

    @torch.no_grad()
    def label(self, images: Tensor, seen: Seen, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Stages 6 to 9: what was seen of pictures -> labels (B, 1, *size), probabilities (B, K, *size)."""
        maps = self.refine_(images, self.merge(seen, size))
        kept = maps.clone() if self.method.votes else None
        probabilities = self.probabilities_(maps)
        return self.vote(seen, self.decide(probabilities), kept), probabilities

    def vote(self, seen: Seen, labels: Tensor, maps: Tensor | None) -> Tensor:
        """The end of stage 9: labels (B, 1, H, W) -> same; `maps` (B, Q, H, W) of stage 7, if the method votes."""
        if maps is not None:
            voted = [
                self.method.vote(reading, labels[i : i + 1], maps[i : i + 1], self.query_idx)
                for i, reading in enumerate(seen.readings)
            ]
            labels = torch.cat(voted)
        size = labels.shape[-2:]
        if seen.regions:
            masks = [
                F.interpolate(mask[None, None].double(), size, mode='nearest')[0, 0].long() for mask in seen.regions
            ]
            pairs = zip(masks, labels.split(1), strict=True)
            labels = torch.cat([self.method.vote_regions(mask.to(one.device), one) for mask, one in pairs])
        return labels

    def forward(self, images: Tensor, size: tuple[int, int], regions: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
        """Normalised pictures (B, 3, H, W) -> labels (B, 1, *size) and class probabilities (B, K, *size)."""
        return self.label(images, self.look(images, regions), size)
