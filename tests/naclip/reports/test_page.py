"""Tables as texts: nothing is lost, nothing is taken for markup."""

import csv
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naclip.reports.page import Grid, Part, Section, plain, shown, to_csv, to_html, to_markdown

CELLS = st.one_of(st.none(), st.integers(), st.floats(allow_infinity=False), st.text('ab|<&>"\'\n ,;', max_size=8))


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


def test_page_escapes_every_text():
    evil = '<b onclick="x">&'
    page = to_html([Section(evil, [Part('grid', evil, Grid([evil], [[evil]]), sortable=True), Part('note', evil)])])
    assert evil not in page
    assert '<b ' not in page
    assert page.count('&lt;b onclick=') == 7  # link, heading, title, column, cell twice, note
