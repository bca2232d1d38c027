"""Tables of the manual, as Markdown. They are made from the records of the code, so that no page has a copy."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from naclip.commands import COMMANDS
from naclip.commands.listing import LISTS, text_of
from naclip.files import REPOSITORY
from naclip.names import unknown
from naclip.protocols import PROTOCOLS
from tools import methods

ROOT = Path(__file__).parents[2]
HELP_WIDTH = 84


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown; what is in the cells is put as `naclip ls` does."""
    cells = [heads, ['---'] * len(heads), *([_cell(value) for value in row] for row in rows)]
    return '\n'.join(f'| {" | ".join(row)} |' for row in cells)


def _cell(value: object) -> str:
    return text_of(value).replace('|', '\\|').replace('\n', ' ')


def code(value: object) -> str:
    """A name, or several, as they are typed."""
    names = [value] if isinstance(value, str) else list(value)
    return ', '.join(f'`{name}`' for name in names) or '-'


def _pairs(values: Mapping) -> str:
    """'key = value' of each, those of mappings in them by their own names."""
    flat = {}
    for key, value in values.items():
        flat |= value if key == 'constants' else {key: value}
    return ', '.join(f'`{key}` = {_plain(value)}' for key, value in flat.items()) or '-'


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ', '.join(f'{key} {_plain(item)}' for key, item in value.items())
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return text_of(value)


# From `naclip ls`.


def listing(what: str, columns: Mapping[str, str]) -> Callable[[], str]:
    """Columns of a list of `naclip ls`, by key -> head; names are put as they are typed."""

    def make() -> str:
        rows = LISTS[what]()
        return table(list(columns.values()), [[_listed(key, row.get(key)) for key in columns] for row in rows])

    return make


def _listed(key: str, value: object) -> object:
    if key == 'name':
        return code(value)
    if key == 'constants':
        return _pairs(value)
    return code(value) if key == 'config' or (isinstance(value, list) and value) else _plain(value)


# From configs, protocols and records.


def settings() -> str:
    """What configs/cfg_*.py have, and with it protocol `naclip`."""
    from naclip.harness.configuration import load_config  # takes seconds

    rows = []
    for path in sorted((REPOSITORY / 'configs').glob('cfg_*.py')):
        config = load_config(path)
        pipeline = config.test_dataloader.dataset.pipeline
        sizes = [min(step['scale']) for step in pipeline if step['type'] == 'Resize']
        model = config.model
        about = path.read_text(encoding='utf-8').splitlines()[0].strip('# .')
        windows = f'{model.slide_crop} / {model.slide_stride}'
        rows.append((code(path.stem), about, *(sizes or ['as it is']), windows, model.prob_thd, model.logit_scale))
    return table(('config', 'data set', 'short side', 'crop / stride', 'prob_thd', 'scale'), rows)


def changes() -> str:
    """What protocols change of the configs, benchmarks with the same changes in one row; NAME is a benchmark's."""
    rows = []
    for name, protocol in PROTOCOLS.items():
        rows.append((code(name), 'all of its benchmarks' if protocol.closed else 'all', _pairs(protocol.everywhere)))
        alike: dict[str, list[str]] = {}
        for benchmark, own in protocol.benchmarks.items():
            alike.setdefault(_pairs(own).replace(f'_{benchmark}.txt', '_NAME.txt'), []).append(benchmark)
        rows += [('', code(benchmarks), own) for own, benchmarks in alike.items() if own != '-']
    return table(('protocol', 'benchmarks', 'what it changes'), rows)


def published() -> str:
    """Published mIoU, with its sources."""
    records = json.loads((ROOT / 'naclip/reports/published.json').read_text(encoding='utf-8'))
    rows = []
    for name, record in records['methods'].items():
        further = [f'{key} {value}' for key, value in record.get('further', {}).items()]
        notes = [record['source'], *further, *(f'{key}: {note}' for key, note in record.get('notes', {}).items())]
        pamr = 'yes' if record['pamr'] else 'no'
        numbers = record['miou']
        mean = None if None in numbers else round(sum(numbers) / len(numbers), 2)
        rows.append((code(name), *map(_number, [*numbers, mean]), pamr, '; '.join(notes)))
    return table(('', *records['benchmarks'], 'mean', 'PAMR', 'source; further benchmarks; what is to be known'), rows)


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:g}'


def results() -> str:
    """The keys of results.json."""
    definition = json.loads((ROOT / 'docs/results.schema.json').read_text(encoding='utf-8'))
    return table(('key', 'type', 'what it is'), _keys(definition, definition['$defs'], ''))


def _keys(schema: Mapping, shared: Mapping, above: str) -> Iterator[tuple[str, str, str]]:
    for name, described in schema.get('properties', {}).items():
        known = _followed(described, shared)
        items = known.get('items', {})
        yield code(above + name), _type(known, shared), known.get('description', '-')
        yield from _keys(known, shared, f'{above}{name}.')
        yield from _keys(items, shared, f'{above}{name}[].')


def _followed(schema: Mapping, shared: Mapping) -> Mapping:
    """A schema with what its reference says."""
    return {**shared.get(schema.get('$ref', '').rpartition('/')[2], {}), **schema}


def _type(schema: Mapping, shared: Mapping) -> str:
    if 'enum' in schema:
        return ' or '.join(map(str, schema['enum']))
    inside = schema.get('items') or schema.get('additionalProperties')
    of = f' of {_type(_followed(inside, shared), shared)}' if isinstance(inside, Mapping) else ''
    kinds = schema['type'] if isinstance(schema['type'], list) else [schema['type']]
    return ' or '.join(kind + of if kind in ('array', 'object') else kind for kind in kinds)


def commands() -> str:
    """The subcommands of `naclip`."""
    return table(('command', 'what it does'), [(code(f'naclip {name}'), it.does) for name, it in COMMANDS.items()])


TABLES: Mapping[str, Callable[[], str]] = {
    'methods': methods.table,
    'constants': listing('methods', {'name': 'method', 'constants': 'constants', 'pamr': 'PAMR', 'source': 'source'}),
    'benchmarks': listing(
        'benchmarks',
        {'name': 'benchmark', 'config': 'config', 'pictures': 'pictures', 'source': 'archives', 'licence': 'terms'},
    ),
    'protocols': listing(
        'protocols', {'name': 'protocol', 'source': 'settings of', 'methods': 'methods', 'benchmarks': 'benchmarks'}
    ),
    'backbones': listing('backbones', {'name': 'name', 'source': 'from', 'licence': 'licence', 'sha256': 'SHA-256'}),
    'guides': listing('guides', {'name': 'guide', 'source': 'from', 'licence': 'licence'}),
    'attentions': listing('attentions', {'name': '--attn', 'is': 'the last block attends by'}),
    'architectures': listing('architectures', {'name': '--arch', 'is': 'what is kept of the last block'}),
    'settings': settings,
    'changes': changes,
    'published': published,
    'results': results,
    'commands': commands,
}


def named_table(name: str) -> str:
    """The table of a name.

    Raises:
        ValueError: there is none; lists those there are.
    """
    if name not in TABLES:
        raise ValueError(unknown('table', name, TABLES))
    return TABLES[name]()


def help_of(command: str) -> str:
    """What a command prints for `--help`: 'naclip eval', or a script, 'tools/floss.py'.

    Raises:
        ValueError: it does not run.
    """
    program, *arguments = command.split()
    start = ['-m', 'naclip'] if program == 'naclip' else [program]
    settings = os.environ | {'COLUMNS': str(HELP_WIDTH), 'PYTHONPATH': str(ROOT)}
    line = [sys.executable, *start, *arguments, '--help']
    done = subprocess.run(line, cwd=ROOT, env=settings, capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(f'{command} --help ended with {done.returncode}: {done.stderr.strip()}')
    return f'```text\n{done.stdout.strip()}\n```'
