"""Generated pictures with masks: class-less, nested and overlapping, in SA-1B's layout."""

import json

import numpy as np
import pytest
from numpy.random import RandomState

from naclip.data.run_lengths import decode
from naclip.shapes.generator import draw
from naclip.shapes.masks import SMALLEST, ensure_masked_pictures, masks_of, write_masked_pictures
from naclip.training.pictures import Layout, read_index


def test_masks_nest_and_overlap_and_cover():
    nested = overlapping = 0
    for seed in range(5):
        picture, label = draw(RandomState(seed), (80, 100))
        masks = masks_of(RandomState(seed), picture, label)
        assert all(mask.sum() >= SMALLEST for mask in masks)
        assert np.any(masks, axis=0).mean() > 0.98
        pairs = [(a, b) for i, a in enumerate(masks) for b in masks[i + 1 :] if (a & b).any()]
        overlapping += len(pairs)
        nested += sum((a & b).sum() == min(a.sum(), b.sum()) for a, b in pairs)
    assert overlapping > nested > 5


def test_layout(tmp_path):
    write_masked_pictures(tmp_path / 'made', 3, (48, 64))
    layout = Layout(tmp_path / 'made')
    assert len(read_index(layout)) == 3
    content = json.loads((tmp_path / 'made/annotations/sa_000000/sa_2.json').read_text())
    assert content['image'] == {'image_id': 2, 'width': 64, 'height': 48, 'file_name': 'sa_2.jpg'}
    for entry in content['annotations']:
        assert set(entry) == {'id', 'area', 'segmentation'}  # no class
        assert decode(entry['segmentation'], 48, 64).sum() == entry['area']
    with pytest.raises(FileExistsError, match='exists already'):
        write_masked_pictures(tmp_path / 'made', 1, (48, 64))


def test_it_is_made_once(tmp_path):
    root = ensure_masked_pictures(tmp_path, 2)
    assert ensure_masked_pictures(tmp_path, 2) == root
    assert len(list(root.glob('images/*/*.jpg'))) == 2
