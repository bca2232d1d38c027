"""COCO's run lengths: masks as the lengths of runs down the columns, the first outside; read by pycocotools.

pycocotools fills up run lengths that end too early with whatever is in memory, so their sum is checked before.
"""

from collections.abc import Mapping

import numpy as np
from pycocotools import mask as coco


def run_lengths(text: str) -> np.ndarray:
    """Run lengths from COCO's compressed text.

    A number is written in groups of 5 bits, low ones first, each a character from '0' on; 32 says that more follow, and
    16 in the last is the sign. From the fourth number on it is a difference from the number two before.

    Raises:
        ValueError: not such a text.
    """
    groups = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    strange = np.flatnonzero((groups < 0) | (groups >= 64))
    if len(strange):
        raise ValueError(f'{chr(groups[strange[0]] + 48)!r} is no character of a run-length encoding')
    last = groups & 32 == 0
    if len(groups) and not last[-1]:
        raise ValueError('the run-length encoding is cut short')
    first = np.flatnonzero(np.concatenate([[True], last[:-1]])) if len(groups) else np.zeros(0, int)
    number = np.cumsum(last) - last  # which number a group belongs to
    place = np.arange(len(groups)) - first[number]
    if np.any(place > 11):
        raise ValueError('a number that is too large for a run-length encoding')
    numbers = np.zeros(len(first), np.int64)
    np.add.at(numbers, number, (groups & 31) << 5 * place)
    signed = last & (groups & 16 > 0)
    numbers[number[signed]] -= np.int64(1) << 5 * (place[signed] + 1)
    for start in (1, 2):
        numbers[start::2] = np.cumsum(numbers[start::2])
    return numbers


def compressed(segmentation: Mapping, height: int, width: int) -> dict:
    """Run lengths of a mask, compressed or not, as pycocotools takes them.

    Raises:
        ValueError: another size, or run lengths that do not add up.
    """
    size = list(segmentation.get('size', (height, width)))
    if size != [height, width]:
        raise ValueError(f'a mask of size {size} for a picture of {height} x {width}')
    counts = segmentation['counts']
    runs = run_lengths(counts) if isinstance(counts, str) else np.asarray(counts, dtype=np.int64)
    if np.any(runs < 0) or runs.sum() != height * width:
        raise ValueError(f'run lengths that do not add up to {height} x {width} pixels')
    if isinstance(counts, str):
        return {'size': size, 'counts': counts.encode()}
    return coco.frPyObjects({'size': size, 'counts': runs.tolist()}, height, width)


def decode(segmentation: Mapping, height: int, width: int) -> np.ndarray:
    """A mask from its run lengths, bool (height, width). Raises ValueError as `compressed`."""
    return coco.decode(compressed(segmentation, height, width)).astype(bool)


def encode(mask: np.ndarray) -> dict:
    """A mask (height, width) as {'size', 'counts'} that JSON can hold."""
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {'size': [int(side) for side in encoded['size']], 'counts': encoded['counts'].decode()}
