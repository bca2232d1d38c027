"""The model that a Runner gets: the segmentors of several runs, which judge the same pictures together."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext

import torch
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from naclip.harness.segmentor import NACLIP
from naclip.panel import Clock, Panel, View


class Judges(BaseModel):
    """Segmentors, one a run, as a panel. Batches are lists of items of `naclip.harness.loading.SharedPictures`.

    `datasets` has for each run the number of its data set there. `failed(runs, error)` is told of runs that cannot go
    on: it raises, or they are left out from then on.
    """

    def __init__(
        self,
        segmentors: Sequence[NACLIP],
        datasets: Sequence[int],
        failed: Callable[[Sequence[int], Exception], None],
        clock: Clock = nullcontext,
    ):
        super().__init__()
        self.segmentors = list(segmentors)  # whose towers are the panel's
        self.datasets = list(datasets)
        self.panel = Panel([segmentor.pipeline for segmentor in segmentors], clock)
        self.device = segmentors[0].pipeline.net.device
        self.clock = clock
        self.pictures = 0  # that were judged
        self.out: set[int] = set()
        self._told = failed

    def failed(self, runs: Sequence[int], error: Exception) -> None:
        """Leave runs out from now on, because of an error."""
        new = [run for run in runs if run not in self.out]
        self.out |= set(new)
        if new:
            self._told(new, error)

    @torch.no_grad()
    def test_step(self, batch: Sequence[dict]) -> list[SegDataSample]:
        """What each run predicts for each picture of a batch: samples with `run`, prediction and ground truth."""
        samples = []
        self.pictures += len(batch)
        by_runs: dict[tuple[int, ...], list[dict]] = {}
        for item in batch:
            runs = tuple(run for run in item['runs'] if run not in self.out)
            if runs:
                by_runs.setdefault(runs, []).append(item)
        for runs, items in by_runs.items():
            with self.clock('to the device'):
                views = [self._views(item, runs) for item in items]
                labels = [
                    {n: tensor.to(self.device, non_blocking=True) for n, tensor in item['labels'].items()}
                    for item in items
                ]
            for run, i, predicted in self.panel(views, runs, self.failed):
                item, dataset = items[i], self.datasets[run]
                sample = SegDataSample(
                    metainfo={
                        'img_path': item['img_path'][dataset],
                        'seg_map_path': item['label_path'][dataset],
                        'ori_shape': item['size'],
                        'run': run,
                    }
                )
                sample.gt_sem_seg = PixelData(data=labels[i][dataset])
                sample.pred_sem_seg = PixelData(data=predicted[0])
                samples.append(sample)
        return samples

    def _views(self, item: dict, runs: Sequence[int]) -> dict[int, View]:
        """A picture as each run gets it; one view for those that get the same."""
        raw = item['inputs'].to(self.device, non_blocking=True)
        images: dict[Hashable, Tensor] = {}
        masks: dict[str, Tensor] = {}
        views: dict[Hashable, View] = {}
        found = {}
        for run in runs:
            segmentor = self.segmentors[run]
            look = segmentor.normalisation
            if look not in images:
                images[look] = segmentor.data_preprocessor({'inputs': [raw]})['inputs']
            folder = None if segmentor.masks is None else str(segmentor.masks.folder)
            if folder is not None and folder not in masks:
                masks[folder] = segmentor.masks.read(item['path'], item['size'])
            key = (look, folder)
            if key not in views:
                views[key] = View(images[look], item['size'], masks.get(folder))
            found[run] = views[key]
        return found

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """There is only `test_step`.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError('several runs at once only predict: call test_step')
