"""Tables as texts: Markdown, CSV and LaTeX, ready to paste. Nothing in a cell is taken for markup."""

import csv
import html
import io
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Cell = str | int | float | None
# What LaTeX takes for something else. Text needs no package but booktabs.
LATEX: Mapping[str, str] = {
    '\\': r'\textbackslash{}',
    **{letter: f'\\{letter}' for letter in '&%$#_{}'},
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '<': r'\textless{}',
    '>': r'\textgreater{}',
    '|': r'\textbar{}',
    'σ': r'$\sigma$',
}


@dataclass(frozen=True)
class Grid:
    """A table: column names, and rows of as many cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def shown(value: Cell) -> str:
    """A cell as text: two decimals; '-' for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '-'
    return f'{value:.2f}' if isinstance(value, float) else str(value)


def plain(value: Cell) -> str:
    """A cell in full precision, for CSV and sorting; empty for what is missing."""
    return '' if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def markdown_text(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return html.escape(' '.join(text.split()), quote=False).replace('|', r'\|')


def latex_text(text: str) -> str:
    """A text as LaTeX shows it: on one line, control characters left out."""
    line = ''.join(letter for letter in ' '.join(text.split()) if unicodedata.category(letter)[0] != 'C')
    return ''.join(LATEX.get(letter, letter) for letter in line)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown already."""
    lines = [header, ['---' for _ in header], *rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def to_markdown(grid: Grid) -> str:
    """A Markdown table."""
    rows = [[markdown_text(shown(cell)) for cell in row] for row in grid.rows]
    return markdown_table([markdown_text(name) for name in grid.header], rows)


def to_csv(grid: Grid) -> str:
    """A CSV table in full precision."""
    file = io.StringIO(newline='')
    csv.writer(file).writerows([grid.header, *([plain(cell) for cell in row] for row in grid.rows)])
    return file.getvalue()


def latex_table(
    texts: int, header: Sequence[str], parts: Sequence[tuple[str, Sequence[Sequence[str]]]], caption: str
) -> str:
    """A LaTeX table (booktabs) of cells that are LaTeX already: the first `texts` columns to the left, the rest right.

    `parts` are the titles and rows of what rules keep apart; an empty title is no line.
    """
    columns = 'l' * texts + 'r' * (len(header) - texts)
    lines = ['% needs \\usepackage{booktabs}', r'\begin{table}[t]', r'\centering', rf'\caption{{{caption}}}']
    lines += [rf'\begin{{tabular}}{{{columns}}}', r'\toprule', ' & '.join(header) + r' \\']
    for title, rows in parts:
        lines.append(r'\midrule')
        lines += [rf'\multicolumn{{{len(header)}}}{{l}}{{\textit{{{title}}}}} \\'] if title else []
        lines += [' & '.join(cells) + r' \\' for cells in rows]
    return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}', r'\end{table}', ''])


def to_latex(grid: Grid, caption: str, texts: int = 1) -> str:
    """A grid as a LaTeX table; its first `texts` columns are texts."""
    rows = [[latex_text(shown(cell)) for cell in row] for row in grid.rows]
    return latex_table(texts, [latex_text(name) for name in grid.header], [('', rows)], latex_text(caption))
