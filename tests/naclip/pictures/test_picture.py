"""Pictures of every kind, and sizes."""

import mmcv
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmseg.models import SegDataPreProcessor
from PIL import Image

from clip import MEAN, STD
from naclip.pictures.picture import as_picture, bounded_size, fitting_size, network_input, read_picture, to_rgb

SIDE = st.integers(1, 9000)


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (6, 9, 3)).astype(np.uint8)


@pytest.mark.parametrize('suffix', ['png', 'bmp', 'tiff', 'webp', 'gif', 'jpg'])
def test_formats(tmp_path, suffix, colours):
    path = tmp_path / f'picture.{suffix}'
    picture = Image.fromarray(colours).resize((90, 60), Image.Resampling.BICUBIC)
    picture.save(path)
    read = read_picture(path)
    assert (read.mode, read.size) == ('RGB', (90, 60))
    assert np.abs(np.asarray(read).astype(int) - np.asarray(picture)).mean() < 12


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGBA', 'CMYK', 'YCbCr', 'I;16', 'I', 'F'])
def test_modes_of_a_grey_picture_look_alike(mode):
    grey = np.array([[0, 255], [255, 0]], np.uint8)
    if mode in ('I;16', 'I'):
        image = Image.fromarray(grey.astype(np.uint16) * 257 if mode == 'I;16' else grey.astype(np.int32) * 257)
    elif mode == 'F':
        image = Image.fromarray(grey.astype(np.float32) / 255)
    else:
        image = Image.fromarray(grey).convert('RGB').convert(mode)
    assert image.mode == mode
    assert np.abs(np.asarray(to_rgb(image)).astype(int) - grey[..., None]).max() <= 2


def test_16_bits_are_not_cut_off(tmp_path):
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / 'deep.png')
    assert np.array_equal(np.asarray(read_picture(tmp_path / 'deep.png'))[..., 0].ravel(), np.arange(256))


def test_transparent_is_white():
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], np.uint8)
    assert np.asarray(to_rgb(Image.fromarray(pixels))).tolist() == [[[255] * 3, [10, 20, 30], [204] * 3]]


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation(tmp_path, colours, orientation):
    # What a camera stores, so that the picture is `colours` once it is turned as the tag says.
    stored = {
        1: colours,
        2: colours[:, ::-1],
        3: colours[::-1, ::-1],
        4: colours[::-1],
        5: colours.transpose(1, 0, 2),
        6: np.rot90(colours),
        7: np.rot90(colours, 2).transpose(1, 0, 2),
        8: np.rot90(colours, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / 'turned.png', exif=exif)
    assert np.array_equal(np.asarray(read_picture(tmp_path / 'turned.png')), colours)


def test_arrays(colours):
    assert np.array_equal(np.asarray(as_picture(colours[:, ::-1])), colours[:, ::-1])
    assert np.array_equal(np.asarray(as_picture(colours[..., 0]))[..., 1], colours[..., 0])


@pytest.mark.parametrize('array', [np.zeros((2, 2, 3)), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2, 3), np.uint8)])
def test_what_is_no_picture_is_refused(array):
    with pytest.raises(ValueError, match=r'expected uint8 of shape \(H, W\)'):
        as_picture(array)


def test_something_else_is_refused():
    with pytest.raises(ValueError, match='list is no picture'):
        as_picture([1, 2])


@pytest.mark.parametrize('values', [[[-1, 5]], [[0, 70000]], [[0.0, 300.0]], [[0.0, float('nan')]]])
def test_meaningless_grey_values_are_refused(values):
    kind = np.int32 if isinstance(values[0][1], int) else np.float32
    with pytest.raises(ValueError, match='grey values from'):
        to_rgb(Image.fromarray(np.array(values, kind)))


def test_files_that_are_no_pictures(tmp_path, colours):
    with pytest.raises(FileNotFoundError, match=r'nowhere.png does not exist'):
        read_picture(tmp_path / 'nowhere.png')
    with pytest.raises(FileNotFoundError, match='is a folder'):
        read_picture(tmp_path)
    (tmp_path / 'text.png').write_text('hello')
    with pytest.raises(ValueError, match=r'text.png is not a picture of a known format'):
        read_picture(tmp_path / 'text.png')
    Image.fromarray(colours).resize((300, 300)).save(tmp_path / 'whole.png')
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'whole.png').read_bytes()[:2000])
    with pytest.raises(ValueError, match=r'cannot read .*cut.png: '):
        read_picture(tmp_path / 'cut.png')


@given(SIDE, SIDE, st.integers(1, 700))
def test_fitting_size_is_that_of_the_harness(height, width, short):
    theirs = mmcv.rescale_size((width, height), (2048, short))
    assert fitting_size((height, width), short) == theirs[::-1]


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 1 << 20))
def test_bounded_size(height, width, pixels):
    h, w = bounded_size((height, width), pixels)
    assert 1 <= h <= height
    assert 1 <= w <= width
    assert h * w <= pixels or (h, w) == (height, width)
    assert (h, w) == (height, width) or h * w > pixels / 2 - height - width or min(h, w) == 1


def test_network_input_is_that_of_the_harness(colours):
    picture = Image.fromarray(colours).resize((50, 37), Image.Resampling.BICUBIC)
    resized = mmcv.imresize(np.asarray(picture)[..., ::-1], (45, 33), interpolation='bilinear')  # BGR
    processor = SegDataPreProcessor([255 * m for m in MEAN], [255 * s for s in STD], bgr_to_rgb=True)
    batch = dict(inputs=[torch.from_numpy(resized.transpose(2, 0, 1).copy())], data_samples=None)
    expected = processor(batch)['inputs'][0]
    torch.testing.assert_close(network_input(picture, (33, 45))[0], expected, rtol=0, atol=1e-6)
