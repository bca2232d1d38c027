"""The embedded benchmark, `shapes`: generated pictures whose label maps are known.

A picture is a few regions of *stuff* (textures such as grass or brick) with objects on them, or without. What a class
looks like goes together: shape, colour and texture. Everything is drawn from NumPy's frozen legacy generator with
integer arithmetic alone, so the same seed gives the same pixels on every machine.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import RandomState
from PIL import Image
from tqdm import tqdm

STUFF = ('grass', 'water', 'brick', 'sand', 'snow', 'wood', 'stone', 'sky')
OBJECTS = (
    *('sun', 'tree', 'fish', 'house', 'ball', 'heart'),
    *('flower', 'mushroom', 'car', 'cat', 'butterfly', 'frog'),
)
CLASSES = STUFF + OBJECTS
PALETTE = (
    *((96, 168, 56), (44, 120, 178), (176, 84, 60), (224, 192, 128)),
    *((236, 240, 248), (128, 88, 52), (132, 132, 136), (150, 204, 244)),
    *((255, 216, 40), (18, 92, 60), (255, 128, 16), (112, 28, 60), (72, 72, 220), (255, 92, 160)),
    *((150, 80, 210), (220, 24, 28), (24, 60, 140), (24, 24, 28), (0, 190, 190), (190, 240, 40)),
)

TRAIN_SIDE = 64  # the side of the pictures the shipped CLIP is trained on
VAL_COUNT, VAL_SIZE, VAL_SEED = 200, (112, 160), 20250
VAL_SHA256 = 'b78b1e95c3066057505d0c260375adc3e27f18a5b0687fbffdc55bcca3d23d8d'
PICTURES, LABELS = 'img_dir/val', 'ann_dir/val'  # folders of the validation set

_FINE = 2  # pictures are drawn this much larger, then averaged down, for smooth edges
_REGION, _OBJECT = 40 * 64, 30 * 64  # about so many pixels a region, and a tried object
_TURNS = ((1, 0, 1), (24, 7, 25), (24, -7, 25), (12, 5, 13), (12, -5, 13))  # (cos, sin, 1) as integers: 0, ±16°, ±23°

Colour = tuple[int, int, int]
Part = tuple[Colour, tuple]  # a colour and an ellipse (x, y, radius x, radius y) or a convex polygon of (x, y)


def _box(left: int, top: int, right: int, bottom: int) -> tuple:
    return (left, top), (right, top), (right, bottom), (left, bottom)


def _with_twin(*parts: Part) -> tuple[Part, ...]:
    """Parts and their mirror images in the vertical axis."""
    twins = []
    for colour, shape in parts:
        mirrored = tuple((-x, y) for x, y in shape) if isinstance(shape[0], tuple) else (-shape[0], *shape[1:])
        twins += [(colour, shape), (colour, mirrored)]
    return tuple(twins)


# An object: the parts that are its outline, and the details painted inside that outline, both from back to front.
# Units: the object's box reaches from -32 to 32, y down.
_DRAWINGS: dict[str, tuple[tuple[Part, ...], tuple[Part, ...]]] = {
    'sun': (
        (
            ((255, 176, 16), ((0, -31), (31, 0), (0, 31), (-31, 0))),
            ((255, 176, 16), _box(-22, -22, 22, 22)),
            ((255, 222, 48), (0, 0, 21, 21)),
        ),
        (((255, 240, 130), (-5, -5, 11, 11)),),
    ),
    'tree': (
        (
            ((104, 62, 30), _box(-5, 18, 5, 31)),
            ((14, 84, 58), ((0, -10), (27, 22), (-27, 22))),
            ((20, 98, 66), ((0, -22), (23, 8), (-23, 8))),
            ((30, 114, 76), ((0, -31), (17, -8), (-17, -8))),
        ),
        (),
    ),
    'fish': (
        (
            ((236, 96, 8), ((10, 0), (31, -19), (31, 19))),
            ((236, 96, 8), ((-10, -14), (12, -25), (14, -8))),
            ((255, 128, 20), (-6, 0, 25, 18)),
        ),
        (
            ((255, 250, 240), _box(-15, -30, -8, 30)),
            ((255, 250, 240), _box(5, -30, 11, 30)),
            ((20, 20, 24), (-23, -4, 3, 3)),
        ),
    ),
    'house': (
        (
            ((150, 66, 80), _box(12, -28, 20, -8)),
            ((250, 232, 196), _box(-24, -5, 24, 29)),
            ((124, 24, 58), ((0, -30), (31, -3), (-31, -3))),
        ),
        (
            ((112, 62, 36), _box(-6, 10, 6, 30)),
            *_with_twin(((84, 160, 214), _box(10, 4, 20, 14))),
        ),
    ),
    'ball': (
        (((250, 250, 250), (0, 0, 29, 29)),),
        (
            ((44, 64, 220), ((0, 0), (0, -60), (52, -30))),
            ((44, 64, 220), ((0, 0), (52, 30), (0, 60))),
            ((44, 64, 220), ((0, 0), (-52, 30), (-52, -30))),
            ((250, 250, 250), (0, 0, 6, 6)),
        ),
    ),
    'heart': (
        (
            *_with_twin(((255, 84, 156), (-14, -11, 16, 16))),
            ((255, 84, 156), ((-28, -3), (28, -3), (0, 30))),
            ((255, 84, 156), ((-14, -20), (14, -20), (24, 1), (-24, 1))),
        ),
        (((255, 190, 220), (-16, -15, 6, 5)),),
    ),
    'flower': (
        (
            *_with_twin(((158, 84, 222), (-16, -9, 13, 13)), ((136, 64, 204), (-16, 9, 13, 13))),
            ((158, 84, 222), (0, -18, 13, 13)),
            ((136, 64, 204), (0, 18, 13, 13)),
            ((255, 214, 64), (0, 0, 10, 10)),
        ),
        (),
    ),
    'mushroom': (
        (
            ((240, 222, 190), ((-9, 0), (9, 0), (13, 30), (-13, 30))),
            ((216, 24, 30), (0, -8, 30, 21)),
        ),
        (
            ((255, 250, 245), (0, -18, 6, 5)),
            *_with_twin(((255, 250, 245), (-18, -10, 6, 6)), ((255, 250, 245), (-6, 4, 5, 4))),
        ),
    ),
    'car': (
        (
            ((24, 64, 168), ((-17, -17), (13, -17), (24, 0), (-24, 0))),
            ((30, 76, 196), _box(-31, -3, 31, 15)),
            *_with_twin(((26, 26, 30), (-17, 15, 9, 9))),
        ),
        (
            ((200, 226, 240), ((-14, -13), (-2, -13), (-2, -3), (-18, -3))),
            ((200, 226, 240), ((2, -13), (11, -13), (18, -3), (2, -3))),
            *_with_twin(((180, 180, 186), (-17, 15, 4, 4))),
            ((255, 226, 90), (-30, 3, 4, 4)),
        ),
    ),
    'cat': (
        (
            *_with_twin(((34, 32, 38), ((-28, -30), (-4, -18), (-26, 2)))),
            ((40, 38, 44), (0, 3, 29, 25)),
        ),
        (
            *_with_twin(
                ((150, 230, 70), (-12, -2, 6, 6)),
                ((10, 10, 12), (-12, -2, 2, 5)),
                ((90, 86, 96), (-6, 14, 7, 6)),
            ),
            ((240, 130, 150), ((-4, 8), (4, 8), (0, 13))),
        ),
    ),
    'butterfly': (
        (
            *_with_twin(((0, 196, 196), (-16, -12, 15, 16)), ((0, 168, 180), (-13, 15, 12, 13))),
            ((30, 40, 60), (0, 0, 4, 26)),
        ),
        _with_twin(((250, 250, 160), (-18, -14, 6, 7)), ((16, 60, 80), (-14, 16, 5, 6))),
    ),
    'frog': (
        (
            *_with_twin(((150, 214, 40), (-16, -16, 12, 12))),
            ((160, 226, 48), (0, 6, 30, 23)),
        ),
        (
            *_with_twin(((255, 255, 255), (-16, -17, 8, 8)), ((10, 10, 10), (-16, -17, 4, 4))),
            ((70, 120, 20), (0, 14, 19, 5)),
            ((160, 226, 48), (0, 11, 20, 5)),
        ),
    ),
}


def _draws(rng: RandomState, low: int, high: int, shape: Sequence[int] | None = None) -> np.ndarray:
    """Integers from low to high, both included, of a fixed width: the default one differs between machines."""
    return rng.randint(low, high + 1, size=shape, dtype=np.int32)


def _noise(rng: RandomState, h: int, w: int, cell_h: int, cell_w: int, amplitude: int) -> np.ndarray:
    """Smooth noise: random values at the corners of cells, interpolated between them; int32 (h, w)."""
    corners = _draws(rng, -amplitude, amplitude, (h // cell_h + 2, w // cell_w + 2))
    row, to_next = np.divmod(np.arange(h, dtype=np.int32)[:, None], cell_h)
    rows = corners[row[:, 0]] * (cell_h - to_next) + corners[row[:, 0] + 1] * to_next
    column, to_next = np.divmod(np.arange(w, dtype=np.int32), cell_w)
    return (rows[:, column] * (cell_w - to_next) + rows[:, column + 1] * to_next) // (cell_h * cell_w)


def _texture(name: str, rng: RandomState, h: int, w: int) -> np.ndarray:
    """A canvas full of one stuff class: int32 (h, w, 3)."""
    y = np.arange(h, dtype=np.int32)[:, None] + _draws(rng, 0, 999)
    x = np.arange(w, dtype=np.int32)[None] + _draws(rng, 0, 999)
    jitter = _draws(rng, -24, 24, (64,))  # a value for every brick, plank or cobble
    base: Colour
    if name == 'grass':
        base = (92, 164, 52)
        shade = _noise(rng, h, w, 14, 3, 44) + _noise(rng, h, w, 24, 24, 14)
    elif name == 'water':
        base = (44, 118, 178)
        wave = (y + _noise(rng, h, w, 24, 14, 14)) % 18
        shade = np.where(wave < 4, 52, 0) + np.where(wave > 13, -16, 0)
    elif name == 'brick':
        row = y // 14
        across = x + row % 2 * 16
        shade = jitter[(row * 7 + across // 32 * 5) % 64] + _noise(rng, h, w, 3, 3, 10)
        mortar = (y % 14 < 3) | (across % 32 < 3)
        return np.where(mortar[..., None], np.int32((206, 196, 184)), np.int32((178, 78, 56)) + shade[..., None])
    elif name == 'sand':
        base = (226, 194, 132)
        shade = _noise(rng, h, w, 3, 3, 34) + _noise(rng, h, w, 24, 32, 10)
    elif name == 'snow':
        base = (238, 242, 250)
        shade = _noise(rng, h, w, 16, 22, 16)
        shade = np.where(_draws(rng, 0, 31, (h, w)) == 0, -44, shade)
    elif name == 'wood':
        base = (140, 94, 54)
        plank = x // 22
        shade = jitter[plank % 64] // 2 + _noise(rng, h, w, 40, 4, 26)
        shade = np.where(x % 22 < 2, -72, shade)
    elif name == 'stone':
        row = y // 16
        across = x + row % 2 * 10
        inside = ((y % 16 * 2 - 15) * 9) ** 2 + ((across % 20 * 2 - 19) * 7) ** 2 <= 143**2
        shade = np.where(inside, jitter[(row * 11 + across // 20 * 3) % 64] + _noise(rng, h, w, 4, 4, 10), -78)
        base = (146, 146, 150)
    else:
        cloud = np.clip(_noise(rng, h, w, 18, 34, 90) + _noise(rng, h, w, 9, 14, 40) - 26, 0, 60)
        return np.int32((140, 200, 245)) + cloud[..., None] * np.int32((7, 4, 1)) // 6
    return np.int32(base) + shade[..., None]


def _regions(rng: RandomState, h: int, w: int) -> np.ndarray:
    """Which region a fine pixel is in: the nearest of a few points, seen through smooth displacements."""
    area = h * w // _FINE**2
    count = 1 if _draws(rng, 0, 3) == 0 else 1 + _draws(rng, 1, max(1, area // _REGION))
    y = np.arange(h, dtype=np.int32)[:, None] + _noise(rng, h, w, 28, 28, 14)
    x = np.arange(w, dtype=np.int32)[None] + _noise(rng, h, w, 28, 28, 14)
    points = zip(_draws(rng, 0, h, (count,)), _draws(rng, 0, w, (count,)), strict=True)
    return np.argmin([(y - py) ** 2 + (x - px) ** 2 for py, px in points], axis=0)


def _covers(shape: tuple, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where an ellipse or a convex polygon is; u to the right and v down in 1/8 of the drawings' units."""
    if not isinstance(shape[0], tuple):
        x, y, rx, ry = shape
        return ((u - 8 * x) * ry) ** 2 + ((v - 8 * y) * rx) ** 2 <= (8 * rx * ry) ** 2
    sides = [
        (x1 - x0) * (v - 8 * y0) - (y1 - y0) * (u - 8 * x0)
        for (x0, y0), (x1, y1) in zip(shape, (*shape[1:], shape[0]), strict=True)
    ]
    return np.all([s >= 0 for s in sides], axis=0) | np.all([s <= 0 for s in sides], axis=0)


def _paint_object(rng: RandomState, name: str, canvas: np.ndarray, label: np.ndarray, taken: np.ndarray) -> None:
    """Paint an object somewhere, part of it maybe outside, unless it would touch another one."""
    h, w = label.shape
    side = _FINE * _draws(rng, 28, 44)
    top, left = _draws(rng, -side // 4, h - 3 * side // 4), _draws(rng, -side // 4, w - 3 * side // 4)
    cos, sin, unit = _TURNS[_draws(rng, 0, len(_TURNS) - 1)]
    flip, light = 1 - 2 * _draws(rng, 0, 1), _draws(rng, -14, 14)

    rows, columns = slice(max(top, 0), min(top + side, h)), slice(max(left, 0), min(left + side, w))
    if taken[rows, columns].any():
        return
    taken[rows, columns] = True
    y = (np.arange(rows.start, rows.stop, dtype=np.int32)[:, None] - top) * 512 // side - 256
    x = ((np.arange(columns.start, columns.stop, dtype=np.int32)[None] - left) * 512 // side - 256) * flip
    u, v = (cos * x + sin * y) // unit, (cos * y - sin * x) // unit
    outline, details = _DRAWINGS[name]
    covered = np.zeros(u.shape, dtype=bool)
    patch = canvas[rows, columns]
    for colour, shape in outline:
        here = _covers(shape, u, v)
        patch[here] = np.int32(colour) + light
        covered |= here
    for colour, shape in details:
        patch[_covers(shape, u, v) & covered] = np.int32(colour) + light
    label[rows, columns][covered] = CLASSES.index(name)


def draw(rng: RandomState, size: int | tuple[int, int] = TRAIN_SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 (h, w, 3), and its label map, uint8 (h, w): indices into CLASSES, every pixel labelled."""
    h, w = (size, size) if isinstance(size, int) else size
    fine_h, fine_w = h * _FINE, w * _FINE
    region = _regions(rng, fine_h, fine_w)
    count = region.max() + 1
    stuff = rng.permutation(len(STUFF))[:count]
    label = stuff[region % len(STUFF)].astype(np.uint8)
    canvas = np.zeros((fine_h, fine_w, 3), dtype=np.int32)
    for i in stuff:
        light = _draws(rng, -10, 10)
        canvas = np.where((label == i)[..., None], _texture(STUFF[i], rng, fine_h, fine_w) + light, canvas)

    taken = np.zeros((fine_h, fine_w), dtype=bool)
    tries = 0 if _draws(rng, 0, 5) == 0 else _draws(rng, 1, max(2, 2 * h * w // _OBJECT))
    for name in rng.permutation(len(OBJECTS))[:tries]:
        _paint_object(rng, OBJECTS[name], canvas, label, taken)

    canvas += _draws(rng, -10, 10, canvas.shape)
    picture = canvas.reshape(h, _FINE, w, _FINE, 3).sum(axis=(1, 3)) // _FINE**2
    return np.clip(picture, 0, 255).astype(np.uint8), np.ascontiguousarray(label[::_FINE, ::_FINE])


def classes_present(label: np.ndarray) -> np.ndarray:
    """Which classes cover at least a 64th of a label map: bool (K,)."""
    return np.bincount(label.ravel(), minlength=len(CLASSES)) * 64 >= label.size


def caption(rng: RandomState, present: np.ndarray, templates: Sequence[str]) -> tuple[str, np.ndarray]:
    """A caption of a picture, and the classes it names: all, some or one of those `present`, both bool (K,).

    For example 'a photo of a frog, water and brick.'
    """
    order = rng.permutation(np.flatnonzero(present).astype(np.int32))
    whim = _draws(rng, 0, 9)
    if whim < 4:
        order = order[:1]
    elif whim < 7:
        order = order[: _draws(rng, 1, len(order))]
    *first, last = (CLASSES[i] for i in order)
    template = templates[_draws(rng, 0, len(templates) - 1)]
    named = np.zeros_like(present)
    named[order] = True
    return template.replace('{}', f'{", ".join(first)} and {last}' if first else last), named


def write_dataset(root: Path, count: int = VAL_COUNT, size: tuple[int, int] = VAL_SIZE, seed: int = VAL_SEED) -> None:
    """Write root/img_dir/val/*.png and root/ann_dir/val/*.png; root appears complete or not at all.

    Raises:
        FileExistsError: there is something at root already.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'{root.name}-', suffix='.part', dir=root.parent) as scratch:
        made = Path(scratch) / 'dataset'
        for folder in (PICTURES, LABELS):
            (made / folder).mkdir(parents=True)
        for i in tqdm(range(count), desc='drawing pictures', unit='picture'):
            picture, label = draw(RandomState([seed, i]), size)
            Image.fromarray(picture).save(made / PICTURES / f'{i:06d}.png')
            indexed = Image.fromarray(label)
            indexed.putpalette([value for colour in PALETTE for value in colour])
            indexed.save(made / LABELS / f'{i:06d}.png')
        try:
            made.rename(root)
        except OSError as error:
            raise FileExistsError(f'{root} exists already') from error


def pixel_checksum(root: Path) -> str:
    """SHA-256 over the decoded pictures and label maps, in order: how PNG files encode them does not matter."""
    sha256 = hashlib.sha256()
    for path in sorted((root / PICTURES).glob('*.png')):
        for file in (path, root / LABELS / path.name):
            with Image.open(file) as picture:
                pixels = np.asarray(picture)
            sha256.update(f'{file.name} {pixels.shape} '.encode() + pixels.tobytes())
    return sha256.hexdigest()


def ensure_dataset(cache_dir: Path) -> Path:
    """The folder of the validation pictures, made below `cache_dir` on first use.

    Raises:
        RuntimeError: the pixels are not those of every other machine: drawn differently here, or damaged since.
    """
    root = cache_dir / f'shapes-{VAL_SHA256[:12]}'
    if not root.exists():
        # Another process may be making it too: both make the same, and the first one's stays.
        with contextlib.suppress(FileExistsError):
            write_dataset(root)
    found = pixel_checksum(root)
    if found != VAL_SHA256:
        raise RuntimeError(
            f'the pictures in {root} are not those of the shapes benchmark (SHA-256 over the pixels {found}, expected '
            f'{VAL_SHA256}); delete that folder to have it made again, and report it if this message comes back'
        )
    return root
