"""What MkDocs calls: included pages, and faults of pages in one line."""

import pytest
from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tests.conftest import ROOT
from tools.manual.hooks import on_page_markdown
from tools.manual.pages import INCLUDED


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> MkDocsConfig:
    monkeypatch.delenv('NACLIP_RUN_NOTEBOOK', raising=False)
    return load_config(str(ROOT / 'mkdocs.yml'))


def test_pages_that_lie_elsewhere(config: MkDocsConfig):
    files = config.plugins.on_files(Files([]), config=config)
    assert {file.src_uri for file in files} == set(INCLUDED.values())
    contents = {file.src_uri: file.content_string for file in files}
    assert contents['index.md'] == (ROOT / 'README.md').read_text(encoding='utf-8')
    assert contents['notebook.md'].startswith('# What attention changes')


def test_a_page_is_filled_in(config: MkDocsConfig):
    page = Page(None, File('walk.md', config.docs_dir, config.site_dir, False), config)
    text = on_page_markdown('[how](../CONTRIBUTING.md)\n<!-- table: commands -->', page, config, Files([]))
    assert text.startswith('[how](contributing.md)\n| command |')


def test_a_fault_names_its_file(config: MkDocsConfig):
    page = Page(None, File('walk.md', config.docs_dir, config.site_dir, False), config)
    with pytest.raises(PluginError, match=r"^docs/walk\.md: unknown table 'nowhere'"):
        on_page_markdown('<!-- table: nowhere -->', page, config, Files([]))
