"""One evaluation: options to config, config to Runner, pixel counts to results.json."""

import argparse
import contextlib
import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_rank, is_main_process
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, MODELS
from mmseg.utils import register_all_modules

from clip.model import VisionTransformer
from clip.weights import file_sha256
from naclip.files import PACKAGE
from naclip.harness import configuration
from naclip.harness.datasets import check_files
from naclip.harness.hooks import ProgressBarHook, QuietRunner
from naclip.harness.metric import PixelCountIoUMetric
from naclip.harness.own import own_benchmark_name, own_config
from naclip.harness.segmentor import NACLIP
from naclip.methods import method_name
from naclip.methods.guide_of import check_regions
from naclip.methods.method import Method
from naclip.runs.attempts import COUNTS, NOTES, Attempt, alone, begin, run_identity
from naclip.runs.journal import Journal, confusion_matrix, picture_key, pixel_counts, read_journal
from naclip.runs.per_image import write_per_image
from naclip.runs.results import (
    CONFUSION,
    PER_IMAGE,
    RESULTS,
    device_name,
    git_commit,
    package_versions,
    write_confusion,
    write_results,
)
from naclip.walk.masks import RegionMasks
from naclip.walk.vocabulary import check_class_count, read_vocabulary

logger = logging.getLogger(__name__)


def evaluate(options: argparse.Namespace) -> dict:
    """Run what eval.py's options ask for; returns what it writes to WORK_DIR/results.json.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: something the user gave cannot be used; says what and why.
    """
    register_all_modules(init_default_scope=True)
    if options.images:
        benchmark = folder = own_benchmark_name(options.images)
        config = own_config(options)
    else:
        path = configuration.config_file(options.config)
        benchmark, folder = configuration.benchmark_name(path), path.stem
        config = configuration.load_config(path, options.name_path)
    config.test_evaluator = configuration.single_metric(config.test_evaluator)
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
    configuration.prepare(config, benchmark, work_dir, options.data_root, options.show_dir)
    config.model.device = set_device(config, options.device, options.launcher)
    dataset = checked_dataset(config, benchmark)
    pictures = choose_pictures(dataset, config.test_dataloader.dataset.get('indices'), options.limit)
    masks_sha256 = regions_sha256(config, dataset, len(pictures))

    runner = QuietRunner.from_cfg(config)
    segmentor = getattr(runner.model, 'module', runner.model)
    record = describe(config, options, benchmark, protocol, changes, segmentor, dataset)
    if masks_sha256:
        record['settings']['regions'] = str(config.model.regions)
        record['sha256']['regions'] = masks_sha256
    if is_main_process():
        print(headline(record), flush=True)
    with contextlib.ExitStack() as stack:

        def start() -> Attempt:
            described = (config.test_dataloader.dataset, config.test_evaluator)
            identity = run_identity(record, *described, list(pictures), len(dataset.metainfo['classes']))
            stack.enter_context(alone(Path(work_dir)))
            notes = {key: record[key] for key in NOTES}
            return begin(Path(work_dir), identity, notes, list(pictures), options.resume)

        attempt = decide_on_main(start)
        if is_main_process():
            announce(benchmark, attempt, len(pictures))
        metric, seconds = count(runner, config, dataset, pictures, attempt)
        if is_main_process():
            record = finish(record, attempt, metric, seconds, list(pictures), dataset, Path(work_dir), options)
    return record


def choose_pictures(dataset: BaseSegDataset, indices: int | Sequence[int] | None, limit: int | None) -> dict[str, int]:
    """The keys of the pictures to evaluate, the first `limit` of the data set, and their index in the whole.

    `indices` is the data set's own argument: the part of the whole that it is.

    Raises:
        ValueError: the data set lists a picture twice.
    """
    if indices is None or isinstance(indices, int):
        indices = range(-len(dataset), 0) if (indices or 0) < 0 else range(len(dataset))
    pictures = {}
    for i in range(min(limit or len(dataset), len(dataset))):
        path = dataset.get_data_info(i)['img_path']
        if pictures.setdefault(picture_key(path, dataset.data_root), indices[i]) != indices[i]:
            raise ValueError(f'the data set lists {path} twice; pictures are counted once, so list it once')
    return pictures


def decide_on_main(decide: Callable[[], Attempt]) -> Attempt:
    """What the main process decides, or raises, in every process."""
    outcome = [None]
    if is_main_process():
        try:
            outcome = [decide()]
        except (ValueError, OSError) as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def announce(benchmark: str, attempt: Attempt, pictures: int) -> None:
    """Tell what is done already."""
    if attempt.results is not None:
        print(f'{benchmark}: finished before, under the same settings; nothing is evaluated again', flush=True)
    elif attempt.number > 1:
        print(f'{benchmark}: going on after {len(attempt.done)} of {pictures} pictures', flush=True)
        changed = {key for notes in attempt.notes for key in NOTES if notes[key] != attempt.notes[-1][key]}
        if changed:
            logger.warning('earlier attempts ran under other %s; results.json has both', ', '.join(sorted(changed)))


def count(
    runner: QuietRunner, config: Config, dataset: BaseSegDataset, pictures: Mapping[str, int], attempt: Attempt
) -> tuple[PixelCountIoUMetric, float]:
    """Count what earlier attempts have not; returns the metric with everything in it, and the seconds that took."""
    done = set(attempt.done)
    remaining = [index for key, index in pictures.items() if key not in done]
    if remaining:
        runner.restrict(remaining)
        evaluator = runner.test_evaluator
    else:
        evaluator = runner.build_evaluator(config.test_evaluator)
        evaluator.dataset_meta = dataset.metainfo
    metric = next(m for m in evaluator.metrics if isinstance(m, PixelCountIoUMetric))
    if done:
        metric.earlier = (attempt.counts, len(done))
    if not remaining:
        runner.unmute()
        if is_main_process():
            metric.compute_metrics([])
        return metric, 0.0
    progress = next(hook for hook in runner.hooks if isinstance(hook, ProgressBarHook))
    progress.done = len(done)
    metric.data_root = dataset.data_root
    metric.journal = Journal(Path(config.work_dir) / COUNTS, attempt.number, get_rank())
    try:
        runner.test()
    finally:
        progress.close()
        metric.journal.close()
    return metric, progress.seconds


def finish(
    record: dict,
    attempt: Attempt,
    metric: PixelCountIoUMetric,
    seconds: float,
    pictures: Sequence[str],
    dataset: BaseSegDataset,
    work_dir: Path,
    options: argparse.Namespace,
) -> dict:
    """Write what a run leaves behind; returns what is in results.json, which comes last.

    Raises:
        ValueError: the journal and the metric do not tell the same.
    """
    names = dataset.metainfo['classes']
    counted, _ = read_journal(work_dir / COUNTS)
    cells = {key: counted[key].cells for key in pictures if key in counted}
    confusion = confusion_matrix(cells.values(), len(names))
    if len(cells) < len(pictures) or pixel_counts(confusion) != metric.counts:
        raise ValueError(
            f'the counts in {work_dir / COUNTS} have changed since they were written: {len(cells)} of '
            f'{len(pictures)} pictures are there; --resume evaluates what is missing'
        )
    if attempt.results is None:
        seconds += attempt.seconds
        notes = attempt.notes[-1]
        others = [{k: v for k, v in other.items() if v != notes[k]} for other in attempt.notes if other != notes]
        record |= {
            'seconds': {'total': seconds, 'per_image': seconds / metric.images},
            'resumed': attempt.number - 1,  # how often the run went on after it was interrupted
            'resumed_from': others,  # what differed in earlier attempts
            'files': {},
        }
    else:
        record = dict(attempt.results)
    if options.save_confusion:
        write_confusion(work_dir / CONFUSION, confusion)
        record['files'] = record['files'] | {'confusion': CONFUSION}
    if options.per_image:
        write_per_image(work_dir / PER_IMAGE, cells, names)
        record['files'] = record['files'] | {'per_image': PER_IMAGE}
    record |= {'images': metric.images, 'metrics': metric.scores, 'classes': metric.counts.table(names)}
    write_results(work_dir / RESULTS, record)
    scores = '  '.join(f'{name} {value:.2f}' for name, value in record['metrics'].items())
    took = f'{record["seconds"]["total"]:.1f} s'
    print(f'{record["benchmark"]}: {scores}  ({metric.images} pictures, {took})  ->  {work_dir / RESULTS}')
    return record


def check_segmentor(config: Config) -> None:
    """Make sure that a config's model can be built, before anything is loaded.

    Raises:
        ValueError: an unregistered type, or arguments that it does not take; lists what it takes.
    """
    arguments = dict(config.model)
    kind = arguments.pop('type', None)
    segmentor = MODELS.get(kind) if kind else None
    if segmentor is None:
        raise ValueError(f'unknown segmentor type {kind!r} in the config: expected NACLIP or CLIPForSegmentation')
    parameters = inspect.signature(segmentor).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    unknown = [name for name in arguments if name not in (*known, *configuration.OLD_NAMES, *configuration.CLIENT_KEYS)]
    if unknown:
        raise ValueError(f'{kind} takes no {", ".join(unknown)}; its arguments are {", ".join(known)}')


def set_device(config: Config, device: str, launcher: str) -> str:
    """Make `device` the one that the Runner uses, in every process; returns the one for the segmentor.

    Raises:
        ValueError: the device is not there, or does not go with the launcher.
    """
    config.launcher = launcher
    kind, _, index = device.partition(':')
    if kind == 'auto':
        kind = 'cuda' if torch.cuda.is_available() else 'cpu'
    if kind == 'cuda':
        if not torch.cuda.is_available():
            raise ValueError('no CUDA device is available; use --device cpu')
        if index and launcher != 'none':
            raise ValueError(
                f'--device {device} and --launcher {launcher} exclude each other: each process takes its own GPU'
            )
        if index and int(index) >= torch.cuda.device_count():
            raise ValueError(f'--device {device}: there are {torch.cuda.device_count()} CUDA devices, counted from 0')
        if index:
            torch.cuda.set_device(int(index))
    elif launcher == 'pytorch':
        # MMEngine's launcher binds every process to a GPU; without one, the group is made here.
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
        config.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
    elif launcher != 'none':
        raise ValueError(f'--launcher {launcher} needs CUDA devices; on the CPU use --launcher pytorch (dist_test.sh)')
    return kind


def build_dataset(config: Config, benchmark: str) -> BaseSegDataset:
    """The data set of a config; its files may be missing.

    Raises:
        ValueError: the data set cannot be built.
    """
    try:
        # Serialising, which saves memory between workers, stumbles over an empty data set.
        return DATASETS.build(dict(config.test_dataloader.dataset, serialize_data=False))
    except (KeyError, TypeError, AssertionError) as error:
        raise ValueError(f'benchmark {benchmark}: cannot build the data set: {error}') from error


def checked_dataset(config: Config, benchmark: str) -> BaseSegDataset:
    """The data set, after all has been checked that can be before weights are loaded.

    Raises:
        ValueError: the vocabulary does not fit the data set's classes, or the data set cannot be built.
        FileNotFoundError: pictures or label maps are missing.
    """
    dataset = build_dataset(config, benchmark)
    check_class_count(read_vocabulary(config.model.name_path), config.model.name_path, dataset.metainfo['classes'])
    check_files(dataset, benchmark)
    return dataset


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


def describe(
    config: Config,
    options: argparse.Namespace,
    benchmark: str,
    protocol: str,
    changes: dict,
    segmentor: NACLIP,
    dataset: BaseSegDataset,
) -> dict:
    """Everything about a run that its numbers may depend on."""
    pipeline, net = segmentor.pipeline, segmentor.pipeline.net
    source, said = method_source(pipeline.method), segmentor.checkpoint.statement
    resize, square = (configuration.find_step(config, kind) for kind in ('Resize', 'CentreSquare'))
    return {
        'benchmark': benchmark,
        'method': method_name(pipeline.method),
        'protocol': protocol,
        'changes': changes,  # what options changed of the method and the protocol
        'backbone': str(config.model.clip_path),
        'backbone_revision': said.revision,  # the commit of a repository on a hub
        'backbone_tower': net.visual.title,
        'published_on': list(pipeline.method.published_on) if pipeline.method.about else [],
        'settings': {
            'tower': net.visual.kind,
            **asdict(net.form),
            'form_known_by': said.known_by,
            'mean': list(segmentor.normalisation[0]),
            'std': list(segmentor.normalisation[1]),
            'constants': pipeline.method.constants,
            **asdict(pipeline.settings),
            'synonyms': pipeline.vocabulary.synonyms,
            'resize': list(resize.scale) if resize else None,
            'centre_square': square.side if square else None,
            'labelled_only': config.test_evaluator.get('labelled_only', False),
            'dtype': str(net.dtype).removeprefix('torch.'),
            'dataset': type(dataset).__name__,
            'data_root': os.path.abspath(dataset.data_root),
            'limit': options.limit,
            'config': str(options.config) if options.config else None,
            'vocabulary': str(config.model.name_path),
            'templates': str(segmentor.templates_path),
            'processes': int(os.environ.get('WORLD_SIZE', 1)) if options.launcher != 'none' else 1,
        },
        'sha256': {
            'weights': segmentor.checkpoint.sha256,
            'vocabulary': file_sha256(config.model.name_path),
            'templates': file_sha256(segmentor.templates_path),
            **({'method': file_sha256(source)} if source else {}),
            **({'template_ranking': file_sha256(segmentor.ranking_path)} if segmentor.ranking_path else {}),
            **({'guide': segmentor.guide_checkpoint.sha256} if segmentor.guide_checkpoint else {}),
        },
        'versions': package_versions(),
        'git_commit': git_commit(),
        'device': {'type': net.device.type, 'name': device_name(net.device)},
    }


def method_source(method: Method) -> str | None:
    """The file of a method that is not the toolkit's own."""
    path = inspect.getfile(type(method))
    return None if Path(path).is_relative_to(PACKAGE) else path


def headline(record: dict) -> str:
    """Method, protocol, backbone, vocabulary file and device of a run, in one line."""
    settings = record['settings']
    pamr = f'PAMR {settings["pamr_steps"]} steps' if settings['pamr_steps'] else 'no PAMR'
    form = 'ConvNeXt without pooling'
    if settings['tower'] == VisionTransformer.kind:
        form = ', '.join(f'{key} {_short(value)}' for key, value in settings['constants'].items())
    changes = ''.join(f', {key}={value}' for key, value in record['changes'].items())
    return (
        f'{record["benchmark"]}: method {record["method"]} ({", ".join(filter(None, (form, pamr)))}); '
        f'protocol {record["protocol"]}{f" changed by{changes[1:]}" if changes else ""}; '
        f'backbone {record["backbone"]}{_elsewhere(record)}; '
        f'vocabulary {settings["vocabulary"]}; device {record["device"]["name"]} ({settings["dtype"]})'
    )


def _elsewhere(record: dict) -> str:
    """A remark on a method that runs on another tower than it was published for."""
    published, tower = record['published_on'], record['backbone_tower']
    if not published or tower in published:
        return ''
    return f" ({tower}; the method's settings were published for {' and '.join(published)})"


def _short(value: object) -> str:
    """A constant in a line of text."""
    return f'{value:g}' if isinstance(value, float) else str(value)
