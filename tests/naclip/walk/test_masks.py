"""Region masks: both formats, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from naclip.walk.masks import RegionMasks, read_mask

IDS = np.array([[0, 1, 70], [300, 65535, 2]])


@pytest.fixture
def folder(tmp_path):
    np.savez_compressed(tmp_path / 'a.npz', instance_mask=IDS.astype(np.int32))
    Image.fromarray(IDS.astype(np.uint16)).save(tmp_path / 'b.png')
    return tmp_path


@pytest.mark.parametrize('picture', ['a.jpg', 'images/b.png'])
def test_both_formats(folder, picture):
    ids = RegionMasks(folder).read(picture, (2, 3))
    assert ids.dtype.is_signed
    assert ids.tolist() == IDS.tolist()


def test_eight_bits_and_palettes(tmp_path):
    small = IDS.clip(0, 255).astype(np.uint8)
    Image.fromarray(small).save(tmp_path / 'grey.png')
    image = Image.new('P', (3, 2))
    image.putpalette(bytes(range(256)) * 3)
    image.putdata(small.ravel().tolist())
    image.save(tmp_path / 'palette.png')
    for name in ('grey', 'palette'):
        assert read_mask(tmp_path / f'{name}.png').tolist() == small.tolist()


def test_the_hash_is_of_names_and_contents(folder):
    masks = RegionMasks(folder)
    both = masks.sha256(['x/b.jpg', 'a.jpg'])
    assert both == masks.sha256(['a.jpg', 'b.jpg'])
    assert both != masks.sha256(['a.jpg'])
    (folder / 'a.npz').rename(folder / 'c.npz')
    assert masks.sha256(['c.jpg', 'b.jpg']) != both
    (folder / 'c.npz').rename(folder / 'a.npz')
    np.savez_compressed(folder / 'a.npz', instance_mask=IDS + 1)
    assert masks.sha256(['a.jpg', 'b.jpg']) != both


def test_what_is_missing(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no region mask of c\.jpg: expected c\.npz or c\.png in '):
        RegionMasks(folder).read('c.jpg', (2, 3))
    with pytest.raises(FileNotFoundError, match=r'no region mask of c\.jpg: .* \(2 of 3 pictures have none\)'):
        RegionMasks(folder).check(['a.jpg', 'c.jpg', 'd.jpg'])
    RegionMasks(folder).check(['a.jpg', 'b.jpg'])
    with pytest.raises(FileNotFoundError, match=r'region masks \(--regions\): there is no folder '):
        RegionMasks(tmp_path / 'none')


def test_what_cannot_be_told_apart(folder):
    with pytest.raises(ValueError, match=r'x/a\.jpg and y/a\.jpg have one stem'):
        RegionMasks(folder).check(['x/a.jpg', 'y/a.jpg'])
    Image.fromarray(IDS.astype(np.uint16)).save(folder / 'a.png')
    with pytest.raises(ValueError, match=r'two region masks of a\.jpg: .*a\.npz and .*a\.png; remove one'):
        RegionMasks(folder).read('a.jpg', (2, 3))


def test_the_size_of_the_picture(folder):
    with pytest.raises(ValueError, match=r'region mask .*a\.npz has 2x3 pixels, expected 3x2, the size of its picture'):
        RegionMasks(folder).read('a.jpg', (3, 2))


@pytest.mark.parametrize(
    ('write', 'message'),
    [
        (lambda p: np.savez(p, mask=IDS), r"expected an array 'instance_mask', it has mask"),
        (lambda p: np.savez(p, instance_mask=IDS[0]), r'has shape \(3,\) of int64, expected \(height, width\)'),
        (lambda p: np.savez(p, instance_mask=0.5 * IDS), r'of float64, expected .* of whole numbers'),
        (lambda p: np.savez(p, instance_mask=np.array([[None]])), r'cannot read the region mask .*Object arrays'),
        (lambda p: p.write_bytes(b'no zip'), r'cannot read the region mask '),
        (lambda p: p.write_bytes(b''), r'cannot read the region mask '),
    ],
)
def test_bad_npz(tmp_path, write, message):
    write(tmp_path / 'a.npz')
    with pytest.raises(ValueError, match=message) as error:
        RegionMasks(tmp_path).read('a.jpg', (2, 3))
    assert '\n' not in str(error.value)


def test_bad_png(tmp_path):
    Image.new('RGB', (3, 2)).save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match=r'its mode is RGB, expected one channel of 16 or 8 bits'):
        RegionMasks(tmp_path).read('a.jpg', (2, 3))
    (tmp_path / 'a.png').write_bytes((tmp_path / 'a.png').read_bytes()[:60])
    with pytest.raises(ValueError, match=r'cannot read the region mask'):
        RegionMasks(tmp_path).read('a.jpg', (2, 3))
