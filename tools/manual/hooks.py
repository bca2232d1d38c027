"""What MkDocs calls while it builds the manual.

With NACLIP_RUN_NOTEBOOK=1 the notebook is run first, and its page shows what came out; else it shows the cells alone.
"""

import os
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parents[2]))  # MkDocs loads this file by its path
from tools.manual.notebook import ROOT, read, run
from tools.manual.pages import INCLUDED, notebook_markdown, origin, with_links, with_markers


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that lie outside of docs/."""
    for path, page in INCLUDED.items():
        if path.endswith('.ipynb'):
            notebook = read(ROOT / path)
            if os.environ.get('NACLIP_RUN_NOTEBOOK') == '1':
                run(notebook)
            markdown, pictures = notebook_markdown(notebook, Path(page).stem)
            files.append(File.generated(config, page, content=markdown))
            for name, content in pictures.items():
                files.append(File.generated(config, name, content=content))
        else:
            files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to those of the site, and fill in what is made from the code."""
    path = origin(page.file.src_uri)
    try:
        return with_markers(markdown if path.endswith('.ipynb') else with_links(markdown, path))
    except ValueError as error:
        raise PluginError(f'{path}: {error}') from error
