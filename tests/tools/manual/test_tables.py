"""Tables of the manual: whole, and what the records say."""

import json

import pytest

from naclip.commands import COMMANDS
from naclip.commands.listing import LISTS
from naclip.methods import METHODS
from naclip.protocols import PROTOCOLS
from tests.conftest import ROOT
from tools.manual.tables import TABLES, help_of, named_table, table


def cells(name: str) -> list[list[str]]:
    """The rows of a table below its heads."""
    lines = named_table(name).splitlines()[2:]
    return [[cell.strip() for cell in line.replace('\\|', '/').strip('|').split('|')] for line in lines]


@pytest.mark.parametrize('name', TABLES)
def test_every_table_is_whole(name: str):
    lines = named_table(name).splitlines()
    assert len(lines) > 2
    assert {line.replace('\\|', '').count('|') for line in lines} == {lines[0].count('|')}
    assert set(lines[1]) == set('| -')


def test_cells_cannot_break_a_table():
    assert table(('a', 'b'), [('one|two', 'three\nfour'), (None, [1, 2])]).splitlines() == [
        '| a | b |',
        '| --- | --- |',
        '| one\\|two | three four |',
        '| - | 1 2 |',
    ]


@pytest.mark.parametrize('name', [name for name in TABLES if name in LISTS])
def test_rows_are_those_of_naclip_ls(name: str):
    assert [row[0].strip('`') for row in cells(name)] == [row['name'] for row in LISTS[name]()]


def test_constants():
    rows = {row[0]: row for row in cells('constants')}
    assert len(rows) == len(METHODS)
    assert rows['`resclip`'][1].startswith('`lr` = 0.4, `ts` = 1.8')
    assert (rows['`naclip`'][2], rows['`gem`'][2]) == ('yes', 'no')


def test_settings_of_configs():
    rows = {row[0]: row[1:] for row in cells('settings')}
    assert len(rows) == len(list((ROOT / 'configs').glob('cfg_*.py')))
    assert rows['`cfg_voc21`'] == [
        'PASCAL VOC 2012 val, 1,449 pictures, 21 classes with background',
        *('336', '224 / 112', '0.1', '40'),
    ]
    assert rows['`cfg_city_scapes`'][1] == '560'
    assert rows['`cfg_shapes`'][1:3] == ['as it is', '64 / 32']


def test_changes_of_protocols():
    rows = cells('changes')
    assert [row[0].strip('`') for row in rows if row[0]] == list(PROTOCOLS)
    assert ['`sclip`', 'all', '`pamr_steps` = 0'] in rows
    assert ['', '`context60`, `coco_object`', '`logit_scale` = 50'] in rows
    assert all(row[2] != '-' for row in rows if not row[0])
    first = next(i for i, row in enumerate(rows) if row[0] == '`pixelclip`')
    assert rows[first][1] == 'all of its benchmarks'
    assert rows[first + 1][2] == '`name_path` = ./configs/cls_pixelclip_NAME.txt'


def test_published_numbers():
    records = json.loads((ROOT / 'naclip/reports/published.json').read_text(encoding='utf-8'))['methods']
    rows = {row[0].strip('`'): row[1:] for row in cells('published')}
    assert list(rows) == list(records)
    for name, record in records.items():
        numbers = [None if number == '-' else float(number) for number in rows[name][:8]]
        assert numbers == record['miou']
        assert record['source'] in rows[name][10]
    assert 'coco_stuff10k 25.91' in rows['sclip'][10]
    assert (rows['naclip'][8], rows['naclip_v2'][8], rows['gem'][8]) == ('41.87', '42.46', '-')


def test_keys_of_results():
    """All that a record of a run has is there, and keys of keys."""
    record = json.loads((ROOT / 'tests/data/results/forms_of_towers.json').read_text(encoding='utf-8'))
    rows = {row[0].strip('`'): row[1:] for row in cells('results')}
    assert set(record) <= set(rows)
    assert {f'settings.{key}' for key in record['settings']} <= set(rows)
    assert rows['classes[].iou'] == ['number or null', 'Intersection over union.']
    assert rows['settings.dtype'][0] == 'float32 or float16 or bfloat16'
    assert rows['resumed_from'][0] == 'array of object'
    assert rows['files'][0] == 'object of string'


def test_commands():
    assert [row[0] for row in cells('commands')] == [f'`naclip {name}`' for name in COMMANDS]


def test_unknown_table():
    with pytest.raises(ValueError, match=r"unknown table 'method': choose from methods, .*did you mean methods\?"):
        named_table('method')


def test_help():
    assert help_of('naclip ls').startswith('```text\nusage: naclip ls ')
    assert help_of('tools/methods.py').startswith('```text\nusage: methods.py ')
    with pytest.raises(ValueError, match=r"^naclip evla --help ended with 2: naclip: unknown command 'evla'"):
        help_of('naclip evla')
