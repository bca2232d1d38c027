"""Read and run notebooks, as the manual and the tests do."""

import os
from pathlib import Path

import nbclient
import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
SECONDS = 600  # for a cell


def read(path: Path) -> NotebookNode:
    """A notebook whose form is checked."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def run(notebook: NotebookNode) -> None:
    """Run all cells, with this checkout's packages; outputs are then in the notebook.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; says which, and what.
    """
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    nbclient.NotebookClient(notebook, timeout=SECONDS).execute(env=os.environ | {'PYTHONPATH': search})
