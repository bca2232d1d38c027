"""Label maps as COCO's panoptic JSON: a segment for each class that is there, with its run lengths.

K classes; H, W pixels.
"""

from collections.abc import Sequence

import numpy as np

from naclip.data.run_lengths import encode


def panoptic(labels: np.ndarray, names: Sequence[str], colours: np.ndarray, picture: str, label_file: str) -> dict:
    """What COCO's panoptic format says of a picture's labels (H, W), ids of K classes with names and colours (K, 3).

    `picture` and `label_file` are names of files. Categories have ids from 0; a segment's id is its value in the label
    map, and `segmentation` is beyond the format: the segment's run lengths, as pycocotools reads them.
    """
    height, width = labels.shape
    about = {'id': 1, 'file_name': picture, 'height': height, 'width': width}
    segments = [_segment(labels, int(i)) for i in np.unique(labels)]
    categories = [
        {'id': i, 'name': name, 'supercategory': name, 'isthing': 0, 'color': colour}
        for i, (name, colour) in enumerate(zip(names, colours.tolist(), strict=True))
    ]
    annotation = {'image_id': 1, 'file_name': label_file, 'segments_info': segments}
    return {'images': [about], 'annotations': [annotation], 'categories': categories}


def _segment(labels: np.ndarray, index: int) -> dict:
    mask = labels == index
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
    return {
        'id': index,
        'category_id': index,
        'area': int(np.count_nonzero(mask)),
        'bbox': box,
        'iscrowd': 0,
        'segmentation': encode(mask),
    }
