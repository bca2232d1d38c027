"""How much of each room the tests ran."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools import rooms_covered
from tools.rooms_covered import EXCEPTIONS, Covered, by_room, read, report

FILES = {
    'clip/model.py': Covered(100, 99),
    'naclip/api.py': Covered(10, 10),
    'naclip/walk/text.py': Covered(30, 20),
    'naclip/walk/windows.py': Covered(70, 69),
    'naclip/harness/run.py': Covered(0, 0),
}


def test_sums_of_rooms():
    rooms = by_room(FILES | dict.fromkeys(EXCEPTIONS, Covered(1000, 0)))
    assert rooms == {
        'clip': Covered(100, 99),
        'naclip': Covered(10, 10),
        'naclip/walk': Covered(100, 89),
        'naclip/harness': Covered(0, 0),
    }
    assert (rooms['naclip/walk'].percent, rooms['naclip/harness'].percent) == (89, 100)


def test_a_room_below_what_is_asked_is_told_with_its_files():
    said = []
    assert report(FILES, 90, said.append) == 1
    assert said[-2:] == ['naclip/walk is below 90 %:', '  naclip/walk/text.py 66.7 %']
    assert report(FILES, 89, said.append) == 0


def test_exceptions_exist():
    for file in EXCEPTIONS:
        assert (ROOT / file).exists()


@pytest.mark.slow
def test_lines_that_ran_are_read(tmp_path: Path):
    """A real run in a child process under this repository's settings."""
    code = 'from naclip.names import unknown; unknown("method", "nacllip", ["naclip"])'
    command = [sys.executable, '-m', 'coverage', 'run', f'--rcfile={ROOT}/pyproject.toml']
    (tmp_path / 'code.py').write_text(code)
    data_file = tmp_path / 'covered'
    subprocess.run(
        [*command, f'--data-file={data_file}', 'code.py'], cwd=tmp_path, check=True, env={'PYTHONPATH': str(ROOT)}
    )
    combine = [sys.executable, '-m', 'coverage', 'combine', '--quiet', f'--data-file={data_file}']
    subprocess.run([*combine, str(tmp_path)], cwd=tmp_path, check=True)
    files = read(data_file)
    assert files['naclip/names.py'].percent > 60
    assert files['naclip/panel.py'].run == 0
    assert not any(file.startswith('tests') for file in files)


@pytest.mark.parametrize(('content', 'expected'), [(None, 'run `make test COVERAGE=1`'), (b'no database', 'covered')])
def test_what_is_no_data_is_refused(content: bytes | None, expected: str, tmp_path: Path, capfd: pytest.CaptureFixture):
    if content:
        (tmp_path / 'covered').write_bytes(content)
    assert rooms_covered.main([str(tmp_path / 'covered')]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith('rooms_covered.py: ')
    assert expected in line
