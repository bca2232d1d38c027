"""The page in a browser, served by a process of its own; and its command line."""

import base64
import importlib.util
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from naclip import Segmentation, Segmenter, segment
from naclip.commands.attention import shares
from naclip.commands.compare import largest
from naclip.commands.page import EXAMPLES, describe_point, shown
from naclip.shapes import generator as shapes
from tests.conftest import NO_BROWSER, free_port
from tools.app import main

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
FLAGS = [
    *('--no-sandbox', '--disable-gpu', '--disable-background-networking'),
    *('--disable-component-update', '--disable-sync', '--no-first-run'),
]
NEEDED = {
    'gradio': importlib.util.find_spec('gradio'),
    'playwright': importlib.util.find_spec('playwright'),
    'chromium': CHROMIUM,
}
MISSING = ', '.join(name for name, found in NEEDED.items() if not found)
TIMEOUT = 30_000  # ms; the machine may be busy
PASTED = """async png => {
  const bytes = Uint8Array.from(atob(png), letter => letter.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({'image/png': new Blob([bytes], {type: 'image/png'})})]);
}"""
CLASSES = 'cat, kitten; house; grass; water; brick; wood'


def environment(tmp_path: Path) -> dict[str, str]:
    """Few threads, temporary files in the test's folder, and no way out but to this machine."""
    closed = 'http://127.0.0.1:9'
    return os.environ | {
        'OMP_NUM_THREADS': '1',
        'TMPDIR': str(tmp_path),
        'https_proxy': closed,
        'HTTPS_PROXY': closed,
    }


class Server:
    """The page, as a user starts it."""

    def __init__(self, folder: Path, *options: str):
        self.folder = folder
        self.address = f'http://127.0.0.1:{free_port()}/'
        command = [sys.executable, str(ROOT / 'tools' / 'app.py'), '--port', str(urlsplit(self.address).port)]
        self.process = subprocess.Popen(
            [*command, '--backbone', 'shapes', '--device', 'cpu', '--download-root', str(folder / 'weights'), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(folder),
        )
        timer = threading.Timer(600, self.process.kill)
        timer.start()
        self.greeting = self.process.stdout.readline()
        timer.cancel()

    def stop(self, how: signal.Signals) -> str:
        """End it; returns what it said."""
        self.process.send_signal(how)
        said, _ = self.process.communicate(timeout=600)
        return self.greeting + said


@pytest.fixture(scope='module')
def server(tmp_path_factory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp('app'), '--max-upload-mb', '1')
    try:
        yield server
    finally:
        said = server.stop(signal.SIGTERM)
    assert server.process.returncode == 0, said
    assert 'Traceback' not in said
    assert not list(server.folder.glob('naclip-app-*'))  # uploads and results are gone


@pytest.fixture(scope='module')
def chromium() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Tab:
    """A visitor's browser, with what the page asked for and complained about."""

    def __init__(self, chromium, address: str):
        self.context = chromium.new_context(viewport=dict(width=1200, height=820), accept_downloads=True)
        self.context.set_default_timeout(TIMEOUT)
        self.page = self.context.new_page()
        self.hosts, self.complaints = set(), []
        self.page.on('request', lambda request: self.hosts.add(urlsplit(request.url).hostname))
        self.page.on('pageerror', lambda error: self.complaints.append(str(error)))
        self.page.on('console', self._hear)
        self.page.goto(address)
        self.page.wait_for_selector('#segment')

    def _hear(self, message) -> None:
        if message.type == 'error':
            self.complaints.append(f'{message.text} {message.location.get("url")}')

    def upload(self, path: Path) -> None:
        self.page.set_input_files('#upload input[type=file]', path)

    def type(self, classes: str, background: str = '') -> None:
        self.page.fill('#classes textarea', classes)
        self.page.fill('#background textarea', background)

    def segment(self) -> None:
        """Press the button and wait for the new overlay."""
        before = self.overlay_address() if self.page.locator('#seen img').count() else ''
        self.page.click('#segment')
        self.page.wait_for_function(
            '(before) => { const image = document.querySelector("#seen img"); return image && image.src != before }',
            arg=before,
        )

    def overlay_address(self) -> str:
        return self.page.get_attribute('#seen img', 'src')

    def overlay(self) -> np.ndarray:
        """The pixels of the picture on the right."""
        return np.asarray(Image.open(io.BytesIO(self.context.request.get(self.overlay_address()).body())))

    def rows(self, where: str) -> list[list[str]]:
        """Names and numbers of a listing."""
        self.page.wait_for_selector(f'{where} tr')
        rows = self.page.locator(f'{where} tr').all()
        return [[cell.strip() for cell in row.locator('td').all_inner_texts()[1:]] for row in rows]

    def click(self, x: int, y: int) -> None:
        """On a pixel of the picture on the right, which has 160 x 112, once it is there and stands still."""
        self.page.wait_for_function('document.querySelector("#seen img").naturalWidth')
        image = self.page.locator('#seen img')
        image.click(trial=True)
        box = image.bounding_box()
        image.click(position={'x': (x + 0.5) / 160 * box['width'], 'y': (y + 0.5) / 112 * box['height']})

    def message(self) -> str:
        """The text of the message that pops up, which is then closed."""
        toast = self.page.wait_for_selector('.toast-body')
        text = toast.inner_text()
        for button in self.page.locator('.toast-close').all():
            button.click()
        self.page.wait_for_selector('.toast-body', state='detached')
        return ' '.join(text.split())


@pytest.fixture
def tab(server, chromium) -> Iterator[Tab]:
    tab = Tab(chromium, server.address)
    yield tab
    tab.context.close()
    assert tab.hosts == {'127.0.0.1'}
    assert not tab.complaints


@pytest.fixture(scope='module')
def picture(tmp_path_factory) -> Path:
    pixels, _ = shapes.draw(np.random.RandomState([shapes.VAL_SEED, 34]), shapes.VAL_SIZE)
    path = tmp_path_factory.mktemp('pictures') / 'my garden.png'
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope='module')
def expected(picture) -> Segmentation:
    return segment(picture, CLASSES, backbone='shapes', device='cpu')


def legend_of(seen: Segmentation) -> dict[str, float]:
    return {name: round(100 * share, 1) for name, share in zip(seen.names, seen.shares, strict=True) if share}


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f'{NO_BROWSER}: {MISSING} is not here')
class TestPage:
    def test_segment_click_look_and_save(self, tab, picture, expected, tmp_path):
        tab.upload(picture)
        tab.page.wait_for_selector('#preview img')
        tab.type(CLASSES)
        tab.segment()
        assert tab.message().endswith("the backbone has never seen 'kitten'")
        np.testing.assert_array_equal(tab.overlay(), np.asarray(shown(expected, -1)))
        legend = {name: float(share.removesuffix(' %')) for name, share in tab.rows('#legend')}
        assert legend == legend_of(expected)
        assert list(legend.values()) == sorted(legend.values(), reverse=True)

        # The picture is scaled to the column: a fraction of what is displayed is that fraction of the picture.
        box = tab.page.locator('#seen img').bounding_box()
        assert box['width'] / box['height'] == pytest.approx(160 / 112, rel=0.01)
        x, y = 31, 70  # in the cat
        tab.click(x, y)
        scores = tab.rows('#scores')
        assert scores == [[expected.names[i], f'{score:.3f}'] for i, score in describe_point(expected, x, y)]
        label = expected.names[expected.labels[y, x]]
        assert f'Scores at {x}, {y}: {label}' in tab.page.inner_text('#scores')
        assert label == 'cat'

        before = tab.overlay_address()
        tab.page.click('#choice input')
        tab.page.get_by_role('option', name='house', exact=True).click()
        tab.page.wait_for_function('(before) => document.querySelector("#seen img").src != before', arg=before)
        np.testing.assert_array_equal(tab.overlay(), np.asarray(shown(expected, 1)))

        for button, made in (('overlay', expected.overlay()), ('labels', expected.label_map())):
            with tab.page.expect_download() as download:
                tab.page.click(f'#{button}')
            assert download.value.suggested_filename == f'my garden_{button}.png'
            download.value.save_as(tmp_path / 'saved.png')
            with Image.open(tmp_path / 'saved.png') as saved:
                assert saved.mode == made.mode
                np.testing.assert_array_equal(np.asarray(saved), np.asarray(made))
                if made.mode == 'P':
                    assert saved.getpalette()[: 3 * len(expected.names)] == expected.colours.ravel().tolist()

    def test_settings_and_enter(self, tab, picture):
        tab.upload(picture)
        tab.page.wait_for_selector('#preview img')
        tab.type('cat; house', 'grass, sky')
        tab.page.click('#settings button')
        tab.page.click('#method input')
        tab.page.get_by_role('option', name='sclip', exact=True).click()
        tab.page.fill('#std input', '3')
        tab.page.fill('#prob-thd input', '0.6')
        tab.page.get_by_label('on', exact=True).check()
        tab.page.press('#classes textarea', 'Enter')
        legend = {name: float(share.removesuffix(' %')) for name, share in tab.rows('#legend')}
        options = dict(backbone='shapes', device='cpu', method='sclip', gaussian_std=3, pamr=True, prob_thd=0.6)
        assert legend == legend_of(segment(picture, 'cat; house', 'grass, sky', **options))
        # What is emptied again is left to the method.
        tab.page.fill('#std input', '')
        tab.page.fill('#prob-thd input', '')
        tab.page.get_by_label('method', exact=True).check()
        tab.segment()
        options = dict(backbone='shapes', device='cpu', method='sclip')
        seen = segment(picture, 'cat; house', 'grass, sky', **options)
        np.testing.assert_array_equal(tab.overlay(), np.asarray(shown(seen, -1)))

    def test_an_example_is_segmented_at_once(self, tab):
        tab.page.locator('#examples button').last.click()
        legend = tab.rows('#legend')
        assert 'background' in [name for name, _ in legend]
        assert tab.page.input_value('#classes textarea') == EXAMPLES[-1][1]
        assert tab.page.input_value('#background textarea') == EXAMPLES[-1][2]

    def test_messages(self, tab, picture, tmp_path):
        tab.type('cat')
        tab.page.click('#segment')
        assert 'there is no picture yet' in tab.message()
        tab.page.click('#choice input')
        tab.page.get_by_role('option', name='all classes').click()
        assert 'segment the picture' in tab.message()
        (tmp_path / 'notes.png').write_text('no picture')
        tab.upload(tmp_path / 'notes.png')
        message = tab.message()
        assert 'notes.png is not a picture of a known format' in message
        assert str(tmp_path.parent) not in message
        tab.page.click('#upload button[aria-label=Clear]')
        tab.upload(picture)
        tab.page.wait_for_selector('#preview img')
        tab.type('')
        tab.page.click('#segment')
        assert 'expected names such as' in tab.message()
        assert not tab.page.locator('#legend tr').count()
        tab.type('cat; <b>ufo</b>')
        tab.page.click('#segment')
        assert "the backbone has never seen '<b>ufo</b>'" in tab.message()  # as text, not as HTML
        tab.rows('#legend')
        assert '<b>ufo</b>' in tab.page.inner_text('#legend')

    def test_weights_that_cannot_be_fetched(self, tab, picture, server):
        tab.upload(picture)
        tab.page.wait_for_selector('#preview img')
        tab.type('cat; house')
        tab.page.click('#settings button')
        tab.page.click('#backbone input')
        tab.page.get_by_role('option', name='ViT-B/32').click()
        tab.page.click('#segment')
        message = tab.message()
        assert 'cannot download' in message
        assert str(server.folder / 'weights' / 'ViT-B-32.pt') in message

    def test_pictures_that_no_browser_shows(self, tab, tmp_path):
        pixels, _ = shapes.draw(np.random.RandomState(3), shapes.VAL_SIZE)
        Image.fromarray(pixels[..., 1].astype(np.uint16) * 257).save(tmp_path / 'deep.tif')
        tab.upload(tmp_path / 'deep.tif')
        tab.page.wait_for_selector('#preview img')
        tab.type('cat; ball; grass')
        tab.segment()
        grey = np.repeat(pixels[..., 1:2], 3, axis=2)
        expected = segment(grey, 'cat; ball; grass', backbone='shapes', device='cpu')
        np.testing.assert_array_equal(tab.overlay(), np.asarray(shown(expected, -1)))

    def test_too_large_a_file(self, tab, tmp_path):
        (tmp_path / 'large.png').write_bytes(bytes((1 << 20) + 1))
        tab.upload(tmp_path / 'large.png')
        assert 'exceed the maximum allowed size of 1.0 Mb' in tab.message()
        # gradio's page asks for the progress of the upload that it refused.
        assert all(re.search('Response|upload_progress', complaint) for complaint in tab.complaints)
        tab.complaints.clear()

    def test_visitors_do_not_see_each_other(self, tab, chromium, server, picture, expected):
        other = Tab(chromium, server.address)
        other.page.locator('#examples button').last.click()
        other.rows('#legend')
        tab.upload(picture)
        tab.page.wait_for_selector('#preview img')
        tab.type(CLASSES)
        tab.segment()
        for visitor in (other, tab):
            visitor.click(80, 56)
        assert {name for name, _ in other.rows('#scores')} == {'background', *EXAMPLES[-1][1].split('; ')}
        assert {name for name, _ in tab.rows('#scores')} == set(expected.names)
        assert not other.complaints
        other.context.close()

    def test_settings_that_are_looked_at_only(self, tab, picture):
        """What is left empty stays the method's, also once it was shown: a background has its own threshold."""
        tab.upload(picture)
        tab.page.wait_for_selector('#preview img')
        tab.type('cat; house', 'grass, sky')
        tab.page.click('#settings button')
        tab.page.wait_for_selector('#prob-thd input')
        tab.segment()
        seen = segment(picture, 'cat; house', 'grass, sky', backbone='shapes', device='cpu')
        np.testing.assert_array_equal(tab.overlay(), np.asarray(shown(seen, -1)))
        tab.page.fill('#std input', 'wide')
        tab.page.click('#segment')
        assert "σ is 'wide', expected a number" in tab.message()

    def test_methods_side_by_side(self, tab, picture):
        tab.upload(picture)
        tab.page.wait_for_selector('#preview img')
        tab.type(CLASSES)
        tab.page.click('#compare button')
        tab.page.click('#comparing')
        tab.page.wait_for_selector('#side-by-side img')
        images = tab.page.locator('#side-by-side .grid-container img')
        for i, method in enumerate(('clip', 'naclip')):
            seen = segment(picture, CLASSES, backbone='shapes', device='cpu', method=method)
            body = tab.context.request.get(images.nth(i).get_attribute('src')).body()
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(body))), np.asarray(shown(seen, -1)))
            assert f'{method}: {largest(seen.names, seen.shares)}' in tab.page.inner_text('#side-by-side')
        tab.page.get_by_label('each without and with PAMR').check()
        for name in ('sclip', 'gem', 'clearclip'):
            tab.page.click('#compared input')
            tab.page.get_by_role('option', name=name, exact=True).click()
        tab.page.keyboard.press('Escape')
        tab.page.click('#comparing')
        assert '10 pictures to compare, expected 1 to 8' in tab.message()

    @pytest.mark.parametrize(('width', 'height'), [(1280, 900), (390, 844)])
    def test_attention_of_a_clicked_patch(self, tab, picture, width, height):
        """For the method that is shown, and for those that were compared on this picture; whatever was typed since."""
        tab.page.set_viewport_size(dict(width=width, height=height))
        tab.upload(picture)
        tab.page.wait_for_selector('#preview img')
        tab.type(CLASSES)
        tab.segment()
        tab.message()  # of the word that it has never seen
        x, y = 31, 70  # in the cat
        segmenter = Segmenter('shapes', 'cpu')
        assert not tab.page.locator('#maps img').count()
        self.check_attention(tab, picture, segmenter, ['naclip'], x, y)
        tab.page.click('#compare button')
        tab.page.click('#comparing')
        tab.page.wait_for_selector('#side-by-side img')
        tab.type('snow; sand', 'stone')
        self.check_attention(tab, picture, segmenter, ['naclip', 'clip'], x + 90, y + 10)
        assert tab.page.evaluate('document.documentElement.scrollWidth') <= width
        maps, column = tab.page.locator('#maps').bounding_box(), tab.page.locator('#seen').bounding_box()
        assert maps['x'] + maps['width'] <= column['x'] + column['width'] + 1
        # Another picture has not been compared, and what was shown of the last one is gone.
        tab.page.locator('#examples button').last.click()
        tab.page.wait_for_selector('#maps', state='hidden')
        tab.page.wait_for_function('document.querySelector("#scores").innerText.startsWith("Click on the picture")')
        tab.click(x, y)
        tab.page.wait_for_selector('#maps img')
        assert tab.page.locator('#maps .grid-container img').count() == 1

    def check_attention(self, tab, picture, segmenter, methods: list[str], x: int, y: int) -> None:
        tab.click(x, y)
        tab.page.wait_for_function(f'document.querySelector("#of-maps")?.innerText.includes("at {x}, {y}:")')
        assert f'Scores at {x}, {y}' in tab.page.inner_text('#scores')
        tab.page.wait_for_function(f'document.querySelectorAll("#maps .grid-container img").length == {len(methods)}')
        images = tab.page.locator('#maps .grid-container img')
        for i, method in enumerate(methods):
            found = segmenter.prepare(CLASSES, method=method).attention(picture, x, y)
            body = tab.context.request.get(images.nth(i).get_attribute('src')).body()
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(body))), np.asarray(found.heat_map()))
            assert f'{method}: {shares(found)}' in tab.page.inner_text('#maps')

    def test_a_link_restores_settings(self, tab, chromium, picture):
        tab.type('cat; <b>ufo</b>', 'sky & sea')
        tab.page.click('#settings button')
        tab.page.click('#method input')
        tab.page.get_by_role('option', name='sclip', exact=True).click()
        tab.page.fill('#std input', '3')
        tab.page.get_by_label('on', exact=True).check()
        tab.page.click('#link-part button')
        tab.page.click('#linking')
        tab.page.wait_for_selector('#address textarea, #address input')
        address = tab.page.input_value('#address textarea, #address input')
        assert address.startswith(tab.page.url.split('?')[0])
        other = Tab(chromium, address)
        other.page.wait_for_function('document.querySelector("#classes textarea").value.startsWith("cat")')
        assert other.page.input_value('#classes textarea') == 'cat; <b>ufo</b>'
        assert other.page.input_value('#background textarea') == 'sky & sea'
        other.page.click('#settings button')
        assert other.page.input_value('#method input') == 'sclip'
        assert other.page.input_value('#std input') == '3'
        assert other.page.get_by_label('on', exact=True).is_checked()
        assert other.page.input_value('#prob-thd input') == ''
        assert not other.complaints
        other.context.close()

    def test_a_pasted_picture(self, tab, picture):
        tab.context.grant_permissions(['clipboard-read', 'clipboard-write'])
        png = base64.b64encode(picture.read_bytes()).decode()
        tab.page.click('#camera-part button')
        tab.page.wait_for_selector('#camera')
        tab.page.evaluate(PASTED, png)
        tab.page.get_by_label('Paste from clipboard').click()
        tab.page.wait_for_selector('#preview img')
        tab.type(CLASSES)
        tab.segment()
        seen = segment(picture, CLASSES, backbone='shapes', device='cpu')
        np.testing.assert_array_equal(tab.overlay(), np.asarray(shown(seen, -1)))

    def test_nothing_to_call_from_outside(self, tab, server):
        answer = tab.context.request.get(f'{server.address}gradio_api/info').json()
        assert answer == {'named_endpoints': {}, 'unnamed_endpoints': {}}

    def test_its_picture_for_the_readme(self, server, tmp_path):
        command = [sys.executable, str(ROOT / 'tools' / 'app_screenshot.py')]
        taken = subprocess.run([*command, server.address, str(tmp_path / 'app.png')], capture_output=True, text=True)
        assert (taken.returncode, taken.stderr) == (0, '')
        with Image.open(tmp_path / 'app.png') as picture, Image.open(ROOT / 'docs' / 'app.png') as kept:
            assert picture.size == kept.size
            assert len(picture.getcolors()) > 100
        refused = subprocess.run(
            [*command, f'http://127.0.0.1:{free_port()}/', str(tmp_path / 'no.png')], capture_output=True, text=True
        )
        assert refused.returncode == 1
        assert refused.stderr.startswith('app_screenshot.py: cannot take a picture of http://127.0.0.1:')
        assert refused.stderr.count('\n') == 1
        assert [path.name for path in tmp_path.iterdir()] == ['app.png']


@pytest.mark.slow
@pytest.mark.skipif(not NEEDED['gradio'], reason='not here: gradio')
def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path):
    server = Server(tmp_path)
    assert server.greeting == f'Open {server.address} in a browser; Ctrl-C ends it.\n'
    assert list(tmp_path.glob('naclip-app-*'))
    assert server.stop(signal.SIGINT) == server.greeting
    assert server.process.returncode == 0
    assert not list(tmp_path.glob('naclip-app-*'))


@pytest.mark.slow
def test_without_gradio(tmp_path):
    code = 'import sys; sys.modules["gradio"] = None; from tools.app import main; sys.exit(main(sys.argv[1:]))'
    command = [sys.executable, '-c', code, '--backbone', 'shapes', '--port', str(free_port())]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(tmp_path))
    assert result.returncode == 1
    assert result.stderr.startswith('app.py: the page needs gradio (')
    assert result.stderr.endswith("): pip install 'naclip[app]', or -r tools/requirements-app.txt\n")
    assert result.stderr.count('\n') == 1
    assert not list(tmp_path.glob('naclip-app-*'))


def test_a_taken_port(capsys):
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
        assert main(['--port', str(port)]) == 1
    out, err = capsys.readouterr()
    assert out == ''
    assert err.startswith(f'app.py: cannot serve at 127.0.0.1, port {port} (')
    assert err.endswith('): choose another --port or --host\n')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--port', '70000'], 'port is 70000, expected 1 to 65535'),
        (['--host', '256.0.0.1'], 'cannot serve at 256.0.0.1'),
        (['--backbone', 'ViT-Z'], "unknown backbone 'ViT-Z'"),
        (['--device', 'abacus'], 'abacus'),
    ],
)
def test_refused_in_one_line(capsys, options, message):
    assert main(options) == 1
    out, err = capsys.readouterr()
    assert out == ''
    assert err.startswith('app.py: ')
    assert message in err
    assert err.count('\n') == 1


@pytest.mark.slow
@pytest.mark.parametrize('options', [['--port', '0'], ['--port', 'x'], ['--max-upload-mb', '-1'], ['--dtype', 'int8']])
def test_wrong_options(capsys, options):
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count('\n') == 1
