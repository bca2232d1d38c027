"""The report's files, end to end."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from naclip.reports.runs import find_runs
from tests.conftest import NO_BROWSER, ROOT
from tests.naclip.reports.test_runs import random_matrix, write_run
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
    assert [tag for tag, _ in page.tags].count('script') == 1
    assert EVIL in page.texts
    assert not [tag for tag, _ in page.tags if tag == 'link']
    sources = [value for _, attrs in page.tags for key, value in attrs.items() if key == 'src']
    inside = {attrs.get('id') for _, attrs in page.tags}
    links = [attrs['href'] for tag, attrs in page.tags if tag == 'a']
    assert len(links) > 2
    assert {link[1:] for link in links} <= inside
    assert len(sources) == 3  # bars of two runs, one confusion map
    assert all(source.startswith('data:image/png;base64,') for source in sources)
    assert {'Worst confusions', 'Worst pictures'} <= set(page.texts)
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


def test_as_a_process(tmp_path: Path):
    command = [sys.executable, str(ROOT / 'tools/report.py'), str(tmp_path), '-o', str(tmp_path / 'out')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith('report.py: no results.json in or below')
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / 'out').exists()


@pytest.mark.skipif(not shutil.which('node'), reason='no node')
def test_order_of_sorting():
    script = (ROOT / 'naclip/reports/page.html').read_text().split('<script>')[1]
    script = script[: script.index('for (const table')]
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


@pytest.fixture
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


def test_classes_are_sorted_by_click_and_by_key(runs: Path, tmp_path: Path, chromium: 'Browser'):
    assert main([str(runs), '-o', str(tmp_path / 'out')]) == 0
    run = find_runs([runs]).runs[0]
    tab = chromium.new_page()
    messages, requests = [], []
    tab.on('console', lambda message: messages.append(message.text))
    tab.on('pageerror', lambda error: messages.append(str(error)))
    tab.on('request', lambda request: requests.append(request.url.split(':')[0]))
    tab.goto((tmp_path / 'out/report.html').as_uri())
    table = tab.locator('table.sortable').first
    head = table.locator('th').nth(1)

    def column(index: int) -> list[str]:
        return table.locator(f'tbody td:nth-child({index + 1})').evaluate_all('tds => tds.map(td => td.dataset.value)')

    assert column(0) == run.class_names
    head.locator('button').click()
    assert head.get_attribute('aria-sort') == 'ascending'
    values = [float(value) for value in column(1) if value]
    assert values == sorted(value for value in run.counts.iou() if not math.isnan(value))
    head.locator('button').focus()
    tab.keyboard.press('Enter')
    assert head.get_attribute('aria-sort') == 'descending'
    assert [float(value) for value in column(1) if value] == values[::-1]
    table.locator('th').first.locator('button').click()
    assert head.get_attribute('aria-sort') == 'none'
    assert sorted(column(0)) == sorted(run.class_names)
    assert column(0)[0] == EVIL
    assert messages == []
    assert set(requests) <= {'file', 'data'}
