"""Counting pixels by their labelled and predicted class, on the device where they are, without waiting for it.

Shapes: H, W pixels; K classes. A table (K + 2, K) has a row for each labelled class, one for ignored pixels and one for
labels that are no class.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Counted(NamedTuple):
    """One picture: its cells (N, 3), each a label class, a predicted class and their pixels; and pixels of no class."""

    cells: np.ndarray
    strange: int


def label_rows(label: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Where in a table the row of each labelled pixel begins: integers (H, W) -> int64 (H*W,)."""
    label = label.flatten().long()
    row = torch.where((label >= 0) & (label < classes), label, classes + 1)
    return torch.where(label == ignore_index, classes, row) * classes


def count_table(pred: Tensor, rows: Tensor, classes: int) -> Tensor:
    """The table (K + 2, K) of predicted classes (H, W) on `label_rows` of the same picture, on the device of `pred`."""
    pairs = rows + pred.flatten()
    size = (classes + 2) * classes
    if pairs.is_cuda:  # where bincount would wait for the largest
        table = torch.zeros(size, dtype=torch.int32, device=pairs.device)
        table.scatter_add_(0, pairs, torch.ones((), dtype=torch.int32, device=pairs.device).expand_as(pairs))
    else:
        table = torch.bincount(pairs, minlength=size)
    return table.view(classes + 2, classes)


def counted(table: Tensor) -> Counted:
    """What a table on the CPU says, in the order of its rows."""
    numbers = table.numpy()
    label, pred = numbers[:-2].nonzero()
    cells = np.stack([label, pred, numbers[label, pred]], axis=1).astype(np.int64)
    return Counted(cells, int(numbers[-1].sum()))
