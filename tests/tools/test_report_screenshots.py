"""tools/report_screenshots.py: pictures of a report's parts."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import NO_BROWSER
from tests.naclip.reports.made import write_many
from tools import report, report_screenshots

NEEDED = {'playwright': importlib.util.find_spec('playwright'), 'chromium': shutil.which('chromium')}
MISSING = ', '.join(name for name, found in NEEDED.items() if not found)


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f'{NO_BROWSER}: {MISSING} is not here')
def test_pictures_of_the_parts_that_there_are(tmp_path: Path, capsys: pytest.CaptureFixture):
    write_many(tmp_path / 'runs', methods=3, benchmarks=1, classes=5, pictures=2)
    assert report.main([str(tmp_path / 'runs'), '-o', str(tmp_path / 'report')]) == 0
    page, out = tmp_path / 'report/report.html', tmp_path / 'docs'
    assert report_screenshots.main([str(page), str(out), '--methods', 'method01']) == 0
    assert sorted(os.listdir(out)) == ['report_classes.png', 'report_matrix.png', 'report_pictures.png']
    with Image.open(out / 'report_matrix.png') as image:
        assert image.width <= report_screenshots.SIZE['width']
        assert len(image.convert('RGB').getcolors(1 << 20)) > 2


def test_without_a_report(tmp_path: Path, capsys: pytest.CaptureFixture):
    pytest.importorskip('playwright')
    assert report_screenshots.main([str(tmp_path / 'report.html'), str(tmp_path / 'docs')]) == 1
    assert 'does not exist: write a report with tools/report.py' in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
