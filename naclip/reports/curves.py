"""Curves of a report as SVG and PNG files in memory: sweeps, costs, trainings.

Colours are told apart by colour-blind readers, too; beyond those, by marks and strokes.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from naclip.reports.costs import REFERENCE, Costs, describe_point
from naclip.reports.runs import SWEPT, Sweep
from naclip.reports.training import Training

# Wong's, without the yellow, which is faint on white: Nature Methods 8, 441 (2011).
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#000000')
STROKES = ('-', '--', ':', '-.')
MARKS = 'osD^vP*X'
MAX_NAME = 60
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # of costs that are far apart


def styles(count: int) -> list[dict[str, str]]:
    """How so many lines are drawn: no two alike, up to 56."""
    numbers = range(count)
    marks = islice(cycle(MARKS), count)
    return [
        dict(color=COLOURS[i % len(COLOURS)], linestyle=STROKES[i // len(COLOURS) % len(STROKES)], marker=mark)
        for i, mark in zip(numbers, marks, strict=True)
    ]


def sweep_figure(sweep: Sweep) -> Figure:
    """mIoU against a setting, all methods in one plot; the numbers it takes are the ticks where they are few."""
    figure = Figure(figsize=(8, 4.2 + 0.12 * len(sweep.lines)), layout='constrained')
    axis = figure.subplots()
    values = sorted({value for points in sweep.lines.values() for value, _ in points})
    for points, style in zip(sweep.lines.values(), styles(len(sweep.lines)), strict=True):
        axis.plot(*zip(*points, strict=True), markersize=5, **style)
    if values[0] > 0 and values[-1] / values[0] >= 50:
        axis.set_xscale('log')
    if len(values) <= 8:
        axis.set_xticks(values, [f'{value:g}' for value in values])
        axis.minorticks_off()
    axis.set(ylabel='mIoU in %')
    axis.set_xlabel(SWEPT.get(sweep.setting, shorten(sweep.setting)), parse_math=False)
    _title(axis, f'{sweep.benchmark}: mIoU by {sweep.setting}')
    axis.grid(alpha=0.3)
    _legend(figure, axis, list(sweep.lines))
    return figure


def cost_figure(costs: Costs) -> Figure:
    """mIoU against seconds a picture relative to the reference; a mark and a number each, named in the legend."""
    figure = Figure(figsize=(8, 4.2 + 0.12 * len(costs.points)), layout='constrained')
    axis = figure.subplots()
    names = []
    for number, (point, style) in enumerate(zip(costs.points, styles(len(costs.points)), strict=True), 1):
        axis.plot([point.ratio], [point.miou], **style | {'linestyle': ''}, markersize=7)
        axis.annotate(str(number), (point.ratio, point.miou), (6, 3), textcoords='offset points', fontsize=7)
        names.append(f'{number}  {describe_point(point)}')
    ratios = [point.ratio for point in costs.points]
    if max(ratios) / min(ratios) > 5:
        axis.set_xscale('log')
        ticks = [tick for tick in TICKS if min(ratios) / 2 <= tick <= 2 * max(ratios)]
        axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
        axis.minorticks_off()
    axis.axvline(1, color='grey', linewidth=0.8, linestyle=':')
    axis.set(xlabel=f'seconds a picture, relative to {REFERENCE} ({costs.seconds:.3g} s)', ylabel='mIoU in %')
    _title(axis, f'{costs.benchmark}: mIoU against cost, on {shorten(costs.device)}')
    axis.grid(alpha=0.3)
    _legend(figure, axis, names)
    return figure


def training_figure(training: Training) -> Figure:
    """Loss and mIoU by step, one above the other."""
    scored = bool(training.scores)
    figure = Figure(figsize=(8, 4.6 if scored else 2.8), layout='constrained')
    axes = figure.subplots(1 + scored, 1, sharex=True, squeeze=False)[:, 0]
    axes[0].plot(list(training.losses), list(training.losses.values()), color=COLOURS[0], linewidth=1)
    axes[0].set(ylabel='loss')
    _title(axes[0], f'{shorten(str(training.folder))}: training')
    if scored:
        axes[1].plot(*zip(*training.scores, strict=True), color=COLOURS[1], marker='o', markersize=4)
        axes[1].set(ylabel='mIoU in %')
    axes[-1].set(xlabel='step')
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure


def shorten(name: str, length: int = MAX_NAME) -> str:
    """A name on one line, at most `length` letters."""
    name = ' '.join(name.split())
    return name if len(name) <= length else f'{name[: length - 1]}…'


def _title(axis, text: str) -> None:
    axis.set_title(shorten(text, 90), fontsize=10, parse_math=False)


def _legend(figure: Figure, axis, names: Sequence[str]) -> None:
    """Names below the plot: many and long ones fit there."""
    columns = 1 if max(len(name) for name in names) > 38 else 2 if len(names) < 10 else 3
    columns = min(columns, math.ceil(len(names) / 2))
    texts = [shorten(name, 90 // columns + 10) for name in names]
    legend = figure.legend(axis.lines[: len(names)], texts, loc='outside lower center', ncols=columns, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)


def to_svg(figure: Figure) -> bytes:
    """The figure as an SVG file: letters as paths, so that it looks the same everywhere; equal figures, equal files."""
    return _saved(figure, 'svg', metadata={'Date': None, 'Creator': None})


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file; without a date, so that equal plots are equal files."""
    FigureCanvasAgg(figure)
    return _saved(figure, 'png', dpi=110)


@contextlib.contextmanager
def quiet_letters() -> Iterator[None]:
    """Letters that the font lacks become boxes, without a word; the tables have them."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', r'Glyph \d+ .* missing from', UserWarning)
        yield


def _saved(figure: Figure, kind: str, **options) -> bytes:
    file = io.BytesIO()
    with quiet_letters(), matplotlib.rc_context({'svg.hashsalt': 'naclip', 'svg.fonttype': 'path'}):
        figure.savefig(file, format=kind, **options)
    return file.getvalue()
