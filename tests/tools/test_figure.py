"""tools/figure.py, end to end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.naclip.reports.made import write_many, write_run
from tests.naclip.reports.test_runs import random_matrix
from tools.figure import main


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return write_many(tmp_path / 'runs', methods=3, benchmarks=2, classes=6, pictures=4)


@pytest.mark.parametrize('name', ['figure.pdf', 'deep/figure.PNG'])
def test_figure(runs: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture):
    out = tmp_path / name
    options = ['--benchmark', 'bench01', '--pictures', 'img/0.png', 'differ', '--methods', 'method02', 'method00']
    assert main([str(runs), *options, '-o', str(out)]) == 0
    assert f'2 methods  ->  {out}' in capsys.readouterr().out
    if name.endswith('.pdf'):
        assert out.read_bytes().startswith(b'%PDF')
    else:
        with Image.open(out) as image:
            assert image.width == 4 * 1.6 * 200
    assert os.listdir(out.parent).count(out.name) == 1
    assert not list(out.parent.glob('.*.tmp'))


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['-o', 'figure.svg'], 'expected a name that ends in .pdf or .png'),
        (['--benchmark', 'bench07', '-o', 'f.pdf'], "unknown benchmark 'bench07': choose from bench00, bench01"),
        (['--methods', 'method9', '-o', 'f.pdf'], "no run of 'method9' kept pictures; there are method00; method01"),
        (['--methods', 'metod01', '-o', 'f.pdf'], 'did you mean method01?'),
        (['--pictures', 'cat', '-o', 'f.pdf'], "no kept picture is called 'cat'"),
        (['--pictures', 'img/0.png', '-o', 'f.pdf'], "'img/0.png' fits 2 pictures"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(runs: Path, tmp_path: Path, options, said: str, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(runs), *options]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith('figure.py: ')
    assert said in lines[0]
    assert os.listdir(tmp_path) == ['runs']


def test_runs_without_pictures(tmp_path: Path, capsys: pytest.CaptureFixture):
    write_run(tmp_path / 'run', random_matrix(0))
    assert main([str(tmp_path / 'run'), '-o', str(tmp_path / 'f.pdf')]) == 1
    assert 'no run here kept pictures: evaluate with eval.py --gallery N' in capsys.readouterr().err
    assert os.listdir(tmp_path) == ['run']


def test_damaged_galleries_are_left_out_and_told(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (runs / 'method00/bench00/gallery/index.json').write_text('{')
    assert main([str(runs), '--pictures', 'worst', '-o', str(tmp_path / 'f.png')]) == 1
    assert 'left out: ' in capsys.readouterr().err
    assert (tmp_path / 'f.png').is_file()


@pytest.mark.slow
def test_as_a_process(tmp_path: Path):
    command = [sys.executable, str(ROOT / 'tools/figure.py'), str(tmp_path), '-o', str(tmp_path / 'f.pdf')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith('figure.py: no results.json in or below')
