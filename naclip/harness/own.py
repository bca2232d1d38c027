"""Evaluation of a folder of pictures and one of label maps, without a config."""

import argparse
import os
from pathlib import Path

from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS

from naclip.data.own import find_own_pairs, read_palette, read_values, reduced
from naclip.files import REPOSITORY
from naclip.pictures.drawing import class_colours
from naclip.walk.vocabulary import read_vocabulary

BACKGROUND_THD = 0.1  # as in the benchmarks that have a background
IGNORE = (255, 65535)  # of label maps of 8 and of 16 bits


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """Pictures below one folder and their label maps below another; class names come from a class-name file."""

    def __init__(
        self,
        images: str | os.PathLike,
        labels: str | os.PathLike,
        class_file: str | os.PathLike,
        label_suffix: str | None = None,
        data_root: str | None = None,
        **kwargs,
    ):
        self.images, self.labels, self.label_suffix = Path(images), Path(labels), label_suffix
        classes = [names[0] for names in read_vocabulary(class_file).classes]
        palette = class_colours(len(classes), classes[0] == 'background').tolist()
        prefix = dict(img_path=str(images), seg_map_path=str(labels))
        super().__init__(data_root=None, data_prefix=prefix, metainfo=dict(classes=classes, palette=palette), **kwargs)
        self.data_root = str(images)
        self.seg_map_suffix = label_suffix or '.png'

    def load_data_list(self) -> list[dict]:
        pairs = find_own_pairs(self.images, self.labels, self.label_suffix)
        common = dict(label_map=None, reduce_zero_label=self.reduce_zero_label, seg_fields=[])
        return [dict(img_path=str(pair.picture), seg_map_path=str(pair.label), **common) for pair in pairs]


@TRANSFORMS.register_module()
class LoadOwnAnnotations(BaseTransform):
    """Label maps of 8 or 16 bits, or of a palette's colours."""

    def __init__(self, ignore_index: int, palette: str | None = None):
        self.ignore_index = ignore_index
        self.palette = read_palette(Path(palette)) if palette else None

    def transform(self, results: dict) -> dict:
        values = read_values(Path(results['seg_map_path']), self.palette)
        results['gt_seg_map'] = reduced(values, self.ignore_index, results['reduce_zero_label'])
        results['seg_fields'].append('gt_seg_map')
        return results


def own_benchmark_name(images: str | os.PathLike) -> str:
    """What results call the pictures of a folder: its name and the one above, 'cars_images' of 'data/cars/images'."""
    return '_'.join(part for part in Path(images).resolve().parts[-2:] if part != os.sep) or 'own'


def own_ignore_index(options: argparse.Namespace, classes: int) -> int:
    """The label value that is ignored: --ignore-index, else 255, or beyond 255 classes 65535.

    Raises:
        ValueError: it is the value of a class.
    """
    index = options.ignore_index
    highest = classes - 1 + int(options.reduce_zero_label)
    if index is None:
        return next(value for value in IGNORE if value > highest)
    if index <= highest:
        raise ValueError(f'--ignore-index {index} is the label value of a class: there are {classes}, up to {highest}')
    return index


def own_config(options: argparse.Namespace) -> Config:
    """The toolkit's base config on the folders that options name.

    Raises:
        ValueError, FileNotFoundError: an option that makes no sense, or a file that is missing.
    """
    config = Config.fromfile(REPOSITORY / 'configs' / 'base_config.py')
    if options.name_path is None:
        raise ValueError('--images and --labels need --name-path FILE: the class of each label value, one a line')
    classes = len(read_vocabulary(options.name_path).classes)
    ignore_index = own_ignore_index(options, classes)
    if options.palette:
        values = int((read_palette(Path(options.palette))[1] >= 0).sum())
        expected = classes + int(options.reduce_zero_label)
        if values != expected:
            raise ValueError(f'palette file {options.palette} has {values} colours that count, expected {expected}')
    config.model.name_path = str(options.name_path)
    config.model.prob_thd = BACKGROUND_THD if options.background else 0.0
    pipeline = [step for step in config.test_pipeline if step.type != 'LoadAnnotations']
    load = dict(type='LoadOwnAnnotations', ignore_index=ignore_index, palette=options.palette)
    config.test_dataloader.dataset = dict(
        type='FolderDataset',
        images=str(options.images),
        labels=str(options.labels),
        class_file=str(options.name_path),
        label_suffix=options.label_suffix,
        reduce_zero_label=options.reduce_zero_label,
        ignore_index=ignore_index,
        pipeline=[*pipeline[:-1], load, pipeline[-1]],
    )
    config.test_evaluator.ignore_index = ignore_index
    return config
