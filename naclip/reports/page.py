"""A report's files as texts: Markdown, CSV, and one HTML page that needs nothing from outside."""

import base64
import csv
import html
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from naclip.reports.plots import class_bars, confusion_map, sweep_lines
from naclip.reports.runs import (
    Run,
    Runs,
    benchmarks_of,
    compare,
    find_sweeps,
    make_rows,
    read_confusion,
    read_worst_pictures,
    worst_pairs,
)

CONVENTIONS = {False: 'over all classes that are labelled or predicted', True: 'over the classes in the ground truth'}
Cell = str | int | float | None


@dataclass(frozen=True)
class Grid:
    """A table: column names, and rows of as many cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Part:
    """A piece of a section: a 'grid', a 'plot' (`title` describes it, `data` is the PNG in base64) or a 'note'."""

    kind: str
    title: str = ''
    grid: Grid | None = None
    data: str = ''
    sortable: bool = False


@dataclass(frozen=True)
class Section:
    title: str
    parts: list[Part] = field(default_factory=list)


def shown(value: Cell) -> str:
    """A cell as text: two decimals; '-' for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '-'
    return f'{value:.2f}' if isinstance(value, float) else str(value)


def plain(value: Cell) -> str:
    """A cell in full precision, for CSV and sorting; empty for what is missing."""
    return '' if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def miou_grid(runs: Runs, labelled_only: bool) -> Grid:
    """Methods by benchmarks, with a mean where there are several benchmarks."""
    benchmarks = benchmarks_of(runs.runs)
    rows = []
    for row in make_rows(runs.runs):
        values = [row.runs[name].miou(labelled_only) if name in row.runs else None for name in benchmarks]
        mean, of = row.mean(benchmarks, labelled_only) or (None, None)
        rows.append([row.name, *values, *([mean, of] if len(benchmarks) > 1 else [])])
    return Grid(['method', *benchmarks, *(['mean', 'mean of'] if len(benchmarks) > 1 else [])], rows)


def run_grid(runs: Runs) -> Grid:
    """One line a run: both mIoU, the published number, and the settings that identify it."""
    header = ['benchmark', 'method', 'protocol', 'changes', 'backbone', 'pictures', 'first', 'mIoU all classes']
    header += ['mIoU in ground truth', 'published', 'difference', 'note', 'dtype', 'device', 'seconds', 'file']
    rows = []
    for run in runs.runs:
        record, beside = run.record, compare(run)
        changes = ', '.join(f'{key} {value}' for key, value in record['changes'].items())
        row = [record['benchmark'], record['method'], record['protocol'], changes, record['backbone']]
        row += [run.get('images', int), run.get('settings.limit', int), run.miou(False), run.miou(True)]
        row += [beside.published, beside.difference, beside.note, run.get('settings.dtype', str)]
        rows.append([*row, run.get('device.name', str), run.seconds, str(run.path)])
    return Grid(header, rows)


def settings_grid(run: Run) -> Grid:
    """Everything that a run's numbers may depend on: settings, hashes of files, versions."""
    parts = {key: run.get(key) for key in ('settings', 'sha256', 'versions', 'git_commit', 'device', 'resumed')}
    rows = []
    for part, value in parts.items():
        items = {f'{part}: {key}': item for key, item in value.items()} if isinstance(value, Mapping) else {part: value}
        rows += [[key, item if isinstance(item, str) else json.dumps(item)] for key, item in items.items()]
    return Grid(['what', 'value'], rows)


def to_markdown(grid: Grid) -> str:
    """A Markdown table; nothing in a cell is taken for markup."""

    def line(cells: Sequence[str]) -> str:
        texts = (html.escape(' '.join(cell.split()), quote=False).replace('|', r'\|') for cell in cells)
        return f'| {" | ".join(texts)} |'

    rule = f'| {" | ".join("---" for _ in grid.header)} |'
    return '\n'.join([line(grid.header), rule, *(line([shown(cell) for cell in row]) for row in grid.rows)])


def to_csv(grid: Grid) -> str:
    """A CSV table in full precision."""
    file = io.StringIO(newline='')
    csv.writer(file).writerows([grid.header, *([plain(cell) for cell in row] for row in grid.rows)])
    return file.getvalue()


def mious_markdown(runs: Runs) -> str:
    """The overview under both conventions."""
    return '\n\n'.join(
        f'mIoU in %, {text}:\n\n{to_markdown(miou_grid(runs, only))}' for only, text in CONVENTIONS.items()
    )


def make_report(runs: Runs) -> tuple[dict[str, bytes], list[str]]:
    """All files of a report by name, and one line for everything that is not in it."""
    files: dict[str, bytes] = {}
    left_out = list(runs.left_out)

    def plot(name: str, title: str, data: bytes) -> Part:
        files[f'plots/{re.sub(r"[^A-Za-z0-9._-]+", "_", name)}.png'] = data
        return Part('plot', title, data=base64.b64encode(data).decode())

    overview = [Part('grid', f'mIoU in %, {text}', miou_grid(runs, only)) for only, text in CONVENTIONS.items()]
    overview.append(Part('grid', 'Runs', run_grid(runs)))
    for number, sweep in enumerate(find_sweeps(runs.runs), 1):
        name = f'sweep_{number:02d}_{sweep.benchmark}_{sweep.setting}'
        overview.append(plot(name, f'{sweep.benchmark}: mIoU by {sweep.setting}', sweep_lines(sweep)))
        values = [[name, x, y] for name, points in sweep.lines.items() for x, y in points]
        overview.append(
            Part('grid', f'{sweep.benchmark}: {sweep.setting}', Grid(['method', sweep.setting, 'mIoU'], values))
        )
    sections = [Section('Overview', overview)]
    for number, run in enumerate(runs.runs, 1):
        section = Section(f'{run.benchmark}: {run.name}')
        sections.append(section)
        name = f'{number:02d}_{run.benchmark}_{run.record["method"]}'
        section.parts.append(plot(f'{name}_classes', 'IoU by class', class_bars(run)))
        columns = (run.class_names, run.counts.iou(), run.counts.acc(), run.counts.label, run.counts.pred)
        header = ['class', 'IoU', 'Acc', 'pixels labelled', 'pixels predicted']
        section.parts.append(Part('grid', 'Classes', Grid(header, list(zip(*columns, strict=True))), sortable=True))
        try:
            matrix = read_confusion(run)
            pairs = worst_pairs(matrix) if matrix is not None else []
            if pairs:
                section.parts.append(plot(f'{name}_confusion', 'Confusion of classes', confusion_map(run, matrix)))
                names, label = run.class_names, run.counts.label
                rows = [[names[i], names[j], n, 100 * n / label[i]] for i, j, n in pairs]
                header = ['ground truth', 'prediction', 'pixels', '% of the class']
                section.parts.append(Part('grid', 'Worst confusions', Grid(header, rows)))
        except (ValueError, OSError) as error:
            left_out.append(str(error))
            section.parts.append(Part('note', f'Left out: {error}'))
        try:
            worst = read_worst_pictures(run)
            if worst:
                section.parts.append(Part('grid', 'Worst pictures', Grid(*worst)))
        except (ValueError, OSError) as error:
            left_out.append(str(error))
            section.parts.append(Part('note', f'Left out: {error}'))
        section.parts.append(Part('grid', 'Settings', settings_grid(run)))
    lines = [*(f'Left out: {line}' for line in left_out), *runs.notes]
    if lines:
        sections.append(Section('Left out, and remarks', [Part('note', line) for line in lines]))
    remarks = '\n'.join(f'- {html.escape(line, quote=False)}' for line in lines) or '- none'
    markdown = f'# Evaluation report\n\n{mious_markdown(runs)}\n\n## Runs\n\n{to_markdown(run_grid(runs))}'
    files['report.md'] = f'{markdown}\n\n## Left out, and remarks\n\n{remarks}\n'.encode()
    both = [(text, miou_grid(runs, only)) for only, text in CONVENTIONS.items()]
    rows = [[row[0], text, *row[1:]] for text, grid in both for row in grid.rows]
    header = both[0][1].header
    files['table.csv'] = to_csv(Grid([header[0], 'mIoU', *header[1:]], rows)).encode()
    files['runs.csv'] = to_csv(run_grid(runs)).encode()
    files['report.html'] = to_html(sections).encode()
    return files, left_out


def to_html(sections: Sequence[Section]) -> str:
    """The page; every text in it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {'shown': shown, 'plain': plain}
    return environment.get_template('page.html').render(sections=sections)
