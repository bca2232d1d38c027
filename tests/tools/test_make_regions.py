"""Region masks from superpixels: whole, restartable, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from naclip.walk.masks import RegionMasks, read_mask
from tools.make_regions import MAKERS, main

pytest.importorskip('skimage')


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for name, left in (('a.png', (200, 30, 30)), ('b.png', (20, 90, 200))):
        pixels = np.full((48, 64, 3), (240, 240, 200), np.uint8)
        pixels[:, :32] = left
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.mark.parametrize('kind', MAKERS)
def test_masks_are_found_and_follow_edges(pictures, tmp_path, kind, capsys):
    out = tmp_path / 'regions'
    assert main([str(pictures), '--kind', kind, '--count', '12', '-o', str(out)]) == 0
    assert '2 region masks made, 0 were there' in capsys.readouterr().out
    masks = RegionMasks(out)
    masks.check(['a.png', 'b.png'])
    ids = masks.read(pictures / 'a.png', (48, 64)).numpy()
    assert ids.min() >= 1
    assert not set(np.unique(ids[:, :28])) & set(np.unique(ids[:, 36:]))


def test_a_stopped_run_goes_on(pictures, tmp_path, capsys):
    out = tmp_path / 'regions'
    assert main([str(pictures / 'a.png'), '-o', str(out)]) == 0
    before = (out / 'a.npz').stat().st_mtime_ns
    (out / 'b.npz').write_bytes(b'cut short')
    assert main([str(pictures), '-o', str(out)]) == 0
    assert '1 region masks made, 1 were there' in capsys.readouterr().out
    assert (out / 'a.npz').stat().st_mtime_ns == before
    assert read_mask(out / 'b.npz').shape == (48, 64)


def test_one_stem_twice(pictures, tmp_path, capsys):
    (pictures / 'a.jpg').write_bytes((pictures / 'a.png').read_bytes())
    assert main([str(pictures), '-o', str(tmp_path / 'regions')]) == 1
    error = capsys.readouterr().err
    assert 'several pictures have the stem a, by which masks are found' in error
    assert error.count('\n') == 1
