"""Several methods on one picture, and a page's settings as the end of an address; for the page of tools/app.py."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from urllib.parse import parse_qsl, urlencode

from PIL import Image

from naclip.commands.page import Load, segment_upload, shown
from naclip.methods import METHODS
from naclip.pictures.drawing import percent, shortened

MOST_COMPARED = 8
MOST_LETTERS = 2000  # of a text in an address
NAMED = 3  # classes below a picture
PAMR = {'method': '', 'on': ', PAMR', 'off': ', no PAMR'}


@dataclass(frozen=True)
class Settings:
    """What a visitor chose, but for the picture; None leaves a number to the method."""

    classes: str = ''
    background: str = ''
    backbone: str = ''
    method: str = 'naclip'
    std: float | None = None
    pamr: str = 'method'
    prob_thd: float | None = None


def compare_upload(
    load: Load, path: str | None, settings: Settings, methods: Sequence[str], both: bool = False
) -> list[tuple[Image.Image, str]]:
    """Each method's overlay of an uploaded picture with what it found most of; with `both`, without and with PAMR.

    σ goes to the methods that have one.

    Raises:
        ValueError, OSError: too few or too many methods, or something that cannot be used; says which.
    """
    pamrs = ('off', 'on') if both else (settings.pamr,)
    count = len(methods) * len(pamrs)
    if not 1 <= count <= MOST_COMPARED:
        raise ValueError(f'{count} pictures to compare, expected 1 to {MOST_COMPARED}: choose other methods')
    with_std = {method.name for method in METHODS if 'gaussian_std' in method.constants}
    drawn = []
    for name in methods:
        std = settings.std if name in with_std else None
        for pamr in pamrs:
            chosen = (settings.classes, settings.background, name, settings.backbone, std, pamr, settings.prob_thd)
            seen, _ = segment_upload(load, path, *chosen)
            drawn.append((shown(seen, -1), f'{name}{PAMR[pamr]}: {largest(seen.names, seen.shares)}'))
    return drawn


def largest(names: Sequence[str], shares: Iterable[float]) -> str:
    """The classes that cover most of a picture, in words."""
    order = sorted((pair for pair in zip(shares, names, strict=True) if pair[0]), key=lambda pair: -pair[0])
    return ', '.join(f'{shortened(name, 20)} {percent(share)}' for share, name in order[:NAMED])


def link_of(settings: Settings) -> str:
    """The end of an address that restores settings: '?classes=cat&method=sclip'; what is usual is left out."""
    usual = asdict(Settings())
    given = {key: value for key, value in asdict(settings).items() if value not in (None, '', usual[key])}
    return f'?{urlencode(given)}'


def settings_of(query: str, usual: Settings, methods: Sequence[str], backbones: Sequence[str]) -> Settings:
    """The settings of an address's end; whatever cannot be is as usual: an address may come from anywhere."""
    given = dict(parse_qsl(query.removeprefix('?')))
    values = asdict(usual)
    choices: Mapping[str, Sequence[str]] = {'method': methods, 'backbone': backbones, 'pamr': tuple(PAMR)}
    for key, choice in choices.items():
        if given.get(key) in choice:
            values[key] = given[key]
    for key in ('classes', 'background'):
        values[key] = given.get(key, values[key])[:MOST_LETTERS]
    for key in ('std', 'prob_thd'):
        values[key] = _number(given.get(key), values[key])
    return Settings(**values)


def _number(text: str | None, usual: float | None) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return usual
    return value if math.isfinite(value) else usual
