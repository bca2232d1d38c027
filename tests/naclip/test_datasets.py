"""Data sets of the published configs, and reading that names the file."""

from pathlib import Path

import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

import naclip.datasets  # noqa: F401  registers the data sets
from naclip.datasets import CheckedStep, check_files
from tests.goldens.fake_datasets import write_benchmark

VOC = dict(
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/val.txt',
)
CONTEXT = dict(
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
    ann_file='ImageSets/SegmentationContext/val.txt',
)
COCO10K = dict(
    data_prefix=dict(img_path='images/test2014', seg_map_path='annotations/test2014'),
    reduce_zero_label=True,
)
COCO = dict(data_prefix=dict(img_path='images/val2017', seg_map_path='annotations/val2017'))


@pytest.mark.parametrize(
    ('kind', 'folder', 'rest', 'classes', 'first', 'last', 'reduce'),
    [
        ('PascalVOC20Dataset', 'voc', VOC, 20, 'aeroplane', 'tvmonitor', True),
        ('PascalContext60Dataset', 'context', CONTEXT, 60, 'background', 'wood', False),
        ('PascalContext59Dataset', 'context', CONTEXT, 59, 'aeroplane', 'wood', True),
        ('COCOStuffDataset', 'coco_stuff10k', COCO10K, 171, 'person', 'wood', True),
        ('COCOObjectDataset', 'coco_object', COCO, 81, 'background', 'toothbrush', False),
    ],
)
def test_published_types(
    kind: str, folder: str, rest: dict, classes: int, first: str, last: str, reduce: bool, tmp_path: Path
):
    root = write_benchmark(tmp_path, folder)
    pipeline = [dict(type='mmseg.LoadAnnotations')]
    dataset = DATASETS.build(dict(type=kind, data_root=str(root), pipeline=pipeline, test_mode=True, **rest))
    names = dataset.metainfo['classes']
    assert (len(names), names[0], names[-1]) == (classes, first, last)
    assert len(dataset.metainfo['palette']) == classes
    assert len(dataset) == 3
    check_files(dataset, 'x')
    raw = np.asarray(Image.open(dataset.get_data_info(0)['seg_map_path'])).astype(int)
    expected = np.where(np.isin(raw, (0, 255)), 255, raw - 1) if reduce else raw
    np.testing.assert_array_equal(dataset[0]['gt_seg_map'], expected)


def test_missing_files_are_counted_and_the_first_is_named(tmp_path: Path):
    root = write_benchmark(tmp_path, 'voc')
    dataset = DATASETS.build(dict(type='PascalVOCDataset', data_root=str(root), **VOC))
    (root / 'SegmentationClass/000001.png').unlink()
    (root / 'JPEGImages/000002.jpg').unlink()
    with pytest.raises(
        FileNotFoundError, match=r'voc21: .*SegmentationClass/000001\.png is missing \(2 files in all\)'
    ):
        check_files(dataset, 'voc21')


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_cut_short_pictures_are_refused(suffix: str, tmp_path: Path):
    path = tmp_path / f'picture{suffix}'
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    step = CheckedStep(dict(type='LoadImageFromFile'), reads='img_path')
    assert step(dict(img_path=str(path)))['img'].shape == (64, 64, 3)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=f'cannot read {path}: the file is cut short'):
        step(dict(img_path=str(path)))
