"""Counting label values; the verdicts are tested in tests/datasets/test_check.py."""

import collections

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from naclip.data.check import Labels, PairScan, add_counts, count_values, describe_labels

DTYPES = {np.uint8: 255, np.uint16: 65535, np.int32: 70_000}


@given(st.data())
def test_pixels_are_counted_exactly(data: st.DataObject):
    maps = []
    for _ in range(data.draw(st.integers(1, 3))):
        dtype, top = data.draw(st.sampled_from(sorted(DTYPES.items(), key=str)))
        values = data.draw(st.lists(st.integers(-1 if dtype is np.int32 else 0, top), min_size=1, max_size=30))
        maps.append(np.array([values], dtype=dtype))
    expected = collections.Counter(value for label in maps for value in label.ravel().tolist())
    scans = [PairScan(*count_values(label)) for label in maps]
    assert add_counts(scans) == expected


def test_classes_of_one_name_stay_apart():
    """ADE20K's 847 classes have names that are there twice."""
    labels = Labels(('step', 'step', 'wall'), 0, (65535,))
    described = describe_labels(labels, {0: 5, 1: 3, 65535: 2})
    assert described == ('2/3', '20.0%', 'step 50.0%, step 30.0%')
