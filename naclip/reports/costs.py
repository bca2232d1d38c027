"""mIoU against what it costs: seconds a picture beside those of CLIP's own last block, on the same device."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

import torch

from clip.guides import GUIDES, Guide, GuideSizes
from naclip.reports.runs import Run, settings_of, short_name

UNKNOWN = 'an unknown device'
REFERENCE = 'clip'  # the method that others' seconds are divided by
WIDTHS = {'s': (384, 12), 'b': (768, 12), 'l': (1024, 24)}  # of ViTs: width and depth


@dataclass(frozen=True)
class Point:
    """A run: how often the reference's seconds a picture it takes, its mIoU in percent, and what it reads beside CLIP.

    `guide` is empty where there is no second tower, `parameters` None where their number is not known.
    """

    run: Run
    ratio: float
    miou: float
    guide: str = ''
    parameters: int | None = None


@dataclass(frozen=True)
class Costs:
    """The runs on one benchmark, device, dtype and backbone, least cost first; the reference's seconds a picture."""

    benchmark: str
    device: str
    seconds: float
    points: tuple[Point, ...]


def find_costs(runs: Iterable[Run]) -> tuple[list[Costs], list[str]]:
    """What can be compared, and a line for each thing that cannot."""
    runs = list(runs)
    notes = []
    shared = sum(run.shared_by > 1 for run in runs)
    if shared:
        notes.append(
            f'seconds of {shared} of {len(runs)} runs are those of a pass that several methods shared: they are no '
            'cost of one method, and are left out where costs are compared'
        )
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        if run.picture_seconds and run.miou() == run.miou():
            key = (run.benchmark, run.get('device.name', str), run.get('settings.dtype', str))
            groups.setdefault((*key, run.get('sha256.weights', str) or run.record['backbone']), []).append(run)
    found, alone = [], []
    for (benchmark, device, *_), members in groups.items():
        reference = [run.picture_seconds for run in members if run.record['method'] == REFERENCE]
        if not reference and len(members) > 1:
            alone.append(f'{benchmark} on {device or UNKNOWN}')
        if reference and len(members) > len(reference):
            unit = median(reference)
            points = sorted((_point(run, unit) for run in members), key=lambda point: point.ratio)
            found.append(Costs(benchmark, device or UNKNOWN, unit, tuple(points)))
    if alone:
        notes.append(f'no run of {REFERENCE} to compare costs with: {", ".join(dict.fromkeys(alone))}')
    return found, notes


def _point(run: Run, unit: float) -> Point:
    guide = settings_of(run).get('guide')
    guide = guide if isinstance(guide, str) else ''
    return Point(run, run.picture_seconds / unit, run.miou(), Path(guide).name, guide_parameters(guide))


def describe_point(point: Point) -> str:
    """A run's name, and its second tower with millions of parameters."""
    if not point.guide:
        return short_name(point.run.record)
    size = f', {point.parameters / 1e6:.0f} M' if point.parameters else ''
    return f'{short_name(point.run.record)} + {point.guide}{size}'


@cache
def guide_parameters(name: str) -> int | None:
    """How many numbers a guide of a known name learnt; None for others."""
    if name not in GUIDES:
        return None
    kind, shape, *registers = name.split('_')  # dinov2, vitb14, reg
    width, depth = WIDTHS[shape[3]]
    patch, second = int(shape[4:]), kind == 'dinov2'
    sizes = GuideSizes(width, depth, patch, (518 if second else 224) // patch, len(registers) * 4 if second else None)
    with torch.device('meta'):
        return sum(parameter.numel() for parameter in Guide(sizes).parameters())
