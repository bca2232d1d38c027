"""Evaluations side by side: results.json files to rows, means, comparisons, sweeps and confusions. Draws nothing.

K classes.
"""

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from clip.form import MEAN, OPENAI, STD
from clip.weights import available_models
from naclip.reports.published import find_published
from naclip.runs import attempts
from naclip.runs.journal import pixel_counts
from naclip.runs.results import CONFUSION, PER_IMAGE, RESULTS, SCHEMA, SCORED, PixelCounts

COUNTED = attempts.COUNTS  # the folder of a run's counts
COUNTS = ('intersect', 'union', 'pred', 'label')
REQUIRED = {'benchmark': str, 'method': str, 'protocol': str, 'changes': dict, 'backbone': str, 'classes': list}
# What a complete record has beside that; without, the run is shown and the lack is said.
EXPECTED = (
    *('images', 'metrics.mIoU', 'seconds.total', 'device.name', 'sha256.weights'),
    *('settings.dtype', 'settings.limit', 'settings.labelled_only'),
)
OF_TOWERS = ('sha256.weights', 'settings.dtype')  # which label maps that were made elsewhere do not have
# Settings that numbers do not depend on.
PLACES = ('data_root', 'config', 'vocabulary', 'templates', 'processes', 'form_known_by', 'predictions')
# Numbers among the settings that are not swept: of the weights' form, of the labels, and of how much was looked at.
NOT_SWEPT = (*PLACES, 'limit', 'head_width', 'text_head_width', 'ignore_index')
# What earlier releases took every backbone for, and did not write down.
EARLIER = asdict(OPENAI) | {'mean': list(MEAN), 'std': list(STD)}
# Settings whose names say little, in words; they come first.
SWEPT = {
    'gaussian_std': 'σ of the Gaussian, in patches',
    'prob_thd': 'prob_thd: probability below which a pixel is background',
    'logit_scale': 'logit_scale: factor of the cosines',
}


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluation: its record, the file it is from, the folder that was asked for, and remarks on it."""

    record: Mapping
    path: Path
    root: Path
    counts: PixelCounts
    notes: tuple[str, ...] = ()

    def get(self, key: str, kind: type | tuple[type, ...] = object):
        """A value of the record ('device.name'); None where it is lacking or of another kind."""
        value = self.record
        for part in key.split('.'):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value if isinstance(value, kind) else None

    @property
    def benchmark(self) -> str:
        return self.record['benchmark']

    @property
    def name(self) -> str:
        return run_name(self.record)

    @property
    def class_names(self) -> list[str]:
        return [row['name'] for row in self.record['classes']]

    @property
    def labelled_only(self) -> bool:
        """Whether the run's own mIoU is the mean over the classes in the ground truth."""
        return bool(self.get('settings.labelled_only'))

    @property
    def seconds(self) -> float | None:
        return self.get('seconds.total', (int, float))

    @property
    def shared_by(self) -> int:
        """How many methods were evaluated in the pass whose seconds these are."""
        return self.get('seconds.shared_by', int) or 1

    @property
    def picture_seconds(self) -> float | None:
        """Seconds a picture, where they are the cost of this method on its device: not shared, no other device."""
        earlier = self.get('resumed_from', list) or []
        moved = any('device' in notes for notes in earlier if isinstance(notes, Mapping))
        seconds = self.get('seconds.per_image', (int, float))
        return None if self.shared_by > 1 or moved or not seconds or seconds <= 0 else seconds

    def miou(self, labelled_only: bool | None = None) -> float:
        """mIoU in percent, over the classes in the ground truth or over all that occur; None: as the run was set."""
        return self._mious[self.labelled_only if labelled_only is None else labelled_only]

    @cached_property
    def _mious(self) -> dict[bool, float]:
        return {only: self.counts.metrics(only)['mIoU'] for only in (False, True)}


@dataclass(frozen=True)
class Runs:
    """What was found: the runs, one line for each file or folder that is not among them, and remarks."""

    runs: tuple[Run, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def run_name(record: Mapping) -> str:
    """What a run was: method, protocol, and what options changed of it."""
    if record['protocol'] == SCORED:
        return f'{record["method"]} ({SCORED}{_differences(record)})'
    return f'{record["method"]} ({record["protocol"]}{_differences(record)}; {short_backbone(record)})'


def short_name(record: Mapping, limited: bool = True) -> str:
    """What a run was, where protocol and backbone are told elsewhere; and with `limited` False the pictures' number."""
    return f'{record["method"]}{_differences(record, limited)}'


def short_backbone(record: Mapping) -> str:
    """A backbone's name; of a file the last part of its path."""
    backbone = record['backbone']
    return backbone if backbone in available_models() else Path(backbone).name


def _differences(record: Mapping, limited: bool = True) -> str:
    changes = ''.join(f', {key} {value}' for key, value in record['changes'].items())
    settings = record.get('settings')
    limit = settings.get('limit') if isinstance(settings, Mapping) else None
    return changes + (f', first {limit}' if limit and limited else '')


def find_runs(folders: Iterable[Path]) -> Runs:
    """All runs in and below the folders, in order; a run that is there twice with the same counts counts once.

    Raises:
        FileNotFoundError: a folder has no results.json in or below it.
        ValueError: none of the files can be used; says why.
    """
    runs: list[Run] = []
    left_out: list[str] = []
    notes: list[str] = []
    files: set[Path] = set()
    known: dict[str, Run] = {}
    for folder in folders:
        found = sorted(folder.rglob(RESULTS))
        if not found:
            raise FileNotFoundError(f'no {RESULTS} in or below {folder}: give the --work-dir of an evaluation')
        for path in found:
            if path.resolve() in files:
                continue
            files.add(path.resolve())
            try:
                run = read_run(path, folder)
            except (ValueError, OSError) as error:
                left_out.append(str(error))
                continue
            twin = known.setdefault(identity(run), run)
            twin = None if twin is run else twin
            if twin and twin.record['classes'] == run.record['classes']:
                notes.append(f'{path} is the same run as {twin.path}, with the same counts: shown once')
                continue
            if twin:
                notes.append(f'{path} has the settings of {twin.path}, but other counts: both are shown')
            runs.append(run)
            notes += [f'{path}: {note}' for note in run.notes]
        notes += [f'{place} has no {RESULTS}: not evaluated, or unfinished' for place in unfinished(folder)]
    if not runs:
        raise ValueError(f'no {RESULTS} can be used: {"; ".join(left_out)}')
    return Runs(tuple(runs), tuple(left_out), tuple(dict.fromkeys(notes)))


def unfinished(folder: Path) -> list[Path]:
    """Folders in which an evaluation has started (its counts or logs are there) without a result, and empty ones."""
    found = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        logs = [name for name in folders if (Path(place) / name / 'vis_data').is_dir()]
        if RESULTS not in files and (logs or COUNTED in folders or not (folders or files)):
            found.append(Path(place))
        folders[:] = [name for name in folders if name not in (*logs, COUNTED)]
    return found


def read_run(path: Path, root: Path) -> Run:
    """Read a results.json.

    Raises:
        ValueError: damaged, or without what a report needs; says what, and that the evaluation has to be run again.
    """
    again = 'run the evaluation again, or remove the file'
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:  # neither UTF-8 nor JSON
        raise ValueError(f'{path} is damaged or unfinished ({error}); {again}') from None
    if not isinstance(record, dict):
        raise ValueError(f'{path} holds no record of a run; {again}')
    missing = [key for key, kind in REQUIRED.items() if not isinstance(record.get(key), kind) or record[key] == []]
    if missing:
        raise ValueError(f'{path} lacks {", ".join(missing)}, maybe an older layout; {again}')
    for number, row in enumerate(record['classes']):
        problem = _class_problem(row)
        if problem:
            raise ValueError(f'{path}, class {number}: {problem}; {again}')
    counts = PixelCounts(*([row[key] for row in record['classes']] for key in COUNTS))
    run = Run(record, path, root, counts)
    scored = record['protocol'] == SCORED
    lacking = [key for key in EXPECTED if not _has(record, key) and not (scored and key in OF_TOWERS)]
    notes = [f'the record lacks {", ".join(lacking)}'] if lacking else []
    version = run.get('schema', int)
    if version is not None and version > SCHEMA:
        notes.append(f'the record has schema {version}, and this report knows {SCHEMA}: it may not tell everything')
    stated = run.get('metrics.mIoU', (int, float))
    if stated is not None and not math.isclose(stated, run.miou(), abs_tol=1e-6):
        notes.append(f'the record says mIoU {stated:.4f}, its pixel counts give {run.miou():.4f}, which is shown')
    return Run(record, path, root, counts, tuple(notes))


def _class_problem(row: object) -> str | None:
    """What is wrong with a class of a record; None if nothing is."""
    if not isinstance(row, dict) or not isinstance(row.get('name'), str):
        return 'it has no name'
    if not all(type(row.get(key)) is int and row[key] >= 0 for key in COUNTS):
        return f'expected the pixel counts {", ".join(COUNTS)} as whole numbers'
    if row['union'] != row['pred'] + row['label'] - row['intersect'] or row['intersect'] > min(
        row['pred'], row['label']
    ):
        return 'its pixel counts contradict each other'
    return None


def _has(record: Mapping, key: str) -> bool:
    *outer, last = key.split('.')
    for part in outer:
        record = record.get(part)
        if not isinstance(record, Mapping):
            return False
    return last in record


def settings_of(run: Run) -> dict[str, object]:
    """A run's settings, with the constants of its method among them, where earlier releases had them."""
    settings = dict(run.get('settings', Mapping) or {})
    constants = settings.pop('constants', None)
    return EARLIER | settings | (dict(constants) if isinstance(constants, Mapping) else {})


def identity(run: Run, without: str | None = None) -> str:
    """A text that two runs share if they have the same settings, but for one."""
    settings = {key: value for key, value in settings_of(run).items() if key not in PLACES}
    changes = dict(run.record['changes'])
    settings.pop(without, None)
    changes.pop(without, None)
    weights = run.get('sha256.weights') or run.get('sha256.predictions') or run.record['backbone']
    hashes = [run.get(f'sha256.{key}') for key in ('vocabulary', 'templates')]
    names = [run.record[key] for key in ('benchmark', 'method', 'protocol')]
    return json.dumps([*names, run.get('images'), weights, hashes, changes, settings], sort_keys=True)


@dataclass(frozen=True)
class Row:
    """The runs of one method under one protocol, by benchmark; `variant` tells rows of one name apart."""

    name: str
    runs: Mapping[str, Run]
    variant: tuple[str, ...] = ()

    def label(self, limited: bool = True) -> str:
        """The row's name, where protocol and backbone are told elsewhere; see `short_name`."""
        return '; '.join([short_name(self.any.record, limited), *self.variant])

    @property
    def any(self) -> Run:
        """One of the runs."""
        return next(iter(self.runs.values()))

    def mean(self, benchmarks: Sequence[str], labelled_only: bool | None) -> tuple[float, int] | None:
        """The mean mIoU over those of the benchmarks that the row has, and their number; None without any."""
        values = [self.runs[name].miou(labelled_only) for name in benchmarks if name in self.runs]
        values = [value for value in values if not math.isnan(value)]
        return (sum(values) / len(values), len(values)) if values else None


def benchmarks_of(runs: Iterable[Run]) -> list[str]:
    """The benchmarks, in order of appearance."""
    return list(dict.fromkeys(run.benchmark for run in runs))


def make_rows(runs: Iterable[Run]) -> list[Row]:
    """Every run in one cell of a table, rows in order of appearance.

    Runs of the same name go apart by weights and dtype, and where two would share a cell, by folder.
    """
    parts: list[tuple[str, str, str, str, list[Run]]] = []
    for (name, weights, dtype), group in _grouped(runs, lambda run: (run.name, *_variant(run))):
        for place, members in _apart(group, (lambda run: str(run.root), lambda run: str(run.path.parent))):
            parts.append((name, weights, dtype, place, members))
    rows = []
    for name, *variant, members in parts:
        namesakes = [part[1:4] for part in parts if part[0] == name]
        differing = [value for i, value in enumerate(variant) if value and len({other[i] for other in namesakes}) > 1]
        runs_of = {run.benchmark: run for run in members}
        rows.append(Row('; '.join([name, *differing]), runs_of, tuple(differing)))
    return rows


def _variant(run: Run) -> tuple[str, str]:
    return (run.get('sha256.weights', str) or '')[:8], run.get('settings.dtype', str) or ''


def _grouped(runs: Iterable[Run], key: Callable) -> list[tuple[object, list[Run]]]:
    """Runs by a key, groups and members in order of appearance."""
    groups: dict[object, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.items())


def _apart(runs: list[Run], keys: Sequence[Callable[[Run], str]], place: str = '') -> list[tuple[str, list[Run]]]:
    """Groups in which no two runs are of one benchmark, each with the key that it was split off by ('': none)."""
    if len(benchmarks_of(runs)) == len(runs):
        return [(place, runs)]
    return [part for value, group in _grouped(runs, keys[0]) for part in _apart(group, keys[1:], value)]


@dataclass(frozen=True)
class Comparison:
    """A run beside the published number: None where there is none, or where it is under other settings."""

    published: float | None
    difference: float | None
    note: str


def compare(run: Run) -> Comparison:
    """A run's own mIoU against the published one; the difference only where the settings match."""
    lacking = [key for key in ('sha256.weights', 'settings.limit') if not _has(run.record, key)]
    if lacking and run.record['protocol'] != SCORED:
        return Comparison(None, None, f'not compared: the record lacks {", ".join(lacking)}')
    published, source, differences = find_published(run.record)
    if differences:
        return Comparison(published, None, f'other settings: {", ".join(differences)}')
    miou = run.miou()
    return Comparison(published, None if published is None or math.isnan(miou) else miou - published, source)


@dataclass(frozen=True)
class Sweep:
    """mIoU against one setting on one benchmark: lines by name, each of (value, mIoU) by ascending value."""

    benchmark: str
    setting: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def find_sweeps(runs: Iterable[Run]) -> list[Sweep]:
    """The runs that differ in one number only, a setting or a constant; at least two values make a line.

    Settings of SWEPT come first.
    """
    runs = [run for run in runs if not math.isnan(run.miou())]
    numbers = {id(run): _numbers(run) for run in runs}
    sweeps = []
    for setting in dict.fromkeys([*SWEPT, *(key for run in runs for key in numbers[id(run)])]):
        for benchmark, members in _grouped((r for r in runs if setting in numbers[id(r)]), lambda run: run.benchmark):
            if len({numbers[id(run)][setting] for run in members}) < 2:
                continue
            lines: dict[str, list[tuple[float, float]]] = {}
            for _, group in _grouped(members, lambda run, setting=setting: identity(run, without=setting)):
                points = sorted((numbers[id(run)][setting], run.miou()) for run in group)
                if len({value for value, _ in points}) < 2:
                    continue
                record = group[0].record
                others = {name: value for name, value in record['changes'].items() if name != setting}
                name = run_name(record | {'changes': others})
                lines[name if name not in lines else f'{name} [{group[0].path.parent}]'] = points
            if lines:
                sweeps.append(Sweep(benchmark, setting, lines))
    return sweeps


def _numbers(run: Run) -> dict[str, float]:
    """The settings and constants of a run that are numbers."""
    settings = settings_of(run).items()
    return {key: value for key, value in settings if type(value) in (int, float) and key not in NOT_SWEPT}


def read_confusion(run: Run) -> np.ndarray | None:
    """The run's confusion matrix int64 (K, K), rows the ground truth, columns the prediction; None without a file.

    Raises:
        ValueError: no such matrix, or not of this run.
    """
    path = run.path.with_name(CONFUSION)
    if not path.is_file():
        return None
    try:
        matrix = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f'{path} cannot be read: {str(error).splitlines()[0]}') from None
    count = len(run.record['classes'])
    if not isinstance(matrix, np.ndarray) or matrix.shape != (count, count) or matrix.dtype.kind not in 'iu':
        got = f'{matrix.dtype} {matrix.shape}' if isinstance(matrix, np.ndarray) else 'several arrays'
        raise ValueError(f'{path} holds {got}, expected whole numbers of shape {(count, count)}')
    if pixel_counts(matrix) != run.counts:
        raise ValueError(f'{path} is not of this run: its sums are not the pixel counts of {run.path.name}')
    return matrix


def most_confused(matrix: np.ndarray, count: int = 12) -> list[int]:
    """The classes with the most pixels off the diagonal, in their rows and columns; most first."""
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    return [int(i) for i in np.argsort(-wrong, kind='stable')[:count] if wrong[i]]


def row_shares(matrix: np.ndarray) -> np.ndarray:
    """Share of each class's labelled pixels (rows) by predicted class; NaN for a class not labelled."""
    labelled = matrix.sum(axis=1, keepdims=True)
    return np.divide(matrix, labelled, out=np.full(matrix.shape, np.nan), where=labelled > 0)


def worst_pairs(matrix: np.ndarray, count: int = 10) -> list[tuple[int, int, int]]:
    """The pairs (ground truth, prediction, pixels) that most pixels are confused in; most first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind='stable')[:count]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(i), int(j), int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


def read_worst_pictures(run: Run, count: int = 10) -> tuple[list[str], list[list[str]]] | None:
    """Columns and the `count` rows of least mIoU of the run's table of pictures; None without a file.

    Pictures without an mIoU come last.

    Raises:
        ValueError: not such a table.
    """
    path = run.path.with_name(PER_IMAGE)
    if not path.is_file():
        return None
    try:
        with path.open(encoding='utf-8', newline='') as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f'{path} cannot be read: {error}') from None
    if not {'image', 'mIoU'} <= set(header):
        raise ValueError(f'{path} has the columns {", ".join(header) or "(none)"}, expected image and mIoU among them')
    place = header.index('mIoU')
    keyed = []
    for number, row in enumerate(rows, 2):
        try:
            if len(row) != len(header):
                raise ValueError
            value = float(row[place] or 'nan')
        except ValueError:
            raise ValueError(f'{path}, line {number}: expected {len(header)} cells and a number as mIoU') from None
        keyed.append((math.isnan(value), value, row))
    return header, [row for _, _, row in sorted(keyed, key=lambda item: item[:2])[:count]]
