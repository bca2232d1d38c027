"""Several runs in one table."""

import json
from pathlib import Path

import pytest

from tools.table import main


def write(folder: Path, benchmark: str, miou: float | None, **changes) -> None:
    record = dict(benchmark=benchmark, method='naclip', protocol='naclip', changes={}, backbone='a/b.pt')
    record |= dict(settings={'limit': None}, metrics={'mIoU': miou}) | changes
    folder.mkdir(parents=True)
    (folder / 'results.json').write_text(json.dumps(record))


def test_methods_by_benchmarks(tmp_path: Path, capsys: pytest.CaptureFixture):
    write(tmp_path / 'one/voc21', 'voc21', 12.344)
    write(tmp_path / 'one/ade20k', 'ade20k', 6.0)
    write(tmp_path / 'two', 'voc21', 10.0, method='sclip', protocol='sclip', changes={'prob_thd': 0.2})
    write(tmp_path / 'three', 'voc21', None, settings={'limit': 3})
    assert main([str(tmp_path / name) for name in ('one', 'two', 'three')]) == 0
    assert capsys.readouterr().out.splitlines() == [
        '| method (protocol; backbone) | ade20k | voc21 |',
        '| --- | --- | --- |',
        '| naclip (naclip; b.pt) | 6.00 | 12.34 |',
        '| sclip (sclip, prob_thd 0.2; b.pt) | - | 10.00 |',
        '| naclip (naclip, first 3; b.pt) | - | - |',
    ]


def test_folder_without_results(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith('table.py: no results.json in or below')
