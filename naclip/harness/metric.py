"""MMSegmentation's IoU metric with exact pixel counts, kept for the results file."""

from collections.abc import Sequence

import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from naclip.runs.journal import Journal, count_cells, picture_key
from naclip.runs.results import PixelCounts


@METRICS.register_module()
class PixelCountIoUMetric(IoUMetric):
    """`IoUMetric` that sums in float64 (float32 stops counting at 16.7 million pixels) and keeps the sums.

    After `evaluate`, on the main process: `counts` has the data set's pixel counts, `images` the number of pictures,
    `scores` what follows. `labelled_only`: mIoU is the mean over the classes that the ground truth has.

    With a `journal`, every picture is kept there as well, under its path below `data_root`. `earlier` has the pixel
    counts of pictures that earlier attempts kept, and how many they are: they are added.
    """

    default_prefix = ''  # metric names stand alone

    def __init__(self, collect_dir: str | None = None, labelled_only: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.labelled_only = labelled_only
        self.collect_dir = collect_dir  # where several processes put their counts; IoUMetric drops this argument
        self.counts: PixelCounts | None = None
        self.images = 0
        self.scores: dict[str, float] = {}
        self.journal: Journal | None = None
        self.data_root: str | None = None
        self.earlier: tuple[PixelCounts, int] | None = None

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
                    f'0 to {classes - 1} or {self.ignore_index} (ignored); is it a raw label map? See docs/data.md'
                )
        super().process(data_batch, data_samples)
        if self.journal is not None:
            for sample in data_samples:
                pred, label = sample['pred_sem_seg']['data'], sample['gt_sem_seg']['data']
                cells = count_cells(pred, label, classes, self.ignore_index)
                self.journal.append(picture_key(sample['img_path'], self.data_root), cells)

    def evaluate(self, size: int) -> dict[str, float]:
        if self.journal is not None:
            self.journal.close()  # the main process reads it after the processes have met in here
        return super().evaluate(size)

    def compute_metrics(self, results: list) -> dict[str, float]:
        self.images = len(results)
        if self.earlier is not None:
            counts, images = self.earlier
            areas = (counts.intersect, counts.union, counts.pred, counts.label)
            results = [*results, tuple(map(torch.tensor, areas))]
            self.images += images
        results = [tuple(area.double() for area in areas) for areas in results]
        self.counts = PixelCounts(*(torch.stack(areas).sum(0).long().tolist() for areas in zip(*results, strict=True)))
        self.scores = self.counts.metrics(self.labelled_only)
        printed = super().compute_metrics(results)
        return printed | ({'mIoU': round(self.scores['mIoU'], 2)} if self.labelled_only else {})
