"""What the page shows, as one JSON value."""

import json
from pathlib import Path

import numpy as np
import pytest

from naclip.reports.content import cost_text, report_content
from naclip.reports.matrix import lines_of
from naclip.reports.runs import find_runs
from tests.naclip.reports.made import random_matrix, write_gallery, write_run

NAMES = [f'c{k}' for k in range(5)]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed in range(2):
        path = write_run(tmp_path / f'm{seed}', random_matrix(seed), method=f'm{seed}')
        np.save(path.with_name('confusion.npy'), random_matrix(seed))
        write_gallery(tmp_path / f'm{seed}/gallery', NAMES, 4, seed)
    return tmp_path


def content_of(folder: Path, **options):
    runs = find_runs([folder]).runs
    return runs, *report_content(runs, lines_of(runs), **options)


def test_numbers_are_those_of_the_runs(runs: Path):
    found, content, problems, remarks = content_of(runs)
    assert (problems, remarks) == ([], [])
    assert json.loads(json.dumps(content, allow_nan=False)) == json.loads(json.dumps(content))
    for run, shown in zip(found, content['runs'], strict=True):
        assert shown['miou'] == pytest.approx([run.miou(), run.miou(False), run.miou(True)])
        assert shown['shown'][0] == f'{run.miou():.2f}'
        assert shown['iou'] == [None if value != value else round(value, 2) for value in run.counts.iou()]
        assert len(shown['confusion']['classes']) == 4  # the fifth never occurs
    assert content['lines'][0]['runs'] == {'voc21': 0}
    assert content['tables'][0]['names'] == tuple(NAMES)
    assert len(content['pictures']) == 4
    assert [shot['run'] for shot in content['pictures'][0]['shots']] == [0, 1]


def test_pictures_up_to_a_number_of_bytes(runs: Path):
    _, content, _, _ = content_of(runs)
    sizes = [len(p['photo']) + len(p['truth']) + sum(len(s['map']) for s in p['shots']) for p in content['pictures']]
    _, less, problems, remarks = content_of(runs, budget=sum(sizes[:2]))
    assert less['pictures'] == content['pictures'][:2]
    assert problems == []
    assert remarks[0].startswith('2 of 4 kept pictures are in the page')


def test_damaged_files_are_told_and_the_rest_is_shown(runs: Path):
    np.save(runs / 'm0/confusion.npy', np.zeros((2, 2), int))
    (runs / 'm1/per_image.csv').write_text('a,b\n')
    next((runs / 'm0/gallery').glob('*.jpg')).write_bytes(b'\xff\xd8')
    _, content, problems, _ = content_of(runs)
    assert len(problems) == 3
    assert content['runs'][0]['confusion'] is None
    assert content['runs'][1]['confusion'] is not None
    assert len(content['pictures']) == 3


def test_costs_in_words(tmp_path: Path):
    write_run(tmp_path / 'a', random_matrix(0), seconds={'total': 9.0, 'per_image': 0.25})
    write_run(tmp_path / 'b', random_matrix(1), seconds={'total': 9.0, 'per_image': 0.25, 'shared_by': 5})
    write_run(tmp_path / 'c', random_matrix(2))
    alone, shared, unknown = map(cost_text, find_runs([tmp_path]).runs)
    assert alone == '0.25 s a picture on x'
    assert shared == '0.25 s a picture on x, for 5 methods in one pass'
    assert unknown == 'not recorded'
