"""The metric against a confusion matrix counted pixel by pixel."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from naclip.harness.metric import PixelCountIoUMetric, RunsEvaluator
from naclip.runs.journal import Journal, confusion_matrix, pixel_counts, read_journal

CLASSES = ('a', 'b', 'c', 'd')


def sample(pred: torch.Tensor, label: torch.Tensor) -> dict:
    return {
        'pred_sem_seg': {'data': pred[None]},
        'gt_sem_seg': {'data': label[None]},
        'seg_map_path': '/data/labels/7.png',
    }


@pytest.fixture
def metric() -> PixelCountIoUMetric:
    metric = PixelCountIoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = {'classes': CLASSES}
    return metric


def test_counts_and_scores_are_those_of_a_confusion_matrix(metric: PixelCountIoUMetric):
    generator = torch.Generator().manual_seed(0)
    confusion = np.zeros((4, 4), int)  # label, prediction
    for size in ((5, 7), (9, 4), (1, 1)):
        pred = torch.randint(0, 3, size, generator=generator)  # class d is never predicted
        label = torch.randint(0, 3, size, generator=generator)  # nor labelled
        label[torch.rand(size, generator=generator) < 0.2] = 255
        metric.process({}, [sample(pred, label)])
        for p, t in zip(pred.flatten().tolist(), label.flatten().tolist(), strict=True):
            if t != 255:
                confusion[t, p] += 1
    scores = metric.evaluate(size=3)

    hits, labelled, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    union = labelled + predicted - hits
    assert metric.images == 3
    assert list(metric.counts.intersect) == hits.tolist()
    assert list(metric.counts.pred) == predicted.tolist()
    assert list(metric.counts.label) == labelled.tolist()
    assert list(metric.counts.union) == union.tolist()
    expected = {
        'mIoU': 100 * np.mean(hits[:3] / union[:3]),
        'aAcc': 100 * hits.sum() / labelled.sum(),
        'mAcc': 100 * np.mean(hits[:3] / labelled[:3]),
    }
    assert metric.counts.metrics() == pytest.approx(expected)
    assert scores == pytest.approx(expected, abs=0.0051)
    assert math.isnan(metric.counts.iou()[3])


def test_counts_past_what_float32_can_count(metric: PixelCountIoUMetric):
    many, one = np.array([[0, 0, 2**24]]), np.array([[0, 0, 1]])
    metric.compute_metrics([many, one, one])
    assert metric.counts.label[0] == 2**24 + 2
    as_theirs = [torch.tensor([float(cells[0, 2]), 0, 0, 0]) for cells in (many, one, one)]
    assert float(sum(as_theirs)[0]) == 2**24  # what MMSegmentation's own sum makes of it


def test_scores_equal_mmsegmentation(metric: PixelCountIoUMetric):
    theirs = IoUMetric(iou_metrics=['mIoU'], prefix='theirs')
    theirs.dataset_meta = metric.dataset_meta
    generator = torch.Generator().manual_seed(1)
    pred, label = torch.randint(0, 4, (2, 30, 40), generator=generator)
    for each in (metric, theirs):
        each.process({}, [sample(pred, label)])
    expected = {key.removeprefix('theirs/'): value for key, value in theirs.evaluate(size=1).items()}
    assert metric.evaluate(size=1) == pytest.approx(expected, abs=0.011)


def test_label_outside_the_classes_names_the_file(metric: PixelCountIoUMetric):
    label = torch.tensor([[0, 4, 200, 255]])
    with pytest.raises(ValueError, match=r'/data/labels/7\.png has label values \[4, 200\], expected 0 to 3 or 255'):
        metric.process({}, [sample(torch.zeros_like(label), label)])


def test_labels_above_255_and_their_ignore_index():
    metric = PixelCountIoUMetric(iou_metrics=['mIoU'], ignore_index=65535)
    metric.dataset_meta = {'classes': [str(i) for i in range(459)]}
    label = torch.tensor([[255, 256, 458, 65535]], dtype=torch.int32)
    pred = torch.tensor([[255, 256, 457, 3]])
    metric.process({}, [sample(pred, label)])
    metric.evaluate(size=1)
    labelled = [i for i, n in enumerate(metric.counts.label) if n]
    assert labelled == [255, 256, 458]
    assert [i for i, n in enumerate(metric.counts.intersect) if n] == [255, 256]
    assert sum(metric.counts.pred) == 3


def test_mean_over_labelled_classes():
    """Class c is predicted but not labelled: it counts only in MMSegmentation's mean."""
    pred, label = torch.tensor([[0, 0, 1, 2]]), torch.tensor([[0, 0, 1, 1]])
    for labelled_only, expected in ((False, 50.0), (True, 75.0)):
        metric = PixelCountIoUMetric(iou_metrics=['mIoU'], labelled_only=labelled_only)
        metric.dataset_meta = {'classes': CLASSES}
        metric.process({}, [sample(pred, label)])
        assert metric.evaluate(size=1)['mIoU'] == pytest.approx(expected)
        assert metric.scores['mIoU'] == pytest.approx(expected)


def test_a_part_from_the_journal_and_the_rest_make_the_whole(metric: PixelCountIoUMetric, tmp_path: Path):
    generator = torch.Generator().manual_seed(2)
    samples = []
    for i in range(5):
        pred, label = torch.randint(0, 4, (2, 6, 7), generator=generator)
        label[torch.rand(6, 7, generator=generator) < 0.2] = 255
        samples.append(sample(pred, label.byte()) | {'img_path': f'/data/img/{i}.jpg'})
    metric.process({}, samples)
    whole = metric.evaluate(size=5)

    first, rest = Journal(tmp_path, 1, 0), Journal(tmp_path, 2, 0)
    for done, journal in ((samples[:2], first), (samples[2:], rest)):
        part = PixelCountIoUMetric(iou_metrics=['mIoU'])
        part.dataset_meta, part.data_root = metric.dataset_meta, '/data'
        part.journal, part.journal_folder = journal, tmp_path
        part.pictures = [f'img/{i}.jpg' for i in range(5)]
        part.process({}, done)
        scores = part.evaluate(size=len(done))
    assert scores == whole
    assert (part.images, part.counts, part.scores) == (5, metric.counts, metric.scores)
    records, _ = read_journal(tmp_path)
    assert list(records) == list(part.cells) == part.pictures
    assert pixel_counts(confusion_matrix(part.cells.values(), 4)) == metric.counts


class Reported(list):
    """What was told of runs that fail."""

    def __call__(self, runs: list[int], error: Exception) -> None:
        self.append((runs, str(error)))


def test_each_run_counts_its_own_samples():
    generator = torch.Generator().manual_seed(3)
    label = torch.randint(0, 4, (1, 6, 7), generator=generator)
    metrics = [PixelCountIoUMetric(iou_metrics=['mIoU'], ignore_index=i) for i in (255, 3, 255)]
    for metric, classes in zip(metrics, (CLASSES, CLASSES, CLASSES[:2]), strict=True):
        metric.dataset_meta = {'classes': classes}
    failed = Reported()
    evaluator = RunsEvaluator(metrics, ['one', 'other', 'small'], failed)
    evaluator.dataset_meta = {'classes': ['nobody asks']}
    predictions = torch.randint(0, 4, (2, 1, 6, 7), generator=generator)
    truth = PixelData(data=label)
    samples = []
    for run, pred in enumerate([*predictions, torch.zeros_like(label)]):
        meta = {'run': run, 'img_path': 'a.jpg', 'seg_map_path': 'a.png'}
        samples.append(SegDataSample(metainfo=meta, gt_sem_seg=truth, pred_sem_seg=PixelData(data=pred)))
    evaluator.process(samples, [])
    for metric, pred in zip(metrics[:2], predictions, strict=True):
        kept = label != metric.ignore_index
        for k in range(4):
            assert metric.results[0][metric.results[0][:, 1] == k, 2].sum() == (pred[kept] == k).sum()
    ((runs, told),) = failed
    assert runs == [2]
    assert told.startswith('a.png has label values [2, 3], expected 0 to 1')
    scores = RunsEvaluator(metrics[:2], ['one', 'other'], failed).evaluate(1)
    assert set(scores) == {f'{name}/{key}' for name in ('one', 'other') for key in ('mIoU', 'aAcc', 'mAcc')}
