"""Plans: several runs written as one, by options with several values, or in a file. Nothing is loaded here."""

import argparse
import copy
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

from naclip.names import did_you_mean

DATA = 'config'
# Options that take several values, in the order of folders' names; the data come last.
AXES = ('method', 'protocol', 'attn', 'arch', 'std', 'pamr', 'name_path', 'templates')
OF_METHOD = 'method.'  # how constants of the method are named in a sweep
LONGEST = 120  # characters of a folder's name
NOT_IN_A_PLAN = ('plan', 'sweep', 'dry_run', 'memory', 'profile', 'launcher', 'device')  # of all runs, or of none


def expand(options: argparse.Namespace) -> list[argparse.Namespace]:
    """Every run that options with several values stand for, as the options of one run each.

    Options of AXES, and `config`, are lists, or None; `sweep` has texts 'KEY=V1,V2'. A run gets one value of each. Of
    several runs each gets a `run_name`, and a `work_dir` of its own below the one given.

    Raises:
        ValueError: a sweep that cannot be read, or two runs that are one.
    """
    swept = dict(map(parse_sweep, options.sweep))
    configs = options.config or [None]
    given = {axis: getattr(options, axis) for axis in AXES if getattr(options, axis) is not None}
    axes = {**{axis: list(values) for axis, values in given.items()}, **swept}
    runs = []
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        told = {key: value for key, value in chosen.items() if len(axes[key]) > 1}
        for config in configs:
            run = copy.copy(options)
            for axis in AXES:
                setattr(run, axis, chosen.get(axis))
            run.config = config
            settings = [(key, value) for key, value in chosen.items() if key in swept]
            of_method = [f'{key.removeprefix(OF_METHOD)}={v}' for key, v in settings if key.startswith(OF_METHOD)]
            others = [f'{key}={value}' for key, value in settings if not key.startswith(OF_METHOD)]
            run.method_options = [*options.method_options, *of_method]
            run.cfg_options = [*options.cfg_options, *others]
            run.run_name = run_name(told, config)
            runs.append(run)
    return runs


def placed(runs: Sequence[argparse.Namespace]) -> list[argparse.Namespace]:
    """Runs with work directories: that of a single one as it is, of several each its own below `plan_dir`.

    Raises:
        ValueError: two runs have one name.
    """
    if len(runs) == 1:
        runs[0].run_name = None
        return list(runs)
    names: set[str] = set()
    for run in runs:
        if run.run_name in names:
            raise ValueError(f'two runs of the plan are one: {run.run_name}')
        names.add(run.run_name)
        run.plan_dir = run.work_dir or 'work_dirs'
        run.work_dir = str(Path(run.plan_dir) / run.run_name)
        if run.show_dir:
            run.show_dir = str(Path(run.show_dir) / run.run_name)
    return list(runs)


def run_name(settings: Mapping[str, str], config: str | None) -> str:
    """What a run of several is called, and its folder below the work directory: SETTINGS/BENCHMARK."""
    parts = [_setting(key, value) for key, value in settings.items()]
    benchmark = Path(config).stem.removeprefix('cfg_') if config else 'own'
    return '/'.join(filter(None, [_folder('_'.join(parts)), _folder(benchmark)]))


def _setting(key: str, value: object) -> str:
    """A setting in a word: a method by its name, files by theirs, others as KEY=VALUE."""
    text = str(value)
    if key == 'method':
        return text.split('/')[-1]
    return f'{key.split(".")[-1]}={Path(text).stem if "/" in text or text.endswith(".txt") else text}'


def _folder(text: str) -> str:
    """A text as a folder's name: letters, digits and . + = - stay; a long one ends in a checksum."""
    name = re.sub(r'[^A-Za-z0-9.+=-]+', '_', text).strip('_')
    return name if len(name) <= LONGEST else f'{name[:100]}_{zlib.crc32(name.encode()):08x}'


def parse_sweep(text: str) -> tuple[str, list[str]]:
    """'model.prob_thd=0,0.1' -> ('model.prob_thd', ['0', '0.1']); commas in brackets do not separate.

    Raises:
        ValueError: not of that form, or a value twice.
    """
    key, equals, rest = text.partition('=')
    values = [value.strip() for value in re.split(r',(?![^(\[]*[)\]])', rest)]
    if not (key and equals and all(values)):
        raise ValueError(f'--sweep expects KEY=VALUE,VALUE,..., got {text!r}')
    twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if twice is not None:
        raise ValueError(f'--sweep {text}: {twice} is there twice')
    return key, values


def read_plan(path: Path) -> list[dict]:
    """The runs of a plan file, JSON or YAML: a list of records with options by name, or one record with `runs`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, or is no list of records.
    """
    if not path.is_file():
        raise FileNotFoundError(f'plan {path} does not exist: expected a .json or .yaml file with a list of runs')
    text = path.read_text(encoding='utf-8')
    try:
        content = json.loads(text) if path.suffix == '.json' else _yaml(text)
    except ValueError as error:
        raise ValueError(f'plan {path} cannot be read: {" ".join(str(error).split())}') from None
    runs = content.get('runs') if isinstance(content, Mapping) else content
    if not isinstance(runs, list) or not runs or not all(isinstance(run, Mapping) for run in runs):
        raise ValueError(f'plan {path}: expected a list of runs, each a record of options, as config: voc21')
    return [dict(run) for run in runs]


def _yaml(text: str) -> object:
    import yaml  # only for those who write YAML

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def arguments_of(record: Mapping[str, object], known: Sequence[str]) -> list[str]:
    """A plan's record of options as a command line has them: {'std': 5, 'resume': True} -> --std 5 --resume.

    Raises:
        ValueError: an option that a run does not have.
    """
    arguments: list[str] = []
    for key, value in record.items():
        option = str(key).replace('_', '-')
        if option not in known or option.replace('-', '_') in NOT_IN_A_PLAN:
            raise ValueError(f'there is no option {key!r} of a run{did_you_mean(option, known)}')
        if value is True:
            arguments.append(f'--{option}')
        elif isinstance(value, Mapping):
            arguments += [f'--{option}', *(f'{name}={_text(item)}' for name, item in value.items())]
        elif isinstance(value, list | tuple):
            arguments += [f'--{option}', *map(_text, value)]
        elif value is not False and value is not None:
            arguments += [f'--{option}', _text(value)]
    return arguments


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | bool) else str(value)


def expand_file(
    path: Path, parse: Callable[[list[str]], argparse.Namespace], common: Sequence[str], known: Sequence[str]
) -> list[argparse.Namespace]:
    """The runs of a plan file; what `common` says counts where a record says nothing.

    A record's `name` is what the run is called. One with several values stands for several runs.

    Raises:
        ValueError, FileNotFoundError: the file, or one of its records, cannot be used; says which.
    """
    runs = []
    for number, record in enumerate(read_plan(path), 1):
        name = record.pop('name', None)
        try:
            options = parse([*common, *arguments_of(record, known)])
        except ValueError as error:
            raise ValueError(f'plan {path}, run {number}: {error}') from None
        of_record = expand(options)
        told = {key: value for key, value in record.items() if key not in (DATA, 'images', 'labels')}
        for run in of_record:
            own = run.run_name
            benchmark = own.split('/')[-1]
            settings = name or _folder('_'.join(filter(None, [_told(told), *own.split('/')[:-1]])))
            run.run_name = '/'.join(filter(None, [_folder(settings), benchmark]))
        runs += of_record
    return runs


def _told(settings: Mapping[str, object]) -> str:
    """One-valued settings of a record, in a word."""
    words = []
    for key, value in settings.items():
        if isinstance(value, list) and len(value) > 1 and key.replace('-', '_') in AXES:
            continue  # each of its runs says its own
        text = ' '.join(f'{k}={v}' for k, v in value.items()) if isinstance(value, Mapping) else str(value)
        words.append(text if key == 'method' else f'{key}={text}')
    return '_'.join(words)
