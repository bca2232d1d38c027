"""Pictures for several runs: each is read and resized once, with the ground truth of every run that wants it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmseg.datasets import BaseSegDataset
from torch import Tensor
from torch.utils.data import Dataset

LABEL_STEPS = ('LoadAnnotations', 'LoadWideAnnotations', 'LoadOwnAnnotations', 'IgnoredToBackground')


@dataclass(frozen=True)
class Wanted:
    """A picture: its file, its index in each of some data sets (by their number), and the runs that lack it."""

    path: str
    index: Mapping[int, int]
    runs: tuple[int, ...]


def step_kind(step: Mapping) -> str:
    """The type of a pipeline's step, without the check around it."""
    return step['step']['type'] if step['type'] == 'CheckedStep' else step['type']


def picture_steps(pipeline: Sequence[Mapping]) -> str:
    """What a pipeline does to pictures, as text; two pipelines of one text give the same pictures."""
    return json.dumps([step for step in pipeline if step_kind(step) not in LABEL_STEPS], default=str, sort_keys=True)


def common_steps(pipelines: Sequence[Sequence[Mapping]]) -> int:
    """How many steps pipelines begin with that are the same, and read no labels."""
    count = 0
    for steps in zip(*pipelines, strict=False):
        if any(step != steps[0] for step in steps) or step_kind(steps[0]) in LABEL_STEPS:
            break
        count += 1
    return min(count, min(map(len, pipelines)) - 1)  # packing is never shared: it has the labels, too


class SharedPictures(Dataset):
    """The pictures that several data sets have in common, with the labels that each has for them.

    `pipelines` are the data sets' own, as configs. An item has `inputs` (3, H, W), as the config's pipeline packs it,
    `labels` (1, H, W), `label_path` and `img_path` (as it says) by the number of the data set, `path`, `size` (of the
    labels) and `runs`.
    """

    metainfo: Mapping = {}  # each data set has its own

    def __init__(
        self, datasets: Sequence[BaseSegDataset], pipelines: Sequence[Sequence[Mapping]], pictures: Sequence[Wanted]
    ):
        self.datasets = datasets
        self.pictures = pictures
        self.common = common_steps(pipelines)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> dict:
        wanted = self.pictures[i]
        found: dict[str, object] = {}  # what the common steps made of the picture
        item = {'path': wanted.path, 'runs': wanted.runs, 'labels': {}, 'img_path': {}, 'label_path': {}}
        for number, index in wanted.index.items():
            dataset = self.datasets[number]
            steps, known = dataset.pipeline.transforms, dataset.get_data_info(index)
            if not item['labels']:
                results = dict(known)
                for step in steps[: self.common]:
                    results = step(results)
                found = {key: value for key, value in results.items() if value is not known.get(key)}
            results = dict(known) | found
            for step in steps[self.common :]:
                results = step(results)
            sample = results['data_samples']
            item |= {'inputs': results['inputs'], 'size': tuple(sample.ori_shape[:2])}
            item['labels'][number] = compact(sample.gt_sem_seg.data)
            item['img_path'][number], item['label_path'][number] = sample.img_path, sample.seg_map_path
        return item


def compact(labels: Tensor) -> Tensor:
    """Labels in as few bytes as they need, which have to travel between processes."""
    highest = int(labels.max()) if labels.numel() else 0
    if labels.numel() and int(labels.min()) < 0:
        return labels
    return labels.to(torch.uint8 if highest < 256 else torch.int32)
