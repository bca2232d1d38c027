"""Data sets of the published configs, and reading that names the file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS
from PIL import Image

import clip
import naclip.harness.datasets  # noqa: F401  registers the data sets
from naclip.harness.datasets import CentreSquare, CheckedStep, IgnoredToBackground, LoadWideAnnotations, check_files
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


@pytest.mark.slow
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


def test_wide_labels(tmp_path: Path):
    """459 classes: 255 is one of them, 65535 is ignored."""
    labels = np.array([[0, 255, 256], [458, 65535, 7]], np.uint16)
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / 'images/a.jpg')
    Image.fromarray(labels).save(tmp_path / 'labels/a.tif')
    (tmp_path / 'names.txt').write_text('\n'.join(f'thing {i}, other {i}' for i in range(459)))
    config = dict(
        type='WideLabelDataset',
        class_file=str(tmp_path / 'names.txt'),
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        pipeline=[dict(type='mmseg.LoadWideAnnotations'), dict(type='mmseg.PackSegInputs')],
        test_mode=True,
    )
    dataset = DATASETS.build(config)
    check_files(dataset, 'x')
    assert dataset.metainfo['classes'][458] == 'thing 458'
    assert len(dataset.metainfo['palette']) == 459
    assert dataset.ignore_index == 65535
    results = LoadWideAnnotations()(dataset.get_data_info(0))
    np.testing.assert_array_equal(results['gt_seg_map'], labels.astype(int))


@pytest.mark.parametrize('i', range(2))
def test_centre_square_as_cliptrase(cliptrase_golden, i):
    """Pictures as CLIP's preprocessing, labels at the same places."""
    bgr = np.ascontiguousarray(cliptrase_golden[f'rgb_{i}'].numpy()[..., ::-1])
    labels = cliptrase_golden[f'gt_{i}'].numpy()
    results = dict(img=bgr, gt_seg_map=labels, seg_fields=['gt_seg_map'], ori_shape=labels.shape)
    results = CentreSquare(128)(results)
    rgb = torch.from_numpy(results['img'][..., ::-1].copy()).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (clip.MEAN, clip.STD))
    torch.testing.assert_close(((rgb - mean) / std)[None], cliptrase_golden[f'image_{i}'], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(results['gt_seg_map'], cliptrase_golden[f'PC59/gt_{i}'].numpy())
    assert results['ori_shape'] == (128, 128)
    with_background = np.where(results['gt_seg_map'] == 255, 255, results['gt_seg_map'] + 1)  # as MMSegmentation's
    filled = IgnoredToBackground()(dict(gt_seg_map=with_background))['gt_seg_map']
    np.testing.assert_array_equal((filled.astype(int) - 1) % 21, cliptrase_golden[f'VOC21/gt_{i}'].numpy())


def test_centre_square_keeps_wide_labels():
    labels = np.arange(40 * 60, dtype=np.int32).reshape(40, 60) * 20
    results = dict(img=np.zeros((40, 60, 3), np.uint8), gt_seg_map=labels, seg_fields=['gt_seg_map'])
    np.testing.assert_array_equal(CentreSquare(40)(results)['gt_seg_map'], labels[:, 10:50])
