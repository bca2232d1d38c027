"""The journal of a run: one record a picture, kept as the run goes, so that a killed run can go on.

A record is the picture's sparse confusion: `cells` (N, 3), int64, each row a label class, a predicted class and their
pixels, ignored pixels left out. Every score of the picture and of the data set follows from it. Nothing here knows
MMSegmentation.

WORK_DIR/counts/ has a file <attempt>-<rank>.jsonl of every process of every attempt. Files only grow, and only while
their process lives: what a killed process leaves is whole lines and perhaps the beginning of one.
"""

import json
import logging
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from naclip.runs.counting import count_table, counted, label_rows
from naclip.runs.results import PixelCounts

SUFFIX = '.jsonl'
_CHECK = re.compile(rb',"crc32":"([0-9a-f]{8})"}')  # ends every line, and is over all before it
_NAME = re.compile(rf'(\d+)-(\d+){re.escape(SUFFIX)}')
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """One picture: its key in the data set, its cells (N, 3), and the seconds that its attempt had run by then."""

    image: str
    cells: np.ndarray
    seconds: float


def picture_key(img_path: str | os.PathLike, data_root: str | os.PathLike | None) -> str:
    """What a picture is called in the journal: its path below the data set's folder; elsewhere its path as it is."""
    path, root = Path(img_path), Path(data_root or '')
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def check_labels(label: Tensor, classes: int, ignore_index: int, path: str | os.PathLike) -> None:
    """Make sure that a label map holds classes and ignored pixels only.

    Raises:
        ValueError: it has other values; names the file and the values.
    """
    strange = label[((label >= classes) | (label < 0)) & (label != ignore_index)]
    if len(strange):
        raise ValueError(
            f'{path} has label values {strange.unique().tolist()[:10]}, expected 0 to {classes - 1} or '
            f'{ignore_index} (ignored); is it a raw label map? See docs/data.md'
        )


def count_cells(pred: Tensor, label: Tensor, classes: int, ignore_index: int) -> np.ndarray:
    """The cells (N, 3) of a picture's predicted and labelled classes, two integer maps of one shape."""
    return counted(count_table(pred, label_rows(label.to(pred.device), classes, ignore_index), classes).cpu()).cells


def confusion_matrix(pictures: Iterable[np.ndarray], classes: int) -> np.ndarray:
    """The sum of pictures' cells: int64 (K, K), rows are labels, columns are predictions."""
    matrix = np.zeros((classes, classes), np.int64)
    for cells in pictures:
        matrix[cells[:, 0], cells[:, 1]] += cells[:, 2]  # a picture has every pair once
    return matrix


def pixel_counts(confusion: np.ndarray) -> PixelCounts:
    """The pixels per class that a confusion matrix (K, K) tells."""
    hits, label, pred = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return PixelCounts(*(areas.tolist() for areas in (hits, label + pred - hits, pred, label)))


def encode(record: Record) -> bytes:
    """A record as a line of JSON that ends with a checksum of the rest."""
    content = {'image': record.image, 'seconds': round(record.seconds, 3), 'cells': record.cells.tolist()}
    body = json.dumps(content, separators=(',', ':')).encode()[:-1]
    return body + b',"crc32":"%08x"}\n' % zlib.crc32(body)


def decode(line: bytes) -> Record | None:
    """The record of a line, with or without its line break; None if the line is not as it was written."""
    body, check = line.removesuffix(b'\n')[:-20], _CHECK.fullmatch(line.removesuffix(b'\n')[-20:])
    if not check or int(check[1], 16) != zlib.crc32(body):
        return None
    content = json.loads(body + b'}')
    cells = np.array(content['cells'], np.int64).reshape(-1, 3)
    return Record(content['image'], cells, content['seconds'])


def read_file(path: Path) -> Iterator[tuple[int, Record]]:
    """The good records of one file, with the number of their line from 1.

    What follows the last line break is a line that the end of its process cut off: it is no damage. Any other line
    that is not as it was written costs a warning, and its picture.
    """
    lines = path.read_bytes().split(b'\n')
    for number, line in enumerate(lines, 1):
        record = decode(line)
        if record is not None:
            yield number, record
        elif number < len(lines):
            logger.warning('%s, line %d is damaged: its picture is evaluated again', path, number)


def journal_files(folder: Path) -> dict[tuple[int, int], Path]:
    """The files of a folder by attempt and rank, in that order; none where there is no folder."""
    found = {path: _NAME.fullmatch(path.name) for path in folder.glob(f'*{SUFFIX}')}
    return dict(sorted(((int(name[1]), int(name[2])), path) for path, name in found.items() if name))


def read_journal(folder: Path, until: int | None = None) -> tuple[dict[str, Record], float]:
    """The record of every picture in a folder's files, and the seconds that all attempts ran.

    `until`: of attempts before that one. The processes of an attempt may have pictures in common, where there were too
    few for all, and so may attempts: the first record counts. The processes' records are gone through in turn, as
    MMEngine collects them.
    """
    order, seconds = [], {}
    for (attempt, rank), path in journal_files(folder).items():
        if until is None or attempt < until:
            for number, record in read_file(path):
                order.append((attempt, number, rank, record))
                seconds[attempt] = max(seconds.get(attempt, 0.0), record.seconds)
    records: dict[str, Record] = {}
    for *_, record in sorted(order, key=lambda entry: entry[:3]):
        records.setdefault(record.image, record)
    return records, sum(seconds.values())


class Journal:
    """What one process of an attempt counts, kept in a file of its own.

    A record is handed to the operating system before `append` returns: it outlives the process, however that ends.
    (It need not outlive a power cut. Such damage is found by the checksums.)

    Raises:
        FileExistsError: another process has that file.
    """

    def __init__(self, folder: Path, attempt: int, rank: int):
        self._file = (folder / f'{attempt}-{rank}{SUFFIX}').open('xb')
        self._start = time.perf_counter()

    def append(self, image: str, cells: np.ndarray) -> None:
        """Keep a picture's cells (N, 3)."""
        self._file.write(encode(Record(image, cells, time.perf_counter() - self._start)))
        self._file.flush()

    def close(self) -> None:
        """Close the file; any number of times."""
        self._file.close()
