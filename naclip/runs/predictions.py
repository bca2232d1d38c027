"""Predicted label maps on disk: indexed PNG files in class ids, named as their pictures.

K classes; H, W pixels. Up to 256 classes a file has 8 bits and a palette, beyond that 16 bits of grey. Nothing here
knows MMSegmentation.
"""

import io
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from naclip.files import read_whole, write_png

SUFFIX = '.png'
SIGNATURE = b'\x89PNG\r\n\x1a\n'
DEPTH, COLOUR_TYPE = 24, 25  # where a PNG's header has its bits a channel, and its kind of pixels
GREY, PALETTE = 0, 3
MOST_CLASSES = 1 << 16


def prediction_name(key: str) -> str:
    """The path, below a folder of predictions, of the picture with this key: 'a/b.jpg' -> 'a/b.png'.

    Keys may be paths from elsewhere; what would lead out of the folder is left out.
    """
    path = PurePosixPath(key)
    return (
        PurePosixPath(*(part for part in path.parts if part not in (path.anchor, '..'))).with_suffix(SUFFIX).as_posix()
    )


def check_prediction_names(keys: Iterable[str]) -> None:
    """Make sure, before anything is predicted, that every picture gets a file of its own.

    Raises:
        ValueError: two pictures differ in their suffix alone; names them.
    """
    found: dict[str, str] = {}
    for key in keys:
        other = found.setdefault(prediction_name(key), key)
        if other != key:
            raise ValueError(
                f'{other} and {key} would have one file of predictions, {prediction_name(key)}: rename one'
            )


def write_prediction(
    folder: str | os.PathLike, key: str, labels: np.ndarray, palette: Sequence[Sequence[int]] | np.ndarray
) -> Path:
    """Write the labels (H, W) of the picture with this key, whole or not at all; returns the file.

    `palette` has the colour (R, G, B) of every class, K in all, and so decides on the number of bits.

    Raises:
        ValueError: no map of class ids from 0 to K - 1, or more classes than 16 bits can tell apart.
    """
    labels, classes = np.asarray(labels), len(palette)
    if labels.ndim != 2 or labels.dtype.kind not in 'iu' or not labels.size:
        raise ValueError(f'labels of {key} are {labels.dtype} {labels.shape}, expected whole numbers (H, W)')
    if not 1 <= classes <= MOST_CLASSES:
        raise ValueError(f'there are {classes} classes, expected 1 to {MOST_CLASSES}')
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f'labels of {key} go from {low} to {high}, expected 0 to {classes - 1}')
    if classes <= 256:
        image = Image.fromarray(labels.astype(np.uint8))
        image.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
    else:
        image = Image.fromarray(labels.astype(np.uint16))
    path = Path(folder) / prediction_name(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(image, path)
    return path


def read_prediction(path: str | os.PathLike) -> np.ndarray:
    """The class ids (H, W) in a PNG file of up to 16 bits, grey or with a palette: uint8, or uint16 for 16 bits.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a PNG, damaged, or a picture in colours; names the file.
    """
    path = Path(path)
    try:
        content = read_whole(path)
    except ValueError as error:
        raise ValueError(f'{path} cannot be read: {error}') from None
    if not content.startswith(SIGNATURE):
        raise ValueError(f'{path} is no PNG: label maps are expected as PNG files in class ids, of 8 or 16 bits')
    depth, colour_type = content[DEPTH], content[COLOUR_TYPE]
    if colour_type not in (GREY, PALETTE):
        raise ValueError(
            f'{path} is a picture in colours or with transparency, expected class ids: grey or with a palette, one '
            'channel of 8 or 16 bits'
        )
    try:
        with Image.open(io.BytesIO(content)) as file:
            values = np.array(file)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f'{path} cannot be read: {error}') from error
    if colour_type == GREY and depth in (2, 4):  # Pillow spreads these over 0 to 255
        values = values // (255 // ((1 << depth) - 1))
    return values.astype(np.uint16 if depth == 16 else np.uint8)


def find_predictions(folder: Path, keys: Sequence[str]) -> Mapping[str, Path]:
    """The file of each picture: of its key's name, or else of its stem, wherever that is, where only one has it.

    Raises:
        FileNotFoundError: no such folder, or a picture without a file; names the first, and says how many there are.
        ValueError: several files, or several pictures, of one stem; names them.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'predictions {folder}: there is no such folder')
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob(f'*{SUFFIX}')):
        if not path.name.startswith('.') and path.is_file():
            by_stem[path.stem].append(path)
    owners: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        owners[PurePosixPath(key).stem].append(key)
    found, missing = {}, []
    for key in keys:
        exact, stem = folder / prediction_name(key), PurePosixPath(key).stem
        if exact.is_file():
            found[key] = exact
        elif stem not in by_stem:
            missing.append(key)
        elif len(by_stem[stem]) > 1 or len(owners[stem]) > 1:
            several = by_stem[stem] if len(by_stem[stem]) > 1 else owners[stem]
            raise ValueError(
                f'which prediction is of {key} cannot be told, {several[0]} and {several[1]} have one name: '
                f'expected {exact}'
            )
        else:
            found[key] = by_stem[stem][0]
    if missing:
        raise FileNotFoundError(
            f'{folder / prediction_name(missing[0])} is missing, the prediction of {missing[0]} '
            f'({len(missing)} of {len(keys)} pictures have none)'
        )
    return found
