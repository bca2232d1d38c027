"""The plots of single runs, as PNG files in memory. K classes."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from naclip.reports.curves import shorten, to_png
from naclip.reports.runs import Run, most_confused, row_shares

MAX_BARS = 30  # classes that are still readable as bars
MAX_NAME = 28  # letters of a name
COLOUR = '#3b6ea5'


def class_bars(run: Run) -> bytes:
    """IoU of each class as bars, best first; of many classes the best and the worst."""
    occurring = [(iou, i) for i, iou in enumerate(run.counts.iou()) if not math.isnan(iou)]
    occurring.sort(key=lambda pair: (-pair[0], pair[1]))
    count, classes = len(occurring), len(run.record['classes'])
    half = MAX_BARS // 2
    shown = occurring if count <= MAX_BARS else occurring[:half] + occurring[-half:]
    what = f'all {count}' if count <= MAX_BARS else f'the {half} best and the {half} worst of {count}'
    absent = f'; {classes - count} neither labelled nor predicted' if classes > count else ''
    names = [run.class_names[i] + ('' if run.counts.label[i] else ' (not labelled)') for _, i in shown]

    figure = Figure(figsize=(8, 1.1 + 0.22 * max(len(shown), 1)), layout='constrained')
    axis = figure.subplots()
    values = [iou for iou, _ in shown]
    axis.barh(range(len(shown)), values, color=COLOUR)
    for place, value in enumerate(values):
        axis.text(value + 0.5, place, f'{value:.1f}', va='center', fontsize=7)
    if len(shown) < count:
        axis.axhline(half - 0.5, color='grey', linewidth=0.8, linestyle='--')
    _name_ticks(axis.yaxis, names)
    axis.set(xlim=(0, 108), xlabel='IoU in %')
    axis.set_title(f'{run.benchmark}: {what} classes by IoU{absent}', fontsize=10, parse_math=False)
    axis.invert_yaxis()
    return to_png(figure)


def confusion_map(run: Run, matrix: np.ndarray) -> bytes:
    """The most confused classes of a confusion matrix (K, K): share of each one's labelled pixels, by prediction."""
    chosen = most_confused(matrix)
    shares = 100 * row_shares(matrix)[np.ix_(chosen, chosen)]
    names = [run.class_names[i] for i in chosen]
    side = 2.5 + 0.5 * len(chosen)
    figure = Figure(figsize=(side + 1, side), layout='constrained')
    axis = figure.subplots()
    image = axis.imshow(shares, cmap='Blues', vmin=0, vmax=100)
    for (y, x), share in np.ndenumerate(shares):
        text = '–' if math.isnan(share) else f'{share:.0f}'
        axis.text(x, y, text, ha='center', va='center', fontsize=7, color='white' if share > 60 else 'black')
    _name_ticks(axis.yaxis, names)
    _name_ticks(axis.xaxis, names, rotation=90)
    axis.set(xlabel='prediction', ylabel='ground truth')
    which = f'the {len(chosen)} most confused of {len(matrix)} classes' if len(chosen) < len(matrix) else 'all classes'
    axis.set_title(f"{run.benchmark}: {which}, % of a row's labelled pixels", fontsize=10, parse_math=False)
    figure.colorbar(image, shrink=0.7)
    return to_png(figure)


def _name_ticks(axis, names: Sequence[str], rotation: float = 0) -> None:
    """Class names as tick labels, taken literally: '$' starts no formula."""
    axis.set_ticks(range(len(names)), [shorten(name, MAX_NAME) for name in names], parse_math=False, rotation=rotation)
    axis.set_tick_params(labelsize=8)
