"""The page of tools/app.py, without a browser: what was uploaded -> what is shown."""

import html
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from numpy.random import RandomState
from PIL import Image

from clip.weights import known_words
from naclip.api import PreparedSegmenter, Segmentation, Segmenter, vocabulary_of
from naclip.pictures import drawing
from naclip.pictures.picture import read_picture
from naclip.shapes import generator as shapes
from naclip.walk.vocabulary import unknown_names

PREVIEW_SIDE = 640  # pixels of an uploaded picture as shown
SHOWN_SIDE = 640  # pixels: smaller drawings are shown enlarged by a whole number
# Pictures of the embedded benchmark: number, classes, background.
EXAMPLES = (
    (34, 'cat; house; grass; water; brick; sand; snow; wood; stone; sky', ''),
    (21, 'cat; flower; butterfly; frog', 'snow'),
)
CSS = """
.gradio-container { max-width: 1240px !important }
#heading h1 { margin: 0; font-size: 1.4em }
#heading p { margin: 0 }
#preview img { max-height: 150px }
#seen img { max-height: 70vh; object-fit: contain; cursor: crosshair }
.pictures .grid-wrap { min-height: 0; max-height: none }
.pictures .thumbnail-lg { aspect-ratio: auto; height: auto }
.pictures .thumbnail-lg img { height: auto }
.pictures .caption-label { position: static; max-width: none; border: 0; text-align: left; white-space: normal }
#maps .grid-container { grid-template-columns: 1fr 1fr }
@media (max-width: 600px) { #maps .grid-container { grid-template-columns: 1fr } }
.listing { max-height: 17em; overflow-y: auto }
.listing p { margin: 2px 6px 6px }
.listing table { width: 100%; margin: 0; border-collapse: collapse }
.listing table, .listing tr, .listing td { border: 0 !important }
.listing td { padding: 2px 6px !important }
.listing td:first-child { width: 26px }
.listing td:last-child { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.swatch { display: block; width: 14px; height: 14px; border: 1px solid grey }
.bar { height: 4px; border-radius: 2px }
"""

Load = Callable[[str], Segmenter]  # a backbone by its name
Scores = list[tuple[int, float]]  # class index and score, best first


def number_of(text: str | None, what: str) -> float | None:
    """A number that was typed; None where nothing was.

    Raises:
        ValueError: it is none; says which.
    """
    if not (text or '').strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{what} is {text.strip()!r}, expected a number, or nothing for the method's own")
    return value


def read_upload(path: str | None) -> Image.Image:
    """An uploaded picture as RGB.

    Raises:
        ValueError: there is none, or it is not one; says why, without the path on this machine.
    """
    if path is None:
        raise ValueError('there is no picture yet: drop one, or try an example')
    try:
        return read_picture(path)
    except (ValueError, OSError) as error:
        raise ValueError(str(error).replace(str(path), Path(path).name)) from None


def segment_upload(
    load: Load,
    path: str | None,
    classes: str,
    background: str,
    method: str,
    backbone: str,
    std: float | None,
    pamr: str,
    prob_thd: float | None,
) -> tuple[Segmentation, list[str]]:
    """What the page's inputs show, and the names that the backbone has never seen.

    `pamr` is 'method', 'on' or 'off'; None leaves `std` and `prob_thd` to the method.

    Raises:
        ValueError, OSError: something that cannot be used; says which and why.
    """
    picture = read_upload(path)
    names = vocabulary_of(classes, background).names  # before the minutes that weights may take
    segmenter = load(backbone)
    segment = prepare(segmenter, classes, background, method, std, pamr, prob_thd)
    return segment(picture), unknown_names(names, known_words(segmenter.checkpoint.metadata))


def prepare(
    segmenter: Segmenter,
    classes: str,
    background: str,
    method: str,
    std: float | None,
    pamr: str,
    prob_thd: float | None,
) -> PreparedSegmenter:
    """A backbone, ready for pictures under the page's inputs: see above."""
    return segmenter.prepare(
        classes,
        background,
        method=method,
        gaussian_std=std,
        pamr={'method': None, 'on': True, 'off': False}[pamr],
        prob_thd=prob_thd,
    )


def shown(seen: Segmentation, index: int) -> Image.Image:
    """What is drawn: all classes (-1), or where the class of an index scores how high."""
    drawn = drawing.blend(seen.picture, seen.labels, seen.colours) if index < 0 else seen.heat_map(index)
    factor = shown_factor(seen)
    return drawn.resize((factor * drawn.width, factor * drawn.height), Image.Resampling.NEAREST)


def shown_factor(seen: Segmentation) -> int:
    """How much larger a drawing is shown. The browser cannot do it: gradio would mistake where a click is."""
    return max(SHOWN_SIDE // max(drawing.looked_at(seen.labels.shape)), 1)


def picture_point(seen: Segmentation, x: int, y: int) -> tuple[int, int] | None:
    """The picture's pixel (x, y) under a pixel of what is shown; None beside the picture."""
    height, width = seen.labels.shape
    shown_height, shown_width = (shown_factor(seen) * side for side in drawing.looked_at((height, width)))
    if not (0 <= x < shown_width and 0 <= y < shown_height):
        return None
    return (2 * x + 1) * width // (2 * shown_width), (2 * y + 1) * height // (2 * shown_height)


def describe_point(seen: Segmentation, x: int, y: int) -> Scores:
    """The scores of all classes at a pixel of the picture, best first."""
    (height, width), (h, w) = seen.labels.shape, seen.scores.shape[1:]
    scores = seen.scores[:, (2 * y + 1) * h // (2 * height), (2 * x + 1) * w // (2 * width)]
    return [(int(i), float(scores[i])) for i in (-scores).argsort(kind='stable')]


def legend_html(seen: Segmentation) -> str:
    """Swatch, name and share of every class that is there, largest first; then the names of the others."""
    order = sorted(range(len(seen.names)), key=lambda i: -seen.shares[i])
    rows = [_row(seen, i, drawing.percent(seen.shares[i])) for i in order if seen.shares[i]]
    missing = ', '.join(html.escape(seen.names[i]) for i in order if not seen.shares[i])
    return _listing('Share of the picture', rows, f'<p>Not seen: {missing}</p>' if missing else '')


def point_html(seen: Segmentation, x: int, y: int) -> str:
    """The scores of all classes at a pixel of the picture, best first, each with a bar."""
    rows = [_row(seen, i, f'{score:.3f}', score) for i, score in describe_point(seen, x, y)]
    label = html.escape(seen.names[seen.labels[y, x]])
    return _listing(f'Scores at {x}, {y}: <b>{label}</b>', rows)


def _listing(title: str, rows: Sequence[str], remark: str = '') -> str:
    return f'<div class="listing"><p>{title}</p><table><tbody>{"".join(rows)}</tbody></table>{remark}</div>'


def _row(seen: Segmentation, index: int, value: str, bar: float | None = None) -> str:
    colour = 'rgb({}, {}, {})'.format(*seen.colours[index])
    drawn = '' if bar is None else f'<div class="bar" style="width: {100 * bar:.1f}%; background: {colour}"></div>'
    return (
        f'<tr><td><span class="swatch" style="background: {colour}"></span></td>'
        f'<td>{html.escape(seen.names[index])}{drawn}</td><td>{value}</td></tr>'
    )


def write_examples(folder: Path) -> list[Path]:
    """Write the pictures of EXAMPLES; returns their paths."""
    folder.mkdir()
    paths = [folder / f'shapes-{number}.png' for number, _, _ in EXAMPLES]
    for path, (number, _, _) in zip(paths, EXAMPLES, strict=True):
        pixels, _ = shapes.draw(RandomState([shapes.VAL_SEED, number]), shapes.VAL_SIZE)
        Image.fromarray(pixels).save(path)
    return paths
