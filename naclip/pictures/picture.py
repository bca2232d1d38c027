"""Pictures of any kind to RGB, and the sizes at which they are worked on.

Sizes are (height, width) in pixels.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from clip import MEAN, STD

LONGEST_SIDE = 2048  # of the network's input, as in the benchmarks' configs


def read_picture(path: str | os.PathLike) -> Image.Image:
    """Read a picture in any format that Pillow opens, as RGB, the way up that its EXIF data says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, a damaged or huge one, or values that have no meaning as a colour.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is a folder, not a picture' if path.is_dir() else f'{path} does not exist')
    try:
        with Image.open(path) as file:
            return to_rgb(file)
    except Image.UnidentifiedImageError:
        raise ValueError(f'{path} is not a picture of a known format') from None
    except Exception as error:  # decoders raise anything
        raise ValueError(f'cannot read {path}: {error}'.replace('\n', ' ')) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as 8-bit RGB: turned as its EXIF data says, on white where it is transparent.

    Grey values of 16 bits, and floating-point ones from 0 to 1 or from 0 to 255, are brought to 8 bits.

    Raises:
        ValueError: grey values of another range.
    """
    image = ImageOps.exif_transpose(image)  # a copy in any case
    if image.mode.startswith(('I', 'F')):
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return image if image.mode == 'RGB' else image.convert('RGB')


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Grey values (H, W) of 16 bits or floating point -> uint8."""
    low, high = values.min(), values.max()  # NaN, where there is one
    whole = np.issubdtype(values.dtype, np.integer)
    limits = (65535,) if whole else (1, 255)
    limit = next((limit for limit in limits if low >= 0 and high <= limit), None)
    if limit is None:
        raise ValueError(f'grey values from {low} to {high}, expected 0 to {" or 0 to ".join(map(str, limits))}')
    return np.rint(values * (255 / limit)).astype(np.uint8)


def as_picture(image: str | os.PathLike | Image.Image | np.ndarray) -> Image.Image:
    """A file, a Pillow image, or an array of uint8 (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, as RGB.

    Raises:
        FileNotFoundError, ValueError: see `read_picture`; or an array of another shape or type.
    """
    if isinstance(image, str | os.PathLike):
        return read_picture(image)
    if isinstance(image, np.ndarray):
        colours = image.shape[2:]
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or colours not in ((), (3,), (4,)) or not image.size:
            raise ValueError(
                f'an array of {image.dtype} and shape {image.shape} is no picture: '
                'expected uint8 of shape (H, W), (H, W, 3) or (H, W, 4)'
            )
        return to_rgb(Image.fromarray(np.ascontiguousarray(image)))
    if isinstance(image, Image.Image):
        return to_rgb(image)
    raise ValueError(f'{type(image).__name__} is no picture: expected a path, a Pillow image or a NumPy array')


def fitting_size(size: tuple[int, int], short: int, long: int = LONGEST_SIDE) -> tuple[int, int]:
    """The largest size of this aspect whose sides are at most `long` and `short`, as MMSegmentation's Resize rounds."""
    factor = min(long / max(size), short / min(size))
    height, width = (int(side * factor + 0.5) for side in size)
    return height, width


def bounded_size(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """This size, or the largest of about its aspect with at most so many pixels."""
    height, width = size
    if height * width <= pixels:
        return size
    factor = (pixels / (height * width)) ** 0.5
    short = max(int(min(size) * factor), 1)
    long = min(int(max(size) * factor), pixels // short)
    return (short, long) if height <= width else (long, short)


def network_input(
    picture: Image.Image, size: tuple[int, int], mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> Tensor:
    """An RGB picture, resized (bilinear, as the benchmarks' harness does) and normalised: (1, 3, *size).

    `mean` and `std` are those of RGB in [0, 1]; default: CLIP's.
    """
    array = np.asarray(picture)
    if array.shape[:2] != size:
        array = cv2.resize(array, size[::-1], interpolation=cv2.INTER_LINEAR)
    shift, scale = (torch.tensor([255 * value for value in values]).view(3, 1, 1) for values in (mean, std))
    return ((torch.from_numpy(array.copy()).permute(2, 0, 1).float() - shift) / scale)[None]
