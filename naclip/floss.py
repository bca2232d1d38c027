"""FLOSS around the walk: templates ranked on unlabelled pictures, and a pipeline that hears an expert for each class.

Shapes: B pictures; H, W pixels; Q names; K classes; T templates; C joint width.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from naclip.methods.experts import SCALE, fused, maps_of_each
from naclip.methods.method import Method
from naclip.pipeline import Pipeline, digest
from naclip.walk.decision import class_probabilities
from naclip.walk.reading import Reading
from naclip.walk.vocabulary import Vocabulary
from naclip.walk.windows import look_through, merge_windows

CHOSEN = 4  # templates of an expert
RANKING, TEMPLATE = 'entropy_ranking', 'template_id'  # keys of a ranking file


def check_floss(method: Method) -> None:
    """Make sure that experts can be heard with a method.

    Raises:
        ValueError: its maps are no cosines that a softmax makes probabilities of, one window at a time.
    """
    if method.settles or method.whole or method.votes or method.refines:
        raise ValueError(
            f'method {method.name} does more with maps than compare: --template-ranking is for methods that end in '
            'cosines, as naclip'
        )


class ExpertPipeline(Pipeline):
    """The walk with experts (K, Q, C), beside the default text embeddings: stage 5 gives fused probabilities.

    Raises:
        ValueError: as `Pipeline`, or a method or thresholds that experts do not go with.
    """

    def __init__(self, *args, experts: Tensor, **kwargs):
        super().__init__(*args, **kwargs)
        check_floss(self.method)
        if self.settings.prob_thd or self.settings.area_thd is not None:
            raise ValueError(
                'with --template-ranking, class scores are no probabilities: set prob_thd=0, area_thd=None'
            )
        companions = self.query_features[len(self.vocabulary.queries) :].expand(len(experts), -1, -1)
        self.register_buffer('experts', torch.cat([experts.to(companions), companions], dim=1), persistent=False)
        self.maps_key = (*self.maps_key, digest(self.experts))

    def maps(self, reading: Reading) -> Tensor:
        return fused(self.method, reading, self.experts, self.query_features, self.query_idx)


def template_maps(pipeline: Pipeline, images: Tensor, size: tuple[int, int], templates: Tensor) -> Iterable[Tensor]:
    """Cosine maps (B, Q, *size) of pictures (B, 3, H, W), under each template's text embeddings (T, Q, C) in turn.

    Each window is read once.
    """
    margins = []

    def maps_of(windows: Tensor) -> Tensor:
        reading = pipeline.read(windows)
        margins.append(reading.margins)
        return torch.cat(list(maps_of_each(pipeline.method, reading, templates)), dim=1)

    seen_size = tuple(images.shape[-2:])
    boxes = pipeline.boxes(seen_size)
    maps = look_through(images, boxes, maps_of)
    for of_template in maps.chunk(len(templates), dim=1):
        yield merge_windows(of_template, boxes, seen_size, size, margins[0])


class Entropies:
    """The mean entropy of each template at the pixels that it gives to each class (T, K), float64."""

    def __init__(self, templates: int, vocabulary: Vocabulary):
        self.query_idx = vocabulary.query_idx
        self.sums = torch.zeros(templates, len(vocabulary), dtype=torch.float64)
        self.pixels = torch.zeros(templates, len(vocabulary), dtype=torch.int64)

    def add(self, template: int, maps: Tensor) -> None:
        """Cosine maps (B, Q, H, W) of a template count; they are changed."""
        probabilities = class_probabilities(maps, self.query_idx, SCALE)  # (B, K, H, W)
        entropy = -(probabilities * (probabilities + 1e-10).log()).sum(dim=1).flatten().double().cpu()
        labels = probabilities.argmax(dim=1).flatten().cpu()
        self.sums[template].index_add_(0, labels, entropy)
        self.pixels[template] += torch.bincount(labels, minlength=self.pixels.shape[1])

    @property
    def means(self) -> Tensor:
        """(T, K); infinite where a template never predicts a class."""
        return torch.where(self.pixels > 0, self.sums / self.pixels, torch.inf)

    def ranking(self) -> list[list[int]]:
        """For each class the templates that predict it, least entropy first, lower numbers first among equals."""
        order = self.means.argsort(dim=0, stable=True)
        return [[t for t in order[:, k].tolist() if self.pixels[t, k]] for k in range(order.shape[1])]


def rank_templates(
    pipeline: Pipeline, pictures: Iterable[tuple[Tensor, tuple[int, int]]], templates: Tensor
) -> Entropies:
    """The entropies of templates (T, Q, C) on normalised pictures (1, 3, H, W) at the sizes that labels have."""
    check_floss(pipeline.method)
    entropies = Entropies(len(templates), pipeline.vocabulary)
    with torch.no_grad():
        for images, size in pictures:
            for t, maps in enumerate(template_maps(pipeline, images, size, templates)):
                entropies.add(t, maps)
    return entropies


@dataclass(frozen=True)
class TemplateRanking:
    """For each class the numbers of templates, counted from 0, best first."""

    classes: tuple[tuple[int, ...], ...]

    def chosen(self, vocabulary: Vocabulary, templates: int, count: int = CHOSEN) -> tuple[tuple[int, ...], ...]:
        """The templates of each class's expert.

        Raises:
            ValueError: other classes than the vocabulary's, a template that is not there, or a class without one.
        """
        if len(self.classes) != len(vocabulary):
            raise ValueError(
                f'the template ranking has {len(self.classes)} classes, the vocabulary has {len(vocabulary)}'
            )
        for names, ranked in zip(vocabulary.classes, self.classes, strict=True):
            if not ranked:
                raise ValueError(f'the template ranking has no template for {names[0]!r}: none ever predicted it')
            if not all(0 <= t < templates for t in ranked):
                raise ValueError(
                    f'the template ranking of {names[0]!r} names template {max(ranked)}, and there are {templates}, '
                    'counted from 0'
                )
        return tuple(ranked[:count] for ranked in self.classes)


def read_ranking(path: str | os.PathLike) -> TemplateRanking:
    """Read a ranking file: classes -> entropy_ranking -> template_id.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file; says what was expected.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'template ranking {path} does not exist; tools/floss.py makes one')
    try:
        classes = json.loads(path.read_text(encoding='utf-8'))['classes']
        entries = list(classes.values()) if isinstance(classes, dict) else classes
        return TemplateRanking(tuple(tuple(int(e[TEMPLATE]) for e in entry[RANKING]) for entry in entries))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'template ranking {path} cannot be read ({type(error).__name__}: {error}): expected JSON with classes -> '
            f'{RANKING} -> {TEMPLATE}'
        ) from None


def ranking_record(entropies: Entropies, vocabulary: Vocabulary, templates: Sequence[str]) -> dict:
    """What a ranking file has: for each class, by its first name, its templates with their entropies."""
    means = entropies.means
    shares = entropies.pixels / entropies.pixels.sum(dim=1, keepdim=True)
    classes = {}
    for k, (names, ranked) in enumerate(zip(vocabulary.classes, entropies.ranking(), strict=True)):
        rows = [
            {
                TEMPLATE: t,
                'template': templates[t],
                'entropy': float(means[t, k]),
                'pixel_percentage': 100 * float(shares[t, k]),
            }
            for t in ranked
        ]
        classes[names[0] if names[0] not in classes else f'{names[0]} ({k})'] = {RANKING: rows}
    return {'classes': classes}
