"""The georeference of a picture on its label map."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from naclip.pictures.geotiff import write_georeferenced

COLOURS = np.array([[0, 0, 0], [10, 20, 30], [200, 100, 50]])
LABELS = np.arange(35).reshape(5, 7).astype(np.uint8) % 3


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A picture of 7 x 5 pixels of half a metre, somewhere."""
    rasterio = pytest.importorskip('rasterio')
    path = tmp_path / 'field.tif'
    about = dict(driver='GTiff', height=5, width=7, count=3, dtype='uint8', crs='EPSG:32633')
    with rasterio.open(path, 'w', transform=rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5800000), **about) as file:
        file.write(np.full((3, 5, 7), 9, np.uint8))
    return path


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_labels_lie_where_the_picture_does(source: Path, tmp_path: Path, dtype: type):
    rasterio = pytest.importorskip('rasterio')
    assert write_georeferenced(LABELS.astype(dtype), COLOURS, source, tmp_path / 'labels.tif')
    with rasterio.open(source) as picture, rasterio.open(tmp_path / 'labels.tif') as file:
        assert (file.crs, file.transform) == (picture.crs, picture.transform)
        assert file.dtypes == (np.dtype(dtype).name,)
        np.testing.assert_array_equal(file.read(1), LABELS)
        if dtype is np.uint8:
            assert file.colormap(1)[2] == (200, 100, 50, 255)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['field.tif', 'labels.tif']


def test_a_turned_picture_is_left_alone(source: Path, tmp_path: Path):
    assert not write_georeferenced(LABELS.T.copy(), COLOURS, source, tmp_path / 'labels.tif')


def test_pictures_without_a_place(tmp_path: Path):
    for name in ('a.tif', 'a.png'):
        Image.new('RGB', (7, 5)).save(tmp_path / name)
        assert not write_georeferenced(LABELS, COLOURS, tmp_path / name, tmp_path / 'labels.tif')
    assert not (tmp_path / 'labels.tif').exists()


def test_without_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    assert not write_georeferenced(LABELS, COLOURS, tmp_path / 'a.tif', tmp_path / 'labels.tif')
