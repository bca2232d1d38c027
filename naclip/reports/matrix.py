"""Methods by benchmarks, in groups of one protocol and backbone, with ranks and means; and that as texts.

The page (page.js) arranges the same when it is filtered; a test in a browser holds both against each other.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from naclip.reports.runs import Run, benchmarks_of, make_rows, short_backbone
from naclip.reports.tables import Grid, latex_table, latex_text, markdown_table, markdown_text, shown, to_csv

# What mIoU is the mean over; None: as each run was set.
CONVENTIONS: Mapping[bool, str] = {
    False: 'over all classes that are labelled or predicted',
    True: 'over the classes in the ground truth',
}
MIXED = 'over the classes that each protocol counts'
GROUPED = ('protocol', 'backbone')


@dataclass(frozen=True)
class Line:
    """A row of the matrix: what it is called, and its runs by benchmark.

    `first` is the number of pictures to which all runs of a report were limited; it is not in the label then.
    """

    label: str
    protocol: str
    backbone: str
    runs: Mapping[str, Run]
    first: int | None = None


@dataclass(frozen=True)
class Cell:
    """A number as shown, and its place among those of its column and group from 0 (best).

    Both None where there is no number, or none to compare with. `shade` goes from 1 (best) to 0.
    """

    text: str
    rank: int | None = None
    shade: float | None = None


@dataclass(frozen=True)
class Placed:
    """A line with its cells by benchmark; the mean over so many of the benchmarks."""

    line: Line
    cells: Sequence[Cell]
    mean: Cell
    count: int


@dataclass(frozen=True)
class Group:
    """Lines that share what they are grouped by."""

    title: str
    rows: Sequence[Placed]


@dataclass(frozen=True)
class Matrix:
    """Groups of lines over benchmarks; `beside` names what the lines of a group may differ in, a column each."""

    benchmarks: Sequence[str]
    beside: Sequence[str]
    groups: Sequence[Group]
    caption: str


def lines_of(runs: Iterable[Run]) -> list[Line]:
    """Every run in one cell."""
    runs = list(runs)
    limits = {run.get('settings.limit', int) for run in runs}
    first = limits.pop() if len(limits) == 1 else None
    return [
        Line(row.label(limited=not first), row.any.record['protocol'], short_backbone(row.any.record), row.runs, first)
        for row in make_rows(runs)
    ]


def ranked(values: Sequence[float]) -> list[Cell]:
    """Numbers (NaN: none) as cells with their ranks: what looks the same has the same rank."""
    texts = [shown(value) for value in values]
    order = sorted({float(text) for text in texts if text != '-'}, reverse=True)
    if sum(text != '-' for text in texts) < 2:
        return [Cell(text) for text in texts]
    places = {value: place for place, value in enumerate(order)}
    return [Cell(text) if text == '-' else _ranked(text, places[float(text)], len(order)) for text in texts]


def _ranked(text: str, place: int, of: int) -> Cell:
    return Cell(text, place, 1 - place / max(of - 1, 1))


def make_matrix(
    lines: Sequence[Line], labelled_only: bool | None = None, grouped: Sequence[str] = GROUPED, only: Sequence[str] = ()
) -> Matrix:
    """Lines in groups, by order of appearance; `only` names benchmarks to show.

    Means are ranked among lines that have all of the group's benchmarks: others are means of something else.
    """
    benchmarks = benchmarks_of(run for line in lines for run in line.runs.values())
    benchmarks = [name for name in benchmarks if not only or name in only]
    lines = [line for line in lines if any(name in line.runs for name in benchmarks)]
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(title_of(line, grouped), []).append(line)
    beside = [key for key in GROUPED if key not in grouped]
    placed = [Group(title, _placed(members, benchmarks, labelled_only)) for title, members in groups.items()]
    return Matrix(benchmarks, beside, placed, caption_of(lines, benchmarks, labelled_only, len(placed)))


def title_of(line: Line, grouped: Sequence[str]) -> str:
    """What a line's group is called; empty where nothing is grouped by."""
    return ', '.join(f'{key} {getattr(line, key)}' for key in GROUPED if key in grouped)


def _placed(lines: Sequence[Line], benchmarks: Sequence[str], labelled_only: bool | None) -> list[Placed]:
    table = [[_miou(line, name, labelled_only) for name in benchmarks] for line in lines]
    columns = [ranked(column) for column in zip(*table, strict=True)]
    known = [[value for value in row if not math.isnan(value)] for row in table]
    means = [sum(values) / len(values) if values else math.nan for values in known]
    most = sum(any(not math.isnan(value) for value in column) for column in zip(*table, strict=True))
    comparable = ranked([mean if len(values) == most else math.nan for mean, values in zip(means, known, strict=True)])
    cells = [
        cell if len(values) == most else Cell(shown(mean))
        for cell, mean, values in zip(comparable, means, known, strict=True)
    ]
    rows = zip(lines, zip(*columns, strict=True), cells, known, strict=True)
    return [Placed(line, row, mean, len(values)) for line, row, mean, values in rows]


def _miou(line: Line, benchmark: str, labelled_only: bool | None) -> float:
    return line.runs[benchmark].miou(labelled_only) if benchmark in line.runs else math.nan


def caption_of(lines: Sequence[Line], benchmarks: Sequence[str], labelled_only: bool | None, groups: int) -> str:
    """What a reader must know of the table: metric, protocol, backbone, marks."""
    kinds = {run.labelled_only for line in lines for name, run in line.runs.items() if name in benchmarks}
    own = CONVENTIONS[next(iter(kinds))] if len(kinds) == 1 else MIXED
    sentences = [f'mIoU in %, {own if labelled_only is None else CONVENTIONS[labelled_only]}.']
    if lines and lines[0].first:
        sentences.append(f'Only the first {lines[0].first} pictures.')
    for key in GROUPED:
        values = list(dict.fromkeys(getattr(line, key) for line in lines))
        sentences.append(f'{key.capitalize()}{"s" if len(values) > 1 else ""}: {", ".join(values)}.')
    sentences.append(f'Best in bold, second best underlined{", of each group" if groups > 1 else ""}.')
    if len(benchmarks) > 1:
        sentences.append('Mean: over the benchmarks that a row has, their number in brackets where it lacks some.')
    return ' '.join(sentences)


def header_of(matrix: Matrix) -> list[str]:
    """The names of the columns."""
    return ['method', *matrix.beside, *matrix.benchmarks, *(['mean'] if len(matrix.benchmarks) > 1 else [])]


def mean_text(row: Placed, matrix: Matrix) -> str:
    """The mean, with the number of benchmarks where the row lacks some."""
    return row.mean.text if row.count in (0, len(matrix.benchmarks)) else f'{row.mean.text} ({row.count})'


def _texts(matrix: Matrix, row: Placed, text, marks: Mapping[int, tuple[str, str]]) -> list[str]:
    """A row's cells in a markup: `text` escapes, `marks` are put around the first ranks."""
    before = [text(value) for value in (row.line.label, *(getattr(row.line, key) for key in matrix.beside))]
    cells = [(cell.text, cell.rank) for cell in row.cells]
    cells += [(mean_text(row, matrix), row.mean.rank)] if len(matrix.benchmarks) > 1 else []
    return before + [f'{marks.get(rank, ("", ""))[0]}{value}{marks.get(rank, ("", ""))[1]}' for value, rank in cells]


def matrix_latex(matrix: Matrix) -> str:
    """The matrix as a LaTeX table (booktabs) with its caption."""
    marks = {0: (r'\textbf{', '}'), 1: (r'\underline{', '}')}
    parts = [
        (latex_text(group.title), [_texts(matrix, row, latex_text, marks) for row in group.rows])
        for group in matrix.groups
    ]
    header = [latex_text(name) for name in header_of(matrix)]
    return latex_table(1 + len(matrix.beside), header, parts, latex_text(matrix.caption))


def matrix_markdown(matrix: Matrix) -> str:
    """The matrix as a Markdown table, groups one after the other, its caption below."""
    marks = {0: ('**', '**'), 1: ('<u>', '</u>')}
    header = header_of(matrix)
    rows = []
    for group in matrix.groups:
        rows += [[f'*{markdown_text(group.title)}*', *('' for _ in header[1:])]] if group.title else []
        rows += [_texts(matrix, row, markdown_text, marks) for row in group.rows]
    table = markdown_table([markdown_text(name) for name in header], rows)
    return f'{table}\n\n{markdown_text(matrix.caption)}\n'


def matrix_csv(matrix: Matrix) -> str:
    """The matrix as CSV, numbers as shown: method, protocol, backbone, benchmarks, mean and of how many."""
    header = ['method', *GROUPED, *matrix.benchmarks, 'mean', 'mean of']
    rows = []
    for row in (row for group in matrix.groups for row in group.rows):
        cells = [_number(cell) for cell in (*row.cells, row.mean)]
        rows.append([row.line.label, row.line.protocol, row.line.backbone, *cells, str(row.count)])
    return to_csv(Grid(header, rows))


def _number(cell: Cell) -> str:
    return '' if cell.text == '-' else cell.text


def labels_of(lines: Iterable[Line]) -> dict[int, str]:
    """A name for each run by its id, no two on one benchmark alike: label, and protocol and backbone where needed."""
    names: dict[int, str] = {}
    lines = list(lines)
    for keys in ((), ('protocol',), ('backbone',), GROUPED):
        told = [
            f'{line.label} ({", ".join(getattr(line, key) for key in keys)})' if keys else line.label for line in lines
        ]
        for line, name in zip(lines, told, strict=True):
            alone = sum(other == name for other in told) == 1 or keys == GROUPED
            for run in line.runs.values() if alone else ():
                names.setdefault(id(run), name)
    return names
