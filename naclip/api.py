"""Pictures of your own, with words of your own. Nothing here knows MMSegmentation.

K classes; H, W a picture's height and width.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import clip
from clip.convnext import ConvNeXt
from clip.weights import known_words
from naclip.files import REPOSITORY
from naclip.methods import build_method, for_tower, with_constants
from naclip.methods.guide_of import check_guide, check_regions, guide_of
from naclip.methods.method import Method
from naclip.pictures import drawing
from naclip.pictures.picture import as_picture, bounded_size, fitting_size, network_input
from naclip.pipeline import Pipeline, Settings, check_fit, check_tower, queries_of
from naclip.protocols import PROTOCOLS
from naclip.walk.masks import as_mask
from naclip.walk.pamr import STEPS
from naclip.walk.reading import Tower
from naclip.walk.text import DEFAULT_TEMPLATES, cached_text_embeddings, read_templates
from naclip.walk.vocabulary import Vocabulary, parse_classes, unknown_names
from naclip.walk.windows import Window

logger = logging.getLogger(__name__)
BACKGROUND_NAME = 'background'
BACKGROUND_THD = 0.1  # prob_thd where there is a background, as in the benchmarks that have one
SHORT_SIDE = 336  # pixels, as in most benchmarks, for towers of 224 pixels and more
# A picture is labelled at its own size up to this many pixels, and up to this much memory for the maps of all names.
WORKING_PIXELS = 1 << 20
MAP_BYTES = 2 << 30
BAND_BYTES = 16 << 20  # labels of larger pictures are made in bands of rows whose scores take about this much

Picture = str | os.PathLike | Image.Image | np.ndarray
Classes = str | Sequence[str | Sequence[str]]
Regions = str | os.PathLike | np.ndarray


@dataclass(frozen=True)
class Segmentation:
    """What was seen in a picture.

    `picture` is the RGB picture that was labelled, upright. `labels` (H, W) are class indices, uint8 (uint16 beyond
    256 classes). `names` (K,) are the first names of the classes; class 0 is the background, where there is one.
    `scores` (K, h, w) are the class probabilities, float32, at the size that was worked at: the picture's own, unless
    it is large.
    """

    picture: Image.Image
    labels: np.ndarray
    names: tuple[str, ...]
    scores: np.ndarray
    has_background: bool = False

    @cached_property
    def shares(self) -> np.ndarray:
        """The share of the picture's area that each class has (K,)."""
        # In bands: counting takes 8 bytes a pixel.
        bands = np.array_split(self.labels, min(-(-8 * self.labels.size // BAND_BYTES), len(self.labels)))
        return sum(np.bincount(band.ravel(), minlength=len(self.names)) for band in bands) / self.labels.size

    @cached_property
    def highest_score(self) -> float:
        """The highest score of any class at any pixel."""
        return float(self.scores.max())

    @property
    def colours(self) -> np.ndarray:
        """A colour for each class (K, 3), uint8."""
        return drawing.class_colours(len(self.names), self.has_background)

    def overlay(self) -> Image.Image:
        """The picture under its labels' colours, beside a legend with names and shares."""
        return drawing.overlay(self.picture, self.labels, self.names, self.colours, self.shares)

    def label_map(self) -> Image.Image:
        """The labels as an indexed picture with a palette (16-bit grey beyond 256 classes)."""
        return drawing.label_map(self.labels, self.colours)

    def heat_map(self, index: int) -> Image.Image:
        """Where the class of an index scores how high, on one scale for all classes of the picture."""
        return drawing.heat_map(self.picture, self.scores[index], self.highest_score)


@dataclass(frozen=True)
class AttentionMap:
    """With which weights one patch of a picture gathers from the others, mean over heads.

    `picture` is the RGB picture, upright, and `pixel` (x, y) the one that was asked about. `weights` (h, w), float32,
    are at the size that was worked at, each patch a block, as the method has them. `own` is the weight of the patch
    itself, `highest` that of the patch that gives most but for it, `cls` that of the CLS token, and `total` the sum of
    all, 1 for each softmax as a rule. `seen` is the part of the picture that the method gathers from, all else is 0;
    `patch` is the patch under the pixel; both are (top, left, bottom, right) in pixels of the picture.
    """

    picture: Image.Image
    pixel: tuple[int, int]
    weights: np.ndarray
    own: float
    highest: float
    cls: float
    total: float
    seen: Window
    patch: Window

    def heat_map(self) -> Image.Image:
        """The weights over the picture, bright from `highest` on; the patch is framed, what is not seen is dimmed."""
        return drawing.attention_map(self.picture, self.weights, self.highest, self.seen, self.patch)


class Segmenter:
    """A CLIP, loaded once, for any number of vocabularies and pictures.

    Args:
        backbone: a name, a checkpoint file, or a folder or repository, as `clip.load` takes it.
        device: default: CUDA where there is one, else the CPU.
        dtype: of the towers; 'auto' is float16 on CUDA and float32 on the CPU.
        download_root: where known weights are downloaded to; default ~/.cache/clip.
        cache_dir: where text embeddings are kept; see `naclip.walk.text.default_cache_dir`.
        activation: of a checkpoint whose source cannot be told; see `clip.load`.
        head_width: of the same.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: the backbone cannot be loaded; says why.
    """

    def __init__(
        self,
        backbone: str | os.PathLike = 'ViT-B/16',
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = 'auto',
        download_root: str | os.PathLike | None = None,
        cache_dir: str | os.PathLike | None = None,
        activation: str | None = None,
        head_width: int | None = None,
    ):
        self.net, _, self.checkpoint = clip.load_checkpoint(
            backbone, device, dtype, download_root, activation, head_width
        )
        self.cache_dir = cache_dir
        self.download_root = download_root

    def prepare(
        self,
        classes: Classes,
        background: str | Sequence[str] = (),
        *,
        method: str | Mapping | Method = 'naclip',
        gaussian_std: float | None = None,
        pamr: bool | None = None,
        prob_thd: float | None = None,
        short_side: int | None = None,
        templates: str | os.PathLike | None = None,
        guide: str | os.PathLike | None = None,
    ) -> 'PreparedSegmenter':
        """Get ready for pictures: check the settings, encode the names. The arguments are those of `naclip.segment`."""
        chosen = method_for(method, bool(background), gaussian_std)
        check_tower(self.net.visual, chosen)
        chosen = for_tower(chosen, self.net.visual)
        settings, usual_side = settings_for(chosen, self.net.visual, bool(background), pamr, prob_thd)
        if short_side is not None and short_side < 1:
            raise ValueError(f'short_side is {short_side}, expected a number of pixels above 0')
        check_fit(chosen, settings)
        published = PROTOCOLS[chosen.protocol].everywhere
        normalise = {key: published.get(key, getattr(self.checkpoint.statement, key)) for key in ('mean', 'std')}
        check_guide(chosen, guide, **normalise)
        vocabulary = vocabulary_of(classes, background, published.get('synonyms', Vocabulary.synonyms))
        texts = read_templates(templates or REPOSITORY / published.get('templates', DEFAULT_TEMPLATES))
        unknown = unknown_names(vocabulary.names, known_words(self.checkpoint.metadata))
        if unknown:
            logger.warning('the backbone has never seen %s', ', '.join(map(repr, unknown)))
        query_features = cached_text_embeddings(
            self.net, self.checkpoint.sha256, queries_of(vocabulary, chosen), texts, self.cache_dir, progress=False
        )
        chosen, second, _ = guide_of(chosen, self.net, guide, self.download_root)
        pipeline = Pipeline(self.net, chosen, vocabulary, query_features, settings, second).to(self.net.device)
        return PreparedSegmenter(
            pipeline, short_side or usual_side, bool(background), 'squash' in published, **normalise
        )


class PreparedSegmenter:
    """A pipeline that takes pictures of any kind and size, whose short side the image tower sees at so many pixels.

    Squashed, a picture becomes a square of that side. `mean` and `std` normalise RGB in [0, 1].
    """

    def __init__(
        self,
        pipeline: Pipeline,
        short_side: int,
        has_background: bool,
        squash: bool = False,
        mean: Sequence[float] = clip.MEAN,
        std: Sequence[float] = clip.STD,
    ):
        self.pipeline = pipeline
        self.short_side = short_side
        self.has_background = has_background
        self.squash = squash
        self.normalisation = mean, std

    def __call__(self, image: Picture, regions: Regions | None = None) -> Segmentation:
        """Label every pixel of a picture; `regions` is its mask, for methods that need one.

        Raises:
            ValueError, FileNotFoundError: no picture that can be read; says why.
        """
        picture, masks = self._checked(image, regions)
        vocabulary, size = self.pipeline.vocabulary, (picture.height, picture.width)
        images, working_size = self._input(picture)
        labels, scores = self.pipeline(images, working_size, masks)
        if working_size != size:
            labels = enlarge(labels, scores, size, self.pipeline)
        return Segmentation(
            picture,
            labels[0, 0].cpu().numpy().astype(np.uint8 if len(vocabulary) <= 256 else np.uint16, copy=False),
            display_names(vocabulary, self.has_background),
            scores[0].cpu().numpy(),
            self.has_background,
        )

    def attention(self, image: Picture, x: int, y: int, regions: Regions | None = None) -> AttentionMap:
        """With which weights the patch under a picture's pixel (x, y) gathers from the others.

        Pictures are seen through windows that overlap, and a pixel is in several: what is shown is the patch in the
        window whose centre is nearest. LPOSS, for which all windows of a picture belong together, gathers from all. The
        CLS token has no place in the picture: its weight is left out, and the others stay as they are.

        Raises:
            ValueError, FileNotFoundError: no picture that can be read, no such pixel, or a method without such weights;
                says why.
        """
        picture, masks = self._checked(image, regions)
        size = (picture.height, picture.width)
        if not (0 <= x < picture.width and 0 <= y < picture.height):
            raise ValueError(f'pixel {x}, {y} is not in the picture: it has {picture.width} x {picture.height}')
        images, working_size = self._input(picture)
        placed = self.pipeline.gathered(images, (y, x), size, masks)
        gathered, place = placed.gathered, placed.place
        return AttentionMap(
            picture,
            (x, y),
            placed.at_size(working_size).numpy(),
            gathered.own(place),
            gathered.highest_other(place),
            gathered.cls,
            gathered.total,
            placed.seen(size),
            placed.patch(size),
        )

    def _checked(self, image: Picture, regions: Regions | None) -> tuple[Image.Image, tuple[Tensor, ...]]:
        """A picture, and its region mask for methods that need one."""
        check_regions(self.pipeline.method, regions)
        picture = as_picture(image)
        return picture, () if regions is None else (as_mask(regions, (picture.height, picture.width)),)

    def _input(self, picture: Image.Image) -> tuple[Tensor, tuple[int, int]]:
        """What the network gets of a picture (1, 3, H, W), and the size at which it is worked on."""
        net, size = self.pipeline.net, (picture.height, picture.width)
        working_size = bounded_size(size, working_pixels(len(self.pipeline.vocabulary.queries)))
        reduced = picture if working_size == size else picture.resize(working_size[::-1], Image.Resampling.BICUBIC)
        fitting = (self.short_side,) * 2 if self.squash else input_size(working_size, self.short_side, net.visual)
        return network_input(reduced, fitting, *self.normalisation).to(net.device), working_size


@lru_cache(maxsize=2)
def _loaded(backbone: str, device: str | None, dtype: str, activation: str | None, head_width: int | None) -> Segmenter:
    return Segmenter(backbone, device, dtype, activation=activation, head_width=head_width)


def segment(
    image: Picture,
    classes: Classes,
    background: str | Sequence[str] = (),
    *,
    method: str | Mapping | Method = 'naclip',
    backbone: str | os.PathLike = 'ViT-B/16',
    gaussian_std: float | None = None,
    pamr: bool | None = None,
    prob_thd: float | None = None,
    short_side: int | None = None,
    templates: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    dtype: str = 'auto',
    guide: str | os.PathLike | None = None,
    regions: Regions | None = None,
    activation: str | None = None,
    head_width: int | None = None,
) -> Segmentation:
    """Label every pixel of a picture with the best fitting class.

    The two backbones used last stay loaded; a `Segmenter` keeps its own.

    Args:
        image: a file, a Pillow image, or an array of uint8: (H, W), (H, W, 3) RGB or (H, W, 4) RGBA.
        classes: 'cat, kitten; dog': semicolons separate classes, commas synonyms. Or a sequence of such classes, each
            a text or a sequence of names.
        background: names of what is not to be told apart, 'wall, sky': together they are class 0, which also gets
            what no class fits well.
        method: a name of `naclip.methods.METHODS`, 'FILE.py:NAME', or dict(type=NAME, constant=value, ...); read with
            the sizes and scales it was published with.
        backbone: a name, a checkpoint file, or a folder or repository, as `clip.load` takes it.
        gaussian_std: of the neighbourhood, in patches; default: the method's.
        pamr: whether maps are refined along the picture's edges; default: as the method is published.
        prob_thd: pixels less sure than this become background; default: 0.1 with a background, else 0.
        short_side: pixels that the picture's short side has for the image tower; default: as the method is published
            (336 for NACLIP). More shows smaller things, and takes longer.
        templates: a prompt-template file; default: the method's.
        device: default: CUDA where there is one, else the CPU.
        dtype: of the towers; 'auto' is float16 on CUDA and float32 on the CPU.
        guide: the second tower of methods that read one: a name of `clip.guides.available_guides()`, or a checkpoint
            file; default: the method's.
        regions: the picture's region mask, for methods that need one: a file, or an array (H, W) of whole numbers.
        activation: of a checkpoint whose source cannot be told; see `clip.load`.
        head_width: of the same.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: something that cannot be used; says which and why.
    """
    device = None if device is None else str(device)
    segmenter = _loaded(os.fspath(backbone), device, dtype, activation, head_width)
    prepared = segmenter.prepare(
        classes,
        background,
        method=method,
        gaussian_std=gaussian_std,
        pamr=pamr,
        prob_thd=prob_thd,
        short_side=short_side,
        templates=templates,
        guide=guide,
    )
    return prepared(image, regions)


def vocabulary_of(
    classes: Classes, background: str | Sequence[str] = (), synonyms: str = Vocabulary.synonyms
) -> Vocabulary:
    """The vocabulary of what a user typed; the background's names, if any, are class 0.

    Raises:
        ValueError: no class, a class without a name, or a name that belongs to two classes.
    """
    parsed = parse_classes(classes)
    if background:
        behind = parse_classes([background])
        parsed = (*behind, *parsed)
    owners: dict[str, int] = {}
    for i, names in enumerate(parsed):
        for name in names:
            if owners.setdefault(name.lower(), i) != i:
                raise ValueError(f'{name!r} belongs to two classes; a name can stand for one only')
    return Vocabulary(parsed, synonyms)


def display_names(vocabulary: Vocabulary, has_background: bool) -> tuple[str, ...]:
    """The first name of each class; class 0 is 'background' where there is one."""
    names = tuple(synonyms[0] for synonyms in vocabulary.classes)
    return (BACKGROUND_NAME, *names[1:]) if has_background else names


def method_for(method: str | Mapping | Method, has_background: bool, gaussian_std: float | None = None) -> Method:
    """A method with the constants that its protocol has for all benchmarks; those that are given here come first.

    Raises:
        ValueError, FileNotFoundError: an unknown method, or a constant that it does not have or that makes no sense.
    """
    chosen = build_method(method)
    published = dict(PROTOCOLS[chosen.protocol].everywhere.get('constants', {}))
    if 'background' in chosen.constants:
        published['background'] = has_background
    given = dict(method) if isinstance(method, Mapping) else {}
    published = {key: value for key, value in published.items() if key not in given}
    return build_method(with_constants(chosen, published), gaussian_std=gaussian_std)


def settings_for(
    method: Method, visual: Tower, has_background: bool, pamr: bool | None = None, prob_thd: float | None = None
) -> tuple[Settings, int]:
    """How a method's features become labels, on pictures of any kind; and the short side it looks at, in pixels.

    These are the method's protocol's settings for all benchmarks. Towers below 224 pixels get sizes in proportion.

    Raises:
        ValueError: a threshold that is no probability, or without a background to give pixels to.
    """
    if prob_thd and not has_background:
        raise ValueError(f'prob_thd {prob_thd:g} needs a background for pixels that are less sure: name one')
    if prob_thd is None:
        prob_thd = BACKGROUND_THD if has_background else 0.0
    published = PROTOCOLS[method.protocol].everywhere
    usual = Settings()
    scale = min(visual.input_resolution / usual.slide_crop, 1)
    known = {field.name for field in fields(Settings)} - {'input_size'}
    settings = replace(usual, **{key: value for key, value in published.items() if key in known})
    settings = replace(
        settings,
        slide_crop=round(scale * settings.slide_crop),
        slide_stride=max(round(scale * settings.slide_stride), 1),
        pamr_stride=tuple(max(round(scale * d), 1) for d in settings.pamr_stride),
    )
    if 'input_size' in published:
        size = published['input_size']
        settings = replace(settings, input_size=size[visual.kind] if isinstance(size, Mapping) else size)
    pamr = method.pamr if pamr is None else pamr
    settings = replace(settings, pamr_steps=STEPS if pamr else 0, prob_thd=prob_thd)
    if 'crop' in published or 'input_size' in published:  # sizes that belong to a method's other constants
        return settings, published.get('crop') or min(published['resize'])
    short_side = published.get('squash') or min(published.get('resize', (SHORT_SIDE,)))
    return settings, round(scale * short_side)


def working_pixels(names: int) -> int:
    """How many pixels a picture may have, to be labelled at its own size with so many names."""
    return min(WORKING_PIXELS, max(MAP_BYTES // (2 * 4 * names), 1))  # maps, and their classes' probabilities


def input_size(size: tuple[int, int], short_side: int, visual: Tower) -> tuple[int, int]:
    """The size (H, W) of what the image tower gets of a picture of `size`: at least one patch, however slim."""
    smallest = 32 if isinstance(visual, ConvNeXt) else visual.patch_size
    height, width = fitting_size(size, short_side)
    return max(height, smallest), max(width, smallest)


def enlarge(labels: Tensor, scores: Tensor, size: tuple[int, int], pipeline: Pipeline) -> Tensor:
    """Labels (1, 1, H, W) of a larger size, from labels (1, 1, h, w) and scores (1, K, h, w), in bands of rows.

    The scores are enlarged (bilinear) and decided on anew. Labels that were voted on are enlarged themselves (nearest).
    A label takes one byte, where that is enough.
    """
    small = scores.shape[1] <= 256
    if pipeline.method.votes or pipeline.method.needs_regions:
        enlarged = F.interpolate(labels.byte() if small else labels.float(), size, mode='nearest-exact')
        return enlarged if small else enlarged.int()
    result = labels.new_empty(1, 1, *size, dtype=torch.uint8 if small else torch.int32)
    # The source row of each row, between two rows of the scores.
    rows = ((torch.arange(size[0], device=scores.device) + 0.5) * scores.shape[2] / size[0] - 0.5).clamp(min=0)
    rows_of_band = max(BAND_BYTES // (4 * scores.shape[1] * size[1]), 1)
    for start in range(0, size[0], rows_of_band):
        row = rows[start : start + rows_of_band]
        upper = row.long()
        lower = (upper + 1).clamp(max=scores.shape[2] - 1)
        band = torch.lerp(scores[:, :, upper], scores[:, :, lower], (row - upper)[:, None])
        wide = F.interpolate(band, (len(row), size[1]), mode='bilinear', align_corners=False)
        result[:, :, start : start + len(row)] = pipeline.decide(wide)
    return result
