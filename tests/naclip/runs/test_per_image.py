"""Scores of single pictures, against the data set's metric on each picture alone."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from naclip.harness.metric import PixelCountIoUMetric
from naclip.runs.journal import count_cells
from naclip.runs.per_image import COLUMNS, picture_scores, write_per_image

NAMES = ('sky', 'water, deep', 'tree', 'rock')


def cells_of(pred: list[int], label: list[int]) -> np.ndarray:
    return count_cells(torch.tensor(pred), torch.tensor(label), len(NAMES), 255)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2, 3, 255])), min_size=1, max_size=30))
def test_scores_are_those_of_the_metric_on_one_picture(pixels: list[tuple[int, int]]):
    pred, label = map(list, zip(*pixels, strict=True))
    scores = picture_scores(cells_of(pred, label), NAMES)
    kept = [(p, t) for p, t in pixels if t != 255]
    assert scores['pixels'] == len(kept)
    assert scores['labelled_classes'] == len({t for _, t in kept})
    wrong = [(t, p) for p, t in kept if t != p]
    if not wrong:
        assert scores['confused_label'] is scores['confused_prediction'] is scores['confused_pixels'] is None
    else:
        found = (NAMES.index(scores['confused_label']), NAMES.index(scores['confused_prediction']))
        assert scores['confused_pixels'] == wrong.count(found) == max(map(wrong.count, wrong))
    if not kept:
        assert scores['mIoU'] is scores['aAcc'] is scores['worst_class'] is scores['worst_IoU'] is None
        return
    metric = PixelCountIoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = {'classes': NAMES}
    maps = [{'data': torch.tensor([[values]])} for values in (pred, label)]
    metric.process({}, [{'pred_sem_seg': maps[0], 'gt_sem_seg': maps[1], 'seg_map_path': ''}])
    metric.evaluate(size=1)
    ious = metric.counts.iou()
    assert (scores['mIoU'], scores['aAcc']) == pytest.approx((metric.scores['mIoU'], metric.scores['aAcc']))
    assert scores['worst_IoU'] == min(iou for iou in ious if not math.isnan(iou))
    assert ious[NAMES.index(scores['worst_class'])] == scores['worst_IoU']


def test_ties_for_the_worst_class_go_to_the_larger_one():
    assert picture_scores(cells_of([0, 0, 0, 3, 3], [1, 2, 2, 2, 1]), NAMES)['worst_class'] == 'sky'
    scores = picture_scores(cells_of([0, 0, 0, 0], [1, 2, 2, 0]), NAMES)
    assert (scores['worst_class'], scores['confused_label'], scores['confused_pixels']) == ('tree', 'tree', 2)


def test_table_has_the_worst_picture_first(tmp_path: Path):
    pictures = {
        'good.jpg': cells_of([0, 1, 2, 2], [0, 1, 2, 2]),
        'ignored.jpg': cells_of([0, 0], [255, 255]),
        'half.jpg': cells_of([0, 0, 1, 1], [0, 0, 2, 255]),
        'bad \udcff.jpg': cells_of([1, 1], [3, 3]),
    }
    path = tmp_path / 'per_image.csv'
    write_per_image(path, pictures, NAMES)
    with path.open(encoding='utf-8', errors='surrogateescape', newline='') as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row['image'] for row in rows] == ['bad \udcff.jpg', 'half.jpg', 'good.jpg', 'ignored.jpg']
    bad, half, good, ignored = (list(row.values())[1:] for row in rows)
    assert bad == ['0.00', '0.00', '2', '1', 'water, deep', '0.00', 'rock', 'water, deep', '2']
    assert half == ['33.33', '66.67', '3', '2', 'water, deep', '0.00', 'tree', 'water, deep', '1']
    assert good == ['100.00', '100.00', '4', '3', 'tree', '100.00', '', '', '']
    assert ignored == ['', '', '0', '0', '', '', '', '', '']
    assert [file.name for file in tmp_path.iterdir()] == ['per_image.csv']
