"""Label maps on disk: round trips, and what is refused."""

import io
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from naclip.runs.predictions import (
    check_prediction_names,
    find_predictions,
    prediction_name,
    read_prediction,
    write_prediction,
)


def palette(classes: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (classes, 3))


@given(st.data(), st.sampled_from([1, 2, 21, 256, 257, 847, 65536]))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, classes: int):
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    labels = data.draw(arrays(np.int64, shape, elements=st.integers(0, classes - 1)))
    folder = tmp_path_factory.mktemp('predictions')
    path = write_prediction(folder, 'a/b.jpg', labels, palette(classes))
    assert path == folder / 'a/b.png'
    assert [file.name for file in path.parent.iterdir()] == ['b.png']  # nothing else is left there
    found = read_prediction(path)
    assert found.dtype == (np.uint8 if classes <= 256 else np.uint16)
    np.testing.assert_array_equal(found, labels)


def test_other_programs_see_the_palette_and_16_bits(tmp_path: Path):
    labels, colours = np.arange(12).reshape(3, 4), palette(21)
    seen = cv2.imread(str(write_prediction(tmp_path, 'a.jpg', labels, colours)), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(seen, colours[labels])
    wide = write_prediction(tmp_path, 'b.jpg', labels * 50, palette(847))
    np.testing.assert_array_equal(cv2.imread(str(wide), cv2.IMREAD_UNCHANGED), labels * 50)


def png(values: np.ndarray, depth: int) -> bytes:
    """A grey PNG of so many bits, written by hand."""
    bits = np.unpackbits(values.astype('>u2').view(np.uint8).reshape(*values.shape, 2), axis=-1)[..., 16 - depth :]
    rows = np.packbits(bits.reshape(len(values), -1), axis=1)
    data = zlib.compress(b''.join(b'\0' + row.tobytes() for row in rows))
    header = struct.pack('>IIBBBBB', values.shape[1], values.shape[0], depth, 0, 0, 0, 0)
    chunks = ((b'IHDR', header), (b'IDAT', data), (b'IEND', b''))
    parts = (struct.pack('>I', len(c)) + name + c + struct.pack('>I', zlib.crc32(name + c)) for name, c in chunks)
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


@pytest.mark.parametrize('depth', [1, 2, 4, 8, 16])
def test_grey_values_are_ids_at_every_depth(depth: int, tmp_path: Path):
    values = np.random.RandomState(depth).randint(0, 1 << depth, (5, 7))
    (tmp_path / 'a.png').write_bytes(png(values, depth))
    np.testing.assert_array_equal(read_prediction(tmp_path / 'a.png'), values)


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'LA'])
def test_colours_are_refused_by_name(mode: str, tmp_path: Path):
    Image.new(mode, (3, 2)).save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match=rf'^{re.escape(str(tmp_path))}/a\.png is a picture in colours'):
        read_prediction(tmp_path / 'a.png')


@pytest.mark.parametrize(
    ('spoil', 'part'),
    [
        (lambda content: content[:-8], 'cut short'),
        (lambda content: b'x' + content, 'is no PNG'),
        (lambda content: content[:40] + b'\xff' * 9 + content[49:], 'cannot be read'),
    ],
)
def test_damage_is_told_by_name(spoil, part: str, tmp_path: Path):
    path = write_prediction(tmp_path, 'a.jpg', np.arange(400).reshape(20, 20) % 3, palette(3))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=rf'a\.png .*{part}'):
        read_prediction(path)


def test_a_jpeg_is_no_label_map(tmp_path: Path):
    file = io.BytesIO()
    Image.new('L', (9, 9)).save(file, 'JPEG')
    (tmp_path / 'a.png').write_bytes(file.getvalue())
    with pytest.raises(ValueError, match='is no PNG'):
        read_prediction(tmp_path / 'a.png')


@pytest.mark.parametrize(
    ('labels', 'part'),
    [
        (np.array([[0, 3]]), 'from 0 to 3, expected 0 to 2'),
        (np.array([[-1, 0]]), 'from -1 to 0'),
        (np.zeros((1, 2, 2), int), r'int64 \(1, 2, 2\)'),
        (np.zeros((2, 2)), 'float64'),
    ],
)
def test_what_is_no_label_map_is_not_written(labels: np.ndarray, part: str, tmp_path: Path):
    with pytest.raises(ValueError, match=rf'a\.jpg .*{part}'):
        write_prediction(tmp_path, 'a.jpg', labels, palette(3))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('key', 'name'),
    [('x/a.b.jpg', 'x/a.b.png'), ('/data/a.jpg', 'data/a.png'), ('../data/a.jpg', 'data/a.png'), ('a', 'a.png')],
)
def test_names_stay_in_their_folder(key: str, name: str):
    assert prediction_name(key) == name


def test_two_pictures_of_one_name():
    check_prediction_names(['a.jpg', 'b.jpg', 'x/a.jpg'])
    with pytest.raises(ValueError, match=r'a\.jpg and a\.png would have one file'):
        check_prediction_names(['a.jpg', 'b.jpg', 'a.png'])


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_found_by_key_before_stem(tmp_path: Path):
    folder = touch(tmp_path, 'images/a.png', 'old/a.png', 'flat/b.png', 'images/.b.png')
    found = find_predictions(folder, ['images/a.jpg', 'images/b.jpg'])
    assert found == {'images/a.jpg': folder / 'images/a.png', 'images/b.jpg': folder / 'flat/b.png'}


def test_missing_and_ambiguous_files_are_named(tmp_path: Path):
    folder = touch(tmp_path, 'x/a.png', 'y/a.png', 'c.png')
    with pytest.raises(FileNotFoundError, match=r'z/b\.png is missing, .* of z/b\.jpg \(1 of 2 pictures'):
        find_predictions(folder, ['x/a.jpg', 'z/b.jpg'])
    with pytest.raises(ValueError, match=r'of z/a\.jpg cannot be told, .*/x/a\.png and .*/y/a\.png have one name'):
        find_predictions(folder, ['z/a.jpg'])
    with pytest.raises(ValueError, match=r'd/c\.jpg and e/c\.jpg have one name'):
        find_predictions(folder, ['d/c.jpg', 'e/c.jpg'])
    with pytest.raises(FileNotFoundError, match='there is no such folder'):
        find_predictions(folder / 'nowhere', ['a.jpg'])
