"""ADE20K's full release (2021_17_01): the classes in its colour-coded maps, and the 847 that are evaluated.

H, W pixels.
"""

import json
from pathlib import Path

import numpy as np

IDS_FILE = Path(__file__).with_name('ade847.json')  # name and class index of each of the 847, in training order
IGNORED = 65535
MAX_SIDE = 512  # of the short side: pictures that are larger on both are reduced to it


def class_indices(coded: np.ndarray) -> np.ndarray:
    """The object class index at each pixel of a `_seg.png` (H, W, 3), uint8 -> (H, W), int64; 0 has no class."""
    coded = coded.astype(np.int64)
    return coded[..., 0] // 10 * 256 + coded[..., 1]


def train_ids() -> np.ndarray:
    """Training id of each class index, uint16 of shape (25 * 256 + 256,); 65535 for those that are not evaluated."""
    table = np.full(256 // 10 * 256 + 256, IGNORED, np.uint16)
    for train_id, entry in enumerate(json.loads(IDS_FILE.read_text(encoding='utf-8'))):
        table[entry['id']] = train_id
    return table


def reduced_size(height: int, width: int) -> tuple[int, int]:
    """The size (H, W) that a picture is evaluated at: its own, or short side 512 where both sides are above that."""
    short = min(height, width)
    if short <= MAX_SIDE:
        return height, width
    return tuple(MAX_SIDE if side == short else round(side * MAX_SIDE / short) for side in (height, width))
