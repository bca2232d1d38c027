"""Segments in COCO's panoptic format, against pycocotools and brute force."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from naclip.pictures.coco import panoptic

NAMES = ('sky', 'cat', 'Gräser', 'sea')
COLOURS = np.arange(12).reshape(4, 3)


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)))
def test_segments_are_the_labels(labels: np.ndarray):
    record = json.loads(json.dumps(panoptic(labels, NAMES, COLOURS, 'a.jpg', 'a_labels.png')))
    (image,), (annotation,) = record['images'], record['annotations']
    assert (image['height'], image['width'], image['file_name']) == (*labels.shape, 'a.jpg')
    assert (annotation['image_id'], annotation['file_name']) == (image['id'], 'a_labels.png')
    seen = np.full(labels.shape, 255)
    for segment in annotation['segments_info']:
        mask = coco.decode(segment['segmentation']).astype(bool)
        assert segment['area'] == mask.sum() == coco.area(segment['segmentation'])
        assert segment['bbox'] == coco.toBbox(segment['segmentation']).tolist()
        seen[mask] = segment['category_id']
    np.testing.assert_array_equal(seen, labels)
    assert [segment['id'] for segment in annotation['segments_info']] == sorted(set(labels.ravel().tolist()))
    assert [(c['id'], c['name'], c['color']) for c in record['categories']] == [
        (i, name, COLOURS[i].tolist()) for i, name in enumerate(NAMES)
    ]
