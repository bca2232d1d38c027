"""Which rooms may know of which: arrows go down only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HELP = {'files', 'names', 'cli'}  # small modules at the top that everybody may use
# A room or a module at the top of naclip/ -> what else of the toolkit it may import, beside itself and HELP.
ALLOWED = {
    'files': set(),
    'names': {'clip'},
    'cli': set(),
    'walk': {'clip'},
    'methods': {'clip', 'walk'},
    'protocols': set(),
    'pipeline': {'clip', 'methods', 'walk'},
    'panel': {'pipeline', 'walk'},
    'floss': {'methods', 'pipeline', 'walk'},
    'pictures': {'clip', 'data'},
    'shapes': {'data'},
    'data': set(),
    'training': {'clip', 'data', 'methods', 'shapes', 'walk'},
    'runs': set(),
    'reports': {'clip', 'methods', 'runs'},
    'api': {'clip', 'methods', 'pictures', 'pipeline', 'protocols', 'walk'},
    'harness': {
        *('clip', 'data', 'floss', 'methods', 'panel', 'pictures', 'pipeline', 'protocols', 'runs', 'shapes', 'walk'),
    },
    '__init__': {'api'},
    '__main__': {'commands'},
    'commands': {
        'api',
        'clip',
        'data',
        'harness',
        'methods',
        'pictures',
        'protocols',
        'reports',
        'runs',
        'shapes',
        'training',
        'walk',
    },
}
OPENMMLAB = {'mmengine', 'mmcv', 'mmseg'}
SHELLS = {'training/model.py', 'training/hooks.py', 'training/run.py'}  # beside the harness, of training
FILES = sorted((ROOT / 'naclip').rglob('*.py'))


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a module imports anywhere in it: 'naclip.walk.pamr.pamr', 'torch'."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT / 'naclip').parts
    return parts[0].removesuffix('.py')


def known(path: Path) -> set[str]:
    """The rooms that a module knows of, but for its own; 'clip' for the towers."""
    names = [name.split('.') for name in imports(path)]
    rooms = {parts[1] for parts in names if parts[0] == 'naclip' and len(parts) > 1}
    rooms |= {'clip' for parts in names if parts[0] == 'clip'}
    return rooms - {room_of(path)}


def test_the_table_has_every_room():
    assert {room_of(path) for path in FILES} == set(ALLOWED)


def test_the_table_has_no_circle():
    done: set[str] = {'clip'}
    while len(done) <= len(ALLOWED):
        ready = {room for room, below in ALLOWED.items() if room not in done and below <= done}
        assert ready, f'rooms that know each other: {sorted(set(ALLOWED) - done)}'
        done |= ready


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_go_down(path):
    assert known(path) <= ALLOWED[room_of(path)] | HELP


@pytest.mark.parametrize('path', sorted((ROOT / 'clip').glob('*.py')), ids=lambda path: path.name)
def test_towers_know_nothing_of_segmentation(path):
    assert not [name for name in imports(path) if name.split('.')[0] in OPENMMLAB | {'naclip'}]


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_harness_knows_openmmlab(path):
    if room_of(path) != 'harness' and str(path.relative_to(ROOT / 'naclip')) not in SHELLS:
        assert not [name for name in imports(path) if name.split('.')[0] in OPENMMLAB]


def test_every_arrow_of_the_table_is_drawn():
    drawn: dict[str, set[str]] = {room: set() for room in ALLOWED}
    for path in FILES:
        drawn[room_of(path)] |= known(path) - HELP
    assert drawn == ALLOWED


@pytest.mark.parametrize(
    'folder', [path for path in (ROOT / 'tests' / 'naclip').rglob('test_*.py')], ids=lambda p: p.name
)
def test_tests_mirror_the_rooms(folder):
    """Each test module of a room stands beside a module of that name."""
    place = folder.relative_to(ROOT / 'tests' / 'naclip')
    if len(place.parts) == 1 or place.stem in ('test_methods', 'test_contract'):
        return
    module = ROOT / 'naclip' / place.parent / f'{place.stem.removeprefix("test_")}.py'
    assert module.is_file()
