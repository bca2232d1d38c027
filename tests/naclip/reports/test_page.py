"""A report's files."""

import json
import re
from pathlib import Path

import pytest

from naclip.reports import page
from naclip.reports.page import make_report, plot_name
from naclip.reports.runs import find_runs
from tests.naclip.reports.made import random_matrix, write_gallery, write_run
from tests.naclip.reports.test_training import write_training

EVIL = '</script><b onclick="x">&'


def test_every_text_is_escaped(tmp_path: Path):
    record = json.loads(write_run(tmp_path / 'evil', random_matrix(0), EVIL, method=EVIL, protocol=EVIL).read_text())
    for row in record['classes']:
        row['name'] = EVIL
    (tmp_path / 'evil/results.json').write_text(json.dumps(record | {'changes': {EVIL: 1}, 'backbone': EVIL}))
    write_gallery(tmp_path / 'evil/gallery', [EVIL] * 5, 2)
    files, left_out, _ = make_report(find_runs([tmp_path]), [tmp_path])
    html = files['report.html'].decode()
    assert left_out == []
    assert EVIL not in html
    assert '<b ' not in html
    assert html.count('</script>') == 2
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1]
    assert json.loads(data)['runs'][0]['benchmark'] == EVIL
    assert '<b ' not in files['report.md'].decode()


@pytest.mark.slow
def test_files_and_their_names(tmp_path: Path):
    for i, std in enumerate((1.0, 5.0)):
        settings = {'gaussian_std': std}
        write_run(tmp_path / str(i), random_matrix(i), settings=settings, changes=settings)
    write_run(tmp_path / 'clip', random_matrix(5), method='clip', seconds={'total': 1.0, 'per_image': 0.5})
    write_run(tmp_path / 'gem', random_matrix(6), method='gem', seconds={'total': 1.0, 'per_image': 0.7})
    write_training(tmp_path / 'training')
    files, left_out, notes = make_report(find_runs([tmp_path]), [tmp_path])
    assert left_out == []
    assert {name for name in files if '/' not in name} == {
        'report.html',
        'report.md',
        'table.csv',
        'table.tex',
        'runs.csv',
    }
    for name in ('sweep_01_voc21_gaussian_std', 'cost_01_voc21', 'training_01'):
        assert files[f'plots/{name}.png'].startswith(b'\x89PNG')
        assert files[f'plots/{name}.svg'].startswith(b'<?xml')
    assert 'plots/01_voc21_naclip_classes.png' in files
    assert files['report.html'].count(b'data:image/svg+xml') == 3
    assert 'training has no results.json: not evaluated, or unfinished' in notes[0]
    assert r'\begin{tabular}{lr}' in files['table.tex'].decode()


def test_plots_of_single_runs_are_for_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(page, 'PLOTTED', 1)
    for i in range(2):
        write_run(tmp_path / str(i), random_matrix(i), method=f'm{i}')
    files, _, notes = make_report(find_runs([tmp_path]))
    assert [name for name in files if name.startswith('plots/')] == ['plots/01_voc21_m0_classes.png']
    assert notes == ['plots/ has classes and confusions of the first 1 of 2 runs']


def test_a_reports_page_asks_for_nothing(tmp_path: Path):
    write_run(tmp_path, random_matrix(0))
    html = make_report(find_runs([tmp_path]))[0]['report.html'].decode()
    assert "default-src 'none'" in html
    assert not re.search(r'https?://', html)
    assert not re.search(r'\b(fetch|XMLHttpRequest|WebSocket|innerHTML|eval)\b', html)


def test_names_of_plots():
    assert plot_name('01_a/b c_$x', 'png') == 'plots/01_a_b_c__x.png'
