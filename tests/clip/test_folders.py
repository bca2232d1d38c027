"""Where things are kept that a home cannot keep."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from clip.folders import spare_folder, with_spare


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    return tmp_path


def made_in(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'made').touch()
    return folder / 'made'


def test_the_spare_folder_is_this_users_alone(temporary: Path):
    folder = spare_folder()
    assert folder == spare_folder() == temporary / f'naclip-{os.getuid()}'
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize('kind', ['open', 'link', 'file'])
def test_a_spare_folder_that_somebody_else_may_fill_is_not_used(temporary: Path, kind: str):
    name = temporary / f'naclip-{os.getuid()}'
    if kind == 'open':
        name.mkdir()
        name.chmod(0o777)
    elif kind == 'link':
        (temporary / 'elsewhere').mkdir()
        name.symlink_to(temporary / 'elsewhere')
    else:
        name.touch()
    folder = spare_folder()
    assert folder not in (name, temporary / 'elsewhere')
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_can_be_written_to(temporary: Path, caplog: pytest.LogCaptureFixture):
    assert with_spare(made_in, temporary / 'a' / 'b') == temporary / 'a' / 'b' / 'made'
    assert not caplog.records


def test_a_folder_that_cannot(temporary: Path, caplog: pytest.LogCaptureFixture):
    (temporary / 'file').touch()
    assert with_spare(made_in, temporary / 'file' / 'b') == spare_folder() / 'made'
    (record,) = caplog.records
    expected = f'{temporary}/file/b cannot be written to (.*Not a directory.*): using {spare_folder()}'
    assert record.getMessage().startswith(expected.partition('(')[0])
    assert record.getMessage().endswith(expected.partition(')')[2])


def test_no_home_at_all(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """As in a container, for a user without an entry."""
    monkeypatch.delenv('HOME')
    monkeypatch.setattr('pwd.getpwuid', lambda _: {}['no entry'])
    assert with_spare(made_in, Path('~/.cache/clip')) == spare_folder() / 'made'
    assert len(caplog.records) == 1


@pytest.mark.parametrize('error', [ConnectionError('no network'), OSError(errno.ENOSPC, 'full'), RuntimeError('other')])
def test_other_errors_are_not_hidden(temporary: Path, error: Exception):
    def make(folder: Path) -> Path:
        raise error

    with pytest.raises(type(error)):
        with_spare(make, temporary)
    assert not (temporary / f'naclip-{os.getuid()}').exists()
