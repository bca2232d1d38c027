"""Pictures and label maps of the user's own: which belong together, and what the maps hold.

K classes; H, W pixels.
"""

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from naclip.data.check import LABEL_MODES, Fault, Pair, PairScan, count_values, scan_pair
from naclip.files import read_whole

PICTURES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp', '.webp')
MAPS = ('.png', '.tif', '.tiff', '.bmp')  # without loss
IGNORED = '-'  # in place of a class, in a palette file

Palette = tuple[np.ndarray, np.ndarray]  # colours (., 3) uint8, and the value of each; -1 is ignored


def find_files(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """Files below a folder whose names end so, by their path in it without the ending; hidden ones are left out.

    Raises:
        FileNotFoundError: no such folder, or none in it.
        ValueError: two files that differ in their ending alone.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} is no folder')
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob('*')):
        inside = path.relative_to(folder)
        ending = next((end for end in endings if path.name.lower().endswith(end.lower())), None)
        if ending is None or not path.is_file() or any(part.startswith('.') for part in inside.parts):
            continue
        stem = inside.as_posix()[: -len(ending)]
        if stem in found:
            raise ValueError(f'{found[stem]} and {path} have one name: which of them counts cannot be told')
        found[stem] = path
    if not found:
        raise FileNotFoundError(f'{folder} has no file *{", *".join(endings)} in it, at any depth')
    return found


def find_own_pairs(images: Path, labels: Path, label_suffix: str | None = None) -> list[Pair]:
    """A label map for each picture: of the same path in its folder, or of the same name anywhere in it.

    `label_suffix` is what names of label maps have after the picture's, such as '_labels.png'.

    Raises:
        FileNotFoundError: a folder, or a picture's label map, is missing; says how many.
        ValueError: several label maps of a picture's name.
    """
    pictures = find_files(images, PICTURES)
    maps = find_files(labels, (label_suffix,) if label_suffix else MAPS)
    if images.resolve() == labels.resolve():
        taken = set(maps.values()) if label_suffix else set()
        pictures = {stem: path for stem, path in pictures.items() if path not in taken}
    by_name = defaultdict(list)
    for stem, path in maps.items():
        by_name[Path(stem).name].append(path)
    names = [Path(stem).name for stem in pictures]
    pairs, missing = [], []
    for stem, picture in pictures.items():
        name = Path(stem).name
        others = by_name[name]
        if stem in maps:
            pairs.append(Pair(picture, maps[stem]))
        elif not others:
            missing.append(picture)
        elif len(others) > 1 or names.count(name) > 1:
            raise ValueError(
                f'{picture}: which label map is its own cannot be told, such as {others[0]}; mirror folders'
            )
        else:
            pairs.append(Pair(picture, others[0]))
    if missing:
        expected = f'a file {Path(missing[0].stem).name}{label_suffix or ".png"} below {labels}'
        raise FileNotFoundError(
            f'{len(missing)} of {len(pictures)} pictures have no label map, such as {missing[0]}: expected {expected}; '
            '--label-suffix says what names of label maps end in'
        )
    return pairs


def read_palette(path: Path) -> Palette:
    """Read a palette file: 'R G B' a line, for label value 0, 1, ...; 'R G B -' is a colour that is ignored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is no colour, or a colour twice; says which.
    """
    if not path.is_file():
        raise FileNotFoundError(f'palette file {path} does not exist')
    colours: list[tuple[int, ...]] = []
    values: list[int] = []
    for number, line in enumerate(path.read_text(encoding='utf-8-sig').splitlines(), 1):
        parts = line.replace(',', ' ').split()
        if not parts:
            continue
        ignored = parts[3:] == [IGNORED]
        numbers = parts[:3] if ignored else parts
        if len(numbers) != 3 or not all(part.isdecimal() and int(part) < 256 for part in numbers):
            raise ValueError(
                f"palette file {path}, line {number}: {line.strip()!r} is no colour; expected 'R G B', 0 to 255, "
                "in the order of label values, or 'R G B -' for what is ignored"
            )
        colour = tuple(map(int, numbers))
        if colour in colours:
            raise ValueError(f'palette file {path}, line {number}: the colour {line.strip()!r} is there twice')
        colours.append(colour)
        values.append(-1 if ignored else sum(value >= 0 for value in values))
    if not colours:
        raise ValueError(f"palette file {path} is empty; expected 'R G B' a line, for label value 0, 1, ...")
    return np.array(colours, np.uint8), np.array(values)


def read_values(path: Path, palette: Palette | None = None) -> np.ndarray:
    """The label values in a file (H, W), int64: indices of 8 or 16 bits, or with a palette RGB colours; -1 is ignored.

    Raises:
        ValueError: the file is cut short, has colours where there is no palette, or one that the palette lacks.
    """
    with Image.open(io.BytesIO(read_whole(path))) as file:
        if palette is None:
            if file.mode not in LABEL_MODES:
                raise ValueError(
                    f'label map with colours ({file.mode}): --palette FILE says which class each stands for'
                )
            return np.asarray(file).astype(np.int64)
        array = np.asarray(file.convert('RGB')).astype(np.int64)
    packed = array @ (1 << 16, 1 << 8, 1)
    colours = palette[0].astype(np.int64) @ (1 << 16, 1 << 8, 1)
    order = np.argsort(colours)
    place = order[np.searchsorted(colours, packed, sorter=order).clip(max=len(order) - 1)]
    strange = packed[colours[place] != packed]
    if len(strange):
        colour = ' '.join(str(strange[0] >> shift & 255) for shift in (16, 8, 0))
        raise ValueError(f'the colour {colour} is not in the palette')
    return palette[1][place]


def reduced(values: np.ndarray, ignore_index: int, reduce_zero_label: bool) -> np.ndarray:
    """Label values as classes from 0, and `ignore_index` for what is ignored: -1, and 0 where it is no class."""
    ignored = (values == ignore_index) | (values < 0) | ((values == 0) & reduce_zero_label)
    return np.where(ignored, ignore_index, values - int(reduce_zero_label))


def scan_own_pair(picture: Path, label: Path, palette: Palette | None, ignore_index: int) -> PairScan:
    """As `naclip.data.check.scan_pair`, of label maps that may have colours."""
    scan = scan_pair(picture, label)
    if palette is None:
        return scan
    faults = tuple(fault for fault in scan.faults if fault.kind != 'channels')
    try:
        values = read_values(label, palette)
    except ValueError as error:
        return PairScan(scan.values[:0], scan.pixels[:0], (*faults, Fault('label', f'{label}: {error}')))
    return PairScan(*count_values(np.where(values < 0, ignore_index, values)), faults)
