"""MMSegmentation's IoU metric with exact pixel counts, kept for the results file."""

from collections.abc import Sequence

import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from naclip.results import PixelCounts


@METRICS.register_module()
class PixelCountIoUMetric(IoUMetric):
    """`IoUMetric` that sums in float64 (float32 stops counting at 16.7 million pixels) and keeps the sums.

    After `evaluate`, `counts` on the main process has the data set's pixel counts and `images` their number.
    """

    default_prefix = ''  # metric names stand alone

    def __init__(self, collect_dir: str | None = None, **kwargs):
        super().__init__(**kwargs)
        self.collect_dir = collect_dir  # where several processes put their counts; IoUMetric drops this argument
        self.counts: PixelCounts | None = None
        self.images = 0

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count one batch.

        Raises:
            ValueError: a label map has values outside the data set's classes; names the file and the values.
        """
        classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            labels = sample['gt_sem_seg']['data']
            strange = labels[(labels >= classes) & (labels != self.ignore_index)]
            if len(strange):
                raise ValueError(
                    f'{sample["seg_map_path"]} has label values {torch.unique(strange).tolist()[:10]}, expected '
                    f'0 to {classes - 1} or {self.ignore_index} (ignored); is it a raw label map that needs conversion?'
                )
        super().process(data_batch, data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        results = [tuple(area.double() for area in areas) for areas in results]
        self.counts = PixelCounts(*(torch.stack(areas).sum(0).long().tolist() for areas in zip(*results, strict=True)))
        self.images = len(results)
        return super().compute_metrics(results)
