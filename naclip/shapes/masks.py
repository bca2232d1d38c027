"""Generated pictures with masks that have no class, in SA-1B's layout: what the embedded benchmark's CLIP can train on.

A picture's masks are made from its label map and its colours, and then the label map is thrown away. As SAM's, they
nest and overlap: things and regions, regions with what lies on them, parts of things, and neighbours taken together.
h, w are a picture's height and width.
"""

import contextlib
import json
import tempfile
from pathlib import Path

import numpy as np
from numpy.random import RandomState
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from naclip.data.run_lengths import encode
from naclip.shapes.generator import VAL_SIZE, draw

COUNT, SEED = 500, 4711  # the benchmark's own seed, and that of the CLIP's training, are others
SMALLEST = 12  # pixels of a mask
FOLDER = 'sa_000000'
LAYOUT = 1  # goes into the folder's name: raise it when the same seed would give other masks


def masks_of(rng: RandomState, picture: np.ndarray, label: np.ndarray) -> list[np.ndarray]:
    """Masks, bool (h, w), of a picture (h, w, 3) with a label map (h, w)."""
    pieces = []
    for value in np.unique(label):
        parts, count = ndimage.label(label == value)
        pieces += [parts == i for i in range(1, count + 1)]
    pieces = [piece for piece in pieces if piece.sum() >= SMALLEST]
    whole = [ndimage.binary_fill_holes(piece) for piece in pieces]
    masks = pieces + [filled for piece, filled in zip(pieces, whole, strict=True) if filled.sum() > piece.sum()]
    masks += [part for piece in pieces for part in _parts(picture, piece)]
    for i in range(len(pieces)):
        near = [other for other in pieces[i + 1 :] if (ndimage.binary_dilation(pieces[i]) & other).any()]
        if near and rng.randint(4) == 0:
            masks.append(pieces[i] | near[rng.randint(len(near))])
    return masks


def _parts(picture: np.ndarray, piece: np.ndarray) -> list[np.ndarray]:
    """The connected bright and dark parts of a piece, of those no larger than a fifth of the picture."""
    if piece.mean() > 0.2:
        return []
    grey = ndimage.uniform_filter(picture.astype(np.float32).mean(axis=2), 3)
    bright = grey > grey[piece].mean()
    found = []
    for side in (piece & bright, piece & ~bright):
        parts, count = ndimage.label(side)
        found += [parts == i for i in range(1, count + 1)]
    return [part for part in found if part.sum() >= 2 * SMALLEST]


def write_masked_pictures(root: Path, count: int = COUNT, size: tuple[int, int] = VAL_SIZE, seed: int = SEED) -> None:
    """Write root/images/sa_000000/sa_*.jpg and root/annotations/sa_000000/sa_*.json; root appears complete.

    Raises:
        FileExistsError: there is something at root already.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'{root.name}-', suffix='.part', dir=root.parent) as scratch:
        made = Path(scratch) / 'pictures'
        pictures, annotations = made / 'images' / FOLDER, made / 'annotations' / FOLDER
        pictures.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for i in tqdm(range(count), desc='drawing pictures with masks', unit='picture'):
            rng = RandomState([seed, i])
            picture, label = draw(rng, size)
            masks = masks_of(rng, picture, label)
            Image.fromarray(picture).save(pictures / f'sa_{i}.jpg', quality=95)
            about = {'image_id': i, 'width': size[1], 'height': size[0], 'file_name': f'sa_{i}.jpg'}
            entries = [{'id': n, 'area': int(m.sum()), 'segmentation': encode(m)} for n, m in enumerate(masks)]
            (annotations / f'sa_{i}.json').write_text(json.dumps({'image': about, 'annotations': entries}))
        try:
            made.rename(root)
        except OSError as error:
            raise FileExistsError(f'{root} exists already') from error


def ensure_masked_pictures(cache_dir: Path, count: int = COUNT) -> Path:
    """The folder of the pictures with masks, made below `cache_dir` on first use."""
    root = cache_dir / f'shapes-masks-{LAYOUT}-{count}'
    if not root.exists():
        # Another process may be making it too: both make the same, and the first one's stays.
        with contextlib.suppress(FileExistsError):
            write_masked_pictures(root, count)
    return root
