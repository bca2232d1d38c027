"""One training run: options to config, config to MMEngine's Runner, and where it goes on."""

import argparse
import inspect
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import get_world_size, init_dist
from mmengine.runner import Runner

from naclip.files import REPOSITORY
from naclip.names import did_you_mean, unknown
from naclip.training.checkpoint import newest_whole
from naclip.training.groups import Rates
from naclip.training.hooks import EvaluationHook, evaluation_device
from naclip.training.model import AMP, PixelCLIPModel, SampledPictures

logger = logging.getLogger(__name__)
# What a training config may say; all else is refused, so that no misspelt key is passed over.
OWN_KEYS = ('model', 'data', 'batch', 'workers', 'max_iters', 'rates', 'max_norm')
RUN_KEYS = ('log_interval', 'checkpoint_interval', 'val_config', 'val_interval', 'val_options', 'vis_backends', 'seed')
KEYS = (*OWN_KEYS, *RUN_KEYS, 'work_dir')


def train(options: argparse.Namespace) -> None:
    """Run what the options of tools/train.py ask for.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: something the user gave cannot be used; says what and why.
        FloatingPointError: the loss is not a number.
    """
    config = load_config(Path(options.config), options.cfg_options)
    if options.data_root:
        config.data.data_root = options.data_root
    work_dir = Path(options.work_dir or config.get('work_dir') or Path('work_dirs') / Path(options.config).stem)
    device = choose_device(options.device, options.launcher)
    if options.amp and device.type != 'cuda':
        raise ValueError('--amp needs a CUDA device; on the CPU training runs in float32')
    checkpoint = place_to_go_on(work_dir, options.resume)
    processes = join(options.launcher, device)
    if config.batch % processes:
        raise ValueError(
            f'batch is {config.batch} pictures for all processes, which {processes} processes cannot share evenly; '
            f'--cfg-options batch={config.batch // processes * processes or processes}'
        )
    runner = Runner.from_cfg(runner_config(config, work_dir, checkpoint, processes, device, options))
    runner.train()


def load_config(path: Path, overrides: list[str]) -> Config:
    """A training config, with overrides 'a.b=1', all of whose keys mean something.

    Raises:
        FileNotFoundError: no such file; lists the configs that come with the toolkit.
        ValueError: it cannot be read, lacks something, or has an unknown key; says which.
    """
    if not path.is_file():
        names = sorted(f'configs/{p.name}' for p in (REPOSITORY / 'configs').glob('train_*.py'))
        meant = did_you_mean(f'configs/{path.name}', names)
        raise FileNotFoundError(f'config {path} does not exist; there are: {", ".join(names)}{meant}')
    for item in overrides:
        if '=' not in item:
            raise ValueError(f'--cfg-options expects KEY=VALUE, got {item!r}')
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    changes = parser.parse_args(['--cfg-options', *overrides] if overrides else []).cfg_options
    try:
        config = Config.fromfile(path)
        config.merge_from_dict(changes)
    except (OSError, SyntaxError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'config {path} cannot be read: {error}') from error
    missing = [key for key in KEYS if key not in config and key != 'work_dir']
    if missing:
        raise ValueError(f'config {path} does not describe a training: it has no {", ".join(missing)}')
    for what, given, known in (
        ('key of the config', config, KEYS),
        ('key of the config: model.', config.model, _arguments(PixelCLIPModel.__init__)),
        ('key of the config: data.', config.data, _arguments(SampledPictures)),
        ('key of the config: rates.', config.rates, _arguments(Rates)),
    ):
        for key in given:
            if key not in known:
                raise ValueError(unknown(what, key, known))
    for key in ('crop', 'mask_resolution'):
        if config.model.get(key) != config.data.get(key):
            raise ValueError(
                f'model.{key} is {config.model.get(key)} and data.{key} is {config.data.get(key)}; they must agree'
            )
    if config.model.get('dino') is None and config.data.get('annotations', 'annotations') is None:
        raise ValueError('neither data.annotations nor model.dino: there would be no masks; set one of them')
    for key in ('batch', 'max_iters', 'log_interval', 'checkpoint_interval', 'val_interval'):
        if not isinstance(config[key], int) or config[key] < 1:
            raise ValueError(f'{key} is {config[key]!r}, expected a whole number above 0')
    return config


def _arguments(function: Callable) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != 'self']


def choose_device(name: str, launcher: str) -> torch.device:
    """The device that a run uses.

    Raises:
        ValueError: it is not there, or does not go with the launcher.
    """
    if name == 'cuda' and not torch.cuda.is_available():
        raise ValueError('no CUDA device is available; use --device cpu')
    device = torch.device('cuda' if name != 'cpu' and torch.cuda.is_available() else 'cpu')
    if device.type == 'cpu' and launcher not in ('none', 'pytorch'):
        raise ValueError(f'--launcher {launcher} needs CUDA devices; on the CPU use --launcher pytorch (dist_train.sh)')
    return device


def place_to_go_on(work_dir: Path, resume: bool) -> Path | None:
    """The checkpoint that a run goes on from; None starts anew.

    Raises:
        ValueError: the folder cannot be written to, or has the checkpoints of another run.
    """
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f'cannot make the work directory {work_dir} ({error}); name another with --work-dir') from None
    if not os.access(work_dir, os.W_OK):
        raise ValueError(f'no permission to write to the work directory {work_dir}; name another with --work-dir')
    checkpoint, broken = newest_whole(work_dir)
    if not resume:
        if checkpoint or broken:
            raise ValueError(
                f'{work_dir} has checkpoints of an earlier run; --resume goes on with it, another --work-dir keeps it'
            )
        return None
    for path in broken:
        logger.warning('%s is cut short and passed over', path)
    return checkpoint


def join(launcher: str, device: torch.device) -> int:
    """Meet the other processes of a run; returns how many there are."""
    if launcher == 'none':
        return 1
    if device.type == 'cpu':
        torch.distributed.init_process_group('gloo')
    else:
        init_dist(launcher, timeout=7200)  # seconds: processes wait for an evaluation
    return get_world_size()


def runner_config(
    config: Config,
    work_dir: Path,
    checkpoint: Path | None,
    processes: int,
    device: torch.device,
    options: argparse.Namespace,
) -> Config:
    """What MMEngine's Runner gets."""
    workers = min(config.workers, os.cpu_count() or 1)
    data = dict(config.data)
    if data.get('folders') and not Path(data['folders']).is_file():
        data['folders'] = str(REPOSITORY / data['folders'])
    model = dict(config.model, type='PixelCLIPModel')
    val_config = config.val_config
    if val_config and not Path(val_config).is_file():
        val_config = str(REPOSITORY / val_config)
        if not Path(val_config).is_file():
            raise FileNotFoundError(f'val_config {config.val_config} does not exist; None trains without evaluating')
    evaluation = dict(
        type=EvaluationHook.__name__,
        config=val_config,
        interval=config.val_interval,
        options=list(config.val_options),
        device=evaluation_device(device),
    )
    whole = dict(
        default_scope='mmengine',
        experiment_name=f'{Path(options.config).stem}_{uuid.uuid4().hex[:8]}',
        launcher=options.launcher,
        work_dir=str(work_dir),
        model=model,
        train_dataloader=dict(
            batch_size=config.batch // processes,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=dict(type='RunPlaces'),
            dataset=dict(data, type='SampledPictures', seed=config.seed),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=config.max_iters, val_interval=config.max_iters + 1),
        optim_wrapper=dict(
            type=AMP if options.amp else 'OptimWrapper',
            constructor='TrainingGroups',
            optimizer=dict(type='AdamW', betas=(0.9, 0.999), eps=1e-8),
            clip_grad=dict(max_norm=config.max_norm),
            paramwise_cfg=dict(config.rates),
        ),
        # To half the rate, without warm-up.
        param_scheduler=dict(type='CosineAnnealingLR', T_max=config.max_iters, by_epoch=False, eta_min_ratio=0.5),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=config.log_interval, log_metric_by_epoch=False),
            checkpoint=dict(
                type='CheckpointHook', by_epoch=False, interval=config.checkpoint_interval, max_keep_ckpts=2
            ),
        ),
        custom_hooks=[dict(type='SameModelHook'), dict(type='LoaderRateHook'), evaluation],
        log_processor=dict(by_epoch=False),
        visualizer=dict(type='Visualizer', vis_backends=list(config.vis_backends)),
        randomness=dict(seed=config.seed, diff_rank_seed=True),
        env_cfg=dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0)),
        load_from=str(checkpoint) if checkpoint else None,
        resume=checkpoint is not None,
    )
    if device.type == 'cpu' and processes > 1:
        whole['model_wrapper_cfg'] = dict(type='MMDistributedDataParallel', device_ids=None)
    if device.type == 'cuda':
        torch.set_float32_matmul_precision('high')  # TF32, as published
    return Config(whole)
