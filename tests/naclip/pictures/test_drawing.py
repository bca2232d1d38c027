"""Colours, overlays, legends, label maps."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from matplotlib.colors import hsv_to_rgb
from PIL import Image

from naclip.pictures import drawing


def test_colours_differ():
    colours = drawing.class_colours(150).astype(int)
    distance = np.abs(colours[:, None] - colours).sum(axis=-1) + 1000 * np.eye(150)
    assert distance.min() > 0
    assert distance[:20, :20].min() >= 25
    assert colours.shape == (150, 3)


def test_background_is_black():
    assert drawing.class_colours(3, has_background=True)[0].tolist() == [0, 0, 0]
    assert np.array_equal(drawing.class_colours(3, has_background=True)[1:], drawing.class_colours(2))


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_drawn_at_a_size_to_look_at(height, width):
    h, w = drawing.looked_at((height, width))
    assert max(h, w) <= 2048
    assert max(h, w) >= min(320, 2048)
    if 320 <= max(height, width) <= 2048:
        assert (h, w) == (height, width)


def test_blend_is_the_mean_of_picture_and_colour():
    picture = Image.new('RGB', (400, 300), (100, 100, 100))
    labels = np.zeros((300, 400), np.uint8)
    labels[:, 200:] = 1
    colours = np.array([[0, 0, 0], [200, 0, 50]], np.uint8)
    blended = np.asarray(drawing.blend(picture, labels, colours)).astype(float)
    assert np.abs(blended[:, :200] - 45).max() <= 1
    assert np.abs(blended[:, 200:] - (0.45 * 100 + 0.55 * colours[1])).max() <= 1


def test_labels_keep_their_place_when_shown_larger_and_smaller():
    for side in (2, 4100):
        labels = np.zeros((side, side), np.uint8)
        labels[: side // 2, : side // 2] = 1
        picture = Image.new('RGB', (side, side))
        seen = np.asarray(drawing.blend(picture, labels, np.array([[0, 0, 0], [255, 255, 255]], np.uint8)))[..., 0]
        half = len(seen) // 2
        assert (seen[: half - 1, : half - 1] > 100).all()
        assert (seen[half + 1 :] == 0).all()


def test_legend_has_the_colours_of_what_is_there_by_share():
    colours = drawing.class_colours(4)
    image = drawing.legend(['a', 'b', 'c', 'd'], colours, [0.2, 0.0, 0.5, 0.3])
    column = np.asarray(image)[:, drawing.MARGIN + drawing.SWATCH // 2]
    order = list(dict.fromkeys(i for pixel in column for i in range(4) if np.array_equal(pixel, colours[i])))
    assert order == [2, 3, 0]


def test_a_long_legend_is_cut_and_says_so():
    count = 300
    image = drawing.legend([f'class {i}' * 20 for i in range(count)], drawing.class_colours(count), [1 / count] * count)
    assert image.height == (drawing.MOST_ROWS + 1) * drawing.ROW + drawing.MARGIN
    assert image.width < 600


@pytest.mark.parametrize(('share', 'text'), [(0, '0.0 %'), (0.0001, '< 0.1 %'), (0.1234, '12.3 %'), (1, '100.0 %')])
def test_percent(share, text):
    assert drawing.percent(share) == text


def test_label_map_round_trip():
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    colours = drawing.class_colours(6)
    file = io.BytesIO()
    drawing.label_map(labels, colours).save(file, format='PNG')
    read = Image.open(file)
    assert read.mode == 'P'
    assert np.array_equal(np.asarray(read), labels)
    assert np.array_equal(np.asarray(read.convert('RGB')), colours[labels])


def test_label_map_of_many_classes_has_16_bits():
    labels = np.array([[0, 300, 846]], np.uint16)
    file = io.BytesIO()
    drawing.label_map(labels, drawing.class_colours(847)).save(file, format='PNG')
    assert np.array_equal(np.asarray(Image.open(file)), labels)


def test_heat_map_is_bright_where_the_score_is_high():
    score = np.zeros((20, 30), np.float32)
    score[:, 15:] = 0.5
    image = np.asarray(drawing.heat_map(Image.new('RGB', (300, 200), 'grey'), score, 0.5)).astype(int).sum(axis=-1)
    half = drawing.looked_at((200, 300))[1] // 2
    height = drawing.looked_at((200, 300))[0]
    assert image[:height, half + 40 : 2 * half].min() > image[:height, : half - 40].max() + 100


def test_attention_is_bright_where_weights_are_high_and_dim_outside():
    """A white picture, one half of which is seen: a weight, half a weight, one above the scale, and nothing."""
    weights = np.zeros((40, 80), np.float32)
    weights[:20, 40:60], weights[:20, 60:], weights[20:, 40:60] = 0.2, 0.1, 0.9
    picture = Image.new('RGB', (400, 200), 'white')
    drawn = drawing.attention_map(picture, weights, 0.2, (0, 200, 200, 400), (100, 200, 200, 300))
    assert drawn.width == 400
    pixels = np.asarray(drawn).astype(int)
    light = pixels.sum(axis=-1)
    assert (pixels[10:190, 10:190] == round(255 * drawing.DIMMED)).all()
    seen = [light[50, 250], light[50, 350], light[150, 250], light[150, 350]]
    assert seen[0] == seen[2] > seen[1] + 100 > seen[3] + 200
    assert (pixels[150, 199] == 255).all()  # the patch's frame, around it
    assert (pixels[150, 198] == 0).all()
    assert (pixels[99, 200:300] == 255).all()
    assert len({tuple(pixel) for pixel in pixels[50, 201:299]}) == 1
    frames = np.asarray(drawing.attention_map(picture, weights, 0.2, (0, 0, 200, 400), (100, 200, 200, 300)))
    assert (frames[50, 0] == frames[50, 100]).all()  # all is seen: no frame around it


def test_attention_to_nothing_else_and_a_patch_of_no_pixel():
    picture = Image.new('RGB', (3, 2), 'white')
    drawn = drawing.attention_map(picture, np.zeros((2, 3), np.float32), 0.0, (0, 0, 2, 3), (1, 2, 2, 3))
    assert drawn.width == 3 * drawing.looked_at((2, 3))[1] // 3
    assert np.isfinite(np.asarray(drawn)).all()


@pytest.mark.parametrize('has_background', [False, True])
def test_colours_are_those_of_matplotlib(has_background: bool):
    i = np.arange(900)
    hsv = [i * 0.61803398875 % 1, np.array([0.45, 1.0, 0.7])[i % 3], np.array([1.0, 0.5, 0.75])[i // 3 % 3]]
    first, further = np.array(colormaps['tab10'].colors), hsv_to_rgb(np.stack(hsv, axis=-1))
    expected = np.concatenate([np.zeros((int(has_background), 3)), first, further])[:900]
    np.testing.assert_array_equal(drawing.class_colours(900, has_background), np.rint(255 * expected))
