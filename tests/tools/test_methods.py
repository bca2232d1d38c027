"""The table of methods: what the README shows is what METHODS says."""

from naclip.methods import METHODS
from tests.conftest import ROOT
from tools.methods import table


def test_the_readme_has_the_table():
    assert table() in (ROOT / 'README.md').read_text(encoding='utf-8')


def test_a_row_a_method():
    rows = table().splitlines()
    assert len(rows) == 2 + len(METHODS)
    assert all(row.count('|') == rows[0].count('|') for row in rows)
