"""Several methods on one picture, and a page's settings as the end of an address; for the page of tools/app.py."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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


def compared_settings(settings: Settings, methods: Sequence[str], both: bool = False) -> list[Settings]:
    """What is compared: each method; with `both`, without and with PAMR. σ goes to the methods that have one.

    Raises:
        ValueError: too few or too many; says how many there may be.
    """
    pamrs = ('off', 'on') if both else (settings.pamr,)
    count = len(methods) * len(pamrs)
    if not 1 <= count <= MOST_COMPARED:
        raise ValueError(f'{count} pictures to compare, expected 1 to {MOST_COMPARED}: choose other methods')
    with_std = {method.name for method in METHODS if 'gaussian_std' in method.constants}
    return [
        replace(settings, method=name, std=settings.std if name in with_std else None, pamr=pamr)
        for name in methods
        for pamr in pamrs
    ]


def compare_upload(load: Load, path: str | None, compared: Sequence[Settings]) -> list[tuple[Image.Image, str]]:
    """The overlay of an uploaded picture under each settings, with what was found most of.

    Raises:
        ValueError, OSError: something that cannot be used; says which.
    """
    drawn = []
    for given in compared:
        texts = (given.classes, given.background, given.method, given.backbone)
        seen, _ = segment_upload(load, path, *texts, given.std, given.pamr, given.prob_thd)
        drawn.append((shown(seen, -1), f'{given.method}{PAMR[given.pamr]}: {largest(seen.names, seen.shares)}'))
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
