"""A figure for a paper: chosen pictures in rows, picture, ground truth and each method's overlay in columns."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from naclip.names import did_you_mean
from naclip.reports.curves import quiet_letters, shorten
from naclip.reports.gallery import Picture, Shot, overlay, read_labels, read_photo
from naclip.reports.runs import Run

KINDS = ('pdf', 'png')
WIDTH = 1.6  # inches of a column
MOST_CLASSES = 24  # in the key
MOST_COLUMNS = 12  # of methods
GONE = 'not kept'  # what stands where a run did not keep a picture


def choose_runs(runs: Sequence[Run], labels: Mapping[int, str], wanted: Sequence[str]) -> dict[str, list[Run]]:
    """Columns by their title: the runs of each; `wanted` are labels, or methods, in that order; none: all.

    Raises:
        ValueError: a method that no run has; lists those there are.
    """
    columns: dict[str, list[Run]] = {}
    for run in runs:
        columns.setdefault(labels[id(run)], []).append(run)
    if not wanted:
        return columns
    chosen = {}
    for text in wanted:
        found = {text: columns[text]} if text in columns else {}
        found = found or {title: of for title, of in columns.items() if any(run.record['method'] == text for run in of)}
        if not found:
            names = [*columns, *(run.record['method'] for run in runs)]
            raise ValueError(
                f'no run of {text!r} kept pictures; there are {"; ".join(columns)}{did_you_mean(text, names)}'
            )
        chosen |= found
    return chosen


def with_runs(picture: Picture, runs: Sequence[Run]) -> Picture:
    """The picture as some of the runs saw it."""
    return replace(picture, shots=tuple(shot for shot in picture.shots if shot.run in runs))


def draw(pictures: Sequence[Picture], columns: Mapping[str, Sequence[Run]]) -> Figure:
    """The figure; below it the classes of the ground truth in their colours.

    Raises:
        ValueError: no picture, too many columns, or a file of a gallery that is damaged.
    """
    if not pictures:
        raise ValueError('no picture was chosen')
    if len(columns) > MOST_COLUMNS:
        raise ValueError(f'{len(columns)} methods are more than a page holds, {MOST_COLUMNS} at most: name some')
    titles = ['picture', 'ground truth', *columns]
    photos = [read_photo(picture.shots[0].paths[0]) for picture in pictures]
    heights = [WIDTH * photo.height / photo.width for photo in photos]
    key = class_key(pictures)
    lines = math.ceil(len(key) / max(len(titles), 1))
    height = sum(heights) + 0.16 * len(pictures) + 0.35 + 0.2 * lines
    figure = Figure(figsize=(WIDTH * len(titles), height), layout='constrained')
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    axes = figure.subplots(len(pictures), len(titles), squeeze=False, height_ratios=heights)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(shorten(title, 26), fontsize=8, parse_math=False)
    for row, picture, photo in zip(axes, pictures, photos, strict=True):
        _show(row[0], photo, shorten(picture.image.rsplit('/', 1)[-1], 28))
        truth = read_labels(picture.shots[0].paths[1], len(picture.names))
        _show(row[1], overlay(photo, truth, picture.palette), '')
        for axis, runs in zip(row[2:], columns.values(), strict=True):
            shot = next((shot for shot in picture.shots if shot.run in runs), None)
            _show_shot(axis, picture, photo, shot)
    if key:
        patches = [Patch(facecolor=colour, edgecolor='grey', linewidth=0.4) for _, colour in key]
        names = [shorten(name, 24) for name, _ in key]
        options = dict(loc='outside lower center', ncols=min(len(key), len(titles)), fontsize=7, frameon=False)
        legend = figure.legend(patches, names, **options)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def class_key(pictures: Sequence[Picture]) -> list[tuple[str, tuple[float, ...]]]:
    """The classes in the pictures' ground truth, with their colours from 0 to 1; at most MOST_CLASSES."""
    key: dict[tuple[str, tuple[float, ...]], None] = {}
    for picture in pictures:
        cells = np.array([cell for shot in picture.shots for cell in shot.kept.cells], np.int64).reshape(-1, 3)
        for k in np.unique(cells[:, 0]).tolist():
            key[picture.names[k], tuple((picture.palette[k] / 255).tolist())] = None
    return list(key)[:MOST_CLASSES]


def _show(axis, image, text: str) -> None:
    axis.imshow(np.asarray(image), interpolation='nearest')
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel(text, fontsize=7, labelpad=2, parse_math=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _show_shot(axis, picture: Picture, photo, shot: Shot | None) -> None:
    if shot is None:
        axis.set_axis_off()
        axis.text(0.5, 0.5, GONE, ha='center', va='center', fontsize=7, transform=axis.transAxes)
        return
    labels = read_labels(shot.paths[2], len(picture.names))
    _show(axis, overlay(photo, labels, picture.palette), '' if math.isnan(shot.miou) else f'mIoU {shot.miou:.1f}')


def figure_file(figure: Figure, kind: str) -> bytes:
    """The figure as one of KINDS; letters of a PDF stay letters. Equal figures are equal files."""
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    options = {'metadata': {'CreationDate': None}} if kind == 'pdf' else {'dpi': 200}
    with quiet_letters(), matplotlib.rc_context({'pdf.fonttype': 42}):
        figure.savefig(file, format=kind, **options)
    return file.getvalue()
