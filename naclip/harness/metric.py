"""MMSegmentation's IoU metric with exact pixel counts, kept for the results file; and one such metric for each run."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor

from naclip.runs.counting import count_table, counted, label_rows
from naclip.runs.gallery import Gallery
from naclip.runs.journal import Journal, check_labels, confusion_matrix, picture_key, pixel_counts, read_journal
from naclip.runs.results import PixelCounts

LAG = 16  # pictures whose counts may be under way from the device


class _Pending(NamedTuple):
    """A picture whose table is on its way to the CPU; there when `ready` is."""

    sample: dict
    table: Tensor
    ready: torch.cuda.Event | None


@METRICS.register_module()
class PixelCountIoUMetric(IoUMetric):
    """`IoUMetric` that counts every picture once, exactly (float32 stops counting at 16.7 million pixels).

    After `evaluate`, on the main process: `cells` has what was counted of each picture, `counts` the data set's pixel
    counts, `images` the number of pictures, `scores` what follows. `labelled_only`: mIoU is the mean over the classes
    that the ground truth has.

    A `gallery` keeps some pictures to look at. With a `journal`, every picture is kept there, under its path below
    `data_root`, and what is in the end counted are the journal's records of the `pictures`, whichever attempt and
    process they come from.
    """

    default_prefix = ''  # metric names stand alone

    def __init__(self, labelled_only: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.labelled_only = labelled_only
        self.counts: PixelCounts | None = None
        self.images = 0
        self.scores: dict[str, float] = {}
        self.cells: dict[str, np.ndarray] = {}
        self.journal: Journal | None = None
        self.journal_folder: Path | None = None
        self.gallery: Gallery | None = None
        self.pictures: Sequence[str] = ()
        self.data_root: str | None = None
        self._pending: deque[_Pending] = deque()

    @property
    def classes(self) -> int:
        """K."""
        return len(self.dataset_meta['classes'])

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count one batch.

        Raises:
            ValueError: a label map has values outside the data set's classes; names the file and the values.
        """
        for sample in data_samples:
            label = sample['gt_sem_seg']['data']
            self.count(sample, label_rows(label.to(sample['pred_sem_seg']['data'].device), *self.rows_key))

    @property
    def rows_key(self) -> tuple[int, int]:
        """What a picture's `label_rows` depend on, beside its labels."""
        return self.classes, self.ignore_index

    def count(self, sample: dict, rows: Tensor) -> None:
        """Count one picture, given the `label_rows` of its ground truth, without waiting for its device."""
        table, ready = count_table(sample['pred_sem_seg']['data'], rows, self.classes), None
        if table.is_cuda:
            table = table.to('cpu', non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        self._pending.append(_Pending(sample, table, ready))
        while self._pending and (len(self._pending) > LAG or self._is_there(self._pending[0])):
            self._keep(self._pending.popleft())

    @staticmethod
    def _is_there(pending: _Pending) -> bool:
        return pending.ready is None or pending.ready.query()

    def _keep(self, pending: _Pending) -> None:
        if pending.ready is not None:
            pending.ready.synchronize()
        sample, (cells, strange) = pending.sample, counted(pending.table)
        if strange:
            check_labels(sample['gt_sem_seg']['data'], *self.rows_key, sample['seg_map_path'])
        self.results.append(cells)
        key = picture_key(sample.get('img_path', ''), self.data_root)
        if self.gallery is not None:  # before the journal, which says that nothing of the picture is missing
            labels = (sample[name]['data'] for name in ('gt_sem_seg', 'pred_sem_seg'))
            self.gallery.offer(key, sample['img_path'], *labels, cells)
        if self.journal is not None:
            self.journal.append(key, cells)

    def flush(self) -> None:
        """Wait for what is under way, and keep it."""
        while self._pending:
            self._keep(self._pending.popleft())

    def evaluate(self, size: int) -> dict[str, float]:
        self.flush()
        if self.journal_folder is None:
            return super().evaluate(size)
        if self.journal is not None:
            self.journal.close()
        barrier()  # then every process has written its journal
        metrics: list[dict | None] = [None]
        if is_main_process():
            records, _ = read_journal(self.journal_folder)
            self.cells = {key: records[key].cells for key in self.pictures if key in records}
            metrics = [self.compute_metrics(list(self.cells.values()))]
        broadcast_object_list(metrics)
        self.results.clear()
        return metrics[0]

    def compute_metrics(self, results: Sequence[np.ndarray]) -> dict[str, float]:
        """Scores of pictures, given the cells (N, 3) of each."""
        self.images = len(results)
        self.counts = pixel_counts(confusion_matrix(results, self.classes))
        self.scores = self.counts.metrics(self.labelled_only)
        counts = (self.counts.intersect, self.counts.union, self.counts.pred, self.counts.label)
        printed = super().compute_metrics([tuple(torch.tensor(areas, dtype=torch.float64) for areas in counts)])
        return printed | ({'mIoU': round(self.scores['mIoU'], 2)} if self.labelled_only else {})


class RunsEvaluator(Evaluator):
    """The metrics of several runs that go over the same pictures; each sample says by `run` whose it is.

    `failed(run, error)` is told of a run whose ground truth cannot be counted; it raises, or the run ends there.
    """

    def __init__(self, metrics: Sequence[PixelCountIoUMetric], names: Sequence[str], failed):
        super().__init__(list(metrics))
        self.names = names
        self.failed = failed

    @property
    def dataset_meta(self) -> None:
        """There is none: each run's metric has its own."""

    @dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        """MMEngine's loop assigns that of the loader's data set."""

    def process(self, data_samples: Sequence[BaseDataElement], data_batch: object = None) -> None:
        rows: dict[tuple, Tensor] = {}
        for sample in data_samples:
            metric, label = self.metrics[sample.run], sample.gt_sem_seg.data
            key = (id(label), *metric.rows_key)
            if key not in rows:
                rows[key] = label_rows(label, *metric.rows_key)
            try:
                metric.count(sample.to_dict(), rows[key])
            except ValueError as error:
                self.failed([sample.run], error)

    def evaluate(self, size: int) -> dict[str, float]:
        scores = {}
        for name, metric in zip(self.names, self.metrics, strict=True):
            scores |= {f'{name}/{key}' if name else key: value for key, value in metric.evaluate(size).items()}
        return scores
