"""What was seen, to look at: colours, overlays with a legend, heat maps, label maps as files.

K classes; sizes are in pixels.
"""

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LOOKED_AT = (320, 2048)  # a drawing's longest side: smaller pictures are shown larger, larger ones smaller
DIMMED = 0.35  # of the brightness of what a map says nothing about
OPACITY = 0.55  # of the classes' colours on the picture
TEXT_SIZE = 15
ROW = 24
MARGIN = 10
SWATCH = 14
MOST_ROWS = 40  # of a legend
# Matplotlib's ten.
FIRST = ('1f77b4', 'ff7f0e', '2ca02c', 'd62728', '9467bd', '8c564b', 'e377c2', '7f7f7f', 'bcbd22', '17becf')

Box = tuple[int, int, int, int]  # top, left, bottom, right in a picture's pixels; the last two are exclusive


@cache
def font() -> ImageFont.FreeTypeFont:
    """What is written on drawings: Matplotlib's, which has more letters than Pillow's own."""
    import matplotlib  # takes a while, and evaluations draw nothing

    path = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf'
    return ImageFont.truetype(str(path), TEXT_SIZE)


def class_colours(count: int, has_background: bool = False) -> np.ndarray:
    """A colour for each class (K, 3), uint8, that differ as much as so many can; a background is black.

    The first ten are Matplotlib's. Then hues go round by the golden angle, in changing lightness and saturation.
    """
    i = np.arange(count)
    hue = i * 0.61803398875 % 1
    saturation, value = np.array([0.45, 1.0, 0.7])[i % 3], np.array([1.0, 0.5, 0.75])[i // 3 % 3]
    further = [[255 * part for part in hsv_to_rgb(*one)] for one in zip(hue, saturation, value, strict=True)]
    colours = [[0, 0, 0]] * has_background + [list(bytes.fromhex(colour)) for colour in FIRST] + further
    return np.rint(colours[:count]).astype(np.uint8).reshape(-1, 3)


def looked_at(size: tuple[int, int]) -> tuple[int, int]:
    """The size (H, W) at which a picture of `size` is drawn."""
    smallest, largest = LOOKED_AT
    longest = max(size)
    factor = -(-smallest // longest) if longest < smallest else min(largest / longest, 1)
    height, width = (max(round(factor * side), 1) for side in size)
    return height, width


def blend(picture: Image.Image, labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """A picture (RGB), in grey, under the colours (K, 3) of its labels (H, W), at the size it is looked at."""
    size = looked_at(labels.shape)[::-1]
    resample = Image.Resampling.BOX if size[0] < labels.shape[1] else Image.Resampling.NEAREST
    grey = picture.resize(size, resample).convert('L').convert('RGB')
    coloured = Image.fromarray(colours[_resized_labels(labels, size)])
    return Image.blend(grey, coloured, OPACITY)


def _resized_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) at another (width, height), nearest."""
    rows = (np.arange(size[1]) * 2 + 1) * labels.shape[0] // (2 * size[1])
    columns = (np.arange(size[0]) * 2 + 1) * labels.shape[1] // (2 * size[0])
    return labels[rows[:, None], columns]


def overlay(
    picture: Image.Image, labels: np.ndarray, names: Sequence[str], colours: np.ndarray, shares: Sequence[float]
) -> Image.Image:
    """The picture under its labels' colours, beside a legend of the classes in it: name and share, largest first."""
    blended = blend(picture, labels, colours)
    key = legend(names, colours, shares)
    width, height = blended.width + key.width, max(blended.height, key.height)
    canvas = Image.new('RGB', (width, height), 'white')
    canvas.paste(blended, (0, 0))
    canvas.paste(key, (blended.width, 0))
    return canvas


def legend(names: Sequence[str], colours: np.ndarray, shares: Sequence[float]) -> Image.Image:
    """Swatch, name and share of the area of every class that is there, largest first; then how many are not."""
    there = [i for i in np.argsort(-np.asarray(shares), kind='stable') if shares[i] > 0]
    rows = [(i, f'{shortened(names[i])}  {percent(shares[i])}') for i in there[:MOST_ROWS]]
    missing = [len(there) - len(rows), len(names) - len(there)]
    remarks = [f'{n} {what}' for n, what in zip(missing, ('more', 'not seen'), strict=True) if n]
    texts = [text for _, text in rows] + remarks
    width = max(int(font().getlength(text)) for text in texts) + 3 * MARGIN + SWATCH
    image = Image.new('RGB', (width, ROW * len(texts) + MARGIN), 'white')
    draw = ImageDraw.Draw(image)
    for line, text in enumerate(texts):
        middle = ROW * line + MARGIN // 2 + ROW // 2
        if line < len(rows):
            box = (MARGIN, middle - SWATCH // 2, MARGIN + SWATCH, middle + SWATCH // 2)
            draw.rectangle(box, tuple(colours[rows[line][0]].tolist()), 'grey')
        fill = 'black' if line < len(rows) else 'grey'
        draw.text((2 * MARGIN + SWATCH, middle), text, fill, font(), anchor='lm')
    return image


def shortened(name: str, length: int = 40) -> str:
    """A name that fits in a line."""
    return name if len(name) <= length else f'{name[: length - 1]}…'


def percent(share: float) -> str:
    """0.1234 -> '12.3 %'; what is there, however small, is not called nothing."""
    return '< 0.1 %' if 0 < share < 0.0005 else f'{100 * share:.1f} %'


def label_map(labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """Labels (H, W) as an indexed picture with a palette; 16-bit grey where there are more than 256 classes."""
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        image.putpalette(colours.ravel().tolist())
    return image


def heat_map(picture: Image.Image, score: np.ndarray, highest: float) -> Image.Image:
    """A class's score (h, w), from 0 (dark) to `highest` (bright), with the picture shining through, as looked at.

    Below it is the scale.
    """
    size = looked_at((picture.height, picture.width))[::-1]
    relative = np.asarray(Image.fromarray(score / (highest or 1)).resize(size, Image.Resampling.BILINEAR))
    return _with_scale(_glowing(picture, relative), f'{highest:.2f}')


def attention_map(picture: Image.Image, weights: np.ndarray, highest: float, seen: Box, patch: Box) -> Image.Image:
    """Weights (h, w), from 0 (dark) to `highest` and above (bright), with the picture shining through, as looked at.

    What lies outside of `seen` is dimmed, and `patch` is framed. Below it is the scale.
    """
    size = looked_at((picture.height, picture.width))[::-1]
    relative = Image.fromarray((weights / (highest or 1)).clip(0, 1).astype(np.float32))
    image = _glowing(picture, np.asarray(relative.resize(size, Image.Resampling.NEAREST)))
    inside, window = Image.new('L', size), _drawn(seen, picture, size)
    ImageDraw.Draw(inside).rectangle(window, 255)
    dimmed = picture.resize(size, Image.Resampling.BILINEAR).convert('L').point(lambda grey: DIMMED * grey)
    image = Image.composite(image, dimmed.convert('RGB'), inside)
    draw = ImageDraw.Draw(image)
    if inside.getextrema() != (255, 255):
        draw.rectangle(window, outline='grey')
    left, top, right, bottom = _drawn(patch, picture, size)
    for further, colour in ((2, 'black'), (1, 'white')):
        draw.rectangle((left - further, top - further, right + further, bottom + further), outline=colour)
    return _with_scale(image, f'≥ {highest or 1:.2g}')


def _drawn(box: Box, picture: Image.Image, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The corners (left, top, right, bottom), both included, of a picture's box where it is drawn at a size."""
    across, down = size[0] / picture.width, size[1] / picture.height
    left, right = (round(across * side) for side in (box[1], box[3]))
    top, bottom = (round(down * side) for side in (box[0], box[2]))
    return left, top, max(right - 1, left), max(bottom - 1, top)


def _glowing(picture: Image.Image, relative: np.ndarray) -> Image.Image:
    """Values from 0 to 1 (H, W) as colours, with the picture shining through."""
    from matplotlib import colormaps

    hot = Image.fromarray((255 * colormaps['inferno'](relative)[..., :3]).astype(np.uint8))
    grey = picture.resize(hot.size, Image.Resampling.BILINEAR).convert('L').convert('RGB')
    return Image.blend(grey, hot, 0.7)


def _with_scale(image: Image.Image, highest: str) -> Image.Image:
    """A drawing above a scale of its colours, from 0 to the highest value."""
    from matplotlib import colormaps

    canvas = Image.new('RGB', (max(image.width, 160), image.height + 2 * ROW), 'white')
    canvas.paste(image, (0, 0))
    bar = colormaps['inferno'](np.linspace(0, 1, canvas.width - 2 * MARGIN))[None, :, :3].repeat(SWATCH, axis=0)
    canvas.paste(Image.fromarray((255 * bar).astype(np.uint8)), (MARGIN, image.height + MARGIN // 2))
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, canvas.height - ROW // 2), '0', 'black', font(), anchor='lm')
    draw.text((canvas.width - MARGIN, canvas.height - ROW // 2), highest, 'black', font(), anchor='rm')
    return canvas
