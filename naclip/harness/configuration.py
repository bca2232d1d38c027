"""From a config file and command-line options to the config that MMEngine's Runner gets."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction

from naclip.cli import parse_constants
from naclip.files import PACKAGE, REPOSITORY
from naclip.harness.keys import check_keys
from naclip.methods import build_method, with_constants
from naclip.methods.method import Method
from naclip.names import did_you_mean, unknown
from naclip.protocols import PROTOCOLS
from naclip.walk.pamr import STEPS as PAMR_STEPS

DATA_ROOT_VARIABLE = 'NACLIP_DATA_ROOT'
MACHINE_KEYS = (  # no part of a protocol
    *('clip_path', 'activation', 'head_width', 'device', 'dtype', 'download_root', 'cache_dir'),
    *('regions', 'template_ranking'),
)
LOADER_KEYS = ('test_dataloader.num_workers', 'test_dataloader.persistent_workers')
CUDA_BATCH, CUDA_WORKERS = 16, 16  # pictures in a batch, and processes that load them, for each GPU
METHOD_OF_TYPE = {'NACLIP': 'naclip', 'CLIPForSegmentation': 'sclip'}  # segmentor types of published configs
# How published configs name constants of the last-block methods, in the order of `build_method`'s arguments.
LAST_BLOCK_KEYS = {'attn_strategy': 'attention', 'arch': 'architecture', 'gaussian_std': 'gaussian_std'}
# What constants of methods were called when they were arguments of the segmentor.
OLD_NAMES = {
    'dbscan_eps': 'eps',
    'dbscan_min_samples': 'min_samples',
    'cls_weight': 'cls_weight',
    'background': 'background',
}
# What MMSegmentation's clients add to every model's arguments; none of it means anything here.
CLIENT_KEYS = ('pretrained', 'init_cfg', 'train_cfg', 'test_cfg')
# Of configs that also train or validate; the Runner would ask for what belongs to them.
OTHER_LOOPS = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'val_dataloader', 'val_cfg', 'val_evaluator')
READING_STEPS = {
    'LoadImageFromFile': 'img_path',
    'LoadAnnotations': 'seg_map_path',
    'LoadWideAnnotations': 'seg_map_path',
    'LoadOwnAnnotations': 'seg_map_path',
}


def config_file(given: str | os.PathLike) -> Path:
    """The file of a config: as given, else among the toolkit's own, where a benchmark's name will do."""
    named = REPOSITORY / 'configs' / f'cfg_{given}.py'
    return named if not Path(given).exists() and named.is_file() else Path(resolve_file(given))


def load_config(path: str | os.PathLike, name_path: str | os.PathLike | None = None) -> Config:
    """Read a config file.

    One that describes a data set alone, as MMSegmentation's configs/_base_/datasets/*.py, is completed by the
    toolkit's base config and the vocabulary `name_path`; its settings are its own (protocol `config`).

    Raises:
        FileNotFoundError: no such file; lists the configs that come with the toolkit.
        ValueError: not a config that evaluates a segmentor.
    """
    path = Path(path)
    if not path.is_file():
        names = sorted(f'configs/{file.name}' for file in (REPOSITORY / 'configs').glob('cfg_*.py'))
        meant = did_you_mean(f'configs/{path.name}', names)
        raise FileNotFoundError(f'config {path} does not exist; there are: {", ".join(names)}{meant}')
    try:
        config = Config.fromfile(path)
    except (OSError, SyntaxError) as error:
        raise ValueError(f'config {path} cannot be read: {error}') from error
    missing = [key for key in ('test_dataloader', 'test_evaluator') if key not in config]
    if missing:
        raise ValueError(f'config {path} does not describe an evaluation: it has no {", ".join(missing)}')
    if 'model' not in config:
        complete(config)
    if name_path is not None:
        config.model.setdefault('name_path', str(name_path))
    if 'name_path' not in config.model:
        raise ValueError(f'config {path} names no vocabulary: give --name-path, or set model.name_path in the config')
    return config


def complete(config: Config) -> None:
    """Give a config of a data set alone what else an evaluation needs, of the toolkit's base config."""
    base = Config.fromfile(REPOSITORY / 'configs' / 'base_config.py')
    for key in ('model', 'test_cfg', 'env_cfg', 'log_level'):
        config.setdefault(key, base[key])
    config.data_alone = True


def single_metric(evaluator: Mapping | Sequence[Mapping]) -> Mapping:
    """A config's one metric.

    Raises:
        ValueError: there are several, or it does not measure mIoU.
    """
    metrics = [evaluator] if isinstance(evaluator, Mapping) else list(evaluator)
    if len(metrics) != 1 or 'mIoU' not in metrics[0].get('iou_metrics', ['mIoU']):
        names = ', '.join(str(metric.get('iou_metrics', metric.get('type'))) for metric in metrics)
        raise ValueError(f"test_evaluator has {names or 'nothing'}, expected one IoUMetric with iou_metrics=['mIoU']")
    return metrics[0]


def benchmark_name(path: str | os.PathLike) -> str:
    """The benchmark a config file is for: 'voc21' of 'configs/cfg_voc21.py'."""
    return Path(path).stem.removeprefix('cfg_')


def chosen_method(model: Mapping) -> Method:
    """The method of a config's model, with all constants that the model sets, under their names of today or of old.

    Raises:
        ValueError, FileNotFoundError: an unknown method, or a constant that it does not have or that makes no sense.
    """
    method = build_method(_method_spec(model), *(model.get(key) for key in LAST_BLOCK_KEYS))
    # Old configs give these to every method; those that do not have them never heeded them.
    old = {new: model[key] for key, new in OLD_NAMES.items() if key in model and new in method.constants}
    return with_constants(method, old)


def _method_spec(model: Mapping) -> str | Mapping | Method:
    """What a config's model says of its method, or else its type."""
    return model.get('method') or METHOD_OF_TYPE.get(model.get('type'), 'naclip')


def set_constants(config: Config, constants: Mapping[str, object]) -> None:
    """Change constants of a config's method.

    Raises:
        ValueError: a constant that the method does not have, or that makes no sense.
    """
    with_constants(chosen_method(config.model), constants)
    spec = _method_spec(config.model)
    given = dict(spec) if isinstance(spec, Mapping) else {'type': spec}
    config.model.method = ConfigDict(given | dict(constants))
    for key, name in (*LAST_BLOCK_KEYS.items(), *OLD_NAMES.items()):
        if name in constants:  # what is said last counts
            config.model.pop(key, None)


def apply_method(config: Config, spec: str) -> Method:
    """Change a config's model to a method, and to whether PAMR follows; returns it, with its own constants.

    Raises:
        ValueError, FileNotFoundError: an unknown method.
    """
    method = build_method(spec)
    for key in (*LAST_BLOCK_KEYS, *OLD_NAMES):
        config.model.pop(key, None)
    config.model.method = spec
    config.model.pamr_steps = (config.model.get('pamr_steps') or PAMR_STEPS) if method.pamr else 0
    if method.votes:
        config.model.slide_crop = 0
    return method


def default_protocol(config: Config, method: Method | None, benchmark: str) -> str:
    """The protocol of a run that names none.

    That is the method's own, if it has settings for the benchmark; without a method what the config is written for.
    """
    if method and PROTOCOLS[method.protocol].covers(benchmark):
        return method.protocol
    own = config.get('data_alone') or config.model.get('type') != 'NACLIP'
    return 'config' if own else 'naclip'


def apply_protocol(config: Config, protocol: str, benchmark: str) -> None:
    """Change a config to a protocol's settings.

    Raises:
        ValueError: unknown protocol (lists the valid ones), no settings for the benchmark (lists those it has),
            or no Resize step to set the size of.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(unknown('protocol', protocol, PROTOCOLS))
    if not PROTOCOLS[protocol].covers(benchmark):
        known = ', '.join(PROTOCOLS[protocol].benchmarks)
        raise ValueError(f'protocol {protocol} has no settings for {benchmark}, only for {known}; name another')
    for key, value in PROTOCOLS[protocol].changes(benchmark).items():
        if key == 'constants':
            if chosen_method(config.model).name in PROTOCOLS[protocol].methods:
                set_constants(config, value)
        elif key in HARNESS_KEYS:
            HARNESS_KEYS[key](config, value)
        else:
            config.model[key] = value


def _resize(config: Config, scale: tuple[int, int]) -> None:
    """Pictures become the largest that fit in (long side, short side); the ground truth stays."""
    step = find_step(config, 'Resize')
    if step is None:
        raise ValueError('the protocol resizes pictures, but the config has no Resize step; name another protocol')
    step.scale = scale


def _squash(config: Config, side: int) -> None:
    """Pictures become squares of a side, whatever their aspect (bicubic, antialiased); the ground truth stays."""
    _resize(config, (side, side))
    find_step(config, 'Resize').update(keep_ratio=False, backend='pillow', interpolation='bicubic')


def _crop(config: Config, side: int) -> None:
    """Pictures and ground truth become squares: their middle, once their short side is `side`."""
    dataset = config.test_dataloader.dataset
    loading = [step for step in dataset.pipeline if step.type in READING_STEPS]
    dataset.pipeline = [*loading, ConfigDict(type='CentreSquare', side=side), ConfigDict(type='PackSegInputs')]


def _ignored_is_background(config: Config, value: bool) -> None:
    """Ignored pixels of the ground truth become background."""
    if value:
        config.test_dataloader.dataset.pipeline.insert(-1, ConfigDict(type='IgnoredToBackground'))


def _labelled_only(config: Config, value: bool) -> None:
    """mIoU is the mean over the classes that the ground truth has."""
    config.test_evaluator.labelled_only = value


HARNESS_KEYS = {
    'resize': _resize,
    'squash': _squash,
    'crop': _crop,
    'ignored_is_background': _ignored_is_background,
    'labelled_only': _labelled_only,
}


def apply_options(config: Config, options: argparse.Namespace) -> dict[str, object]:
    """Change a config to the command line's options; returns which settings of the protocol they changed.

    Raises:
        ValueError: an option that is not KEY=VALUE, means nothing, or does not fit the config or the method.
    """
    before, method_before = dict(config.model), chosen_method(config.model)
    pamr_steps = {'on': before.get('pamr_steps') or PAMR_STEPS, 'off': 0}
    given = {
        'clip_path': options.backbone,
        'activation': options.activation,
        'head_width': options.head_width,
        'name_path': options.name_path,
        'templates': options.templates,
        'download_root': options.download_root,
        'arch': options.arch,
        'attn_strategy': options.attn,
        'gaussian_std': options.std,
        'pamr_steps': pamr_steps.get(options.pamr),
        'dtype': options.dtype,
        'guide': options.guide,
        'regions': options.regions,
        'template_ranking': options.template_ranking,
    }
    config.model.update({key: value for key, value in given.items() if value is not None})
    if options.method_options:
        set_constants(config, parse_constants(options.method_options))
    overrides = parse_overrides(options.cfg_options)
    check_keys(config.to_dict(), overrides)
    try:
        config.merge_from_dict(overrides)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'--cfg-options {" ".join(options.cfg_options)} does not fit the config: {error}') from error
    own = {*MACHINE_KEYS, *LAST_BLOCK_KEYS, *OLD_NAMES, 'method'}
    changes = {key: value for key, value in config.model.items() if key not in own and before.get(key) != value}
    constants, constants_before = chosen_method(config.model).constants, method_before.constants
    published = {name: key for key, name in LAST_BLOCK_KEYS.items()}  # are told under their published names
    changes |= {
        published.get(key, key): value for key, value in constants.items() if constants_before.get(key) != value
    }
    return changes | {key: value for key, value in overrides.items() if not key.startswith(('model.', *LOADER_KEYS))}


def parse_overrides(items: Sequence[str]) -> dict[str, object]:
    """['a.b=1', ...] -> {'a.b': 1, ...}, as MMEngine reads them.

    Raises:
        ValueError: an item without '='.
    """
    for item in items:
        if '=' not in item:
            raise ValueError(f'--cfg-options expects KEY=VALUE, got {item!r}')
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    return parser.parse_args(['--cfg-options', *items] if items else []).cfg_options


def suit_device(config: Config, device: str) -> None:
    """On a GPU, which single pictures do not keep busy, load more at a time and ahead; options may say otherwise."""
    if device == 'cuda':
        processes = int(os.environ.get('WORLD_SIZE', 1))
        loader = config.test_dataloader
        loader.batch_size = max(loader.get('batch_size', 1), CUDA_BATCH)
        loader.num_workers = max(loader.get('num_workers', 0), min((os.cpu_count() or 1) // processes, CUDA_WORKERS))


def find_step(config: Config, kind: str) -> Mapping | None:
    """The first step of a type in the test pipeline; None without one."""
    return next((step for step in config.test_dataloader.dataset.pipeline if step.type == kind), None)


def resolve_data_root(dataset: Mapping, option: str | None, benchmark: str) -> str | None:
    """The folder of a data set: the --data-root option, else the environment variable, else the config's.

    The first two name the data set's own folder, or one that holds MMSegmentation's `data/...` layout. A relative
    folder of the config is looked for here, then beside the configs. None where the config has no data root: a data
    set that brings its own.

    Raises:
        FileNotFoundError: the folder, or something the benchmark needs in it, is missing.
    """
    if 'data_root' not in dataset and not option:
        return None
    candidates, needed = data_places(dataset, option)
    for candidate in candidates:
        if all((candidate / part).exists() for part in needed):
            return str(candidate)
    raise FileNotFoundError(
        f'benchmark {benchmark}: no data in {" or ".join(dict.fromkeys(map(str, candidates)))}: expected '
        f'{", ".join(needed)} there; prepare it as docs/data.md says, or point --data-root or {DATA_ROOT_VARIABLE} '
        'to it'
    )


def data_places(dataset: Mapping, option: str | None) -> tuple[list[Path], list[str]]:
    """Folders in which a data set may be, best first, and what is needed in one of them."""
    configured = Path(dataset.get('data_root') or '')
    root = option or os.environ.get(DATA_ROOT_VARIABLE)
    if root:
        inside = Path(*configured.parts[1:]) if configured.parts[:1] == ('data',) else configured
        candidates = [Path(root).expanduser(), Path(root).expanduser() / inside]
    else:
        beside = [] if configured.is_absolute() or REPOSITORY == PACKAGE else [REPOSITORY / configured]
        candidates = [configured, *beside]
    prefix = dataset.get('data_prefix', {})
    needed = [part for part in (prefix.get('img_path'), prefix.get('seg_map_path'), dataset.get('ann_file')) if part]
    return candidates, needed


def likely_place(dataset: Mapping, option: str | None) -> Path:
    """Where a data set that is not complete belongs: where some of it is, else where the layout wants it."""
    candidates, needed = data_places(dataset, option)
    begun = [candidate for candidate in candidates if any((candidate / part).exists() for part in needed)]
    given = option or os.environ.get(DATA_ROOT_VARIABLE)
    return (begun or (candidates[::-1] if given else candidates))[0]


def resolve_file(path: str | os.PathLike) -> str:
    """A file named in a config: as given, else relative to the repository."""
    beside = REPOSITORY / path
    return str(beside) if not Path(path).exists() and beside.exists() else str(path)


def prepare(config: Config, benchmark: str, work_dir: str, data_root: str | None) -> None:
    """Add to a config what every run of the harness has, and find its files.

    Raises:
        FileNotFoundError: the data set's folder is missing.
    """
    for key in OTHER_LOOPS:
        config.pop(key, None)
    config.work_dir = work_dir
    config.default_scope = 'mmseg'
    for place, key in (
        (config.model, 'name_path'),
        (config.model, 'templates'),
        (config.test_dataloader.dataset, 'class_file'),
    ):
        if key in place:
            place[key] = resolve_file(place[key])
    config.test_evaluator = dict(config.test_evaluator, type='PixelCountIoUMetric')

    loader = config.test_dataloader
    loader.dataset.test_mode = True
    loader.dataset.data_root = resolve_data_root(loader.dataset, data_root, benchmark)
    loader.num_workers = min(loader.get('num_workers', 0), os.cpu_count() or 1)
    loader.dataset.pipeline = [
        dict(type='CheckedStep', step=step, reads=READING_STEPS[step.type]) if step.type in READING_STEPS else step
        for step in loader.dataset.pipeline
    ]
