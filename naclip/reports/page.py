"""A report's files: Markdown, CSV, LaTeX, plots, and one HTML page that needs nothing from outside."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from naclip.reports.content import report_content, run_grid
from naclip.reports.costs import describe_point, find_costs
from naclip.reports.curves import cost_figure, sweep_figure, to_png, to_svg, training_figure
from naclip.reports.gallery import data_uri
from naclip.reports.matrix import (
    CONVENTIONS,
    Matrix,
    header_of,
    lines_of,
    make_matrix,
    matrix_latex,
    matrix_markdown,
    mean_text,
)
from naclip.reports.plots import class_bars, confusion_map
from naclip.reports.runs import Runs, benchmarks_of, find_sweeps, make_rows, read_confusion, worst_pairs
from naclip.reports.tables import Grid, plain, shown, to_csv, to_markdown
from naclip.reports.training import find_trainings

HERE = Path(__file__).parent
PLOTTED = 12  # runs that have plots of their own


@dataclass(frozen=True)
class Curve:
    """A plot of the page: what it shows in words, the SVG as a data URI, and its numbers."""

    title: str
    image: str
    grid: Grid


def miou_grid(runs: Runs, labelled_only: bool) -> Grid:
    """Methods by benchmarks, with a mean where there are several benchmarks."""
    benchmarks = benchmarks_of(runs.runs)
    rows = []
    for row in make_rows(runs.runs):
        values = [row.runs[name].miou(labelled_only) if name in row.runs else None for name in benchmarks]
        mean, of = row.mean(benchmarks, labelled_only) or (None, None)
        rows.append([row.name, *values, *([mean, of] if len(benchmarks) > 1 else [])])
    return Grid(['method', *benchmarks, *(['mean', 'mean of'] if len(benchmarks) > 1 else [])], rows)


def mious_markdown(runs: Runs) -> str:
    """The overview under both conventions."""
    return '\n\n'.join(
        f'mIoU in %, {text}:\n\n{to_markdown(miou_grid(runs, only))}' for only, text in CONVENTIONS.items()
    )


def make_report(runs: Runs, folders: Sequence[Path] = ()) -> tuple[dict[str, bytes], list[str], list[str]]:
    """All files of a report by name, a line for everything that is not in it, and remarks.

    `folders` are looked through for trainings.
    """
    lines = lines_of(runs.runs)
    matrix = make_matrix(lines)
    content, wrong, remarks = report_content(runs.runs, lines)
    files, plot_remarks = run_plots(runs)
    curves, curve_files, unread, cost_remarks = make_curves(runs, folders)
    files |= curve_files
    left_out = list(dict.fromkeys([*runs.left_out, *wrong, *unread]))
    notes = [*runs.notes, *remarks, *plot_remarks, *cost_remarks]
    said = [*(f'Left out: {line}' for line in left_out), *notes]
    files |= text_files(runs, matrix, said)
    files['report.html'] = to_html(content, matrix, curves, run_grid(runs.runs), said).encode()
    return files, left_out, notes


def text_files(runs: Runs, matrix: Matrix, said: Sequence[str]) -> dict[str, bytes]:
    """The tables as files, and what is to be said of them."""
    remarks = '\n'.join(f'- {html.escape(line, quote=False)}' for line in said) or '- none'
    parts = ['# Evaluation report', matrix_markdown(matrix).strip(), mious_markdown(runs)]
    parts += ['## Runs', to_markdown(run_grid(runs.runs)), '## Left out, and remarks', remarks]
    both = [(text, miou_grid(runs, only)) for only, text in CONVENTIONS.items()]
    rows = [[row[0], text, *row[1:]] for text, grid in both for row in grid.rows]
    header = both[0][1].header
    texts = {
        'report.md': '\n\n'.join(parts) + '\n',
        'table.tex': matrix_latex(matrix),
        'table.csv': to_csv(Grid([header[0], 'mIoU', *header[1:]], rows)),
        'runs.csv': to_csv(run_grid(runs.runs)),
    }
    # A file name need not be UTF-8: its bytes go through as they are.
    return {name: text.encode('utf-8', 'surrogateescape') for name, text in texts.items()}


def run_plots(runs: Runs) -> tuple[dict[str, bytes], list[str]]:
    """Bars of classes and confusions of each run, as long as they are few; and a remark where they are not."""
    files = {}
    for number, run in enumerate(runs.runs[:PLOTTED], 1):
        name = f'{number:02d}_{run.benchmark}_{run.record["method"]}'
        files[plot_name(f'{name}_classes', 'png')] = class_bars(run)
        try:
            matrix = read_confusion(run)
        except (ValueError, OSError):
            continue  # is among what is left out already
        if matrix is not None and worst_pairs(matrix):
            files[plot_name(f'{name}_confusion', 'png')] = confusion_map(run, matrix)
    if len(runs.runs) <= PLOTTED:
        return files, []
    return files, [f'plots/ has classes and confusions of the first {PLOTTED} of {len(runs.runs)} runs']


def plot_name(name: str, kind: str) -> str:
    """Where a plot is written."""
    return f'plots/{re.sub(r"[^A-Za-z0-9._-]+", "_", name)}.{kind}'


def make_curves(runs: Runs, folders: Sequence[Path]) -> tuple[list[Curve], dict[str, bytes], list[str], list[str]]:
    """Sweeps, costs and trainings: for the page, as files, what cannot be read, and remarks."""
    curves: list[Curve] = []
    files: dict[str, bytes] = {}

    def add(name: str, title: str, figure: Figure, grid: Grid) -> None:
        svg = to_svg(figure)
        files[plot_name(name, 'png')], files[plot_name(name, 'svg')] = to_png(figure), svg
        curves.append(Curve(title, data_uri(svg, 'image/svg+xml'), grid))

    for number, sweep in enumerate(find_sweeps(runs.runs), 1):
        values = [[name, x, y] for name, points in sweep.lines.items() for x, y in points]
        grid = Grid(['method', sweep.setting, 'mIoU'], values)
        name = f'sweep_{number:02d}_{sweep.benchmark}_{sweep.setting}'
        add(name, f'{sweep.benchmark}: mIoU by {sweep.setting}', sweep_figure(sweep), grid)
    found, remarks = find_costs(runs.runs)
    for number, costs in enumerate(found, 1):
        rows = [[describe_point(point), point.ratio, point.run.picture_seconds, point.miou] for point in costs.points]
        grid = Grid(['method', 'cost / clip', 'seconds a picture', 'mIoU'], rows)
        title = f'{costs.benchmark}: mIoU against cost, on {costs.device}'
        add(f'cost_{number:02d}_{costs.benchmark}', title, cost_figure(costs), grid)
    trainings, unread = find_trainings(folders)
    for number, training in enumerate(trainings, 1):
        grid = Grid(['step', 'mIoU'], [[step, miou] for step, miou in training.scores])
        title = f'{training.folder}: loss and mIoU by step'
        add(f'training_{number:02d}', title, training_figure(training), grid)
    return curves, files, unread, remarks


def to_html(content: Mapping, matrix: Matrix, curves: Sequence[Curve], runs: Grid, said: Sequence[str]) -> str:
    """The page; every text in it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {'shown': shown, 'plain': plain}
    # A file name that is not UTF-8 is shown with marks in place of its bytes.
    page = environment.get_template('page.html').render(
        content=content,
        matrix=matrix,
        header=header_of(matrix),
        mean_text=mean_text,
        curves=curves,
        runs=runs,
        said=said,
        style=(HERE / 'page.css').read_text(encoding='utf-8'),
        behaviour=(HERE / 'page.js').read_text(encoding='utf-8'),
    )
    return page.encode('utf-8', 'replace').decode()
