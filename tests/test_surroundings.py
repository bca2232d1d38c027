"""The tests themselves: what surrounds them makes no difference."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import NO_BROWSER, ROOT


def ignoring(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)


def run_tests(folder: Path, code: str, *options: str, **settings) -> subprocess.CompletedProcess:
    """Run tests of a file of their own under this repository's conftest."""
    (folder / 'test_inner.py').write_text(textwrap.dedent(code))
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'tests.conftest', '--rootdir', str(folder), *options]
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    command += ['-p', 'no:cacheprovider', str(folder / 'test_inner.py')]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, **settings)


CHILD = """
    import signal, subprocess, sys

    def test_child():
        code = 'import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)'
        assert subprocess.check_output([sys.executable, '-c', code], text=True) == 'True\\n'
"""


@pytest.mark.slow
def test_in_the_background_of_a_shell(tmp_path: Path):
    """There SIGINT is ignored, which processes hand on to those that they start."""
    done = run_tests(tmp_path, CHILD, preexec_fn=lambda: ignoring(signal.SIGINT))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_with_output_closed(tmp_path: Path):
    """What tests start has a standard output of its own, and nothing is printed into a file that a test opens."""
    code = """
        import os, subprocess, sys

        def test_child(tmp_path):
            with open(tmp_path / 'file', 'w') as file:
                assert file.fileno() > 2
                print('printed', flush=True)
                assert subprocess.run([sys.executable, '-c', 'print(1)']).returncode == 0
            assert os.stat(tmp_path / 'file').st_size == 0
    """
    command = [sys.executable, '-m', 'tests', '-q', '-s', '-p', 'no:cacheprovider', '--rootdir', str(tmp_path)]
    (tmp_path / 'test_inner.py').write_text(textwrap.dedent(code))
    done = subprocess.run([*command, str(tmp_path / 'test_inner.py')], cwd=ROOT, preexec_fn=lambda: os.closerange(0, 3))
    assert done.returncode == 0


@pytest.mark.slow
def test_left_out_pages_are_told(tmp_path: Path):
    code = f"""
        import pytest

        def test_page():
            pytest.skip('{NO_BROWSER}: chromium is not here')
    """
    done = run_tests(tmp_path, code)
    assert f'1 tests of pages were left out: {NO_BROWSER}: chromium is not here' in done.stdout


def test_caches_are_not_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from naclip.walk.text import default_cache_dir

    monkeypatch.setenv('HOME', str(tmp_path))
    assert not default_cache_dir().is_relative_to(tmp_path)
