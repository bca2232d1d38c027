"""Scores of single pictures, worst first: where a method fails."""

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from naclip.files import written_whole
from naclip.runs.journal import confusion_matrix, pixel_counts

COLUMNS = (
    'image',
    'mIoU',  # percent, over the classes in the picture's ground truth or prediction
    'aAcc',  # percent
    'pixels',  # ignored ones left out
    'labelled_classes',
    'worst_class',
    'worst_IoU',
    'confused_label',  # the most pixels of one class that were taken for one other
    'confused_prediction',
    'confused_pixels',
)


def picture_scores(cells: np.ndarray, names: Sequence[str]) -> dict[str, object]:
    """A picture's row but for `image`, from its cells (N, 3) and the data set's class names.

    Of classes with one IoU, the one with the most pixels is the worst. What a picture lacks is None: one whose pixels
    are all ignored has no scores, one without a wrong pixel has no confused classes.
    """
    present = np.unique(cells[:, :2])
    small = np.column_stack([np.searchsorted(present, cells[:, :2]), cells[:, 2]])
    counts = pixel_counts(confusion_matrix([small], len(present)))
    scores, ious = counts.metrics(), counts.iou()
    worst = min(range(len(present)), key=lambda i: (ious[i], -counts.union[i]), default=None)
    wrong = cells[cells[:, 0] != cells[:, 1]]
    label, pred, pixels = wrong[wrong[:, 2].argmax()].tolist() if len(wrong) else (None, None, None)
    return {
        'mIoU': None if math.isnan(scores['mIoU']) else scores['mIoU'],
        'aAcc': None if math.isnan(scores['aAcc']) else scores['aAcc'],
        'pixels': sum(counts.label),
        'labelled_classes': sum(n > 0 for n in counts.label),
        'worst_class': None if worst is None else names[present[worst]],
        'worst_IoU': None if worst is None else ious[worst],
        'confused_label': None if label is None else names[label],
        'confused_prediction': None if pred is None else names[pred],
        'confused_pixels': pixels,
    }


def write_per_image(path: str | os.PathLike, pictures: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Write a CSV file of pictures' scores, lowest mIoU first; it is there whole or not at all.

    `pictures` has the cells (N, 3) by picture. Percentages have two decimals; what a picture lacks is empty.
    """
    rows = [{'image': image, **picture_scores(cells, names)} for image, cells in pictures.items()]
    rows.sort(key=lambda row: (row['mIoU'] is None, row['mIoU'], row['aAcc'], row['image']))
    with (
        written_whole(Path(path)) as temporary,
        # A file name need not be UTF-8: its bytes go through as they are.
        temporary.open('w', encoding='utf-8', errors='surrogateescape', newline='') as file,
    ):
        table = csv.DictWriter(file, COLUMNS, lineterminator='\n')
        table.writeheader()
        table.writerows(
            {key: f'{value:.2f}' if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )
