"""Label maps that lie on the ground where their picture does. Needs rasterio, where there is something to keep."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np

from naclip.files import written_whole

SUFFIXES = ('.tif', '.tiff')


def write_georeferenced(labels: np.ndarray, colours: np.ndarray, source: Path, target: Path) -> bool:
    """Write labels (H, W) as a GeoTIFF with the georeference of the picture `source`, whole or not at all.

    `colours` (K, 3) become its palette, up to 256 classes. Returns whether it was written: not without rasterio, and
    not of a picture that is no TIFF, has no georeference, or lies otherwise than its labels.
    """
    if source.suffix.lower() not in SUFFIXES or importlib.util.find_spec('rasterio') is None:
        return False
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        try:
            with rasterio.open(source) as picture:
                place = {'crs': picture.crs, 'transform': picture.transform}
                size = picture.height, picture.width
        except RasterioIOError:  # Pillow read it, so it is a picture, of a kind without a place
            return False
    if size != labels.shape or (place['crs'] is None and place['transform'].is_identity):
        return False
    about = {'driver': 'GTiff', 'height': size[0], 'width': size[1], 'count': 1, 'dtype': labels.dtype.name}
    about['compress'] = 'deflate'
    with written_whole(target) as temporary, rasterio.open(temporary, 'w', **about, **place) as file:
        file.write(labels, 1)
        if labels.dtype == np.uint8:
            file.write_colormap(1, {i: (*colour, 255) for i, colour in enumerate(colours.tolist())})
    return True
