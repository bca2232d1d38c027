"""Pictures that runs kept, side by side: which to look at, and what is drawn of them. K classes."""

import base64
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from naclip.files import read_whole
from naclip.names import did_you_mean
from naclip.reports.runs import Run
from naclip.runs.gallery import GALLERY, Index, Kept, ignored_value, read_gallery

OPACITY = 0.6  # of the classes' colours on the picture


@dataclass(frozen=True, eq=False)
class Shot:
    """What one run made of a picture; `folder` is its gallery."""

    run: Run
    kept: Kept
    folder: Path

    @property
    def miou(self) -> float:
        """The picture's own mIoU in percent; NaN where all its pixels are ignored."""
        return math.nan if self.kept.miou is None else self.kept.miou

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """The files of picture, ground truth and prediction."""
        picture, truth, prediction = (self.folder / name for name in self.kept.files)
        return picture, truth, prediction


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a benchmark, with one ground truth, as several runs saw it; names and colours of K classes."""

    benchmark: str
    image: str
    names: Sequence[str]
    palette: np.ndarray
    shots: tuple[Shot, ...]

    @property
    def spread(self) -> float:
        """Highest less lowest mIoU; NaN with fewer than two."""
        values = self._mious
        return max(values) - min(values) if len(values) > 1 else math.nan

    @property
    def mean(self) -> float:
        """The mean mIoU of the runs that kept it; NaN without any."""
        values = self._mious
        return sum(values) / len(values) if values else math.nan

    @property
    def _mious(self) -> list[float]:
        return [shot.miou for shot in self.shots if not math.isnan(shot.miou)]


# Ways to choose pictures -> what is ascending in that order.
ORDERS: Mapping[str, Callable[[Picture], float]] = {
    'differ': lambda picture: -picture.spread,
    'worst': lambda picture: picture.mean,
    'best': lambda picture: -picture.mean,
}


def read_pictures(runs: Iterable[Run]) -> tuple[list[Picture], list[str]]:
    """All pictures that runs kept, in order of appearance, and a line for each gallery that cannot be used.

    Runs whose ground truth of a picture differs, cropped or with other ignored pixels, do not share it.
    """
    shots: dict[tuple, list[Shot]] = {}
    indices: dict[tuple, Index] = {}
    problems = []
    for run in runs:
        folder = run.path.with_name(GALLERY)
        try:
            index = read_gallery(folder)
            if index is None:
                continue
            if list(index.names) != run.class_names:
                raise ValueError(f'{folder} is not of this run: its classes are others than those of {run.path.name}')
            for kept in index.pictures.values():
                shot = Shot(run, kept, folder)
                truth = read_labels(shot.paths[1], len(index.names))
                key = (run.benchmark, kept.image, tuple(index.names), truth.shape, truth.tobytes())
                shots.setdefault(key, []).append(shot)
                indices[key] = index
        except (ValueError, OSError) as error:
            problems.append(str(error))
    pictures = [
        Picture(key[0], key[1], index.names, np.array(index.palette, np.uint8).reshape(-1, 3), tuple(shots[key]))
        for key, index in indices.items()
    ]
    return pictures, problems


def read_labels(path: Path, classes: int) -> np.ndarray:
    """A label map of a gallery (h, w).

    Raises:
        ValueError: damaged, or with values that are no class and not ignored.
    """
    try:
        read_whole(path)
        with Image.open(path) as file:
            labels = np.asarray(file)
    except (ValueError, OSError, SyntaxError) as error:
        raise ValueError(f'{path} cannot be read: {error}') from None
    if labels.ndim != 2 or ((labels >= classes) & (labels != ignored_value(classes))).any():
        raise ValueError(f'{path} is no label map of {classes} classes')
    return labels


def read_photo(path: Path) -> Image.Image:
    """The picture itself, RGB.

    Raises:
        ValueError: damaged.
    """
    try:
        read_whole(path)
        with Image.open(path) as file:
            return file.convert('RGB')
    except (ValueError, OSError) as error:
        raise ValueError(f'{path} cannot be read: {error}') from None


def in_order(pictures: Iterable[Picture], order: str) -> list[Picture]:
    """Pictures in one of ORDERS, those that most runs kept first; those without a number are left out."""
    key = ORDERS[order]
    scored = (picture for picture in pictures if not math.isnan(key(picture)))
    return sorted(scored, key=lambda picture: (-len(picture.shots), key(picture)))


def interleaved(pictures: Sequence[Picture]) -> list[Picture]:
    """All pictures, those that differ most, the worst and the best of each benchmark in turn first."""
    benchmarks: dict[str, list[Picture]] = {}
    for picture in pictures:
        benchmarks.setdefault(picture.benchmark, []).append(picture)
    turns = [[in_order(members, order) for order in ORDERS] for members in benchmarks.values()]
    mixed = zip_longest(*(order for orders in turns for order in orders))
    return list(dict.fromkeys([picture for turn in mixed for picture in turn if picture is not None] + list(pictures)))


def find_chosen(pictures: Sequence[Picture], wanted: Sequence[str]) -> list[Picture]:
    """The pictures that texts ask for: a key or a part of one, or 'differ', 'worst', 'best', with ':3' three of them.

    Raises:
        ValueError: a text that fits none, or several; says which.
    """
    chosen: list[Picture] = []
    for text in wanted:
        order, _, count = text.partition(':')
        exact = [picture for picture in pictures if picture.image == text]
        if order in ORDERS and not exact:
            if count and not (count.isdecimal() and int(count) > 0):
                raise ValueError(f'{text!r}: expected a whole number above 0 after {order}:, got {count!r}')
            found = in_order(pictures, order)[: int(count or 1)]
            if not found:
                needed = 'two runs' if order == 'differ' else 'a run'
                raise ValueError(f'{text!r}: no picture has the scores of {needed}')
        else:
            found = exact or [picture for picture in pictures if text in picture.image]
            if not found:
                keys = [picture.image for picture in pictures]
                near = did_you_mean(text, [*keys, *(Path(key).stem for key in keys)])
                raise ValueError(
                    f'no kept picture is called {text!r}{near}; there are {", ".join(dict.fromkeys(keys[:6]))}'
                    f'{" and more" if len(keys) > 6 else ""}, and {", ".join(ORDERS)}'
                )
            # With another ground truth, as where a protocol crops, it is another picture: the one most runs kept.
            most = sorted(found, key=lambda picture: len(picture.shots))
            found = list({(picture.benchmark, picture.image): picture for picture in most}.values())
            if len(found) > 1:
                names = ', '.join(f'{picture.benchmark} {picture.image}' for picture in found[:4])
                raise ValueError(
                    f'{text!r} fits {len(found)} pictures ({names}): give more of the name, or --benchmark'
                )
        chosen += found
    return list(dict.fromkeys(chosen))


def overlay(photo: Image.Image, labels: np.ndarray, palette: np.ndarray) -> Image.Image:
    """A picture, in grey, under the colours (K, 3) of its labels (h, w); ignored pixels stay grey."""
    grey = np.asarray(photo.resize(labels.shape[::-1]).convert('L').convert('RGB')).astype(float)
    known = labels < len(palette)
    coloured = palette[np.where(known, labels, 0)]
    mixed = np.where(known[..., None], (1 - OPACITY) * grey + OPACITY * coloured, grey)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def shrunk(labels: np.ndarray, longest: int) -> np.ndarray:
    """Labels (h, w) with a long side of at most so many pixels, nearest."""
    factor = min(longest / max(labels.shape), 1)
    rows, columns = (
        (2 * np.arange(n) + 1) * full // (2 * n)
        for n, full in ((max(round(full * factor), 1), full) for full in labels.shape)
    )
    return labels[rows[:, None], columns]


def label_png(labels: np.ndarray, palette: np.ndarray) -> bytes:
    """Labels (h, w) in their colours, ignored pixels transparent, as a PNG file, indexed where 256 colours will do."""
    present, indices = np.unique(labels, return_inverse=True)
    known = present < len(palette)
    if len(present) <= 256:
        image = Image.fromarray(indices.reshape(labels.shape).astype(np.uint8))
        colours = np.where(known[:, None], palette[np.where(known, present, 0)], 0).astype(np.uint8)
        image.putpalette(colours.ravel().tolist())
        clear = {} if known.all() else {'transparency': int(np.flatnonzero(~known)[0])}
    else:
        visible = labels < len(palette)
        colours = palette[np.where(visible, labels, 0)]
        image, clear = Image.fromarray(np.dstack([colours, np.where(visible, 255, 0).astype(np.uint8)])), {}
    file = io.BytesIO()
    image.save(file, format='PNG', optimize=True, **clear)
    return file.getvalue()


def photo_jpeg(photo: Image.Image, longest: int) -> bytes:
    """A picture, at most so many pixels long, as a JPEG file."""
    small = photo.copy()
    small.thumbnail((longest, longest))
    file = io.BytesIO()
    small.save(file, format='JPEG', quality=75)
    return file.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """A file inside a page."""
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'
