"""Results of runs that never were: many methods on many benchmarks, and their galleries."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clip.weights import RELEASES
from naclip.runs.gallery import Gallery
from naclip.runs.results import PixelCounts, write_confusion, write_results

PALETTE = np.random.default_rng(0).integers(0, 256, (400, 3)).tolist()


def random_matrix(seed: int, classes: int = 5) -> np.ndarray:
    """A confusion matrix; the last class is neither labelled nor predicted, the last but one not labelled."""
    matrix = np.random.default_rng(seed).integers(0, 1000, (classes, classes))
    matrix[-1] = matrix[:, -1] = matrix[-2] = 0
    return matrix


def write_run(folder: Path, matrix: np.ndarray, benchmark: str = 'voc21', **changes) -> Path:
    """A results.json as an evaluation writes it; `settings` are added to the usual ones."""
    hits, pred, label = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
    counts = PixelCounts(*(array.tolist() for array in (hits, pred + label - hits, pred, label)))
    settings = dict(gaussian_std=5.0, prob_thd=0.1, dtype='float32', limit=None, labelled_only=False)
    settings |= changes.pop('settings', {})
    record = dict(benchmark=benchmark, method='naclip', protocol='naclip', changes={}, backbone='ViT-B/16')
    record |= dict(settings=settings, sha256={'weights': RELEASES['ViT-B/16'].sha256}, device={'name': 'x'}, images=3)
    record |= dict(metrics=counts.metrics(settings['labelled_only']), seconds={'total': 1.5})
    record |= dict(classes=counts.table([f'c{i}' for i in range(len(matrix))])) | changes
    write_results(folder / 'results.json', record)
    return folder / 'results.json'


def method_matrix(seed: int, classes: int) -> np.ndarray:
    """A confusion matrix of a method that is mostly right."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 50, (classes, classes))
    return matrix + np.diag(rng.integers(10, 200, classes) * classes)


def write_many(
    folder: Path, methods: int = 20, benchmarks: int = 12, classes: int = 171, pictures: int = 0, **changes
) -> Path:
    """A folder a method and benchmark: results.json, confusion.npy, and a gallery of so many pictures."""
    for m in range(methods):
        for b in range(benchmarks):
            work_dir = folder / f'method{m:02d}' / f'bench{b:02d}'
            matrix = method_matrix(100 * m + b, classes)
            record = dict(method=f'method{m:02d}', protocol=f'protocol{m % 4}', backbone='ViT-B/16')
            record |= dict(seconds={'total': 3.0 + m, 'per_image': 1.0 + m / 3})
            write_run(work_dir, matrix, f'bench{b:02d}', **record | changes)
            write_confusion(work_dir / 'confusion.npy', matrix)
            if pictures:
                write_gallery(work_dir / 'gallery', [f'c{i}' for i in range(classes)], pictures, seed=m)
    return folder


def write_gallery(
    folder: Path, names: Sequence[str], pictures: int, seed: int = 0, size: tuple[int, int] = (24, 32)
) -> None:
    """A gallery of pictures `img/<i>.png` with blocks of classes; runs differ by `seed` in how much is wrong."""
    rng = np.random.default_rng(seed)
    classes = len(names)
    gallery = Gallery(folder, max(pictures, 1), PALETTE[:classes], names)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for i in range(pictures):
        path = folder.parent / 'picture.png'
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)).save(path)
        label = np.random.default_rng(i).integers(0, classes, (size[0] // 8, size[1] // 8)).repeat(8, 0).repeat(8, 1)
        prediction = np.where(rng.random(label.shape) < 0.1 * (seed % 7), 0, label)
        pairs, counts = np.unique(label * classes + prediction, return_counts=True)
        cells = np.stack([pairs // classes, pairs % classes, counts], axis=1)
        gallery.offer(f'img/{i}.png', path, label, prediction, cells)
        path.unlink()
