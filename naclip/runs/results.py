"""What a run leaves behind: pixel counts, the metrics that follow, and all that is needed to compare it."""

import contextlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from naclip.files import PACKAGE, REPOSITORY, written_whole

# The layout of results.json: docs/results.schema.json. Records before 1 do not say it; reports read all.
SCHEMA = 1
SCORED = 'scored'  # the protocol of label maps that were made elsewhere
RESULTS, CONFUSION, PER_IMAGE = 'results.json', 'confusion.npy', 'per_image.csv'  # in the work directory
PACKAGES = ('torch', 'torchvision', 'numpy', 'opencv-python', 'pillow', 'safetensors', 'open_clip_torch', 'timm')
OPENMMLAB = ('mmengine', 'mmcv', 'mmsegmentation')  # each also as a fork, 'onedl-...'


@dataclass(frozen=True)
class PixelCounts:
    """Pixels per class, over a data set: hit, in prediction or label, predicted, labelled."""

    intersect: Sequence[int]
    union: Sequence[int]
    pred: Sequence[int]
    label: Sequence[int]

    def iou(self) -> list[float]:
        """Intersection over union per class in percent; NaN for a class neither labelled nor predicted."""
        return [_percent(i, u) for i, u in zip(self.intersect, self.union, strict=True)]

    def acc(self) -> list[float]:
        """Share of each class's labelled pixels that were hit, in percent; NaN for a class not labelled."""
        return [_percent(i, n) for i, n in zip(self.intersect, self.label, strict=True)]

    def metrics(self, labelled_only: bool = False) -> dict[str, float]:
        """mIoU, aAcc (of all pixels) and mAcc in percent, as MMSegmentation defines them: means skip NaN.

        `labelled_only`: mIoU skips classes that are not labelled, predicted or not.
        """
        iou = [value for value, n in zip(self.iou(), self.label, strict=True) if n or not labelled_only]
        return {
            'mIoU': _mean(iou),
            'aAcc': _percent(sum(self.intersect), sum(self.label)),
            'mAcc': _mean(self.acc()),
        }

    def table(self, names: Sequence[str]) -> list[dict]:
        """One record a class."""
        columns = zip(names, self.iou(), self.acc(), self.intersect, self.union, self.pred, self.label, strict=True)
        keys = ('name', 'iou', 'acc', 'intersect', 'union', 'pred', 'label')
        return [dict(zip(keys, row, strict=True)) for row in columns]


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else math.nan


def _mean(values: Sequence[float]) -> float:
    counted = [value for value in values if not math.isnan(value)]
    return sum(counted) / len(counted) if counted else math.nan


def write_results(path: str | os.PathLike, record: Mapping) -> None:
    """Write a JSON file that is there whole or not at all; NaN becomes null."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_without_nan(record), indent=1, ensure_ascii=False, allow_nan=False)
    with written_whole(path) as temporary:
        temporary.write_text(text + '\n', encoding='utf-8')


def write_confusion(path: str | os.PathLike, confusion: np.ndarray) -> None:
    """Write a confusion matrix as a .npy file that is there whole or not at all."""
    with written_whole(Path(path)) as temporary, temporary.open('wb') as file:
        np.save(file, confusion)


def _without_nan(value):
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def package_versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that numbers may depend on."""
    names = [*PACKAGES, *OPENMMLAB, *(f'onedl-{name}' for name in OPENMMLAB)]
    versions = {'python': platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def git_commit() -> str | None:
    """The commit of this checkout, with '+changes' if tracked files differ; None outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ['git', '-C', str(REPOSITORY), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    if REPOSITORY == PACKAGE:  # installed: a repository around it is somebody else's
        return None
    try:
        return git('rev-parse', 'HEAD') + ('+changes' if git('status', '--porcelain', '-uno') else '')
    except (OSError, subprocess.CalledProcessError):
        return None


def device_name(device: torch.device) -> str:
    """The device in words: the GPU's name, or the processor's and the number of threads."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), platform.machine())
    return f'{model}, {torch.get_num_threads()} threads'
