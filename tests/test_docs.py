"""The manual: it is built without a warning, is whole, and asks no other host for anything."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from naclip.methods import METHODS
from naclip.protocols import PROTOCOLS
from tests.conftest import NO_BROWSER, ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
LOADED = {'script': 'src', 'img': 'src', 'iframe': 'src', 'source': 'src', 'link': 'href'}  # what a page fetches


class Targets(HTMLParser):
    """What a page loads, what it links to, and the anchors that it has."""

    def __init__(self, page: Path):
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding='utf-8'))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {values[key] for key in ('id', 'name') if values.get(key)}
        if tag in LOADED and values.get(LOADED[tag]):
            self.loaded.append(values[LOADED[tag]])
        if tag == 'a' and values.get('href'):
            self.linked.append(values['href'])


def build(source: Path, target: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(target)]
    settings = os.environ | {'NO_MKDOCS_2_WARNING': '1', 'NACLIP_RUN_NOTEBOOK': '0'}
    return subprocess.run(command, cwd=source, env=settings, capture_output=True, text=True)


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp('manual') / 'site'
    done = build(ROOT, target)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope='module')
def pages(site: Path) -> dict[Path, Targets]:
    return {path: Targets(path) for path in sorted(site.rglob('*.html'))}


def text_of(page: Path) -> str:
    return re.sub(r'<[^>]+>', '', page.read_text(encoding='utf-8'))


def test_every_page_is_built(site: Path, pages: dict[Path, Targets]):
    expected = {path.relative_to(ROOT / 'docs').with_suffix('.html') for path in (ROOT / 'docs').rglob('*.md')}
    expected |= {Path(f'{name}.html') for name in ('index', 'notebook', 'contributing', 'changelog', 'security', '404')}
    assert {path.relative_to(site) for path in pages} == expected


def test_no_other_host_is_asked(site: Path, pages: dict[Path, Targets]):
    assert sum(len(page.loaded) for page in pages.values()) > 5 * len(pages)
    for path, page in pages.items():
        assert not [target for target in page.loaded if re.match(r'(https?:)?//', target)], path
    for path in site.rglob('*.css'):
        assert not re.findall(r'url\(["\']?(?:https?:)?//', path.read_text(encoding='utf-8')), path


def test_what_pages_name_is_there(pages: dict[Path, Targets]):
    for path, page in pages.items():
        if path.name == '404.html':  # served for any address, so its links begin at the root
            continue
        for target in (*page.loaded, *page.linked):
            if re.match(r'\w+:', target):
                continue
            name, _, anchor = target.partition('#')
            file = (path.parent / name).resolve() if name else path
            assert file.is_file(), f'{path}: {target}'
            if anchor and file in pages and not anchor.startswith('__'):
                assert anchor in pages[file].anchors, f'{path}: {target}'


def test_markers_are_filled(site: Path):
    for path in site.rglob('*.html'):
        text = path.read_text(encoding='utf-8')
        assert not re.search(r'^<p>:::|^<!-- (table|help):', text, re.MULTILINE), path


def test_tables_of_the_records(site: Path):
    methods, protocols = text_of(site / 'methods.html'), text_of(site / 'protocols.html')
    for method in METHODS:
        assert method.about.reads in methods.replace('&#39;', "'")
        assert method.about.code in methods
    assert all(protocol.source in protocols for protocol in PROTOCOLS.values())
    assert '62.36' in protocols


def test_docstrings_and_help(site: Path):
    assert 'Label every pixel of a picture with the best fitting class.' in text_of(site / 'reference/python.html')
    assert 'usage: naclip eval' in text_of(site / 'reference/commands.html')
    assert 'the three seams' not in text_of(site / 'reference/python.html')


def test_what_a_strict_build_refuses(tmp_path: Path):
    """Faults in a page: a link, an anchor, a page that is nowhere in the navigation."""
    for path in ROOT.iterdir():
        if path.name in ('naclip', 'clip', 'configs', 'tools', 'mkdocs.yml') or path.suffix == '.md':
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(ROOT / 'docs', tmp_path / 'docs')
    faults = '[nowhere](nowhere.md) and [no heading](data.md#nowhere)'
    (tmp_path / 'docs/walk.md').write_text(f'# From picture to IoU\n\n{faults}\n', encoding='utf-8')
    (tmp_path / 'docs/lost.md').write_text('# Lost\n', encoding='utf-8')
    done = build(tmp_path, tmp_path / 'site')
    assert done.returncode == 1
    told = re.findall(r'WARNING - +(.*)', re.sub(r'\x1b\[\d*m', '', done.stderr))
    assert any("'walk.md' contains a link 'nowhere.md'" in line for line in told)
    assert any("'walk.md' contains a link 'data.md#nowhere'" in line for line in told)
    assert any('not included in the "nav" configuration' in line for line in told)
    assert len(told) == 3
    assert 'lost.md' in done.stderr


@pytest.fixture
def page(site: Path) -> Iterator['Page']:
    """A tab in a browser, which opens files only."""
    if not CHROMIUM or not importlib.util.find_spec('playwright'):
        pytest.skip(f'{NO_BROWSER}: chromium or playwright is not here')
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        tab = browser.new_page()
        tab.set_default_timeout(120_000)  # other tests may have the cores
        yield tab
        browser.close()


def test_search_from_a_disk(page: 'Page', site: Path):
    """The site is opened as a file, without any server."""
    asked: list[str] = []
    faults: list[str] = []
    page.on('request', lambda request: asked.append(request.url))
    page.on('pageerror', lambda error: faults.append(str(error)))
    page.goto((site / 'index.html').as_uri())
    page.locator('.md-search__input').first.click()
    page.keyboard.type('conjugate gradients')
    result = page.locator('.md-search-result__link').first
    result.wait_for()
    assert 'guided.html' in result.get_attribute('href')
    assert {url.partition(':')[0] for url in asked} == {'file'}
    assert not faults
