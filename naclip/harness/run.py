"""One run: from its options to all that is needed to evaluate it, and from its counts to results.json."""

import argparse
import inspect
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_rank
from mmseg.datasets import BaseSegDataset
from mmseg.registry import METRICS, MODELS

from naclip.harness import configuration
from naclip.harness.datasets import build_dataset, check_files, choose_pictures
from naclip.harness.description import describe
from naclip.harness.metric import PixelCountIoUMetric
from naclip.harness.own import own_benchmark_name, own_config
from naclip.harness.segmentor import NACLIP
from naclip.harness.towers import Towers
from naclip.methods.guide_of import check_regions
from naclip.names import did_you_mean, unknown
from naclip.pictures.drawing import class_colours
from naclip.runs.attempts import COUNTS, NOTES, Attempt, run_identity
from naclip.runs.gallery import GALLERY, MOST, Gallery
from naclip.runs.journal import Journal, confusion_matrix
from naclip.runs.per_image import write_per_image
from naclip.runs.predictions import check_prediction_names, prediction_name
from naclip.runs.results import CONFUSION, PER_IMAGE, RESULTS, write_confusion, write_results
from naclip.walk.masks import RegionMasks
from naclip.walk.vocabulary import check_class_count, read_vocabulary

PREDICTIONS = 'predictions'  # a folder of label maps in the work directory
logger = logging.getLogger(__name__)


@dataclass
class Run:
    """A run that is ready: its config has everything, its data are there, its segmentor is loaded.

    `pictures` are the keys of all its pictures, and their index in the data set; `record` is what `describe` tells.
    `attempt` is there once it is decided how the run starts.
    """

    options: argparse.Namespace
    config: Config
    benchmark: str
    work_dir: Path
    dataset: BaseSegDataset
    pictures: Mapping[str, int]
    segmentor: NACLIP
    record: dict
    attempt: Attempt | None = None

    @property
    def name(self) -> str:
        """What the run is called where there are several."""
        return getattr(self.options, 'run_name', None) or self.benchmark

    @property
    def classes(self) -> Sequence[str]:
        """The data set's class names."""
        return self.dataset.metainfo['classes']

    @cached_property
    def identity(self) -> dict:
        """All that the run's counts depend on."""
        described = (self.config.test_dataloader.dataset, self.config.test_evaluator)
        return run_identity(self.record, *described, list(self.pictures), len(self.classes))

    @property
    def notes(self) -> dict:
        """What else is noted of each attempt."""
        return {key: self.record[key] for key in NOTES}

    @cached_property
    def lacking(self) -> dict[str, int]:
        """The files of the pictures that no attempt has counted, and their index in the data set."""
        done = set(self.attempt.done) if self.attempt else set()
        indices = [index for key, index in self.pictures.items() if key not in done]
        return {os.path.abspath(self.dataset.get_data_info(index)['img_path']): index for index in indices}

    @cached_property
    def metric(self) -> PixelCountIoUMetric:
        """The run's metric; it counts what the journal has."""
        metric = METRICS.build(dict(self.config.test_evaluator))
        metric.dataset_meta = self.dataset.metainfo
        metric.data_root = self.dataset.data_root
        metric.journal_folder = self.work_dir / COUNTS
        metric.pictures = list(self.pictures)
        return metric

    def open_journal(self) -> None:
        """From now on this process keeps what it counts."""
        self.metric.journal = Journal(self.work_dir / COUNTS, self.attempt.number, get_rank())
        if self.options.gallery:
            palette = self.dataset.metainfo.get('palette') or class_colours(len(self.classes))
            folder = self.work_dir / GALLERY
            self.metric.gallery = Gallery(folder, self.options.gallery, palette, self.classes, get_rank())


class Preparation:
    """Makes runs ready, and keeps what several of them need: towers, and data sets whose files were checked."""

    def __init__(self, device: str):
        self.device = device
        self.towers = Towers()
        self._datasets: dict[str, BaseSegDataset] = {}

    def prepare(self, options: argparse.Namespace) -> Run:
        """A run from its options, with nothing written yet.

        Raises:
            ValueError, FileNotFoundError, ConnectionError: something the user gave cannot be used; says what and why.
        """
        if options.images:
            benchmark = folder = own_benchmark_name(options.images)
            config = own_config(options)
        else:
            path = configuration.config_file(options.config)
            benchmark, folder = configuration.benchmark_name(path), path.stem
            config = configuration.load_config(path, options.name_path)
        config.test_evaluator = configuration.single_metric(config.test_evaluator)
        configuration.suit_device(config, self.device)
        method = configuration.apply_method(config, options.method) if options.method else None
        protocol = (
            options.protocol
            or ('floss' if options.template_ranking else None)
            or configuration.default_protocol(config, method, benchmark)
        )
        configuration.apply_protocol(config, protocol, benchmark)
        changes = configuration.apply_options(config, options)
        check_segmentor(config)
        work_dir = options.work_dir or str(Path('work_dirs') / folder)
        configuration.prepare(config, benchmark, work_dir, options.data_root)
        config.model.device = self.device
        dataset = self.dataset(config, benchmark)
        check_class_count(read_vocabulary(config.model.name_path), config.model.name_path, dataset.metainfo['classes'])
        pictures = choose_pictures(dataset, options.limit)
        if options.gallery and options.gallery > MOST:
            raise ValueError(f'--gallery {options.gallery}: expected 1 to {MOST} pictures')
        if options.save_predictions:
            check_prediction_names(list(pictures))
        masks_sha256 = regions_sha256(config, dataset, len(pictures))
        segmentor = MODELS.build(dict(config.model, towers=self.towers)).eval()
        record = describe(config, options, benchmark, protocol, changes, segmentor, dataset)
        if masks_sha256:
            record['settings']['regions'] = str(config.model.regions)
            record['sha256']['regions'] = masks_sha256
        return Run(options, config, benchmark, Path(work_dir), dataset, pictures, segmentor, record)

    def dataset(self, config: Config, benchmark: str) -> BaseSegDataset:
        """The data set of a config, whose files are there; one object for runs that say the same of it.

        Raises:
            ValueError: the data set cannot be built.
            FileNotFoundError: pictures or label maps are missing.
        """
        key = dataset_key(config)
        if key not in self._datasets:
            dataset = build_dataset(config, benchmark)
            check_files(dataset, benchmark)
            self._datasets[key] = dataset
        return self._datasets[key]


def dataset_key(config: Config) -> str:
    """All that a config says of its data set, as text."""
    return json.dumps(config.test_dataloader.dataset, default=str, sort_keys=True)


def check_segmentor(config: Config) -> None:
    """Make sure that a config's model can be built, before anything is loaded.

    Raises:
        ValueError: an unregistered type, or arguments that it does not take; lists what it takes.
    """
    arguments = dict(config.model)
    kind = arguments.pop('type', None)
    segmentor = MODELS.get(kind) if kind else None
    if segmentor is None:
        raise ValueError(unknown('segmentor type of the config', kind, configuration.METHOD_OF_TYPE))
    parameters = inspect.signature(segmentor).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    strange = [name for name in arguments if name not in (*known, *configuration.OLD_NAMES, *configuration.CLIENT_KEYS)]
    if strange:
        meant = did_you_mean(strange[0], known)
        raise ValueError(f'{kind} takes no {", ".join(strange)}; its arguments are {", ".join(known)}{meant}')


def regions_sha256(config: Config, dataset: BaseSegDataset, count: int) -> str | None:
    """The hash of the region masks of a data set's first pictures, where the method reads masks; else None.

    Raises:
        ValueError, FileNotFoundError: masks are not asked for or not given, or one is missing.
    """
    method, folder = configuration.chosen_method(config.model), config.model.get('regions')
    check_regions(method, folder)
    if folder is None:
        return None
    masks = RegionMasks(Path(folder))
    pictures = [dataset.get_data_info(i)['img_path'] for i in range(count)]
    masks.check(pictures)
    return masks.sha256(pictures)


def announce(run: Run) -> None:
    """Tell what is done already."""
    benchmark, attempt, pictures = run.name, run.attempt, len(run.pictures)
    if attempt.results is not None:
        print(f'{benchmark}: finished before, under the same settings; nothing is evaluated again', flush=True)
    elif attempt.number > 1:
        print(f'{benchmark}: going on after {len(attempt.done)} of {pictures} pictures', flush=True)
        changed = {key for notes in attempt.notes for key in NOTES if notes[key] != attempt.notes[-1][key]}
        if changed:
            logger.warning('earlier attempts ran under other %s; results.json has both', ', '.join(sorted(changed)))


def finish(run: Run, seconds: float, together: int) -> dict:
    """Write what a run leaves behind; returns what is in results.json, which comes last.

    `seconds` is what this attempt took, for so many runs `together`.

    Raises:
        ValueError: pictures are missing in the journal.
    """
    work_dir, metric, attempt, record = run.work_dir, run.metric, run.attempt, run.record
    cells, names = metric.cells, run.classes
    if len(cells) < len(run.pictures):
        raise ValueError(
            f'the counts in {work_dir / COUNTS} are not complete: {len(cells)} of {len(run.pictures)} pictures are '
            'there; --resume evaluates what is missing'
        )
    if attempt.results is None:
        seconds += attempt.seconds
        notes = attempt.notes[-1]
        others = [{k: v for k, v in other.items() if v != notes[k]} for other in attempt.notes if other != notes]
        record |= {
            # Of runs that were evaluated together it took all of them so long.
            'seconds': {'total': seconds, 'per_image': seconds / metric.images, 'shared_by': together},
            'resumed': attempt.number - 1,  # how often the run went on after it was interrupted
            'resumed_from': others,  # what differed in earlier attempts
            'files': {},
        }
    else:
        record = dict(attempt.results)
    if run.options.save_confusion:
        write_confusion(work_dir / CONFUSION, confusion_matrix(cells.values(), len(names)))
        record['files'] = record['files'] | {'confusion': CONFUSION}
    if run.options.per_image:
        write_per_image(work_dir / PER_IMAGE, cells, names)
        record['files'] = record['files'] | {'per_image': PER_IMAGE}
    if (work_dir / GALLERY).is_dir():
        record['files'] = record['files'] | {'gallery': GALLERY}
    if run.options.save_predictions:
        missing = [key for key in cells if not (work_dir / PREDICTIONS / prediction_name(key)).is_file()]
        if missing:
            logger.warning(
                '%s lacks %d pictures, %s for one, which were counted before: their predictions were not kept',
                work_dir / PREDICTIONS, len(missing), missing[0],
            )  # fmt: skip
        record['files'] = record['files'] | {'predictions': PREDICTIONS}
    record |= {'images': metric.images, 'metrics': metric.scores, 'classes': metric.counts.table(names)}
    write_results(work_dir / RESULTS, record)
    scores = '  '.join(f'{name} {value:.2f}' for name, value in record['metrics'].items())
    took = f'{record["seconds"]["total"]:.1f} s'
    shared = f' for {together} runs' if together > 1 else ''
    print(f'{run.name}: {scores}  ({metric.images} pictures, {took}{shared})  ->  {work_dir / RESULTS}', flush=True)
    return record
