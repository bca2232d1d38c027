"""The notebook: it runs, and a cell that raises is noticed."""

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from tests.conftest import ROOT
from tools.manual.notebook import read, run

SHAPES = ROOT / 'docs/shapes.ipynb'


def test_it_is_kept_without_outputs():
    """Its changes can be read, and it shows no number of an older version."""
    cells = [cell for cell in read(SHAPES).cells if cell.cell_type == 'code']
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.slow
def test_it_runs():
    notebook = read(SHAPES)
    run(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    assert sum('image/png' in output.get('data', {}) for output in outputs) == 5
    tables = [output.data['text/markdown'] for output in outputs if 'text/markdown' in output.get('data', {})]
    methods, classes = (table.splitlines() for table in tables)
    assert methods[2].startswith('| naclip |')
    assert methods[-1].startswith('| clip |')
    assert len(methods) == 7
    assert classes[0] == '| IoU | naclip | clip |'


@pytest.mark.slow
def test_a_cell_that_raises():
    cell = nbformat.v4.new_code_cell('import naclip\nraise ValueError(naclip.__file__)')
    with pytest.raises(CellExecutionError) as raised:
        run(nbformat.v4.new_notebook(cells=[cell]))
    assert (raised.value.ename, raised.value.evalue) == ('ValueError', str(ROOT / 'naclip/__init__.py'))
