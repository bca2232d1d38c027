"""The matrix against brute force, and as texts."""

import csv
import io
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naclip.reports.matrix import (
    GROUPED,
    header_of,
    labels_of,
    lines_of,
    make_matrix,
    matrix_csv,
    matrix_latex,
    matrix_markdown,
    ranked,
)
from naclip.reports.runs import find_runs
from tests.naclip.reports.made import random_matrix, write_run


@given(st.lists(st.one_of(st.just(math.nan), st.sampled_from([1.0, 1.001, 1.01, 2.0, 3.5, 99.0])), max_size=8))
def test_ranks_count_what_is_better(values):
    cells = ranked(values)
    known = [round(value, 2) for value in values if not math.isnan(value)]
    for value, cell in zip(values, cells, strict=True):
        if math.isnan(value) or len(known) < 2:
            assert (cell.rank, cell.shade) == (None, None)
            continue
        better = {other for other in known if other > round(value, 2)}
        assert cell.rank == len(better)
        assert cell.shade == pytest.approx(1 - len(better) / max(len(set(known)) - 1, 1))
        assert cell.text == f'{value:.2f}'


@pytest.fixture
def runs(tmp_path: Path):
    """Two methods under one protocol, one of them on one benchmark only; a third under another protocol."""
    for i, (method, protocol, benchmarks) in enumerate(
        [('a_1', 'p', ['voc20', 'voc21']), ('b', 'p', ['voc20']), ('c', 'q', ['voc20', 'voc21'])]
    ):
        for j, benchmark in enumerate(benchmarks):
            only = {'settings': {'labelled_only': True}} if protocol == 'q' else {}
            place = tmp_path / method / benchmark
            write_run(place, random_matrix(10 * i + j), benchmark, method=method, protocol=protocol, **only)
    return find_runs([tmp_path]).runs


def test_groups_means_and_ranks(runs):
    matrix = make_matrix(lines_of(runs))
    assert matrix.benchmarks == ['voc20', 'voc21']
    assert [group.title for group in matrix.groups] == [
        'protocol p, backbone ViT-B/16',
        'protocol q, backbone ViT-B/16',
    ]
    first, second = matrix.groups[0].rows
    by_key = {(run.record['method'], run.benchmark): run for run in runs}
    a = [by_key['a_1', name].miou() for name in matrix.benchmarks]
    b = by_key['b', 'voc20'].miou()
    assert (first.mean.text, first.count) == (f'{sum(a) / 2:.2f}', 2)
    assert (second.mean.text, second.count) == (f'{b:.2f}', 1)
    assert {first.cells[0].rank, second.cells[0].rank} == {0, 1}
    assert first.cells[0].rank == (0 if a[0] > b else 1)
    # a mean over fewer benchmarks is another number, and has no rank; nor has what is alone
    assert first.mean.rank is second.mean.rank is first.cells[1].rank is None
    assert second.cells[1].text == '-'
    (alone,) = matrix.groups[1].rows
    assert [cell.rank for cell in (*alone.cells, alone.mean)] == [None] * 3
    assert alone.cells[0].text == f'{by_key["c", "voc20"].miou(True):.2f}'


def test_all_in_one_group(runs):
    matrix = make_matrix(lines_of(runs), labelled_only=False, grouped=())
    (group,) = matrix.groups
    assert (group.title, matrix.beside, header_of(matrix)[:3]) == (
        '',
        list(GROUPED),
        ['method', 'protocol', 'backbone'],
    )
    order = sorted(group.rows, key=lambda row: row.cells[0].rank)
    values = [row.line.runs['voc20'].miou(False) for row in order]
    assert values == sorted(values, reverse=True)
    means = {row.line.label: row.mean.rank for row in group.rows}
    assert means['b'] is None
    assert {means['a_1'], means['c']} == {0, 1}


def test_one_benchmark_has_no_mean(runs):
    matrix = make_matrix(lines_of(runs), only=['voc21'])
    assert header_of(matrix) == ['method', 'voc21']
    assert [row.line.label for group in matrix.groups for row in group.rows] == ['a_1', 'c']
    assert 'Mean' not in matrix.caption


def test_caption_states_what_a_table_must(runs, tmp_path: Path):
    lines = lines_of(runs)
    mixed = make_matrix(lines).caption
    assert mixed.startswith(
        'mIoU in %, over the classes that each protocol counts. Protocols: p, q. Backbone: ViT-B/16.'
    )
    assert make_matrix(lines[:2]).caption.startswith(
        'mIoU in %, over all classes that are labelled or predicted. Protocol: p.'
    )
    assert make_matrix(lines, True).caption.startswith('mIoU in %, over the classes in the ground truth. ')
    for i, method in enumerate('ab'):
        write_run(tmp_path / 'few' / method, random_matrix(i), method=method, settings={'limit': 40})
    few = lines_of(find_runs([tmp_path / 'few']).runs)
    assert [line.label for line in few] == ['a', 'b']
    assert 'Only the first 40 pictures.' in make_matrix(few).caption
    both = lines_of([*find_runs([tmp_path / 'few']).runs, *runs])
    assert [line.label for line in both][:2] == ['a, first 40', 'b, first 40']


def test_texts(runs):
    matrix = make_matrix(lines_of(runs))
    rows = list(csv.DictReader(io.StringIO(matrix_csv(matrix), newline='')))
    assert [(row['method'], row['protocol'], row['mean of']) for row in rows] == [
        ('a_1', 'p', '2'),
        ('b', 'p', '1'),
        ('c', 'q', '2'),
    ]
    assert (rows[1]['voc21'], rows[1]['mean']) == ('', rows[1]['voc20'])
    latex = matrix_latex(matrix)
    assert latex.count(r'\midrule') == 2
    assert r'a\_1' in latex
    assert re.findall(r'\\textbf\{([\d.]+)\}', latex) == [max(rows[0]['voc20'], rows[1]['voc20'], key=float)]
    assert f'{rows[1]["mean"]} (1)' in latex
    markdown = matrix_markdown(matrix)
    assert markdown.splitlines()[0] == '| method | voc20 | voc21 | mean |'
    assert re.findall(r'\*\*([\d.]+)\*\*', markdown) == re.findall(r'\\textbf\{([\d.]+)\}', latex)
    assert re.findall(r'<u>([\d.]+)</u>', markdown) == re.findall(r'\\underline\{([\d.]+)\}', latex)


def test_labels_tell_all_runs_of_a_benchmark_apart(tmp_path: Path):
    for i, (protocol, backbone) in enumerate([('p', 'ViT-B/16'), ('q', 'ViT-B/16'), ('q', 'ViT-L/14')]):
        write_run(tmp_path / str(i), random_matrix(i), method='m', protocol=protocol, backbone=backbone)
    write_run(tmp_path / 'other', random_matrix(5), method='n')
    runs = find_runs([tmp_path]).runs
    labels = [labels_of(lines_of(runs))[id(run)] for run in runs]
    assert len(set(labels)) == 4
    assert labels[-1] == 'n'
    assert labels[0] == 'm (p)'
