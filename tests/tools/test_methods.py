"""The table of methods: what the README and the manual show is what METHODS says."""

import pytest

from naclip.methods import METHODS
from tests.conftest import ROOT
from tools.methods import COLUMNS, SHORT, table


def test_the_readme_has_the_short_table():
    assert table(SHORT) in (ROOT / 'README.md').read_text(encoding='utf-8')


def test_the_manual_makes_the_whole_table():
    """The manual's page has it where it is built: tests/test_docs.py looks."""
    assert '\n<!-- table: methods -->\n' in (ROOT / 'docs/methods.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('heads', [tuple(COLUMNS), SHORT])
def test_a_row_a_method(heads: tuple[str, ...]):
    rows = table(heads).splitlines()
    assert len(rows) == 2 + len(METHODS)
    assert all(row.count('|') == len(heads) + 1 for row in rows)
    assert all(f'| `{method.name}` |' in row for method, row in zip(METHODS, rows[2:], strict=True))
