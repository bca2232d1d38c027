"""PASCAL Context's annotations: ids of its classes, and the masks in `trainval_merged.json`.

The file is the one of the "PASCAL in Detail" challenge, laid out as COCO's, and the source of the labels of published
numbers. `images` have `file_name`, `image_id` (or `id`), `height`, `width` and `phase`
(train or val). `annos_segmentation` have `image_id`, `category_id` (one of the 459) and `segmentation`: a mask in
COCO's run-length encoding (all are), or polygons. They are drawn in the file's order: where masks overlap, the later
one counts, as the file's own reader has it. `categories`, if there, have
`name` and `category_id` (or `id`). Whatever differs is refused. Ids are those that MMSegmentation's converter of the
file knows; they are the numbers of the names in labels.txt.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from naclip.data import run_lengths
from naclip.data.conversion import InputError

NUM_IDS = 459
# The 59 classes in MMSegmentation's order, and their ids among the 459, which are in alphabetical order.
# fmt: off
CLASS_IDS = {
    'aeroplane': 2, 'bag': 9, 'bed': 18, 'bedclothes': 19, 'bench': 22, 'bicycle': 23, 'bird': 25, 'boat': 31,
    'book': 33, 'bottle': 34, 'building': 44, 'bus': 45, 'cabinet': 46, 'car': 59, 'cat': 65, 'ceiling': 68,
    'chair': 72, 'cloth': 80, 'computer': 85, 'cow': 98, 'cup': 104, 'curtain': 105, 'dog': 113, 'door': 115,
    'fence': 144, 'floor': 158, 'flower': 159, 'food': 162, 'grass': 187, 'ground': 189, 'horse': 207,
    'keyboard': 220, 'light': 232, 'motorbike': 258, 'mountain': 259, 'mouse': 260, 'person': 284, 'plate': 295,
    'platform': 296, 'pottedplant': 308, 'road': 324, 'rock': 326, 'sheep': 347, 'shelves': 349, 'sidewalk': 354,
    'sign': 355, 'sky': 360, 'snow': 366, 'sofa': 368, 'table': 397, 'track': 415, 'train': 416, 'tree': 420,
    'truck': 424, 'tvmonitor': 427, 'wall': 440, 'water': 445, 'window': 454, 'wood': 458,
}
# fmt: on
# Spellings of other lists -> MMSegmentation's; names are compared in small letters without spaces and hyphens.
SPELLINGS = {
    'airplane': 'aeroplane',
    'bedcloth': 'bedclothes',
    'motorcycle': 'motorbike',
    'diningtable': 'table',
    'shelf': 'shelves',
    'tv': 'tvmonitor',
    'couch': 'sofa',
}

Segmentation = Mapping | list  # run lengths, or polygons


def plain_name(name: str) -> str:
    """A class name as MMSegmentation spells it, if it is one of the 59."""
    plain = name.lower().replace(' ', '').replace('-', '')
    return SPELLINGS.get(plain, plain)


def label_table(class_ids: Iterable[int] = tuple(CLASS_IDS.values())) -> np.ndarray:
    """Label of each of the 459 ids, as uint8 of shape (460,): 1-59 for the classes, 0 for all else."""
    table = np.zeros(NUM_IDS + 1, dtype=np.uint8)
    for label, class_id in enumerate(class_ids, start=1):
        table[class_id] = label
    return table


def find_class_ids(names: Iterable[tuple[int, str]], source: Path) -> tuple[int, ...]:
    """Ids of the 59 classes by name.

    Raises:
        InputError: a class has no id among the 459, or two; names the source.
    """
    found: dict[str, list[int]] = defaultdict(list)
    for class_id, name in names:
        found[plain_name(name)].append(class_id)
    for name in CLASS_IDS:
        ids = found[name]
        if len(ids) != 1 or not 1 <= ids[0] <= NUM_IDS:
            raise InputError(
                f'{source} has ids {ids} for the class {name}, expected one of 1-{NUM_IDS}: '
                "is it PASCAL Context's list of 459 classes?"
            )
    return tuple(found[name][0] for name in CLASS_IDS)


def read_class_ids(path: Path) -> tuple[int, ...]:
    """Ids of the 59 classes by their names in `labels.txt`, whose lines are `id: name`.

    Raises:
        InputError: a line is of another form, or a class is missing.
    """
    names = []
    for line in path.read_text(encoding='utf-8').splitlines():
        number, colon, name = line.partition(':')
        if line.strip() and not (colon and number.strip().isdecimal()):
            raise InputError(f'{path} has the line {line!r}, expected "id: name"')
        if colon:
            names.append((int(number), name.strip()))
    return find_class_ids(names, path)


def decode_mask(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """A mask, bool (height, width), from COCO's run lengths or polygons.

    Raises:
        ValueError: another encoding, or another size.
    """
    if isinstance(segmentation, Mapping) and 'counts' in segmentation:
        return run_lengths.decode(segmentation, height, width)
    if isinstance(segmentation, list) and segmentation and all(isinstance(polygon, list) for polygon in segmentation):
        return coco.decode(coco.merge(coco.frPyObjects(segmentation, height, width))).astype(bool)
    raise ValueError(f'an encoding that is not known: {str(segmentation)[:60]!r}, expected run lengths or polygons')


def draw_label(parts: Iterable[tuple[int, Segmentation]], height: int, width: int) -> np.ndarray:
    """A label map, uint8 (height, width), from the labels and masks of its parts; the later one counts.

    Raises:
        ValueError: a mask cannot be decoded.
    """
    label = np.zeros((height, width), dtype=np.uint8)
    for value, segmentation in parts:
        label[decode_mask(segmentation, height, width)] = value
    return label


def read_annotations(path: Path) -> tuple[dict[str, list[str]], dict[str, tuple]]:
    """What `trainval_merged.json` says: names of the pictures of each phase, and each picture's label map.

    A label map is what `draw_label` takes: a list of (label, segmentation), the height and the width.

    Raises:
        InputError: the file is of another form; says which.
    """
    try:
        content = json.loads(path.read_bytes())
        images, segments = content['images'], content['annos_segmentation']
        pictures = {_first(image, 'image_id', 'id'): image for image in images}
        names = {key: Path(image['file_name']).stem for key, image in pictures.items()}
        sizes = {key: (int(image['height']), int(image['width'])) for key, image in pictures.items()}
        phases: dict[str, list[str]] = {'train': [], 'val': []}
        for key, image in pictures.items():
            if image['phase'] in phases:
                phases[image['phase']].append(names[key])
        for category in content.get('categories', ()):
            name, class_id = plain_name(category['name']), _first(category, 'category_id', 'id')
            if CLASS_IDS.get(name, class_id) != class_id:
                raise InputError(f'{path} has id {class_id} for the class {name}, expected {CLASS_IDS[name]}')
        table = label_table()
        parts: dict = {key: [] for key in pictures}
        for segment in segments:
            if not 0 <= segment['category_id'] <= NUM_IDS:
                raise InputError(f'{path} has the category id {segment["category_id"]}, expected 0-{NUM_IDS}')
            parts[segment['image_id']].append((int(table[segment['category_id']]), segment['segmentation']))
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path} is not of the form of trainval_merged.json ({type(error).__name__}: {error}): expected images '
            'with file_name, image_id, height, width, phase, and annos_segmentation with image_id, category_id, '
            'segmentation; use the .mat files of trainval.tar.gz instead (--mat)'
        ) from error
    if not all(phases.values()):
        raise InputError(f'{path} has no pictures of the phases train and val')
    return phases, {names[key]: (parts[key], *sizes[key]) for key in pictures}


def _first(entry: Mapping, *keys: str) -> object:
    """The value of the first of some keys that is there. Raises KeyError without any."""
    found = [entry[key] for key in keys if key in entry]
    if not found:
        raise KeyError(keys[0])
    return found[0]
