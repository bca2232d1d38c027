"""Write miniature data sets in the exact on-disk layout of every benchmark.

    python fake_datasets.py ROOT [SEED]

Pictures and label maps are drawn from NumPy's frozen legacy generator and
stored losslessly (PNG data under each benchmark's usual file name), so every
machine evaluates the same pixels.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

# name: (image path, label path, label values, ignore value, split file)
BENCHMARKS = {
    'voc': ('JPEGImages/{n}.jpg', 'SegmentationClass/{n}.png', range(0, 21), 'ImageSets/Segmentation/val.txt'),
    'context': (
        'JPEGImages/{n}.jpg',
        'SegmentationClassContext/{n}.png',
        range(0, 60),
        'ImageSets/SegmentationContext/val.txt',
    ),
    'ade20k': ('images/validation/{n}.jpg', 'annotations/validation/{n}.png', range(0, 151), None),
    'cityscapes': (
        'leftImg8bit/val/{c}/{c}_{n}_leftImg8bit.png',
        'gtFine/val/{c}/{c}_{n}_gtFine_labelTrainIds.png',
        range(0, 19),
        None,
    ),
    'coco_stuff164k': ('images/val2017/{n}.jpg', 'annotations/val2017/{n}_labelTrainIds.png', range(0, 171), None),
    'coco_object': ('images/val2017/{n}.jpg', 'annotations/val2017/{n}_instanceTrainIds.png', range(0, 81), None),
    'coco_stuff10k': ('images/test2014/{n}.jpg', 'annotations/test2014/{n}_labelTrainIds.png', range(0, 172), None),
}
SIZES = ((96, 128), (128, 97), (75, 160))  # (height, width) of the pictures of one benchmark


def write_benchmark(root, name, seed=0):
    """Write benchmark `name` under `root`/`name`; return that folder."""
    image_path, label_path, labels, split = BENCHMARKS[name]
    rng = np.random.RandomState(seed * 1000 + sorted(BENCHMARKS).index(name))
    folder, stems = Path(root) / name, []
    for i, (height, width) in enumerate(SIZES):
        stem = f'{i:06d}'
        stems.append(stem)
        coarse = rng.randint(0, 256, (height // 16 + 1, width // 16 + 1, 3)).astype(np.uint8)
        picture = np.kron(coarse, np.ones((16, 16, 1), np.uint8))[:height, :width]
        picture = np.clip(picture.astype(int) + rng.randint(-20, 21, picture.shape), 0, 255).astype(np.uint8)
        regions = rng.choice(np.asarray(labels), (height // 24 + 1, width // 24 + 1)).astype(np.uint8)
        label = np.kron(regions, np.ones((24, 24), np.uint8))[:height, :width].copy()
        label[rng.random_sample(label.shape) < 0.02] = 255
        for template, array in ((image_path, picture), (label_path, label)):
            path = folder / template.format(n=stem, c='zurich')
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path, format='PNG')
    if split:
        path = folder / split
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('\n'.join(stems) + '\n')
    return folder


if __name__ == '__main__':
    for benchmark in BENCHMARKS:
        write_benchmark(sys.argv[1], benchmark, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
