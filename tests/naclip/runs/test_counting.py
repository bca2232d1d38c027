"""Pixel counts, against counting pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from naclip.runs.counting import count_table, counted, label_rows

K, IGNORED = 5, 255
SHAPE = (7, 9)
PRED = arrays.arrays(np.int64, SHAPE, elements=st.integers(0, K - 1))
LABEL = arrays.arrays(np.int64, SHAPE, elements=st.sampled_from([0, 1, 2, 3, 4, 5, 254, IGNORED, -1]))


@given(PRED, LABEL)
def test_as_pixel_by_pixel(pred: np.ndarray, label: np.ndarray):
    expected: dict[tuple[int, int], int] = {}
    strange = 0
    for p, t in zip(pred.flat, label.flat, strict=True):
        if 0 <= t < K:
            expected[int(t), int(p)] = expected.get((int(t), int(p)), 0) + 1
        elif t != IGNORED:
            strange += 1
    rows = label_rows(torch.from_numpy(label), K, IGNORED)
    found = counted(count_table(torch.from_numpy(pred), rows, K))
    assert [tuple(row) for row in found.cells.tolist()] == [(*key, expected[key]) for key in sorted(expected)]
    assert found.strange == strange


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int32, torch.int64])
def test_any_integers_on_any_device(dtype: torch.dtype, device: torch.device):
    label = torch.tensor([[0, 1, IGNORED], [4, 4, 4]], dtype=dtype)
    pred = torch.tensor([[0, 3, 2], [4, 4, 1]])
    table = count_table(pred.to(device), label_rows(label.to(device), K, IGNORED), K)
    assert table.device.type == device.type
    assert counted(table.cpu()).cells.tolist() == [[0, 0, 1], [1, 3, 1], [4, 1, 1], [4, 4, 2]]


def test_a_class_may_be_ignored():
    label = torch.tensor([[0, 1, 2]])
    found = counted(count_table(torch.tensor([[1, 1, 1]]), label_rows(label, 3, 1), 3))
    assert found.cells.tolist() == [[0, 1, 1], [2, 1, 1]]
