"""Runs side by side, against brute force."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import clip
from naclip.reports import runs as reports
from naclip.reports.plots import class_bars, confusion_map
from tests.naclip.reports.made import random_matrix, write_run


def test_both_conventions_as_brute_force(tmp_path: Path):
    matrix = random_matrix(0)
    write_run(tmp_path, matrix)
    (run,) = reports.find_runs([tmp_path]).runs
    ious = []
    for k in range(4):  # class 4 never occurs, class 3 is only predicted
        ious.append(100 * matrix[k, k] / (matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]))
    assert run.miou(labelled_only=False) == pytest.approx(sum(ious) / 4)
    assert run.miou(labelled_only=True) == pytest.approx(sum(ious[:3]) / 3)
    assert run.name == 'naclip (naclip; ViT-B/16)'


def test_rows_and_means(tmp_path: Path):
    for i, benchmark in enumerate(('voc20', 'voc21')):
        write_run(tmp_path / 'a' / benchmark, random_matrix(i), benchmark)
        write_run(tmp_path / 'b' / benchmark, random_matrix(i + 9), benchmark)
    write_run(tmp_path / 'c', random_matrix(5), 'voc20', method='sclip', protocol='sclip')
    found = reports.find_runs([tmp_path / name for name in 'abc'])
    rows = reports.make_rows(found.runs)
    assert [row.name for row in rows] == [
        f'naclip (naclip; ViT-B/16); {tmp_path / "a"}',
        f'naclip (naclip; ViT-B/16); {tmp_path / "b"}',
        'sclip (sclip; ViT-B/16)',
    ]
    assert sum(len(row.runs) for row in rows) == len(found.runs) == 5
    values = [rows[0].runs[benchmark].miou(True) for benchmark in ('voc20', 'voc21')]
    assert rows[0].mean(['voc20', 'voc21'], True) == (pytest.approx(sum(values) / 2), 2)
    assert rows[2].mean(['voc20', 'voc21'], True) == (rows[2].runs['voc20'].miou(True), 1)
    assert rows[2].mean(['voc21'], True) is None
    assert [row.label() for row in rows] == [f'naclip; {tmp_path / "a"}', f'naclip; {tmp_path / "b"}', 'sclip']
    assert len([note for note in found.notes if 'but other counts' in note]) == 2


def test_nothing_is_dropped_silently(tmp_path: Path):
    write_run(tmp_path / 'good', random_matrix(0))
    write_run(tmp_path / 'twin', random_matrix(0))
    (tmp_path / 'bad').mkdir()
    (tmp_path / 'bad/results.json').write_text('{"benchmark": ')
    (tmp_path / 'old').mkdir()
    (tmp_path / 'old/results.json').write_text(json.dumps({'benchmark': 'voc21'}))
    wrong = json.loads(write_run(tmp_path / 'wrong', random_matrix(0)).read_text())
    wrong['classes'][1]['union'] += 1
    (tmp_path / 'wrong/results.json').write_text(json.dumps(wrong))
    (tmp_path / 'started/20260101/vis_data').mkdir(parents=True)
    (tmp_path / 'killed/counts').mkdir(parents=True)
    (tmp_path / 'empty').mkdir()
    found = reports.find_runs([tmp_path])
    assert [run.path.parent.name for run in found.runs] == ['good']
    for line, part in zip(
        found.left_out, ('damaged or unfinished', 'lacks method', 'class 1: its pixel counts contradict'), strict=True
    ):
        assert part in line
    assert [
        part in note for note, part in zip(found.notes, ('shown once', 'empty', 'killed', 'started'), strict=True)
    ] == [True] * 4
    with pytest.raises(FileNotFoundError, match=r'no results\.json in or below'):
        reports.find_runs([tmp_path / 'empty'])
    with pytest.raises(ValueError, match=r'no results\.json can be used: .*damaged'):
        reports.find_runs([tmp_path / 'bad'])


def test_difference_only_under_the_published_settings(tmp_path: Path):
    write_run(tmp_path / 'a', random_matrix(0))
    write_run(tmp_path / 'b', random_matrix(0), settings={'limit': 3})
    same, other = map(reports.compare, reports.find_runs([tmp_path]).runs)
    assert same.difference == pytest.approx(reports.find_runs([tmp_path / 'a']).runs[0].miou() - 62.36)
    assert (other.published, other.difference, other.note) == (62.36, None, 'other settings: the first 3 pictures')


def test_runs_of_earlier_releases_are_of_the_form_that_was_assumed_then(tmp_path: Path):
    """They do not say it, and are the same run as one that does."""
    form = dict(activation='quick_gelu', head_width=64, text_activation='quick_gelu', text_head_width=64)
    form |= dict(mean=list(clip.MEAN), std=list(clip.STD), form_known_by="the SHA-256 of OpenAI's ViT-B/16")
    write_run(tmp_path / 'earlier', random_matrix(0))
    write_run(tmp_path / 'now', random_matrix(0), settings=form)
    write_run(tmp_path / 'other', random_matrix(0), settings=form | {'activation': 'gelu'})
    found = reports.find_runs([tmp_path])
    assert [run.path.parent.name for run in found.runs] == ['earlier', 'other']


def test_sweeps_differ_in_one_setting(tmp_path: Path):
    for i, (std, prob_thd) in enumerate([(1.0, 0.1), (5.0, 0.1), (5.0, 0.3), (9.0, 0.7)]):
        settings = {'gaussian_std': std, 'prob_thd': prob_thd}
        write_run(tmp_path / str(i), random_matrix(i), settings=settings, changes=settings)
    first, second = reports.find_sweeps(reports.find_runs([tmp_path]).runs)
    assert (first.setting, second.setting) == ('gaussian_std', 'prob_thd')
    assert [[x for x, _ in points] for sweep in (first, second) for points in sweep.lines.values()] == [
        [1, 5],
        [0.1, 0.3],
    ]


def test_confusion(tmp_path: Path):
    matrix = random_matrix(3)
    write_run(tmp_path, matrix)
    (run,) = reports.find_runs([tmp_path]).runs
    assert reports.read_confusion(run) is None
    np.save(tmp_path / 'confusion.npy', matrix)
    read = reports.read_confusion(run)
    np.testing.assert_array_equal(read, matrix)
    wrong = {k: sum(int(matrix[k, j] + matrix[j, k]) for j in range(5) if j != k) for k in range(5)}
    assert reports.most_confused(matrix, 3) == sorted(wrong, key=wrong.get, reverse=True)[:3]
    assert 4 not in reports.most_confused(matrix)
    pairs = sorted(((int(matrix[i, j]), i, j) for i in range(5) for j in range(5) if i != j), reverse=True)[:4]
    assert reports.worst_pairs(matrix, 4) == [(i, j, n) for n, i, j in pairs]
    shares = reports.row_shares(matrix)
    assert shares[0, 1] == pytest.approx(matrix[0, 1] / matrix[0].sum())
    assert math.isnan(shares[3, 0])
    assert confusion_map(run, matrix).startswith(b'\x89PNG')
    np.save(tmp_path / 'confusion.npy', matrix.T)
    with pytest.raises(ValueError, match='is not of this run'):
        reports.read_confusion(run)


def test_worst_pictures(tmp_path: Path):
    write_run(tmp_path, random_matrix(0))
    (run,) = reports.find_runs([tmp_path]).runs
    assert reports.read_worst_pictures(run) is None
    path = tmp_path / 'per_image.csv'
    path.write_text('image,mIoU,pixels\nb.png,50,4\n"a,1.png",3.5,4\nc.png,,4\n')
    header, rows = reports.read_worst_pictures(run, 2)
    assert (header, rows) == (['image', 'mIoU', 'pixels'], [['a,1.png', '3.5', '4'], ['b.png', '50', '4']])
    path.write_text('image,mIoU\nb.png,often\n')
    with pytest.raises(ValueError, match='line 2: expected 2 cells and a number'):
        reports.read_worst_pictures(run)


@pytest.mark.parametrize('classes', [5, 171])
def test_bars_of_strange_names(tmp_path: Path, classes: int):
    record = json.loads(write_run(tmp_path, random_matrix(0, classes)).read_text())
    for row, name in zip(record['classes'], ('$\\foo$', '猫', '<script>', 'a\n' * 99), strict=False):
        row['name'] = name
    (tmp_path / 'results.json').write_text(json.dumps(record))
    (run,) = reports.find_runs([tmp_path]).runs
    assert class_bars(run).startswith(b'\x89PNG')
