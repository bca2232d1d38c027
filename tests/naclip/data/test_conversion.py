"""What the scripts that prepare data share; the rest is tested through them in tests/datasets/."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from naclip.data.conversion import (
    InputError,
    convert_files,
    is_whole_png,
    link_files,
    next_steps,
    read_lines,
    read_mat,
    run_parallel,
    run_script,
    spread,
    write_label,
)

SUFFIX = '_done.png'
# Python from 3.12 on warns of the way in which processes are started.


@given(st.integers(1, 300), st.integers(1, 300))
def test_spread(length: int, count: int):
    chosen = spread(range(length), count)
    assert len(chosen) == min(length, count)
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0
    if len(chosen) > 1:
        gaps = np.diff(chosen)
        assert chosen[-1] == length - 1
        assert gaps.max() - gaps.min() <= 1
    assert spread([], count) == []


@pytest.mark.parametrize('workers', [1, 2])
def test_results_are_in_the_order_of_the_jobs(workers: int):
    jobs = [(i, 2) for i in range(100)]
    assert run_parallel(pow, jobs, workers) == [i * i for i in range(100)]
    assert run_parallel(pow, [], workers) == []
    with pytest.raises(ZeroDivisionError):
        run_parallel(divmod, [(1, 1), (1, 0)], workers)


def write_number(number: int, target: Path) -> None:
    write_label(np.full((2, 3), number, dtype=np.uint8), target)


def test_only_what_is_missing_is_made(tmp_path: Path):
    jobs = [(i, tmp_path / f'{i // 3}' / f'{i}{SUFFIX}') for i in range(6)]
    assert convert_files(write_number, jobs[:4], SUFFIX, 1) == '4 converted, 0 skipped (already there)'
    jobs[1][1].write_bytes(jobs[1][1].read_bytes()[:-1])
    jobs[2][1].write_bytes(b'')
    (tmp_path / '0' / f'.9{SUFFIX}.{os.getpid()}.tmp').touch()
    assert convert_files(write_number, jobs, SUFFIX, 1) == '4 converted, 2 skipped (already there)'
    assert all(is_whole_png(target) for _, target in jobs)
    assert sorted(path.name for path in tmp_path.glob('*/*')) == [f'{i}{SUFFIX}' for i in range(6)]


def test_links_and_copies_of_some_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, target = tmp_path / 'a', tmp_path / 'b/c'
    source.mkdir()
    for name in ('1.jpg', '2.jpg', '3.jpg'):
        (source / name).write_text(name)
    assert link_files(source, target, ['1.jpg']) == 'pictures linked: 1 by hard links, 0 copied, 0 already in place'

    def refuse(*_args):
        raise OSError('not on this file system')

    monkeypatch.setattr(os, 'link', refuse)
    assert link_files(source, target, ['1.jpg', '3.jpg']).endswith('0 by hard links, 1 copied, 1 already in place')
    assert {path.name: path.read_text() for path in target.iterdir()} == {'1.jpg': '1.jpg', '3.jpg': '3.jpg'}


def test_matlab_numbers(tmp_path: Path):
    for dtype in (np.uint8, np.uint16, np.int32, np.float64):
        savemat(tmp_path / 'a.mat', {'S': np.array([[1, 2]], dtype=dtype)})
        label = read_mat(tmp_path / 'a.mat', 'S')
        assert label.dtype == np.int64
        assert label.tolist() == [[1, 2]]
    with pytest.raises(InputError, match=r'a\.mat holds no label map T'):
        read_mat(tmp_path / 'a.mat', 'T')
    with pytest.raises(FileNotFoundError):
        read_mat(tmp_path / 'b.mat', 'S')


def test_lists(tmp_path: Path):
    path = tmp_path / 'list.txt'
    with pytest.raises(InputError, match=r'list\.txt is missing or empty: make it'):
        read_lines(path, 'make it')
    path.write_text('\n')
    with pytest.raises(InputError, match=r'list\.txt is missing or empty'):
        read_lines(path, 'make it')
    path.write_text('b\r\na\r\nb\n')
    assert read_lines(path, 'make it') == ['b', 'a']


def test_next_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    expected = 'next: python datasets/check.py a b{0}; then python eval.py --config configs/cfg_a.py{0}; {1}'
    last = 'python eval.py --config configs/cfg_b.py'
    assert next_steps(Path('data/x'), Path('data/x'), 'a', 'b') == expected.format('', last)
    elsewhere = f' --data-root {tmp_path}'
    assert next_steps(tmp_path, Path('data/x'), 'a', 'b') == expected.format(elsewhere, last + elsewhere)


def test_exit_codes(capsys: pytest.CaptureFixture):
    def stop(error: BaseException) -> int:
        def action() -> None:
            raise error

        return run_script('x.py', action)

    assert run_script('x.py', lambda: None) == 0
    assert run_script('x.py', lambda: 1) == 1
    assert capsys.readouterr().err == ''
    assert stop(InputError('wrong')) == 1
    assert stop(OSError('full')) == 1
    assert stop(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.splitlines() == ['x.py: wrong', 'x.py: full', 'stopped: run again to go on']
    with pytest.raises(ValueError, match='a bug'):
        stop(ValueError('a bug'))
