"""What a clicked patch attends to, method by method; for the page of tools/app.py."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from naclip.api import AttentionMap, Segmentation
from naclip.commands.compare import Settings
from naclip.commands.page import Load, prepare
from naclip.pictures.drawing import percent


@dataclass(frozen=True)
class Result:
    """What a visitor sees: a segmentation, under which settings, and the upload that its picture was."""

    seen: Segmentation
    settings: Settings
    path: str


@dataclass(frozen=True)
class Comparison:
    """What a visitor compared last: settings, on an upload."""

    settings: Sequence[Settings]
    path: str


def looked_into(result: Result, comparison: Comparison | None) -> list[Settings]:
    """The settings whose attention a click shows: the result's, then those compared on the same picture.

    Those of other pictures are left out, and so are those that differ only after the tower: in PAMR and prob_thd.
    """
    compared = comparison.settings if comparison and comparison.path == result.path else ()
    usual = Settings()
    before = [replace(one, pamr=usual.pamr, prob_thd=usual.prob_thd) for one in (result.settings, *compared)]
    return list(dict.fromkeys(before))


def attention_maps(
    load: Load, picture: Image.Image, several: Sequence[Settings], x: int, y: int
) -> list[tuple[Image.Image, str]]:
    """The attention map of the patch under a picture's pixel under each settings, with the method's name and shares.

    Raises:
        ValueError, OSError: a method without such a map, or something that cannot be used; says which.
    """
    drawn = []
    for given in several:
        after = (given.std, given.pamr, given.prob_thd)
        segment = prepare(load(given.backbone), given.classes, given.background, given.method, *after)
        found = segment.attention(picture, x, y)
        std = '' if given.std is None else f', σ {given.std:g}'
        drawn.append((found.heat_map(), f'{given.method}{std}: {shares(found)}'))
    return drawn


def shares(found: AttentionMap) -> str:
    """How much a patch gathers from itself and from the CLS token, in words."""
    parts = [('itself', found.own), ('CLS', found.cls)]
    return ', '.join(f'{what} {percent(weight / found.total)}' for what, weight in parts if weight)


def attention_html(x: int, y: int) -> str:
    """What attention maps show."""
    return (
        f'<p>Attention maps at {x}, {y}: with which weights the framed patch gathers from the others, mean over heads; '
        'bright is the highest. Windows overlap: it is the patch in the one whose centre is nearest, and what that '
        'does not see is dimmed; LPOSS gathers from all windows. The CLS token, which has no place in the picture, is '
        'left out, and the other weights stay as they are.</p>'
    )
