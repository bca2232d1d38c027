"""What a training run does beside its steps: checks checkpoints, writes weights, evaluates, tells of the loader."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from naclip.files import REPOSITORY, written_whole
from naclip.training.checkpoint import FINAL, write_published
from naclip.training.step import PixelCLIPTraining

LATEST = 'model_latest.pth'  # what was evaluated last, on the way
VALIDATION = 'validation.json'


def trained(runner: Runner) -> PixelCLIPTraining:
    """The model that a run trains."""
    return getattr(runner.model, 'module', runner.model).pixelclip


@HOOKS.register_module()
class SameModelHook(Hook):
    """Refuses a checkpoint of another model, which MMEngine would load as far as it fits."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes.

        Raises:
            ValueError: they differ; says which.
        """
        ours = getattr(runner.model, 'module', runner.model).state_dict()
        theirs = checkpoint.get('state_dict', {})
        wrong = [f'{name} is missing' for name in ours if name not in theirs]
        wrong += [f'{name} is not part of the model' for name in theirs if name not in ours]
        wrong += [
            f'{name} has shape {tuple(theirs[name].shape)}, expected {tuple(tensor.shape)}'
            for name, tensor in ours.items()
            if name in theirs and theirs[name].shape != tensor.shape
        ]
        if wrong:
            more = f' and {len(wrong) - 2} more' if len(wrong) > 2 else ''
            raise ValueError(
                f'{runner._load_from} is a checkpoint of another model: {"; ".join(wrong[:2])}{more}; go on with the '
                'config it was made with, or name another --work-dir'
            )


@HOOKS.register_module()
class LoaderRateHook(Hook):
    """Puts into the log how many pictures a second the loader's workers can make, and how many are trained on."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        seconds = sum(data_batch['seconds']) / len(data_batch['seconds'])
        workers = max(runner.train_dataloader.num_workers, 1)
        runner.message_hub.update_scalar('train/loader_pictures_per_second', workers / seconds)


@HOOKS.register_module()
class EvaluationHook(Hook):
    """Writes the weights in the published layout, and evaluates them with eval.py in a process of its own.

    Args:
        config: the config to evaluate on; None writes the weights only, at the end.
        interval: steps between evaluations; there is one at the end in any case.
        options: further options of eval.py.
        device: eval.py's.
    """

    priority = 'VERY_LOW'  # after the checkpoint of the same step

    def __init__(self, config: str | None, interval: int, options: Sequence[str], device: str):
        if interval < 1:
            raise ValueError(f'val_interval is {interval}, expected a number of steps above 0')
        self.config, self.interval, self.options, self.device = (
            config,
            interval,
            [str(option) for option in options],
            device,
        )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        done = runner.iter + 1
        if self.config and done % self.interval == 0 and done < runner.max_iters:
            self.evaluate(runner, done, LATEST)

    def after_train(self, runner: Runner) -> None:
        self.evaluate(runner, runner.iter, FINAL)

    def evaluate(self, runner: Runner, step: int, name: str) -> None:
        """Write the weights after a step and, where there is a config, evaluate them; the other processes wait."""
        failure = [None]
        if is_main_process():
            weights = Path(runner.work_dir) / name
            try:
                write_published(trained(runner), weights, step)
                runner.logger.info(f'weights after {step} steps, in the published layout: {weights}')
                if self.config:
                    scores = run_eval(self.config, weights, self.device, self.options)
                    keep_scores(Path(runner.work_dir) / VALIDATION, step, scores)
                    told = ', '.join(f'{key} {value:.2f}' for key, value in scores.items())
                    runner.logger.info(f'{self.config} after {step} steps: {told}')
                    for key, value in scores.items():
                        runner.visualizer.add_scalar(f'val/{key}', value, step)
            except (ValueError, OSError) as error:
                failure = [error]
        if dist.is_available() and dist.is_initialized():
            dist.broadcast_object_list(failure)
            barrier()
        if failure[0] is not None:
            raise failure[0]


def run_eval(config: str, weights: Path, device: str, options: Sequence[str] = ()) -> dict[str, float]:
    """The scores that eval.py gives weights.

    Raises:
        ValueError: it failed; says why.
    """
    work_dir = weights.with_name('evaluation')
    # Of all that a launcher has set for this process, eval.py must see nothing: it runs alone.
    launched = {'RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'}
    environment = {key: value for key, value in os.environ.items() if key not in launched}
    command = [sys.executable, str(REPOSITORY / 'eval.py'), '--config', config, '--method', 'pixelclip']
    command += ['--backbone', str(weights), '--work-dir', str(work_dir), '--device', device, *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f'exit code {done.returncode}']
        raise ValueError(f'the evaluation on {config} failed: {lines[-1].removeprefix("eval.py: ")}')
    return json.loads((work_dir / 'results.json').read_text(encoding='utf-8'))['metrics']


def keep_scores(path: Path, step: int, scores: dict[str, float]) -> None:
    """Add the scores after a step to a file of all of them; those of the same step and later are replaced."""
    kept = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else []
    kept = [entry for entry in kept if entry['step'] < step] + [{'step': step} | scores]
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(kept, indent=1) + '\n', encoding='utf-8')


def evaluation_device(device: torch.device) -> str:
    """eval.py's name of a device: the GPU of this process, or the CPU."""
    return f'cuda:{torch.cuda.current_device()}' if device.type == 'cuda' else 'cpu'
