"""What the page shows, without a browser."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from naclip import Segmentation, segment
from naclip.api import Segmenter
from naclip.commands import page
from naclip.commands.page import (
    EXAMPLES,
    describe_point,
    legend_html,
    number_of,
    picture_point,
    point_html,
    read_upload,
    segment_upload,
    shown,
    write_examples,
)
from naclip.commands.server import METHODS_OFFERED
from naclip.pictures import drawing
from naclip.shapes import generator as shapes

USUAL = ('naclip', 'shapes', None, 'method', None)  # method, backbone, σ, PAMR, prob_thd


@pytest.fixture(scope='module')
def segmenter() -> Segmenter:
    return Segmenter('shapes', 'cpu')


@pytest.fixture
def examples(tmp_path) -> list:
    return write_examples(tmp_path / 'examples')


def seen_with(labels, names, scores=None) -> Segmentation:
    """A segmentation of a white picture."""
    labels = np.asarray(labels, dtype=np.uint8)
    if scores is None:
        scores = np.eye(len(names), dtype=np.float32)[labels].transpose(2, 0, 1)
    return Segmentation(Image.new('RGB', labels.shape[::-1], 'white'), labels, tuple(names), scores)


def random_seen(size, small, classes=4, seed=0) -> Segmentation:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size)
    return seen_with(labels, 'abcd'[:classes], rng.random((classes, *small), dtype=np.float32))


@given(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.integers(1, 3), st.integers(0, 99))
def test_point_scores_are_those_at_the_pixels_middle(small, factor, seed):
    size = tuple(factor * side for side in small)
    seen = random_seen(size, small, seed=seed)
    enlarged = seen.scores.repeat(factor, axis=1).repeat(factor, axis=2)
    y, x = (int(np.random.default_rng(seed).integers(side)) for side in size)
    described = describe_point(seen, x, y)
    assert dict(described) == pytest.approx(dict(enumerate(enlarged[:, y, x])))
    values = [score for _, score in described]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize('size', [(1, 1), (7, 5), (112, 160), (300, 700), (3000, 8), (2500, 3100)])
def test_a_click_finds_the_pixel_whose_colour_is_shown(size):
    seen = random_seen(size, (2, 2), seed=1)
    pixels = np.asarray(shown(seen, -1)).astype(int)
    height, width = pixels.shape[:2]
    assert abs(height / width / (size[0] / size[1]) - 1) < 0.15  # the picture's aspect
    rng = np.random.default_rng(0)
    points = [
        (0, 0),
        (width - 1, height - 1),
        *zip(rng.integers(0, width, 200), rng.integers(0, height, 200), strict=True),
    ]
    tints = drawing.OPACITY * seen.colours + (1 - drawing.OPACITY) * 255
    for x, y in points:
        column, row = picture_point(seen, x, y)
        assert np.abs(pixels[y, x] - tints[seen.labels[row, column]]).max() <= 1
    for x, y in ((-1, 0), (0, -1), (width, 0), (0, height)):
        assert picture_point(seen, x, y) is None


def test_small_drawings_are_shown_larger_and_large_ones_as_they_are():
    assert shown(random_seen((112, 160), (2, 2)), -1).size == (640, 448)
    assert shown(random_seen((600, 700), (2, 2)), -1).size == (700, 600)


def test_heat_maps_lie_as_the_overlay_does(segmenter, examples):
    seen, _ = segment_upload(lambda _: segmenter, str(examples[0]), EXAMPLES[0][1], '', *USUAL)
    overlay, heat = shown(seen, -1), shown(seen, 2)
    assert heat.width == overlay.width
    assert heat.height > overlay.height  # the scale is below
    assert picture_point(seen, 0, overlay.height) is None


def test_the_legend_has_the_largest_first_and_names_the_missing():
    seen = seen_with([[1, 1, 1, 2], [1, 1, 2, 1]], ['cat', 'dog', 'sky', 'fish & chips'])
    text = legend_html(seen)
    assert re.findall(r'<td>(\w+)</td><td>([\d.]+ %)</td>', text) == [('dog', '75.0 %'), ('sky', '25.0 %')]
    assert 'rgb(255, 127, 14)' in text  # dog's
    assert '<p>Not seen: cat, fish &amp; chips</p>' in text
    assert 'Not seen' not in legend_html(seen_with([[0]], ['cat']))


def test_names_are_not_read_as_html():
    name = '<img src=x onerror=alert(1)>'
    seen = seen_with([[0, 0]], [name, f'{name}?'])
    for text in (legend_html(seen), point_html(seen, 1, 0)):
        assert '<img' not in text
        assert text.count('&lt;img src=x onerror=alert(1)&gt;') >= 2


def test_point_listing(segmenter, examples):
    seen, _ = segment_upload(lambda _: segmenter, str(examples[0]), EXAMPLES[0][1], '', *USUAL)
    text = point_html(seen, 30, 70)
    label = seen.names[seen.labels[70, 30]]
    assert f'Scores at 30, 70: <b>{label}</b>' in text
    rows = re.findall(r'<td>(\w+)<div.*?<td>([\d.]+)</td>', text)
    assert [name for name, _ in rows] == [seen.names[i] for i, _ in describe_point(seen, 30, 70)]
    assert len(rows) == len(seen.names)
    assert rows[0] == (label, f'{seen.scores[:, 70, 30].max():.3f}')


@pytest.mark.parametrize(
    ('settings', 'keywords'),
    [
        (USUAL, {}),
        (('sclip', 'shapes', None, 'on', 0.4), dict(method='sclip', pamr=True, prob_thd=0.4)),
        (('naclip', 'shapes', 2, 'off', None), dict(gaussian_std=2, pamr=False)),
    ],
)
def test_segments_as_the_function_does(segmenter, examples, settings, keywords):
    seen, unknown = segment_upload(lambda _: segmenter, str(examples[1]), 'cat; ufo', 'snow', *settings)
    expected = segment(examples[1], 'cat; ufo', 'snow', backbone='shapes', device='cpu', **keywords)
    assert unknown == ['ufo']
    assert seen.names == ('background', 'cat', 'ufo')
    np.testing.assert_array_equal(seen.labels, expected.labels)
    np.testing.assert_array_equal(seen.scores, expected.scores)


@pytest.mark.parametrize(
    ('words', 'settings', 'message'),
    [
        (('', ''), USUAL, 'expected names such as'),
        (('cat; cat', ''), USUAL, "'cat' belongs to two classes"),
        (('cat', ''), ('naclip', 'shapes', 0, 'method', None), 'gaussian_std is 0'),
        (('cat', ''), ('naclip', 'shapes', None, 'method', 0.5), 'needs a background'),
        (('cat', 'sky'), ('naclip', 'shapes', None, 'method', 1.5), 'prob_thd'),
        (('cat', ''), ('magic', 'shapes', None, 'method', None), "unknown method (--method) 'magic'"),
    ],
)
def test_refused(segmenter, examples, words, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        segment_upload(lambda _: segmenter, str(examples[0]), *words, *settings)


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS_OFFERED)
def test_every_method_of_the_list(segmenter, examples, method):
    settings = (method, *USUAL[1:])
    seen, _ = segment_upload(lambda _: segmenter, str(examples[0]), 'stone; sky; sand', '', *settings)
    assert seen.labels.shape == (seen.picture.height, seen.picture.width)


def test_words_are_checked_before_weights_are_loaded(examples):
    with pytest.raises(ValueError, match='expected names such as'):
        segment_upload(pytest.fail, str(examples[0]), ';', '', *USUAL)


def test_uploads_are_read_upright_and_in_8_bits(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°
    pixels, _ = shapes.draw(np.random.RandomState(0), (20, 30))
    Image.fromarray(pixels).save(tmp_path / 'turned.png', exif=exif)
    np.testing.assert_array_equal(np.asarray(read_upload(str(tmp_path / 'turned.png'))), np.rot90(pixels, -1))
    deep = pixels[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / 'deep.tif')
    np.testing.assert_array_equal(np.asarray(read_upload(str(tmp_path / 'deep.tif')))[..., 0], pixels[..., 0])


def test_what_is_no_picture_is_told_without_its_folder(tmp_path):
    (tmp_path / 'notes.png').write_text('no picture')
    (tmp_path / 'cut.png').write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(20))
    for name in ('notes.png', 'cut.png', 'gone.png'):
        with pytest.raises(ValueError, match=name) as caught:
            read_upload(str(tmp_path / name))
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(ValueError, match='there is no picture yet'):
        read_upload(None)


def test_examples_are_pictures_of_the_benchmark(examples, segmenter):
    for path, (number, classes, background) in zip(examples, EXAMPLES, strict=True):
        expected, label = shapes.draw(np.random.RandomState([shapes.VAL_SEED, number]), shapes.VAL_SIZE)
        with Image.open(path) as picture:
            np.testing.assert_array_equal(np.asarray(picture), expected)
        seen, unknown = segment_upload(lambda _: segmenter, str(path), classes, background, *USUAL)
        assert not unknown
        truth = np.array(shapes.CLASSES)[label]
        found = np.array([background, *seen.names[1:]] if background else seen.names)[seen.labels]
        assert (found == truth).mean() > 0.9


def test_colours_of_the_style_sheet_are_used():
    text = point_html(seen_with([[0]], ['cat']), 0, 0)
    for name in re.findall(r'class="(\w+)"', text):
        assert f'.{name} ' in page.CSS


@pytest.mark.parametrize(
    ('text', 'number'), [(None, None), ('', None), ('  ', None), ('3', 3.0), (' 0.25 ', 0.25), ('0', 0.0)]
)
def test_numbers_that_are_typed(text, number):
    assert number_of(text, 'σ') == number


@pytest.mark.parametrize('text', ['x', '1,5', 'nan', 'inf'])
def test_what_is_no_number_is_said(text):
    with pytest.raises(ValueError, match=f"σ is '{text}', expected a number"):
        number_of(text, 'σ')
