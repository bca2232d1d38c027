"""One benchmark class by class: every method's IoU, what they differ in, what each confuses. K classes, M runs."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from naclip.reports.runs import Run, row_shares, worst_pairs


@dataclass(frozen=True, eq=False)
class ClassTable:
    """The IoU of K classes under M runs in percent (K, M); NaN for a class neither labelled nor predicted."""

    benchmark: str
    names: tuple[str, ...]
    runs: tuple[Run, ...]
    iou: np.ndarray

    @property
    def spread(self) -> np.ndarray:
        """Highest less lowest IoU of each class (K,); NaN where fewer than two runs have one."""
        known = ~np.isnan(self.iou)
        highest = np.where(known, self.iou, -np.inf).max(axis=1)
        lowest = np.where(known, self.iou, np.inf).min(axis=1)
        return np.where(known.sum(axis=1) > 1, highest - lowest, np.nan)

    @property
    def order(self) -> list[int]:
        """The classes, most spread first; those without a spread last."""
        return np.argsort(-np.nan_to_num(self.spread, nan=-1), kind='stable').tolist()


def class_tables(runs: Iterable[Run]) -> list[ClassTable]:
    """A table for each benchmark, in order of appearance; runs with other class names have one of their own."""
    groups: dict[tuple[str, tuple[str, ...]], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.benchmark, tuple(run.class_names)), []).append(run)
    return [
        ClassTable(benchmark, names, tuple(members), np.array([run.counts.iou() for run in members]).T)
        for (benchmark, names), members in groups.items()
    ]


def confused_pairs(matrix: np.ndarray, count: int = 10) -> list[tuple[int, int, int, float]]:
    """The pairs (ground truth, prediction, pixels, % of the class's pixels) that most pixels are confused in."""
    shares = 100 * row_shares(matrix)
    return [(i, j, pixels, float(shares[i, j])) for i, j, pixels in worst_pairs(matrix, count)]
