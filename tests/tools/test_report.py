"""The report's files, end to end."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from naclip.reports import page as report_page
from naclip.reports.classes import class_tables, confused_pairs
from naclip.reports.gallery import in_order, read_labels, read_pictures
from naclip.reports.matrix import lines_of, make_matrix, matrix_csv, matrix_latex, matrix_markdown
from naclip.reports.runs import Runs, find_runs, read_confusion
from tests.conftest import NO_BROWSER, ROOT
from tests.naclip.reports.made import random_matrix, write_many, write_run
from tools.report import main

if TYPE_CHECKING:
    from playwright.sync_api import Browser

VOID = {'meta', 'img', 'br', 'link', 'input'}
CHROMIUM_OPTIONS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update']
EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Checks that tags nest, and collects tags and attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs; the first has an evil class name, a confusion matrix and a table of pictures."""
    matrix = random_matrix(0)
    path = write_run(tmp_path / 'runs/a', matrix)
    record = json.loads(path.read_text())
    record['classes'][0]['name'] = EVIL
    path.write_text(json.dumps(record))
    np.save(path.with_name('confusion.npy'), matrix)
    path.with_name('per_image.csv').write_text(f'image,mIoU\n{EVIL.replace(chr(34), "")},3.5\n')
    write_run(tmp_path / 'runs/b', random_matrix(1), 'voc20')
    return tmp_path / 'runs'


def test_page_is_whole_escaped_and_self_contained(runs: Path, tmp_path: Path):
    assert main([str(runs), '-o', str(tmp_path / 'out')]) == 0
    page = Page((tmp_path / 'out/report.html').read_text('utf-8'))
    assert [tag for tag, _ in page.tags].count('script') == 2  # the data, and what the page does
    assert not any(EVIL in text for text in page.texts)  # it is in the data only, where '<' is written otherwise
    assert not [tag for tag, _ in page.tags if tag == 'link']
    sources = [value for _, attrs in page.tags for key, value in attrs.items() if key == 'src']
    inside = {attrs.get('id') for _, attrs in page.tags}
    links = [attrs['href'] for tag, attrs in page.tags if tag == 'a']
    assert len(links) > 2
    assert {link[1:] for link in links} <= inside
    assert sources == []  # no curve here
    plots = sorted((tmp_path / 'out/plots').iterdir())
    assert len(plots) == 3
    assert all(plot.read_bytes().startswith(b'\x89PNG') for plot in plots)


def test_csv_round_trip(runs: Path, tmp_path: Path):
    assert main([str(runs), '-o', str(tmp_path / 'out')]) == 0
    (first, second) = find_runs([runs]).runs
    with (tmp_path / 'out/table.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [float(row['voc21']) for row in rows] == [first.miou(False), first.miou(True)]
    assert [float(row['voc20']) for row in rows] == [second.miou(False), second.miou(True)]
    assert float(rows[0]['mean']) == (first.miou(False) + second.miou(False)) / 2


def test_what_is_left_out_is_said_and_folders_are_safe(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / 'out'
    np.save(runs / 'a/confusion.npy', np.zeros((2, 2), int))
    assert main([str(runs), '-o', str(out)]) == 1
    assert 'confusion.npy holds int64 (2, 2), expected' in capsys.readouterr().err
    assert 'confusion.npy' in (out / 'report.md').read_text()
    (out / 'mine.txt').touch()
    assert main([str(runs), '-o', str(out)]) == 1
    assert 'holds mine.txt, no part of a report' in capsys.readouterr().err
    assert (out / 'mine.txt').exists()
    assert sorted(os.listdir(tmp_path)) == ['out', 'runs']


@pytest.mark.slow
def test_as_a_process(tmp_path: Path):
    command = [sys.executable, str(ROOT / 'tools/report.py'), str(tmp_path), '-o', str(tmp_path / 'out')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith('report.py: no results.json in or below')
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / 'out').exists()


@pytest.mark.skipif(not shutil.which('node'), reason='no node')
def test_order_of_sorting():
    script = (ROOT / 'naclip/reports/page.js').read_text().split('// ---- The page.')[0]
    lists = "[['10','9','','-1'], ['b','','a']]"
    script += f'console.log(JSON.stringify([false, true].map(d => {lists}'
    script += '.map(x => x.sort((a, b) => compareValues(a, b, d))))))'
    done = subprocess.run(['node', '-e', script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [
        [['-1', '9', '10', ''], ['a', 'b', '']],
        [['10', '9', '-1', ''], ['b', 'a', '']],
    ]


def test_table_alone(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(runs), '--table']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith('| method | voc21 | voc20 | mean |')
    assert len([line for line in lines if line.startswith('| naclip (')]) == 2
    assert not (tmp_path / 'report').exists()


@pytest.fixture(scope='module')
def chromium() -> Iterator['Browser']:
    """Headless Chromium, which a Debian package brings."""
    path = shutil.which('chromium') or shutil.which('chromium-browser')
    if path is None:
        pytest.skip(f'{NO_BROWSER}: chromium is not here')
    sync_api = pytest.importorskip('playwright.sync_api', reason=f'{NO_BROWSER}: playwright is not here')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


class Tab:
    """A report's page in a browser, with what it asked for and complained about."""

    def __init__(self, chromium: 'Browser', address: str, width: int = 1280, **options):
        self.context = chromium.new_context(viewport=dict(width=width, height=900), **options)
        self.context.grant_permissions(['clipboard-read', 'clipboard-write'])
        self.page = self.context.new_page()
        self.messages, self.schemes = [], set()
        self.page.on('console', lambda message: self.messages.append(message.text))
        self.page.on('pageerror', lambda error: self.messages.append(str(error)))
        self.page.on('request', lambda request: self.schemes.add(request.url.split(':')[0]))
        self.page.goto(address)

    def rows(self, selector: str) -> list[list[str]]:
        """The texts of a table's rows."""
        return self.page.locator(f'{selector} tr').evaluate_all(
            'rows => rows.map(row => [...row.cells].map(cell => cell.textContent))'
        )

    def matrix(self) -> list[list[str]]:
        return self.rows('#matrix-table')

    def copied(self, selector: str) -> str:
        self.page.evaluate('document.getElementById("copied").textContent = ""')
        self.page.click(selector)
        self.page.locator('#copied', has_text='copied').wait_for()
        return self.page.evaluate('navigator.clipboard.readText()')

    def fits(self) -> bool:
        """Whether the page needs no scrolling to the side."""
        return self.page.evaluate('document.documentElement.scrollWidth <= innerWidth')

    def close(self) -> None:
        self.context.close()
        assert self.messages == []
        assert self.schemes <= {'file', 'data'}


@pytest.fixture(scope='module')
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Runs]:
    """A report on six methods and three benchmarks, with galleries, hostile names and a gap; and its runs."""
    folder = tmp_path_factory.mktemp('shown')
    write_many(folder / 'runs', methods=6, benchmarks=3, classes=12, pictures=8)
    shutil.rmtree(folder / 'runs/method05/bench02')
    record = json.loads((folder / 'runs/method02/bench00/results.json').read_text())
    (folder / 'runs/method02/bench00/results.json').write_text(json.dumps(record | {'method': EVIL}))
    only = {'settings': {'labelled_only': True}, 'protocol': EVIL}
    write_run(folder / 'runs/odd', random_matrix(0), 'bench00', method='odd & "even"', **only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_page, 'PLOTTED', 2)  # they take longer than all else, and are no part of the page
        assert main([str(folder / 'runs'), '-o', str(folder / 'out')]) == 0
    return folder / 'out/report.html', find_runs([folder / 'runs'])


@pytest.fixture(params=[1280, 390])
def tab(request: pytest.FixtureRequest, chromium: 'Browser', shown: tuple[Path, Runs]) -> Iterator[Tab]:
    tab = Tab(chromium, shown[0].as_uri(), request.param)
    yield tab
    tab.close()


@pytest.mark.slow
def test_page_fits_and_is_the_same_without_javascript(tab: Tab, chromium: 'Browser', shown):
    assert tab.fits()
    assert tab.page.locator('.picture').count() > 0
    for selector in ('#one', '#other'):
        tab.page.select_option(selector, index=2 if selector == '#one' else 1)
    tab.page.select_option('#run', index=1)
    assert tab.fits()
    plain = Tab(chromium, shown[0].as_uri(), java_script_enabled=False)
    assert plain.page.is_visible('noscript')
    served = plain.page.locator('#matrix-table').inner_html()
    plain.context.close()
    texts, styles = (re.findall(pattern, served) for pattern in (r'>([^<>]+)<', r'class="([^"]+)"[^>]*style="([^"]+)"'))
    ours = tab.page.locator('#matrix-table').inner_html()
    assert [text for text in re.findall(r'>([^<>]+)<', ours) if text.strip()] == [
        text for text in texts if text.strip()
    ]
    drawn = re.findall(r'class="([^"]+)"[^>]*style="([^"]+)"', ours)
    assert [name for name, _ in drawn] == [name for name, _ in styles]
    for (_, one), (_, other) in zip(drawn, styles, strict=True):
        assert float(one.split(':')[1]) == pytest.approx(float(other.split(':')[1]))


@pytest.mark.slow
def test_hostile_names_are_texts(tab: Tab):
    assert EVIL in [row[0] for row in tab.matrix()]
    assert f'protocol {EVIL}, backbone ViT-B/16' in [row[0] for row in tab.matrix()]
    assert EVIL in tab.rows('#class-table')[0]
    tab.page.locator('#matrix-table button[data-run]', has_text=re.compile(r'\d')).first.click()
    assert tab.page.is_visible('#dialog')
    assert tab.page.evaluate('document.querySelectorAll("main script, dialog script").length') == 0


@pytest.mark.slow
@pytest.mark.parametrize('grouped', ['protocol backbone', 'backbone', ''])
def test_copied_tables_are_those_of_the_files(tab: Tab, shown, grouped: str):
    tab.page.select_option('#grouping', grouped)
    lines = lines_of(shown[1].runs)
    for convention, labelled_only in (('0', None), ('1', False), ('2', True)):
        tab.page.select_option('#convention', convention)
        matrix = make_matrix(lines, labelled_only, grouped.split())
        assert tab.copied('[data-copy=latex]') == matrix_latex(matrix)
        assert tab.copied('[data-copy=markdown]') == matrix_markdown(matrix)
        assert tab.copied('[data-copy=csv]') == matrix_csv(matrix)
        assert tab.page.text_content('#caption') == matrix.caption
    assert tab.fits()


@pytest.mark.slow
def test_filters(tab: Tab, shown):
    lines = lines_of(shown[1].runs)
    page = tab.page
    page.fill('#words', 'METHOD01, method03')
    some = [line for line in lines if line.label in ('method01', 'method03')]
    assert tab.copied('[data-copy=csv]') == matrix_csv(make_matrix(some))
    assert page.text_content('#found') == f'2 of {len(lines)} rows'
    assert tab.rows('#class-table')[0][2:] == ['method01', 'method03']
    assert page.locator('.picture').first.locator('figure').count() == 4
    page.select_option('#benchmark', 'bench01')
    assert tab.copied('[data-copy=latex]') == matrix_latex(make_matrix(some, only=['bench01']))
    assert tab.matrix()[0] == ['method', 'bench01']
    assert all('bench01: ' in text for text in page.locator('.picture h3').all_text_contents())
    page.fill('#words', '')
    page.select_option('#benchmark', '')
    page.select_option('#protocol', 'protocol1')
    assert tab.copied('[data-copy=csv]') == matrix_csv(
        make_matrix([line for line in lines if line.protocol == 'protocol1'])
    )
    page.fill('#words', 'nobody')
    assert page.text_content('#found') == f'0 of {len(lines)} rows'


@pytest.mark.slow
def test_matrix_is_sorted_by_click_and_by_key(tab: Tab):
    tab.page.select_option('#grouping', '')
    place = tab.matrix()[0].index('bench01')
    head = tab.page.locator('#matrix-table thead th').nth(place)

    def column() -> list[str]:
        return [row[place] for row in tab.matrix()[1:]]

    values = sorted((float(text) for text in column() if text != '-'), reverse=True)
    head.locator('button').click()
    assert head.get_attribute('aria-sort') == 'descending'
    assert [float(text) for text in column() if text != '-'] == values
    assert column()[-1] == '-'  # what is missing comes last
    tab.page.keyboard.press('Enter')  # the head keeps the focus
    assert head.get_attribute('aria-sort') == 'ascending'
    assert [float(text) for text in column() if text != '-'] == values[::-1]
    assert column()[-1] == '-'
    tab.page.locator('#matrix-table thead button').first.click()
    names = [row[0] for row in tab.matrix()[1:]]
    assert names[:3] != names[:3][::-1]
    assert head.get_attribute('aria-sort') == 'none'


@pytest.mark.slow
def test_details_of_a_number(tab: Tab, shown):
    run = next(run for run in shown[1].runs if run.record['method'] == 'method01' and run.benchmark == 'bench00')
    button = tab.page.locator('#matrix-table tr', has_text='method01').locator('button').first
    assert 'no published number' in button.get_attribute('title')
    button.focus()
    tab.page.keyboard.press('Enter')
    told = dict(tab.rows('#dialog-body')[1:])
    assert told['mIoU over the classes in the ground truth'] == f'{run.miou(True):.2f}'
    assert told['settings: gaussian_std'] == '5.0'
    assert told['classes'] == '12, 12 in the ground truth, 12 predicted'
    assert told['cost'].endswith('s a picture on x')
    assert tab.fits()
    tab.page.keyboard.press('Escape')
    assert not tab.page.is_visible('#dialog')
    assert button.evaluate('node => node === document.activeElement')
    button.click()
    tab.page.click('#dialog-body p button')
    assert tab.page.locator('#one-run h3').first.text_content() == 'Classes'
    shown_classes = tab.rows('#one-run .wide:nth-of-type(1)')[1:13]
    assert [float(row[1]) for row in shown_classes] == pytest.approx(run.counts.iou(), abs=0.0051)


@pytest.mark.slow
def test_class_by_class(tab: Tab, shown):
    (table, *_) = class_tables(shown[1].runs)
    rows = tab.rows('#class-table')
    assert [row[0] for row in rows[1:]] == [table.names[k] for k in table.order]
    assert [float(row[1]) for row in rows[1:]] == pytest.approx(table.spread[table.order], abs=0.0101)
    labels = [option.strip() for option in tab.page.locator('#one option').all_text_contents()][1:]
    one, other = labels.index('method03'), labels.index('method01')
    tab.page.select_option('#one', label='method03')
    tab.page.select_option('#other', label='method01')
    rows = tab.rows('#class-table')
    assert rows[0][:3] == ['class', 'difference', 'spread']
    expected = dict(zip(table.names, table.iou[:, one] - table.iou[:, other], strict=True))
    assert [float(row[1]) for row in rows[1:]] == pytest.approx([expected[row[0]] for row in rows[1:]], abs=0.0101)
    sizes = [abs(float(row[1])) for row in rows[1:]]
    assert sizes == sorted(sizes, reverse=True)
    column = rows[0].index('method03')
    tab.page.locator('#class-table thead button').nth(column).click()
    values = [float(row[column]) for row in tab.rows('#class-table')[1:]]
    assert values == sorted(values)
    latex = tab.copied('[data-copy-classes=latex]')
    assert latex.count(r' \\') == 13
    assert 'difference: method03 less method01' in latex
    confused = {row[0]: row[1] for row in tab.rows('#pairs')[1:]}
    i, j, _, share = confused_pairs(read_confusion(table.runs[other]), 1)[0]
    assert confused['method01'] == f'{table.names[i]} → {table.names[j]}: {share:.2f} %'
    tab.page.select_option('#class-benchmark', label='bench02')
    assert 'method05' not in tab.rows('#class-table')[0]


@pytest.mark.slow
def test_gallery(tab: Tab, shown):
    page = tab.page
    pictures, _ = read_pictures(shown[1].runs)
    first = page.locator('.picture').first
    page.select_option('#picture-benchmark', 'bench00')
    own = [picture for picture in pictures if picture.benchmark == 'bench00']
    for order, name in (('differ', 'spread'), ('worst', 'worst'), ('best', 'best')):
        page.select_option('#picture-order', name)
        assert first.locator('h3').text_content() == f'bench00: {in_order(own, order)[0].image}'
    picture = in_order(own, 'best')[0]
    captions = first.locator('figcaption').all_text_contents()
    assert captions[:2] == ['picture', 'ground truth']
    assert captions[2:] == [
        f'{text}mIoU {shot.miou:.2f}' for text, shot in zip(captions_of(picture), picture.shots, strict=True)
    ]
    seen = first.locator('figure').nth(3).locator('img').nth(1).evaluate(PIXELS)
    size, pixels = seen['size'], np.array(seen['data'])
    labels = read_labels(picture.shots[1].paths[2], 12)
    assert size == list(labels.shape[::-1])
    np.testing.assert_array_equal(pixels.reshape(*labels.shape, 4)[..., :3], picture.palette[labels])
    page.fill('#picture-name', 'IMG/5')
    assert page.locator('.picture h3').all_text_contents() == ['bench00: img/5.png']
    page.fill('#picture-name', '')
    page.select_option('#picture-benchmark', '')
    page.select_option('#picture-order', 'image')
    assert page.locator('.picture').count() == 6
    page.locator('#gallery > button').click()
    assert page.locator('.picture').count() == 12
    assert tab.fits()
    page.locator('.shots button').nth(2).focus()
    page.keyboard.press('Enter')
    assert page.is_visible('#dialog .shot img')
    assert page.locator('#dialog .legend li').count() > 0
    assert tab.fits()


PIXELS = """async image => {
  await image.decode();
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const canvas = Object.assign(document.createElement('canvas'), {width, height});
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  return {size: [width, height], data: [...context.getImageData(0, 0, width, height).data]};
}"""


def captions_of(picture) -> list[str]:
    return [shot.run.record['method'] for shot in picture.shots]


@pytest.mark.slow
def test_everything_is_reached_by_keyboard_and_has_a_name(tab: Tab):
    """In the order of the page; what scrolls can be scrolled."""
    named = tab.page.evaluate(
        """() => [...document.querySelectorAll('main input, main select, main button, form input, form select, .wide')]
        .filter(node => node.offsetParent).map(node => (node.labels?.[0]?.textContent || node.ariaLabel
        || node.getAttribute('aria-label') || node.textContent || '').trim())"""
    )
    assert len(named) > 60
    assert all(named)
    reached = set()
    for _ in range(14):
        tab.page.keyboard.press('Tab')
        reached.add(tab.page.evaluate('document.activeElement.id || document.activeElement.textContent.trim()'))
    assert {'words', 'benchmark', 'protocol', 'backbone', 'grouping', 'convention', 'Markdown', 'LaTeX'} <= reached
    assert tab.page.evaluate('[...document.querySelectorAll(".wide")].every(node => node.tabIndex === 0)')
    assert tab.page.evaluate('[...document.images].every(image => image.hasAttribute("alt"))')


@pytest.mark.slow
def test_on_paper_and_in_the_dark(chromium: 'Browser', shown, tmp_path: Path):
    tab = Tab(chromium, shown[0].as_uri(), color_scheme='dark')
    page = tab.page
    light = page.evaluate('getComputedStyle(document.querySelector("#matrix-table th[scope=row]")).backgroundColor')
    assert light != 'rgb(255, 255, 255)'
    page.emulate_media(media='print')
    assert page.is_visible('#matrix-table')
    assert not page.is_visible('#words')
    assert not page.is_visible('nav')
    page.pdf(path=tmp_path / 'report.pdf')
    assert (tmp_path / 'report.pdf').read_bytes().startswith(b'%PDF')
    tab.close()


@pytest.mark.slow
def test_twenty_methods_on_twelve_benchmarks_with_171_classes(
    tmp_path: Path, chromium: 'Browser', monkeypatch: pytest.MonkeyPatch
):
    """The page stays small, and so does what it builds at once."""
    monkeypatch.setattr(report_page, 'PLOTTED', 2)
    write_many(tmp_path / 'runs', pictures=4)
    assert main([str(tmp_path / 'runs'), '-o', str(tmp_path / 'out')]) == 0
    assert (tmp_path / 'out/report.html').stat().st_size < 5e6
    for width in (1280, 390):
        tab = Tab(chromium, (tmp_path / 'out/report.html').as_uri(), width)
        assert len(tab.matrix()) == 1 + 4 + 20
        assert len(tab.rows('#class-table')) == 172
        assert tab.page.evaluate('document.querySelectorAll("*").length') < 15000
        assert tab.fits()
        tab.page.select_option('#class-benchmark', label='bench07')
        tab.page.fill('#words', 'method1')
        assert len(tab.rows('#class-table')[0]) == 12
        tab.close()
