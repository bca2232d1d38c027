"""Pictures and label maps of the user's own: pairs, palettes, values."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from naclip.data.own import find_own_pairs, read_palette, read_values, reduced, scan_own_pair


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def pairs(root: Path, suffix: str | None = None) -> dict[str, str]:
    found = find_own_pairs(root / 'images', root / 'labels', suffix)
    return {str(pair.picture.relative_to(root)): str(pair.label.relative_to(root)) for pair in found}


def test_mirrored_folders(tmp_path: Path):
    touch(tmp_path, 'images/a/1.jpg', 'images/b/1.JPG', 'images/2.tif', 'labels/a/1.png', 'labels/b/1.png')
    touch(tmp_path, 'labels/2.tif', 'images/.hidden/3.jpg', 'images/readme.txt')
    assert pairs(tmp_path) == {
        'images/a/1.jpg': 'labels/a/1.png',
        'images/b/1.JPG': 'labels/b/1.png',
        'images/2.tif': 'labels/2.tif',
    }


def test_names_at_any_depth_and_with_a_suffix(tmp_path: Path):
    touch(tmp_path, 'images/deep/down/1.jpg', 'labels/1_labels.png', 'labels/1_overlay.png')
    assert pairs(tmp_path, '_labels.png') == {'images/deep/down/1.jpg': 'labels/1_labels.png'}


def test_one_folder_for_both(tmp_path: Path):
    touch(tmp_path, '1.png', '1_gt.png', '2.png', '2_gt.png')
    found = find_own_pairs(tmp_path, tmp_path, '_gt.png')
    assert [(pair.picture.name, pair.label.name) for pair in found] == [('1.png', '1_gt.png'), ('2.png', '2_gt.png')]


@pytest.mark.parametrize(
    ('names', 'error', 'said'),
    [
        (('images/1.jpg',), FileNotFoundError, 'labels is no folder'),
        (('images/1.txt', 'labels/1.png'), FileNotFoundError, 'images has no file *.jpg, *.jpeg'),
        (('images/1.jpg', 'images/2.jpg', 'labels/1.png'), FileNotFoundError, '1 of 2 pictures have no label map'),
        (('images/1.jpg', 'images/1.png', 'labels/1.png'), ValueError, 'have one name'),
        (('images/1.jpg', 'labels/a/1.png', 'labels/b/1.png'), ValueError, 'cannot be told'),
        (('images/a/1.jpg', 'images/b/1.jpg', 'labels/1.png'), ValueError, 'cannot be told'),
    ],
)
def test_what_cannot_be_told(tmp_path: Path, names, error, said):
    touch(tmp_path, *names)
    with pytest.raises(error) as caught:
        find_own_pairs(tmp_path / 'images', tmp_path / 'labels')
    assert said in str(caught.value)
    assert '\n' not in str(caught.value)


def write_palette(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_palette(tmp_path: Path):
    colours, values = read_palette(write_palette(tmp_path / 'p.txt', '0 0 0\n255,255,255 -\n\n1 2 3\n'))
    assert colours.tolist() == [[0, 0, 0], [255, 255, 255], [1, 2, 3]]
    assert values.tolist() == [0, -1, 1]


@pytest.mark.parametrize(
    ('text', 'said'),
    [('', 'is empty'), ('0 0\n', 'line 1'), ('0 0 0\n0 0 256\n', 'line 2'), ('1 1 1\n1 1 1 -', 'there twice')],
)
def test_bad_palette(tmp_path: Path, text: str, said: str):
    with pytest.raises(ValueError, match=said):
        read_palette(write_palette(tmp_path / 'p.txt', text))


@given(st.lists(st.integers(0, (1 << 24) - 1), min_size=1, max_size=40, unique=True), st.integers(0, (1 << 32) - 1))
def test_colours_are_found(tmp_path_factory, colour_codes: list[int], seed: int):
    codes, count = np.array(colour_codes), len(colour_codes)
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1).astype(np.uint8)
    values = np.random.RandomState(seed).randint(0, count, (5, 7))
    path = tmp_path_factory.mktemp('colours') / 'a.png'
    Image.fromarray(colours[values]).save(path)
    assert np.array_equal(read_values(path, (colours, np.arange(count))), values)


def test_values_of_files(tmp_path: Path):
    wide = np.array([[0, 300], [65535, 2]], np.uint16)
    Image.fromarray(wide).save(tmp_path / 'wide.png')
    Image.fromarray(wide).save(tmp_path / 'wide.tif')
    indexed = Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8)).convert('P')
    indexed.putpalette([9] * 768)
    indexed.save(tmp_path / 'indexed.png')
    assert np.array_equal(read_values(tmp_path / 'wide.png'), wide)
    assert np.array_equal(read_values(tmp_path / 'wide.tif'), wide)
    assert read_values(tmp_path / 'indexed.png').tolist() == [[0, 1], [2, 255]]
    Image.new('RGB', (2, 2), (1, 2, 4)).save(tmp_path / 'rgb.png')
    with pytest.raises(ValueError, match='--palette FILE'):
        read_values(tmp_path / 'rgb.png')
    palette = (np.array([[1, 2, 3]], np.uint8), np.array([0]))
    with pytest.raises(ValueError, match='the colour 1 2 4 is not in the palette'):
        read_values(tmp_path / 'rgb.png', palette)
    scan = scan_own_pair(tmp_path / 'rgb.png', tmp_path / 'rgb.png', palette, 255)
    assert [(fault.kind, '1 2 4' in fault.text) for fault in scan.faults] == [('label', True)]


def test_reduced():
    values = np.array([0, 1, 2, 255, -1])
    assert reduced(values, 255, False).tolist() == [0, 1, 2, 255, 255]
    assert reduced(values, 255, True).tolist() == [255, 0, 1, 255, 255]
