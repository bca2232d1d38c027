"""Data sets of the published configs that MMSegmentation lacks or names otherwise, and reading that tells on files."""

import os
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset, COCOStuffDataset, PascalContextDataset, PascalVOCDataset
from mmseg.datasets.pascal_context import PascalContextDataset59
from mmseg.registry import DATASETS, TRANSFORMS
from mmseg.utils import register_all_modules
from PIL import Image

from clip.folders import with_spare
from naclip.files import read_whole
from naclip.runs.journal import picture_key
from naclip.shapes import generator as shapes
from naclip.walk.text import default_cache_dir
from naclip.walk.vocabulary import read_vocabulary

# The published configs' names for classes that MMSegmentation has.
DATASETS.register_module(name='PascalContext60Dataset', module=PascalContextDataset)
DATASETS.register_module(name='PascalContext59Dataset', module=PascalContextDataset59)


@DATASETS.register_module()
class PascalVOC20Dataset(PascalVOCDataset):
    """PASCAL VOC 2012 without background: label 0 is ignored, the 20 classes start at 0."""

    METAINFO: ClassVar[dict] = {key: PascalVOCDataset.METAINFO[key][1:] for key in ('classes', 'palette')}

    def __init__(self, reduce_zero_label: bool = True, **kwargs):
        super().__init__(reduce_zero_label=reduce_zero_label, **kwargs)


@DATASETS.register_module()
class COCOObjectDataset(BaseSegDataset):
    """COCO's 80 thing classes and background (label 0), as datasets/cvt_coco_object.py writes them."""

    METAINFO: ClassVar[dict] = dict(
        classes=('background', *COCOStuffDataset.METAINFO['classes'][:80]),
        palette=[[0, 0, 0], *COCOStuffDataset.METAINFO['palette'][:80]],
    )

    def __init__(self, img_suffix: str = '.jpg', seg_map_suffix: str = '_instanceTrainIds.png', **kwargs):
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


@DATASETS.register_module()
class WideLabelDataset(BaseSegDataset):
    """A data set whose label maps have 16 bits, for more than 255 classes; 65535 is ignored.

    Class names come from a class-name file (the first of each class), colours from a fixed seed.
    """

    def __init__(
        self,
        class_file: str | os.PathLike,
        img_suffix: str = '.jpg',
        seg_map_suffix: str = '.tif',
        ignore_index: int = 65535,
        **kwargs,
    ):
        classes = [names[0] for names in read_vocabulary(class_file).classes]
        palette = np.random.RandomState(0).randint(0, 256, (len(classes), 3)).tolist()
        kwargs['metainfo'] = dict(classes=classes, palette=palette)
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, ignore_index=ignore_index, **kwargs)


@cache
def checked_shapes(cache_dir: Path) -> str:
    """The folder of the embedded benchmark, checked once in a process, however often the data set is built.

    It is below `cache_dir`, or among temporary files where nobody can write there.
    """
    return str(with_spare(shapes.ensure_dataset, cache_dir))


@DATASETS.register_module()
class ShapesDataset(BaseSegDataset):
    """The embedded benchmark: generated pictures, made in a cache folder on first use."""

    METAINFO: ClassVar[dict] = dict(classes=shapes.CLASSES, palette=[list(colour) for colour in shapes.PALETTE])

    def __init__(self, data_root: str | None = None, img_suffix: str = '.png', seg_map_suffix: str = '.png', **kwargs):
        root = data_root or checked_shapes(default_cache_dir())
        super().__init__(data_root=root, img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


@TRANSFORMS.register_module()
class LoadWideAnnotations(BaseTransform):
    """`LoadAnnotations` that keeps 16-bit label values, where MMSegmentation's cuts them to 8."""

    def transform(self, results: dict) -> dict:
        with Image.open(results['seg_map_path']) as file:
            results['gt_seg_map'] = np.asarray(file).astype(np.int32)
        results['seg_fields'].append('gt_seg_map')
        return results


@TRANSFORMS.register_module()
class CentreSquare(BaseTransform):
    """Resize the short side and keep the middle square, of the picture (bicubic) and of the labels (nearest).

    As CLIP's own preprocessing. The square counts as the original picture. Labels are loaded before.
    """

    def __init__(self, side: int):
        self.side = side

    def transform(self, results: dict) -> dict:
        results['img'] = self._square(results['img'], 'bicubic')
        for key in results['seg_fields']:
            results[key] = self._square(results[key], 'nearest')
        results['img_shape'] = results['ori_shape'] = (self.side, self.side)
        return results

    def _square(self, array: np.ndarray, interpolation: str) -> np.ndarray:
        from torchvision.transforms import InterpolationMode  # takes seconds, and few protocols need it
        from torchvision.transforms import functional as pil

        resized = pil.resize(Image.fromarray(array), self.side, InterpolationMode(interpolation))
        return np.array(pil.center_crop(resized, self.side))


@TRANSFORMS.register_module()
class IgnoredToBackground(BaseTransform):
    """Ignored pixels of 8-bit labels (255) become background (0)."""

    def transform(self, results: dict) -> dict:
        labels = results['gt_seg_map']
        results['gt_seg_map'] = np.where(labels == 255, 0, labels)
        return results


@TRANSFORMS.register_module()
class CheckedStep(BaseTransform):
    """A pipeline step that reads a file, made to name the file when it cannot be read.

    Raises:
        ValueError: the step failed, or the file is cut short.
    """

    def __init__(self, step: dict, reads: str):
        self.step = TRANSFORMS.build(step)
        self.reads = reads  # key of the file's path

    def transform(self, results: dict) -> dict | None:
        path = Path(results[self.reads])
        try:
            read_whole(path)
            return self.step(results)
        except Exception as error:  # decoders raise anything, asserts included
            raise ValueError(f'cannot read {path}: {error}'.replace('\n', ' ')) from error


def register_all() -> None:
    """Let configs name whatever MMSegmentation and the toolkit have."""
    register_all_modules(init_default_scope=True)


def build_dataset(config: Config, benchmark: str) -> BaseSegDataset:
    """The data set of a config; its files may be missing.

    Raises:
        ValueError: the data set cannot be built.
    """
    try:
        # Serialising, which saves memory between workers, stumbles over an empty data set.
        return DATASETS.build(dict(config.test_dataloader.dataset, serialize_data=False))
    except (KeyError, TypeError, AssertionError) as error:
        raise ValueError(f'benchmark {benchmark}: cannot build the data set: {error}') from error


def choose_pictures(dataset: BaseSegDataset, limit: int | None) -> dict[str, int]:
    """The keys of the pictures to evaluate, the first `limit` of the data set, and their index in it.

    Raises:
        ValueError: the data set lists a picture twice.
    """
    pictures: dict[str, int] = {}
    for i in range(min(limit or len(dataset), len(dataset))):
        path = dataset.get_data_info(i)['img_path']
        if pictures.setdefault(picture_key(path, dataset.data_root), i) != i:
            raise ValueError(f'the data set lists {path} twice; pictures are counted once, so list it once')
    return pictures


def check_files(dataset: BaseSegDataset, benchmark: str) -> None:
    """Make sure, before hours are spent, that every picture and label map of a data set is there.

    Raises:
        FileNotFoundError: no picture at all, or some file is missing; names the first, and how many there are.
    """
    pairs = [dataset.get_data_info(i) for i in range(len(dataset))]
    if not pairs:
        raise FileNotFoundError(
            f'benchmark {benchmark}: no *{dataset.img_suffix} picture in {dataset.data_prefix["img_path"]}'
        )
    missing = [path for pair in pairs for path in (pair['img_path'], pair['seg_map_path']) if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(
            f'benchmark {benchmark}: {missing[0]} is missing ({len(missing)} files in all); '
            'docs/data.md says how the data are made, datasets/check.py what is wrong with them'
        )
