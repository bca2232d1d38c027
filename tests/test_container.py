"""The Dockerfile: what it copies is there and suffices. Nothing here builds an image."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest

from tests.conftest import ROOT
from tests.test_package import requirements

BACKSLASH = re.compile(r'\\\n\s*')


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with what they are given, in order; lines that go on are one."""
    text = BACKSLASH.sub('', (ROOT / 'Dockerfile').read_text(encoding='utf-8'))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith('#')]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def copies() -> list[tuple[str, str]]:
    """Each path that is copied into the image, and where to, below the work directory."""
    found = []
    for name, given in instructions():
        if name in ('COPY', 'ADD'):
            *sources, target = shlex.split(given)
            place = PurePosixPath(target)
            found += [(path, str(place / path if target.endswith('/') else place)) for path in sources]
    return found


def is_sent(path: str, patterns: Sequence[str]) -> bool:
    """Whether a file is sent to the builder: of the patterns that fit it or a folder it is in, the last one counts."""
    above = [path, *map(str, PurePosixPath(path).parents)][:-1]
    sent = True
    for pattern in patterns:
        again, glob = pattern.startswith('!'), pattern.lstrip('!')
        # `**/` stands for any folders, none as well; a `*` of a pattern with folders does not go beyond them.
        forms = [glob.removeprefix('**/'), f'*/{glob.removeprefix("**/")}'] if glob.startswith('**/') else [glob]
        if any(fnmatch.fnmatchcase(name, form) for name in above for form in forms if '/' in form or '/' not in name):
            sent = again
    return sent


@pytest.fixture(scope='module')
def ignored() -> list[str]:
    lines = (ROOT / '.dockerignore').read_text(encoding='utf-8').splitlines()
    return [line for line in lines if line.strip() and not line.startswith('#')]


@pytest.mark.parametrize(
    ('path', 'sent'),
    [
        ('naclip/api.py', True),
        ('naclip/reports/page.css', True),
        ('clip/shapes.safetensors', True),
        ('requirements.txt', True),
        ('naclip/__pycache__/api.pyc', False),
        ('naclip/walk/__pycache__/pamr.cpython-312.pyc', False),
        ('data/VOCdevkit/x.jpg', False),
        ('.git/config', False),
        ('.venv/bin/python', False),
        ('tests/conftest.py', False),
        ('work_dirs/a/results.json', False),
    ],
)
def test_what_the_builder_gets(path: str, sent: bool, ignored: list[str]):
    assert is_sent(path, ignored) is sent


def test_what_is_copied_is_there(ignored: list[str]):
    assert copies()
    for path, _ in copies():
        assert (ROOT / path).exists(), path
        files = [path] if (ROOT / path).is_file() else [f'{path}/{file.name}' for file in (ROOT / path).glob('*.*')]
        assert files
        assert all(is_sent(file, ignored) for file in files), path


def test_nothing_is_sent_that_is_not_copied(ignored: list[str]):
    again = {pattern.removeprefix('!') for pattern in ignored if pattern.startswith('!')}
    assert again == {path for path, _ in copies()}
    assert ignored[0] == '*'


def test_extras_are_those_of_the_package():
    extras = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']['optional-dependencies']
    arguments = dict(given.partition('=')[::2] for name, given in instructions() if name == 'ARG')
    assert set(arguments['EXTRAS'].split(',')) <= set(extras)
    installs = [given for name, given in instructions() if name == 'RUN' and 'pip install' in given]
    assert [line.split()[-1] for line in installs] == ['requirements.txt', '".[${EXTRAS}]"']
    assert all('--no-cache-dir' in line for line in installs)


def test_how_it_runs():
    given = dict(instructions())
    assert json.loads(given['ENTRYPOINT']) == ['naclip']
    assert json.loads(given['CMD']) == ['--help']
    assert int(given['USER']) > 0
    assert given['VOLUME'] == '/home/naclip/.cache'
    assert given['WORKDIR'] == '/work'
    minor = int(re.match(r'python:3\.(\d+)-slim', given['FROM'])[1])
    assert 11 <= minor <= 13
    names = [name for name, _ in instructions()]
    assert names.index('USER') > max(i for i, name in enumerate(names) if name == 'RUN')


@pytest.mark.slow
def test_what_is_copied_suffices(tmp_path: Path, ignored: list[str]):
    """Installed from the copied paths alone, as the image does, but with requirements borrowed from here."""
    source = tmp_path / 'src'
    for path, target in copies():
        there = source / target
        there.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_file():
            shutil.copy(ROOT / path, there)
        else:
            shutil.copytree(ROOT / path, there, ignore=shutil.ignore_patterns('__pycache__'))
    assert requirements(*(source / 'requirements.txt').read_text().splitlines()) >= {'torch', 'numpy'}

    venv.create(tmp_path / 'venv', symlinks=True)
    interpreter = tmp_path / 'venv/bin/python'
    (packages,) = (tmp_path / 'venv').glob('lib/python*/site-packages')
    (packages / 'borrowed.pth').write_text(sysconfig.get_paths()['purelib'] + '\n')
    pip = [sys.executable, '-m', 'pip', '--python', str(interpreter), 'install', '--no-build-isolation', '--no-deps']
    done = subprocess.run([*pip, '--no-index', '--quiet', '.[all]'], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    settings = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
    work = tmp_path / 'work'
    work.mkdir()
    command = [str(interpreter.with_name('naclip')), 'eval', '--config', 'shapes', '--limit', '1', '--device', 'cpu']
    done = subprocess.run(command, cwd=work, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((work / 'work_dirs/cfg_shapes/results.json').read_text())
    assert record['images'] == 1
