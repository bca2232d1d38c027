"""A few pictures of a run to look at later: picture, ground truth and prediction, chosen while it runs.

WORK_DIR/gallery/ has a JPEG and two label maps (PNG) of each picture, at most LONGEST pixels long, and an index that
names them, written whole: `index.json`, and of further processes `index-<rank>.json`. Which pictures stay follows from
names and scores alone, not from their order: half of them are the same in every run over the same data, the rest are
the run's worst and best. Nothing here knows MMSegmentation.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from naclip.files import write_png, written_whole
from naclip.runs.per_image import picture_scores

GALLERY, INDEX = 'gallery', 'index'
LONGEST = 512  # pixels of a kept picture's long side
MOST = 64  # pictures: some MB
_INDEX = re.compile(rf'{INDEX}(?:-(\d+))?\.json')


@dataclass(frozen=True)
class Kept:
    """A picture of a gallery: its key in the data set, the stem of its files, its own mIoU in percent, its cells.

    `cells` are rows of label class, predicted class and pixels, counted at full size. A picture whose pixels are all
    ignored has no mIoU.
    """

    image: str
    stem: str
    miou: float | None
    cells: Sequence[Sequence[int]]

    @property
    def place(self) -> str:
        """Where it stands in an order of all pictures that has nothing to do with their names or content."""
        return digest(self.image)

    @property
    def files(self) -> tuple[str, str, str]:
        """The names of picture, ground truth and prediction."""
        return f'{self.stem}.jpg', f'{self.stem}_truth.png', f'{self.stem}_prediction.png'


@dataclass(frozen=True)
class Index:
    """What a gallery has: room for so many pictures, K class names, their colours (K, 3), and pictures by key."""

    limit: int
    names: Sequence[str]
    palette: Sequence[Sequence[int]]
    pictures: Mapping[str, Kept]


def digest(key: str) -> str:
    """A picture's key as 16 hexadecimal digits. A key need not be UTF-8."""
    return hashlib.sha256(os.fsencode(key)).hexdigest()[:16]


def choose(kept: Iterable[Kept], limit: int) -> dict[str, Kept]:
    """At most `limit` of the pictures, by key: half the first by `place`, a quarter each the worst and best others.

    What is chosen of a choice and more pictures is what would be chosen of all of them.
    """
    edge = limit // 4
    placed = sorted(kept, key=lambda picture: picture.place)
    fixed, others = placed[: limit - 2 * edge], placed[limit - 2 * edge :]
    scored = sorted((picture for picture in others if picture.miou is not None), key=lambda picture: picture.miou)
    best = scored[max(len(scored) - edge, 0) :]
    return {picture.image: picture for picture in (*fixed, *scored[:edge], *best)}


def ignored_value(classes: int) -> int:
    """What stands for ignored pixels in a gallery's label maps: 8 bits where the classes leave room for it."""
    return 255 if classes <= 255 else 65535


def reduced_size(size: tuple[int, int]) -> tuple[int, int]:
    """A size (H, W) at which the long side is at most LONGEST."""
    factor = min(LONGEST / max(size), 1)
    height, width = (max(round(side * factor), 1) for side in size)
    return height, width


def reduced_labels(labels: np.ndarray | Tensor, classes: int) -> np.ndarray:
    """Labels (H, W), or (1, H, W), at the reduced size, nearest: uint8 or uint16; what is no class is ignored."""
    whole = torch.as_tensor(labels).cpu().numpy()
    whole = whole.reshape(whole.shape[-2:])
    height, width = reduced_size(whole.shape)
    rows, columns = (
        (2 * np.arange(n) + 1) * full // (2 * n) for n, full in zip((height, width), whole.shape, strict=True)
    )
    small = whole[rows[:, None], columns].astype(np.int64)
    ignored = ignored_value(classes)
    small[(small < 0) | (small >= classes)] = ignored
    return small.astype(np.uint8 if ignored == 255 else np.uint16)


def label_image(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> Image.Image:
    """A label map (h, w) as an indexed picture, ignored pixels white; 16-bit grey where there are too many classes."""
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        colours = np.full((256, 3), 255, np.uint8)
        colours[: len(palette)] = palette
        image.putpalette(colours.ravel().tolist())
    return image


def small_picture(path: str | os.PathLike, size: tuple[int, int]) -> Image.Image:
    """A picture file as RGB at a size (H, W); of one with another aspect the middle, as labels were cropped."""
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file).convert('RGB')
    return ImageOps.fit(picture, size[::-1], Image.Resampling.BILINEAR)


class Gallery:
    """The gallery that one process of a run fills; an earlier attempt's is gone on with.

    Args:
        folder: WORK_DIR/gallery; made when the first picture is kept.
        limit: the number of pictures, 1 to MOST.
        palette: the classes' colours (K, 3), 0 to 255.
        names: the K class names.
        rank: of the process.

    Raises:
        ValueError: another limit, or an index that is damaged or of other classes.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        limit: int,
        palette: Sequence[Sequence[int]],
        names: Sequence[str],
        rank: int = 0,
    ):
        if not 1 <= limit <= MOST:
            raise ValueError(f'a gallery of {limit} pictures was asked for, expected 1 to {MOST}')
        self.folder, self.limit, self.rank = Path(folder), limit, rank
        self.names, self.palette = list(names), [[int(value) for value in colour] for colour in palette]
        if len(self.names) != len(self.palette):
            raise ValueError(f'{len(self.names)} class names and {len(self.palette)} colours, expected one for each')
        self._kept: dict[str, Kept] = {}
        if self._index.is_file():
            earlier = _read_index(self._index)
            if list(earlier.names) != self.names:
                raise ValueError(f'{self._index} is of other classes; remove {self.folder}, or leave out --resume')
            self._kept = dict(earlier.pictures)
        self._remove_rest()

    @property
    def _index(self) -> Path:
        return self.folder / (f'{INDEX}-{self.rank}.json' if self.rank else f'{INDEX}.json')

    def offer(
        self,
        key: str,
        img_path: str | os.PathLike,
        labels: np.ndarray | Tensor,
        prediction: np.ndarray | Tensor,
        cells: np.ndarray,
    ) -> bool:
        """Show a picture to the gallery, which keeps it if it is among those to keep; returns whether it did.

        `labels` and `prediction` are (H, W), or (1, H, W), of one size; `cells` (N, 3) are those of the journal
        (`naclip.runs.journal`). A picture that is offered again takes its own place. Offer before the journal has the
        picture: what the journal has is not evaluated again.
        """
        miou = picture_scores(cells, self.names)['mIoU']
        stem = digest(key) + (f'-{self.rank}' if self.rank else '')
        offered = Kept(key, stem, miou, np.asarray(cells).tolist())
        kept = choose((self._kept | {key: offered}).values(), self.limit)
        if key in kept:
            self._write(img_path, labels, prediction, offered)
        if kept != self._kept:
            gone = [picture for image, picture in self._kept.items() if image not in kept]
            self._kept = kept
            self._write_index()
            for picture in gone:
                self._remove(picture)
        return key in kept

    def _write(self, img_path: str | os.PathLike, labels, prediction, kept: Kept) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        maps = [reduced_labels(values, len(self.names)) for values in (labels, prediction)]
        jpeg, *pngs = (self.folder / name for name in kept.files)
        with written_whole(jpeg) as temporary:
            small_picture(img_path, maps[0].shape).save(temporary, format='JPEG', quality=80)
        for path, small in zip(pngs, maps, strict=True):
            write_png(label_image(small, self.palette), path)

    def _write_index(self) -> None:
        pictures = [asdict(picture) for picture in self._kept.values()]
        content = {'limit': self.limit, 'names': self.names, 'palette': self.palette, 'pictures': pictures}
        with written_whole(self._index) as temporary:
            temporary.write_text(json.dumps(content, separators=(',', ':')) + '\n', encoding='ascii')

    def _remove_rest(self) -> None:
        """Remove what a killed process was writing, or had not yet removed."""
        suffix = f'-{self.rank}' if self.rank else ''
        known = {name for picture in self._kept.values() for name in picture.files}
        own = re.compile(rf'[0-9a-f]{{16}}{suffix}(\.jpg|_truth\.png|_prediction\.png)')
        for path in list(self.folder.iterdir()) if self.folder.is_dir() else []:
            name = re.sub(r'^\.(.*)\.\d+\.tmp$', r'\1', path.name)
            if (own.fullmatch(name) or name == self._index.name) and path.name not in (*known, self._index.name):
                path.unlink()

    def _remove(self, picture: Kept) -> None:
        for name in picture.files:
            (self.folder / name).unlink(missing_ok=True)


def _read_index(path: Path) -> Index:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        pictures = [Kept(*(entry[key] for key in ('image', 'stem', 'miou', 'cells'))) for entry in content['pictures']]
        limit, names, palette = int(content['limit']), list(content['names']), list(content['palette'])
        stems = [re.fullmatch(r'[0-9a-f]{16}(-\d+)?', picture.stem) for picture in pictures]  # no way out of the folder
        colours = np.array(palette, np.uint8).reshape(len(names), 3)
        if not all(stems) or not all(isinstance(text, str) for text in (*names, *(p.image for p in pictures))):
            raise ValueError('names that are none')
        wrong = [p for p in pictures if not (p.miou is None or 0 <= p.miou <= 100) or _foreign(p.cells, len(names))]
        if wrong:
            raise ValueError(f'the scores of {wrong[0].image!r} are none')
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError(f'{path} is damaged ({error}); remove its folder, and evaluate again') from None
    return Index(limit, names, colours.tolist(), {picture.image: picture for picture in pictures})


def _foreign(cells: Sequence[Sequence[int]], classes: int) -> bool:
    """Whether a picture's cells have other values than classes and pixels."""
    rows = np.array(cells, np.int64).reshape(-1, 3)
    return bool((rows < 0).any() or (rows[:, :2] >= classes).any())


def read_gallery(folder: Path) -> Index | None:
    """What the processes of a run kept, chosen as one would have; None without a gallery.

    Raises:
        ValueError: an index is damaged, or two are of different classes.
    """
    found = [(path, _INDEX.fullmatch(path.name)) for path in folder.glob(f'{INDEX}*.json')]
    paths = [path for _, path in sorted((int(name[1] or 0), path) for path, name in found if name)]
    if not paths:
        return None
    parts = [_read_index(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.names != parts[0].names:
            raise ValueError(f'{path} and {paths[0]} are of different classes; remove {folder}, and evaluate again')
    pictures: dict[str, Kept] = {}
    for part in parts:
        pictures = dict(part.pictures) | pictures
    return replace(parts[0], pictures=choose(pictures.values(), parts[0].limit))


def discard_gallery(folder: Path) -> None:
    """Remove a gallery, for a run that starts over."""
    shutil.rmtree(folder, ignore_errors=True)
