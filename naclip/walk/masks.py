"""Region masks of pictures, from a folder: an .npz or a 16-bit PNG for each picture, found by the picture's stem.

Shapes: H, W pixels of a picture.
"""

import hashlib
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clip.weights import file_sha256

KEY = 'instance_mask'  # of an .npz
SUFFIXES = ('.npz', '.png')


@dataclass(frozen=True)
class RegionMasks:
    """A folder of region masks: whole numbers, the smallest of a picture standing for what is in no region.

    Raises:
        FileNotFoundError: no such folder.
    """

    folder: Path

    def __post_init__(self):
        if not self.folder.is_dir():
            raise FileNotFoundError(f'region masks (--regions): there is no folder {self.folder}')

    def find(self, picture: str | os.PathLike) -> Path:
        """The mask file of a picture.

        Raises:
            FileNotFoundError: there is none; says what was looked for.
            ValueError: there are two.
        """
        stem = Path(picture).stem
        found = [path for suffix in SUFFIXES if (path := self.folder / f'{stem}{suffix}').is_file()]
        if not found:
            raise FileNotFoundError(
                f'no region mask of {picture}: expected {stem}.npz or {stem}.png in {self.folder}; '
                'tools/make_regions.py makes some'
            )
        if len(found) > 1:
            raise ValueError(f'two region masks of {picture}: {found[0]} and {found[1]}; remove one')
        return found[0]

    def read(self, picture: str | os.PathLike, size: tuple[int, int]) -> Tensor:
        """The mask of a picture of a size (H, W): (H, W), int64.

        Raises:
            FileNotFoundError, ValueError: no mask, one that cannot be read, or one of another size.
        """
        return as_mask(self.find(picture), size)

    def sha256(self, pictures: Iterable[str | os.PathLike]) -> str:
        """One SHA-256 for the masks of these pictures: that of their stems and their files' own.

        Raises:
            FileNotFoundError, ValueError: a mask is missing, or twice there.
        """
        digest = hashlib.sha256()
        for stem, path in sorted({Path(picture).stem: self.find(picture) for picture in pictures}.items()):
            digest.update(f'{stem} {file_sha256(path)}\n'.encode())
        return digest.hexdigest()

    def check(self, pictures: Iterable[str | os.PathLike]) -> None:
        """Make sure, before hours are spent, that every picture has a mask, and no two pictures share one.

        Raises:
            FileNotFoundError: masks are missing; names the first, and how many there are.
            ValueError: pictures of one stem, or two masks of a picture.
        """
        owners: dict[str, str] = {}
        missing = []
        for picture in map(str, pictures):
            other = owners.setdefault(Path(picture).stem, picture)
            if other != picture:
                raise ValueError(f'{other} and {picture} have one stem, so region masks cannot tell them apart')
            try:
                self.find(picture)
            except FileNotFoundError as error:
                missing.append(str(error))
        if missing:
            raise FileNotFoundError(f'{missing[0]} ({len(missing)} of {len(owners)} pictures have none)')


def as_mask(regions: str | os.PathLike | np.ndarray, size: tuple[int, int]) -> Tensor:
    """A mask file or ids, for a picture of a size (H, W): (H, W), int64.

    Raises:
        FileNotFoundError, ValueError: no such file, one that cannot be read, no ids, or those of another size.
    """
    if isinstance(regions, np.ndarray):
        name, ids = 'region mask', _checked(regions, 'region mask')
    else:
        name, ids = f'region mask {regions}', read_mask(Path(regions))
    if tuple(ids.shape) != tuple(size):
        raise ValueError(
            f'{name} has {ids.shape[0]}x{ids.shape[1]} pixels, expected {size[0]}x{size[1]}, the size of its picture'
        )
    return ids


def read_mask(path: Path) -> Tensor:
    """The ids of a mask file (H, W), int64.

    Raises:
        ValueError: it cannot be read, or holds no ids; says what was expected.
    """
    try:
        ids = _read_npz(path) if path.suffix == '.npz' else _read_png(path)
    except (OSError, EOFError, zipfile.BadZipFile, ValueError, SyntaxError) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f'cannot read the region mask {path}: {reason}') from None
    return _checked(ids, f'region mask {path}')


def _checked(ids: np.ndarray, name: str) -> Tensor:
    if ids.ndim != 2 or ids.dtype.kind not in 'iu':
        raise ValueError(f'{name} has shape {ids.shape} of {ids.dtype}, expected (height, width) of whole numbers')
    return torch.from_numpy(ids.astype(np.int64))


def _read_npz(path: Path) -> np.ndarray:
    with np.load(path) as file:
        if KEY not in file.files:
            raise ValueError(f'expected an array {KEY!r}, it has {", ".join(file.files) or "none"}')
        return file[KEY]


def _read_png(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        if file.mode not in ('I;16', 'I', 'L', 'P'):
            raise ValueError(f'its mode is {file.mode}, expected one channel of 16 or 8 bits')
        return np.array(file)
