"""Tables as texts: nothing is lost, nothing is taken for markup."""

import csv
import io
import math
import re
import shutil
import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naclip.reports.tables import LATEX, Grid, latex_table, latex_text, plain, shown, to_csv, to_latex, to_markdown

CELLS = st.one_of(st.none(), st.integers(), st.floats(allow_infinity=False), st.text('ab|<&>"\'\n ,;', max_size=8))
HOSTILE = 'a&b_%$#{}~^\\<>|"σ'
TEX = next((name for name in ('pdflatex', 'xelatex', 'lualatex', 'tectonic') if shutil.which(name)), None)


@pytest.mark.parametrize(
    ('value', 'in_words', 'in_full'),
    [(None, '-', ''), (math.nan, '-', ''), (1 / 3, '0.33', str(1 / 3)), (7, '7', '7'), ('a', 'a', 'a')],
)
def test_cells(value, in_words, in_full):
    assert (shown(value), plain(value)) == (in_words, in_full)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4))
def test_csv_keeps_everything(rows):
    read = list(csv.reader(io.StringIO(to_csv(Grid(['a', 'b'], rows)), newline='')))
    assert read == [['a', 'b'], *([plain(cell) for cell in row] for row in rows)]


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4))
def test_markdown_has_a_line_a_row_and_no_markup(rows):
    lines = to_markdown(Grid(['a', 'b'], rows)).splitlines()
    assert len(lines) == len(rows) + 2
    for line in lines:
        assert line.replace(r'\|', '').count('|') == 3
        assert '<' not in line


@given(st.text(max_size=20))
def test_latex_text_is_the_text_and_no_command(text):
    """Read back letter by letter, from the table of what stands for what."""
    back = {value: key for key, value in LATEX.items()}
    pattern = '|'.join(map(re.escape, sorted(back, key=len, reverse=True)))
    escaped = latex_text(text)
    assert not set(re.sub(pattern, '', escaped)) & set('\\&%$#_{}~^<>|')
    read = re.sub(pattern, lambda match: back[match[0]], escaped)
    assert read == ''.join(letter for letter in ' '.join(text.split()) if unicodedata.category(letter)[0] != 'C')


@given(st.lists(st.tuples(st.text('ab&_%\\#', max_size=8), st.floats(0, 100)), min_size=1, max_size=4))
def test_latex_has_a_line_a_row(rows):
    lines = to_latex(Grid(['a_b', 'mIoU'], rows), 'mIoU in %').splitlines()
    assert r'\caption{mIoU in \%}' in lines
    assert r'\begin{tabular}{lr}' in lines
    inside = lines[lines.index(r'\midrule') + 1 : lines.index(r'\bottomrule')]
    assert [re.sub(r'\\&', '', line).count('&') for line in inside] == [1] * len(rows)
    assert all(line.endswith(r' \\') for line in inside)


@pytest.mark.skipif(TEX is None, reason='no TeX is here: whether the LaTeX table compiles is not tested')
@pytest.mark.slow
def test_latex_compiles(tmp_path):
    table = to_latex(Grid(['method', 'voc21'], [[HOSTILE, 1 / 3]]), 'mIoU in % & more')
    escaped = latex_text(HOSTILE)
    table += latex_table(2, ['a', 'b', 'c'], [(escaped, [[escaped, 'b', r'\textbf{1.00}']])] * 2, escaped)
    text = f'\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{table}\\end{{document}}\n'
    (tmp_path / 'table.tex').write_text(text, encoding='utf-8')
    options = [] if TEX == 'tectonic' else ['-interaction=nonstopmode', '-halt-on-error']
    done = subprocess.run([TEX, *options, 'table.tex'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / 'table.pdf').is_file()
