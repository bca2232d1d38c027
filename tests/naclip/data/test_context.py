"""PASCAL Context's class ids and masks."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmseg.datasets.pascal_context import PascalContextDataset59
from pycocotools import mask as coco

from naclip.data.context import (
    CLASS_IDS,
    NUM_IDS,
    decode_mask,
    draw_label,
    find_class_ids,
    label_table,
    plain_name,
    read_class_ids,
)
from naclip.data.conversion import InputError
from naclip.walk.vocabulary import read_vocabulary
from tests.conftest import ROOT
from tests.naclip.data.test_run_lengths import compress


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, the first of pixels outside; counted one pixel after the other."""
    runs, inside = [0], False
    for pixel in mask.T.ravel():
        if pixel != inside:
            runs.append(0)
            inside = not inside
        runs[-1] += 1
    return runs


def test_classes_are_mmsegmentations():
    assert tuple(CLASS_IDS) == PascalContextDataset59.METAINFO['classes']


def test_ids_are_places_in_the_list_of_459():
    """The list is the vocabulary of the benchmark of 459 classes, which is in the order of labels.txt."""
    names = [names[0] for names in read_vocabulary(ROOT / 'configs/cls_cliptrase_context459.txt').classes]
    assert len(names) == NUM_IDS
    assert [names[class_id - 1] for class_id in CLASS_IDS.values()] == list(CLASS_IDS)
    assert find_class_ids(enumerate(names, start=1), Path('x')) == tuple(CLASS_IDS.values())


def test_table():
    table = label_table()
    assert table.dtype == np.uint8
    assert table.shape == (460,)
    assert table[list(CLASS_IDS.values())].tolist() == list(range(1, 60))
    assert np.count_nonzero(table) == 59
    assert [table[i] for i in (0, 2, 284, 458, 459)] == [0, 1, 37, 59, 0]


@pytest.mark.parametrize(
    ('name', 'plain'),
    [
        ('Dining Table', 'table'),
        ('potted plant', 'pottedplant'),
        ('TV monitor', 'tvmonitor'),
        ('tv', 'tvmonitor'),
        ('bed clothes', 'bedclothes'),
        ('motorcycle', 'motorbike'),
        ('pool table', 'pooltable'),
    ],
)
def test_spellings(name: str, plain: str):
    assert plain_name(name) == plain


def test_list_of_names(tmp_path: Path):
    path = tmp_path / 'labels.txt'
    ids = dict(zip(reversed(CLASS_IDS), range(1, 60), strict=True))
    lines = [f'{number}: {name}' for name, number in ids.items()]
    lines[lines.index(f'{ids["table"]}: table')] = f'{ids["table"]}:dining table'
    path.write_text('\n'.join([*lines, '459: wool', '']))
    assert read_class_ids(path) == tuple(ids[name] for name in CLASS_IDS)
    path.write_text('\n'.join(lines[1:]))
    with pytest.raises(InputError, match=r'labels\.txt has ids \[\] for the class wood'):
        read_class_ids(path)
    path.write_text('\n'.join([*lines, '60: dining-table']))
    with pytest.raises(InputError, match=r'labels\.txt has ids \[\d+, 60\] for the class table'):
        read_class_ids(path)
    path.write_text('1 aeroplane')
    with pytest.raises(InputError, match=r"the line '1 aeroplane', expected"):
        read_class_ids(path)


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_run_lengths(height: int, width: int, data: st.DataObject):
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits).reshape(height, width)
    runs = runs_of(mask)
    for counts in (runs, compress(runs)):
        decoded = decode_mask({'size': [height, width], 'counts': counts}, height, width)
        np.testing.assert_array_equal(decoded, mask)


def test_text_of_pycocotools():
    """Written by pycocotools' mask.encode for this mask."""
    mask = np.zeros((50, 40), dtype=bool)
    mask[3:45, 20:31] = True
    mask[10:17, 22:24] = False
    mask[:, 39] = True
    text = '[o0Z1800mNOe01[OOe01>000000000000]<8'
    np.testing.assert_array_equal(decode_mask({'size': [50, 40], 'counts': text}, 50, 40), mask)
    assert compress(runs_of(mask)) == text


@pytest.mark.parametrize(
    ('segmentation', 'message'),
    [
        ({'counts': [3, 2], 'size': [2, 3]}, 'do not add up to 2 x 3'),
        ({'counts': [3, -1, 4], 'size': [2, 3]}, 'do not add up'),
        ({'counts': [6], 'size': [3, 2]}, r'of size \[3, 2\] for a picture of 2 x 3'),
        ({'counts': '6~', 'size': [2, 3]}, "'~' is no character"),
        ({'counts': 'P', 'size': [2, 3]}, 'cut short'),
        ({'mask': 'x'}, 'an encoding that is not known'),
        ('a.png', 'an encoding that is not known'),
        ([], 'an encoding that is not known'),
        (None, 'an encoding that is not known'),
    ],
)
def test_other_encodings(segmentation: object, message: str):
    with pytest.raises(ValueError, match=message):
        decode_mask(segmentation, 2, 3)


SQUARE = [[1, 1, 4, 1, 4, 3, 1, 3]]


def test_polygons():
    expected = coco.decode(coco.merge(coco.frPyObjects(SQUARE, 5, 6)))
    np.testing.assert_array_equal(decode_mask(SQUARE, 5, 6), expected.astype(bool))
    assert expected[1:3, 1:4].all()


def test_later_parts_cover_earlier_ones():
    whole = {'counts': [0, 6]}
    top = {'counts': [0, 1, 1, 1, 1, 1, 1]}
    np.testing.assert_array_equal(draw_label([(5, whole), (59, top)], 2, 3), [[59] * 3, [5] * 3])
    np.testing.assert_array_equal(draw_label([(5, top), (0, whole)], 2, 3), np.zeros((2, 3)))
    assert draw_label([], 2, 3).dtype == np.uint8
