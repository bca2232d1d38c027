"""COCO's run lengths, against pycocotools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from naclip.data.run_lengths import compressed, decode, encode, run_lengths


def compress(runs: list[int]) -> str:
    """COCO's compressed text of run lengths, by its definition: groups of five bits in two's complement."""
    text = ''
    for i, run in enumerate(runs):
        value = run - (runs[i - 2] if i > 2 else 0)
        while True:
            group, value = value & 31, value >> 5
            last = value == (-1 if group & 16 else 0)
            text += chr(48 + group + (0 if last else 32))
            if last:
                break
    return text


MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(MASKS)
def test_round_trip(mask):
    encoded = encode(mask)
    assert np.array_equal(decode(encoded, *mask.shape), mask)
    runs = run_lengths(encoded['counts'])
    assert runs.sum() == mask.size
    assert runs[1::2].sum() == mask.sum()
    assert np.array_equal(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(mask.shape[::-1]).T, mask)
    plain = {'size': list(mask.shape), 'counts': runs.tolist()}
    assert np.array_equal(decode(plain, *mask.shape), mask)
    assert coco.frPyObjects(plain, *mask.shape)['counts'] == compressed(encoded, *mask.shape)['counts']


@given(st.lists(st.integers(0, 3_000_000)))
def test_compressed_runs(runs):
    assert run_lengths(compress(runs)).tolist() == runs


def test_large_runs():
    mask = np.zeros((1500, 2250), bool)
    mask[:, 1000:] = True
    assert run_lengths(encode(mask)['counts']).tolist() == [1_500_000, 1_875_000]


@given(MASKS, st.integers(1, 5))
def test_texts_that_end_too_early_are_refused(mask, fewer):
    """pycocotools would fill them up with whatever is in memory."""
    encoded = encode(mask)
    encoded['counts'] = encoded['counts'][:-fewer]
    with pytest.raises(ValueError, match='run'):
        decode(encoded, *mask.shape)


@pytest.mark.parametrize(
    ('counts', 'reason'),
    [
        ('é', 'is no character'),
        ('P' * 20, 'cut short'),
        ('o' * 20 + '0', 'too large'),
        ([5, -1, 2], 'add up'),
        ([7], 'add up'),
    ],
)
def test_nonsense_is_refused(counts, reason):
    with pytest.raises(ValueError, match=reason):
        decode({'size': [2, 3], 'counts': counts}, 2, 3)
