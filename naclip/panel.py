"""Several pipelines look at the same pictures; what they have in common is computed once. Nothing here knows MMSeg.

Windows, what the tower reads in them, maps, merged maps, refined maps, probabilities, labels: each is computed once for
all members that do not differ up to there.

Shapes: H, W pixels; h, w patch grid of a window; n windows of a picture; Q names.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from naclip.pipeline import AtSize, Pipeline, Seen
from naclip.walk.decision import surest, unsure_to_background
from naclip.walk.reading import Reading
from naclip.walk.windows import NO_MARGINS, Margins, cut, side_by_side, windows_at_once

T = TypeVar('T')
Clock = Callable[[str], AbstractContextManager]


@dataclass(frozen=True)
class View:
    """A picture as a pipeline gets it: normalised (1, 3, H, W), the size of its labels, its region mask (H, W)."""

    image: Tensor
    size: tuple[int, int]
    regions: Tensor | None = None


Views = Sequence[Mapping[int, View]]  # of each picture, for each member; one object where members get the same


class Labelled(NamedTuple):
    """The labels (1, 1, *size) that a member gives to a picture, both by their number."""

    member: int
    picture: int
    labels: Tensor


@dataclass
class _Family:
    """Members that have the same maps, and what was seen for them, picture by picture."""

    members: list[int]
    pipeline: Pipeline
    maps: list[Tensor] = field(default_factory=list)  # of each picture's windows (n, Q, h, w)
    margins: list[Margins] = field(default_factory=list)
    readings: list[Sequence[Reading]] = field(default_factory=list)
    alive: bool = True


class Panel(nn.Module):
    """Pipelines, the members, that judge the same pictures. Inference only.

    `clock(stage)` gives a context in which a stage of the walk runs, for those who want to know what takes how long.
    """

    def __init__(self, pipelines: Sequence[Pipeline], clock: Clock = nullcontext):
        super().__init__()
        self.pipelines = nn.ModuleList(pipelines)
        self.clock = clock

    @torch.no_grad()
    def forward(
        self, views: Views, members: Sequence[int], failed: Callable[[Sequence[int], Exception], None]
    ) -> Iterator[Labelled]:
        """What each of some members says of each picture, one after the other.

        `failed` is told of members that cannot go on, and why: it raises, or these are left out.
        """
        families = [
            _Family(sharers, self.pipelines[sharers[0]])
            for sharers in _by(members, lambda m: self._maps_key(views, m)).values()
        ]
        for together in _by(families, lambda family: self._windows_key(views, family.members[0])).values():
            self._look(views, together, failed)
        for i, of_picture in enumerate(views):
            at_sizes: dict[Hashable, AtSize] = {}
            for family in families:
                left = list(family.members) if family.alive else []
                try:
                    for labelled in self._judge(i, of_picture, family, at_sizes) if left else ():
                        left.remove(labelled.member)
                        yield labelled
                except Exception as error:  # whatever a member's method raises ends this member, not the others
                    family.alive = False
                    failed(left, error)

    def _windows_key(self, views: Views, m: int) -> Hashable:
        """Members of one key see the same windows through one tower."""
        pictures = tuple((id(of_picture[m].image), of_picture[m].size) for of_picture in views)
        settings = self.pipelines[m].settings
        windows = (settings.input_size, settings.slide_crop, settings.slide_stride)
        return pictures, id(self.pipelines[m].net), windows

    def _maps_key(self, views: Views, m: int) -> Hashable:
        """Members of one key have the same maps."""
        regions = tuple(id(of_picture[m].regions) for of_picture in views)
        return self._windows_key(views, m), self.pipelines[m].maps_key, regions

    def _look(self, views: Views, families: list[_Family], failed: Callable[[Sequence[int], Exception], None]) -> None:
        """Stages 3 to 5 of families that see the same windows: windows of all pictures go through the tower together.

        Families whose method wants the windows of one picture at a time get these.
        """
        m = families[0].members[0]
        with self.clock('windows'):
            inputs = [self.pipelines[m].as_input(of_picture[m].image) for of_picture in views]
            boxes = [self.pipelines[m].boxes(tuple(image.shape[-2:])) for image in inputs]
            crops = [cut(image, of_image) for image, of_image in zip(inputs, boxes, strict=True)]
        for family in families:
            with_mask = [of_picture for of_picture in views if of_picture[family.members[0]].regions is not None]
            family.pipeline.check_regions(len(views), len(with_mask))
        masks = {
            (i, id(family)): family.pipeline.cut_regions(views[i][family.members[0]].regions, inputs[i], boxes[i])
            for family in families
            if family.pipeline.method.needs_regions
            for i in range(len(views))
        }
        for family in families:
            family.maps, family.margins = [crops[0]] * len(views), [NO_MARGINS] * len(views)
            family.readings = [()] * len(views)
        alone = [family for family in families if family.pipeline.alone]
        mixed = [family for family in families if not family.pipeline.alone]

        def ask(windows: Tensor, askers: Iterable[_Family], i: int | None) -> dict[int, tuple[Tensor, Reading]]:
            """Each asker's maps (B, Q, h, w) of windows (B, 3, crop, crop), of picture i if they are of one."""
            pool: dict[Hashable, dict] = {}
            answers = {}
            for family in askers:
                if not family.alive:
                    continue
                told = family.pipeline.told_boxes(boxes[i]) if i is not None else None
                try:
                    with self.clock(f'tower and maps: {family.pipeline.method.name}'):
                        reading = family.pipeline.read(windows, told, masks.get((i, id(family))), pool)
                        answers[id(family)] = family.pipeline.maps(reading), reading
                except Exception as error:  # as above
                    family.alive = False
                    failed(family.members, error)
            return answers

        def keep(family: _Family, i: int, maps: Tensor, reading: Reading) -> None:
            family.maps[i], family.margins[i] = maps, reading.margins
            family.readings[i] = [reading] if family.pipeline.method.votes else ()

        for pictures in _by(range(len(views)), lambda i: crops[i].shape[1:]).values():
            one = pictures[0] if len(pictures) == 1 else None
            windows = crops[one] if one is not None else torch.cat([crops[i] for i in pictures])
            if one is not None and len(windows) <= windows_at_once(windows):
                answers = ask(windows, families, one)  # nobody sees a difference between one picture and several
                for family in families:
                    if id(family) in answers:
                        keep(family, one, *answers[id(family)])
                continue
            pieces = [ask(some, mixed, None) for some in windows.split(windows_at_once(windows))]
            for family in (family for family in mixed if family.alive):
                maps = torch.cat([answers[id(family)][0] for answers in pieces])
                reading = pieces[0][id(family)][1]
                for i, of_picture in zip(pictures, maps.split([len(crops[i]) for i in pictures]), strict=True):
                    keep(family, i, of_picture, reading)
            for i in pictures if alone else ():
                answers = ask(crops[i], alone, i)
                for family in alone:
                    if id(family) in answers:
                        keep(family, i, *answers[id(family)])
        for family in (family for family in families if family.alive):
            family.maps = [side_by_side(maps, of_image) for maps, of_image in zip(family.maps, boxes, strict=True)]

    def _judge(
        self, i: int, of_picture: Mapping[int, View], family: _Family, at_sizes: dict[Hashable, AtSize]
    ) -> Iterator[Labelled]:
        """Stages 6 to 9 of a family's members on picture i."""
        view, pipeline = of_picture[family.members[0]], family.pipeline
        at_size = at_sizes.setdefault((id(view.image), view.size), AtSize(view.image, view.size))
        regions = () if view.regions is None else (view.regions,)
        readings, size = family.readings[i], tuple(view.image.shape[-2:])
        seen = pipeline.seen(family.maps[i], size, family.margins[i], readings, regions, view.image)
        for sharers in _by(family.members, lambda m: _merge_key(self.pipelines[m])).values():
            first = self.pipelines[sharers[0]]
            with self.clock('merge'):
                merged = first.merge(seen, view.size)
            for refined, maps in _branches(merged, sharers, lambda m: _refine_key(self.pipelines[m])):
                with self.clock('refine'):
                    maps = self.pipelines[refined[0]].refine_(view.image, maps, at_size)
                for decided, scores in _branches(maps, refined, lambda m: _score_key(self.pipelines[m])):
                    yield from self._decide(i, seen, scores, decided)

    def _decide(self, i: int, seen: Seen, maps: Tensor, members: Sequence[int]) -> Iterator[Labelled]:
        """The end of the walk, for members that differ in nothing but when they are sure enough."""
        first = self.pipelines[members[0]]
        with self.clock('decide'):
            kept = maps.clone() if first.method.votes else None
            best, labels = surest(first.probabilities_(maps))
        for m in members:
            with self.clock('decide'):
                pipeline = self.pipelines[m]
                sure = unsure_to_background(best, labels, pipeline.settings.prob_thd)
                labelled = Labelled(m, i, pipeline.vote(seen, sure, kept))
            yield labelled


def _merge_key(pipeline: Pipeline) -> Hashable:
    """Pipelines with the same maps and key have the same merged maps; some methods merge names there."""
    return pipeline.settings.straight, pipeline.vocabulary.query_idx if pipeline.method.settles else None


def _refine_key(pipeline: Pipeline) -> Hashable:
    """Pipelines with the same merged maps and key have the same refined maps."""
    steps = pipeline.settings.pamr_steps
    return steps, pipeline.settings.pamr_stride if steps else None


def _score_key(pipeline: Pipeline) -> Hashable:
    """Pipelines with the same refined maps and key have the same class probabilities."""
    settings, vocabulary = pipeline.settings, pipeline.vocabulary
    return settings.logit_scale, settings.area_thd, vocabulary.query_idx, vocabulary.synonyms


def _by(items: Iterable[T], key: Callable[[T], Hashable]) -> dict[Hashable, list[T]]:
    """Items in groups of one key, in order."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _branches(
    maps: Tensor, members: Sequence[int], key: Callable[[int], Hashable]
) -> Iterator[tuple[list[int], Tensor]]:
    """Members in groups of one key, each with maps of its own, which it may change; the last gets the ones given."""
    groups = list(_by(members, key).values())
    for group in groups[:-1]:
        yield group, maps.clone()
    yield groups[-1], maps
