"""Files and folders that are there whole or not at all."""

import os
from pathlib import Path

import pytest

from naclip.files import folder_written_whole, written_whole


def test_file_takes_its_name_at_the_end(tmp_path: Path):
    target = tmp_path / 'a.txt'
    target.write_text('old')
    with written_whole(target) as temporary:
        temporary.write_text('new')
        assert target.read_text() == 'old'
    assert target.read_text() == 'new'
    assert os.listdir(tmp_path) == ['a.txt']


@pytest.mark.parametrize('there', [False, True])
def test_folder_takes_its_name_at_the_end(tmp_path: Path, there: bool):
    target = tmp_path / 'deep' / 'folder'
    if there:
        target.mkdir(parents=True)
        (target / 'old.txt').touch()
    with folder_written_whole(target) as temporary:
        (temporary / 'new.txt').touch()
        assert target.exists() == there
        assert not (target / 'new.txt').exists()
    assert os.listdir(target) == ['new.txt']
    assert os.listdir(target.parent) == ['folder']


def fail_within(target: Path, error: type[BaseException]) -> None:
    with folder_written_whole(target) as temporary:
        (temporary / 'new.txt').touch()
        raise error


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
@pytest.mark.parametrize('there', [False, True])
def test_failure_leaves_the_folder_as_it_was(tmp_path: Path, there: bool, error: type[BaseException]):
    target = tmp_path / 'folder'
    if there:
        target.mkdir()
        (target / 'old.txt').touch()
    with pytest.raises(error):
        fail_within(target, error)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*.txt')] == ['folder/old.txt'] * there
    assert os.listdir(tmp_path) == ['folder'] * there


def test_folder_behind_a_link_is_replaced_not_the_link(tmp_path: Path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to('real')
    with folder_written_whole(tmp_path / 'link') as temporary:
        (temporary / 'new.txt').touch()
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'real/new.txt').is_file()
