"""One benchmark class by class, against brute force."""

import math
from pathlib import Path

import numpy as np
import pytest

from naclip.reports.classes import class_tables, confused_pairs
from naclip.reports.runs import find_runs
from tests.naclip.reports.made import random_matrix, write_run


def test_spread_and_order(tmp_path: Path):
    for i, method in enumerate('abc'):
        write_run(tmp_path / method, random_matrix(i), method=method)
    write_run(tmp_path / 'other', random_matrix(7), 'voc20')
    first, second = class_tables(find_runs([tmp_path]).runs)
    assert (first.benchmark, second.benchmark, len(first.runs)) == ('voc21', 'voc20', 3)
    assert first.iou.shape == (5, 3)
    spreads = []
    for k in range(5):
        values = [run.counts.iou()[k] for run in first.runs if not math.isnan(run.counts.iou()[k])]
        spreads.append(max(values) - min(values) if len(values) > 1 else math.nan)
    np.testing.assert_allclose(first.spread, spreads)
    assert first.order == sorted(range(5), key=lambda k: -1e-9 if math.isnan(spreads[k]) else -spreads[k] - 1)
    assert math.isnan(spreads[4])
    assert first.order[-1] == 4
    assert np.isnan(second.spread).all()  # one run differs from nothing


def test_runs_with_other_class_names_have_a_table_of_their_own(tmp_path: Path):
    write_run(tmp_path / 'a', random_matrix(0, 5))
    write_run(tmp_path / 'b', random_matrix(0, 6))
    assert [len(table.names) for table in class_tables(find_runs([tmp_path]).runs)] == [5, 6]


def test_pairs():
    matrix = random_matrix(3)
    pairs = confused_pairs(matrix, 4)
    wrong = sorted(((int(matrix[i, j]), i, j) for i in range(5) for j in range(5) if i != j), reverse=True)[:4]
    assert [(n, i, j) for i, j, n, _ in pairs] == wrong
    assert [share for *_, share in pairs] == pytest.approx([100 * n / matrix[i].sum() for n, i, _ in wrong])
