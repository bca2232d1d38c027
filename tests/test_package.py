"""The package: what is in it, and that it works where there is no checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import naclip
from naclip.commands import COMMANDS, main
from tests.conftest import ROOT

TOP = ('clip', 'configs', 'datasets', 'docs', 'naclip', 'prompts', 'tests', 'tools', '.ci')  # folders of a checkout
Naclip = Callable[..., str]


def requirements(*lines: str) -> set[str]:
    """The names of distributions that lines of requirements ask for."""
    return {
        re.split(r'[<>=\[ ;]', line)[0].lower().replace('_', '-') for line in lines if line.strip() and line[0] != '#'
    }


# The command.


def test_help_and_version(capsys: pytest.CaptureFixture):
    for argv in ([], ['--help']):
        assert main(argv) == 0
        assert all(f'\n  {name} ' in capsys.readouterr().out for name in ('eval',))
    assert main(['--version']) == 0
    assert capsys.readouterr().out == f'naclip {naclip.__version__}\n'


def test_unknown_command(capsys: pytest.CaptureFixture):
    assert main(['evla']) == 2
    err = capsys.readouterr().err
    assert err.startswith("naclip: unknown command 'evla': choose from eval, segment")
    assert err.endswith('did you mean eval? (see --help)\n')


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_tells_its_options(name: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        main([name, '--help'])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: naclip {name} ')


@pytest.mark.parametrize(
    ('argv', 'expected'),
    [
        (['eval', '--config', 'cfg_vco21.py', '--device', 'cpu'], 'naclip eval: config cfg_vco21.py does not exist'),
        (['report', 'nowhere'], 'naclip report: '),
        (['score', '--config', 'voc21', '--predictions', 'x', '--method-name', ' '], 'naclip score: --method-name is'),
        (['train', 'nowhere.py'], 'naclip train: '),
        (['segment', 'nowhere.jpg', '--classes', 'a; b', '--backbone', 'shapes'], 'naclip segment: '),
    ],
)
def test_errors_in_one_line(argv: list[str], expected: str, capsys: pytest.CaptureFixture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(expected)
    assert argv[0] != 'eval' or lines[0].endswith('did you mean configs/cfg_voc21.py?')


# Versions and requirements have one place each.


def test_one_version():
    assert f'\nversion: {naclip.__version__}\n' in (ROOT / 'CITATION.cff').read_text()
    assert 'version' in tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['dynamic']


def test_what_it_imports_is_required():
    """Everything that naclip/ and clip/ import at their top is named, as is what those need at run time."""
    names = {'cv2': 'opencv-python', 'PIL': 'pillow', 'mmcv': 'onedl-mmcv', 'mmengine': 'onedl-mmengine'}
    names |= {'mmseg': 'onedl-mmsegmentation'}
    named = requirements(*(ROOT / 'requirements.txt').read_text().splitlines())
    found = set()
    for path in [*(ROOT / 'naclip').rglob('*.py'), *(ROOT / 'clip').glob('*.py')]:
        found |= set(re.findall(r'^(?:import|from) (\w+)', path.read_text(), re.MULTILINE))
    imported = {
        name
        for name in found
        if name not in sys.stdlib_module_names | {'naclip', 'clip', 'triton', 'numba', 'llvmlite'}
    }  # Triton is PyTorch's; numba, with its llvmlite, is looked for
    assert {names.get(name, name) for name in imported} <= named
    assert 'yapf' in named  # MMEngine formats configs with it


# Another package called clip.


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | environment, capture_output=True, text=True, cwd='/'
    )


def test_foreign_clip_first_in_the_path(tmp_path: Path):
    (tmp_path / 'clip').mkdir()
    (tmp_path / 'clip/__init__.py').write_text('def load(): ...\n')
    done = python('-c', 'import naclip', PYTHONPATH=f'{tmp_path}:{ROOT}')
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert f'needs its own package clip, {ROOT}/clip, but `import clip` finds {tmp_path}/clip' in line
    assert 'pip uninstall clip' in line


def test_foreign_clip_imported_before(tmp_path: Path):
    (tmp_path / 'clip').mkdir()
    (tmp_path / 'clip/__init__.py').touch()
    code = f'import sys; sys.path.insert(0, {str(tmp_path)!r}); import clip; sys.path.pop(0); import naclip'
    done = python('-c', code, PYTHONPATH=str(ROOT))
    assert f'finds {tmp_path}/clip' in done.stderr.splitlines()[-1]


def test_clip_installed_over_ours(tmp_path: Path):
    """OpenAI's distribution in the same folder: one of the two has overwritten the other."""
    for name in ('naclip', 'clip'):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / 'naclip/__init__.py', tmp_path / 'naclip')
    (tmp_path / 'clip/__init__.py').touch()
    (tmp_path / 'clip-1.0.dist-info').mkdir()
    (tmp_path / 'clip-1.0.dist-info/METADATA').write_text('Metadata-Version: 2.1\nName: clip\nVersion: 1.0\n')
    (tmp_path / 'clip-1.0.dist-info/RECORD').write_text('clip/__init__.py,,\n')
    done = python('-c', 'import naclip', PYTHONPATH=str(tmp_path))
    assert done.returncode == 0
    assert 'the distribution clip also installed a package clip' in done.stderr
    assert 'pip uninstall clip, then pip install --force-reinstall naclip' in done.stderr


# Built and installed.


@pytest.fixture(scope='module')
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp('package')
    for name in TOP:
        shutil.copytree(ROOT / name, folder / 'copy' / name, ignore=shutil.ignore_patterns('__pycache__'))
    for path in ROOT.iterdir():
        if path.is_file() and path.name != '.git':
            shutil.copy(path, folder / 'copy')
    build = 'import sys, setuptools.build_meta as backend; getattr(backend, sys.argv[1])(sys.argv[2])'

    def make(what: str, source: Path) -> Path:
        command = [sys.executable, '-c', build, what, str(folder)]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
        (made,) = folder.glob('*.tar.gz' if what == 'build_sdist' else '*.whl')
        return made

    source = make('build_sdist', folder / 'copy')
    with tarfile.open(source) as archive:
        archive.extractall(folder / 'unpacked', filter='data')
    return source, make('build_wheel', folder / 'unpacked' / source.name.removesuffix('.tar.gz'))


@pytest.fixture(scope='module')
def environment(archives: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel, which borrows what the toolkit stands on from this one."""
    folder = tmp_path_factory.mktemp('environment') / 'venv'
    venv.create(folder, symlinks=True)
    interpreter = folder / 'bin/python'
    command = [sys.executable, '-m', 'pip', '--python', str(interpreter), 'install', '--no-deps', '--no-index']
    subprocess.run([*command, '--quiet', '--disable-pip-version-check', str(archives[1])], check=True)
    (packages,) = folder.glob('lib/python*/site-packages')
    (packages / 'borrowed.pth').write_text(sysconfig.get_paths()['purelib'] + '\n')
    return folder


@pytest.fixture
def run(environment: Path, tmp_path: Path) -> Naclip:
    """Run the installed command in an empty folder; returns what it prints."""
    settings = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}

    def run(*arguments: object, program: str = 'naclip') -> str:
        command = [str(environment / 'bin' / program), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_contents(archives: tuple[Path, Path]):
    source, wheel = archives
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f'naclip-{naclip.__version__}.dist-info'
    assert {name.split('/')[0] for name in names} == {'naclip', 'clip', info}
    for folder, inside in (
        ('naclip', 'naclip'),
        ('clip', 'clip'),
        ('configs', 'naclip/configs'),
        ('prompts', 'naclip/prompts'),
    ):
        files = [path for path in (ROOT / folder).rglob('*') if path.is_file() and '__pycache__' not in path.parts]
        assert {f'{inside}/{path.relative_to(ROOT / folder)}' for path in files} <= names
    metadata = zipfile.ZipFile(wheel).read(f'{info}/METADATA').decode()
    asked = requirements(*re.findall(r'^Requires-Dist: ([^;\n]+)$', metadata, re.MULTILINE))
    assert asked == requirements(*(ROOT / 'requirements.txt').read_text().splitlines())
    with tarfile.open(source) as archive:
        there = {name.split('/', 1)[-1] for name in archive.getnames()}
    assert {'eval.py', 'test_all.sh', 'requirements.txt', 'tests/conftest.py', 'datasets/check.py', '.ci/run'} <= there
    assert {'mkdocs.yml', 'docs/shapes.ipynb', 'docs/data.md', 'Dockerfile', '.dockerignore'} <= there


@pytest.mark.slow
def test_installed(run: Naclip, environment: Path, tmp_path: Path):
    where = run('-c', 'import naclip, clip; print(naclip.__file__, clip.__file__)', program='python').split()
    assert all(Path(path).is_relative_to(environment) for path in where)
    assert run('--version') == f'naclip {naclip.__version__}\n'
    assert 'did you mean' not in run('--help')
    for what in ('methods', 'benchmarks', 'protocols', 'backbones'):
        rows = json.loads(run('ls', what, '--json'))
        assert {row['name'] for row in rows} & {'naclip', 'voc21', 'ViT-B/16'}
        assert rows[0]['name'] in run('ls', what)

    options = ['--device', 'cpu', '--limit', '3', '--work-dir', 'work']
    assert 'shapes: mIoU' in run('eval', '--config', 'configs/cfg_shapes.py', *options)
    record = json.loads((tmp_path / 'work/results.json').read_text())
    assert record['git_commit'] is None  # a repository around the environment is somebody else's
    options[-1] = 'again'
    assert 'shapes: mIoU' in run('eval', '--config', 'shapes', *options)  # a benchmark's name will do
    assert '1 runs  ->  report/report.html' in run('report', 'work')
    assert 'shapes' in run('check', 'shapes', '--labels', '5', '-j', '1')

    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / 'grey.png')
    said = run('segment', 'grey.png', '--classes', 'sky; frog', '--backbone', 'shapes', '--device', 'cpu')
    assert '1 of 1 pictures segmented' in said
    assert (tmp_path / 'segmented/grey_labels.png').is_file()


@pytest.mark.slow
def test_a_config_of_ones_own_beside_the_installed_ones(run: Naclip, environment: Path, tmp_path: Path):
    (configs,) = environment.glob('lib/python*/site-packages/naclip/configs')
    text = f'_base_ = {str(configs / "cfg_shapes.py")!r}\nmodel = dict(pamr_steps=0)\n'
    (tmp_path / 'mine.py').write_text(text)
    run('eval', '--config', 'mine.py', '--device', 'cpu', '--limit', '1')
    assert (tmp_path / 'work_dirs/mine/results.json').is_file()
