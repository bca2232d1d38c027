"""Scores of label maps on disk, whatever made them, against a benchmark's ground truth."""

import argparse
import hashlib
import re
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from tqdm import tqdm

from clip.weights import file_sha256
from naclip.harness import configuration
from naclip.harness.datasets import build_dataset, check_files, choose_pictures, register_all
from naclip.runs.attempts import alone, discard
from naclip.runs.journal import check_labels, confusion_matrix, count_cells, pixel_counts
from naclip.runs.per_image import write_per_image
from naclip.runs.predictions import find_predictions, read_prediction
from naclip.runs.results import (
    CONFUSION,
    PER_IMAGE,
    RESULTS,
    SCHEMA,
    SCORED,
    device_name,
    git_commit,
    package_versions,
    write_confusion,
    write_results,
)

IGNORED = 255  # where a config does not say, as in MMSegmentation


def score(options: argparse.Namespace) -> dict:
    """Score what score's options name; returns what it writes to WORK_DIR/results.json.

    Raises:
        ValueError, FileNotFoundError: something the user gave cannot be used; says what and why.
    """
    name = check_method_name(options.method_name)
    register_all()
    path = configuration.config_file(options.config)
    benchmark = configuration.benchmark_name(path)
    config = configuration.load_config(path, options.name_path)
    config.test_evaluator = configuration.single_metric(config.test_evaluator)
    if options.name_path:
        config.model.name_path = str(options.name_path)
    work_dir = Path(options.work_dir or Path('work_dirs', 'scored', slug(name), path.stem))
    configuration.prepare(config, benchmark, str(work_dir), options.data_root)
    dataset = build_dataset(config, benchmark)
    check_files(dataset, benchmark)
    pictures = choose_pictures(dataset, options.limit)
    folder = Path(options.predictions)
    found = find_predictions(folder, list(pictures))
    record = describe(config, options, benchmark, name, dataset)
    print(f'{benchmark}: {name}, label maps of {folder}, {len(pictures)} pictures', flush=True)

    start = time.perf_counter()
    cells, sha256 = count(dataset, found, config.test_evaluator.get('ignore_index', IGNORED))
    seconds = time.perf_counter() - start
    names = dataset.metainfo['classes']
    confusion = confusion_matrix(cells.values(), len(names))
    counts = pixel_counts(confusion)
    record['sha256'] |= {'predictions': sha256}
    record |= {
        'seconds': {'total': seconds, 'per_image': seconds / len(cells), 'shared_by': 1},
        'files': {},
        'images': len(cells),
        'metrics': counts.metrics(record['settings']['labelled_only']),
        'classes': counts.table(names),
    }
    with alone(work_dir):
        discard(work_dir)
        if options.save_confusion:
            write_confusion(work_dir / CONFUSION, confusion)
            record['files'] |= {'confusion': CONFUSION}
        if options.per_image:
            write_per_image(work_dir / PER_IMAGE, cells, names)
            record['files'] |= {'per_image': PER_IMAGE}
        write_results(work_dir / RESULTS, record)
    scores = '  '.join(f'{metric} {value:.2f}' for metric, value in record['metrics'].items())
    print(f'{benchmark}: {scores}  ({len(cells)} pictures, {seconds:.1f} s)  ->  {work_dir / RESULTS}')
    return record


def check_method_name(name: str) -> str:
    """What reports call the label maps, without space around it.

    Raises:
        ValueError: nothing that can be read in a table.
    """
    name = name.strip()
    if not name or not name.isprintable():
        raise ValueError(f'--method-name is {name!r}, expected what reports are to call the label maps')
    return name


def slug(name: str) -> str:
    """A name as the name of a folder."""
    return re.sub(r'\W+', '-', name).strip('-') or 'unnamed'


def count(dataset: BaseSegDataset, found: Mapping[str, Path], ignore_index: int) -> tuple[dict[str, np.ndarray], str]:
    """The cells (N, 3) of the first pictures of a data set by key, and the SHA-256 of all their predictions.

    The hash is of the class ids, in order of the keys; how files are compressed and coloured does not matter.

    Raises:
        ValueError: a prediction of another size, or with ids that are no class; names the file.
    """
    classes, cells, sha256 = len(dataset.metainfo['classes']), {}, hashlib.sha256()
    for index, (key, path) in enumerate(tqdm(found.items(), desc='scoring', unit='picture', disable=None)):
        sample = dataset[index]['data_samples']
        label = sample.gt_sem_seg.data[0]
        check_labels(label, classes, ignore_index, sample.seg_map_path)
        ids = read_prediction(path)
        check_prediction(ids, tuple(label.shape), classes, path)
        sha256.update(f'{key}\n{ids.shape}\n'.encode())
        sha256.update(ids.astype('<u2').tobytes())
        cells[key] = count_cells(torch.from_numpy(ids.astype(np.int64)), label, classes, ignore_index)
    return cells, sha256.hexdigest()


def check_prediction(ids: np.ndarray, size: tuple[int, int], classes: int, path: Path) -> None:
    """Make sure that class ids (H, W) go with a label map.

    Raises:
        ValueError: they do not; names the file.
    """
    if ids.shape != size:
        raise ValueError(
            f'{path} has {ids.shape[0]}x{ids.shape[1]} pixels, expected {size[0]}x{size[1]}, as the ground truth '
            '(height x width)'
        )
    strange = np.unique(ids[ids >= classes])
    if len(strange):
        raise ValueError(
            f'{path} has ids that are no class: {", ".join(map(str, strange[:10]))}, expected 0 to {classes - 1}'
        )


def describe(config: Config, options: argparse.Namespace, benchmark: str, name: str, dataset: BaseSegDataset) -> dict:
    """Everything about a scoring that its numbers may depend on, but for the predictions."""
    return {
        'schema': SCHEMA,
        'benchmark': benchmark,
        'method': name,
        'protocol': SCORED,
        'changes': {},
        'backbone': 'unknown',  # nothing here knows what made the label maps
        'settings': {
            'labelled_only': config.test_evaluator.get('labelled_only', False),
            'ignore_index': config.test_evaluator.get('ignore_index', IGNORED),
            'dataset': type(dataset).__name__,
            'data_root': str(Path(dataset.data_root).absolute()) if dataset.data_root else None,
            'limit': options.limit,
            'config': str(options.config),
            'vocabulary': str(config.model.name_path),
            'predictions': str(options.predictions),
        },
        'sha256': {'vocabulary': file_sha256(config.model.name_path)},
        'versions': package_versions(),
        'git_commit': git_commit(),
        'device': {'type': 'cpu', 'name': device_name(torch.device('cpu'))},
    }
