"""Evaluations: runs made ready, started, judged in as few passes over the pictures as they allow, and finished."""

import argparse
import logging
import sys
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from traceback import clear_frames
from typing import TypeVar

from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from torch.utils.data import DataLoader

from naclip.cli import one_line
from naclip.harness.datasets import register_all
from naclip.harness.description import headline
from naclip.harness.device import choose_device
from naclip.harness.foresight import foreseen
from naclip.harness.hooks import PredictionsHook, ProgressBarHook, QuietRunner, SideBySideHook
from naclip.harness.judges import Judges
from naclip.harness.loading import SharedPictures
from naclip.harness.metric import RunsEvaluator
from naclip.harness.passes import Pass, default_budget, passes
from naclip.harness.profile import WAITING, StageClock
from naclip.harness.run import PREDICTIONS, Preparation, Run, announce, finish
from naclip.runs.attempts import Attempt, alone, begin
from naclip.runs.gallery import GALLERY, discard_gallery

LOGS = 'logs'  # of passes, in a plan's folder
logger = logging.getLogger(__name__)
T = TypeVar('T')


class RunsFailedError(ValueError):
    """Some of several runs could not be evaluated; `records` has those that were, by their names."""

    def __init__(self, failures: dict[str, Exception], records: dict[str, dict]):
        super().__init__(f'{len(failures)} of {len(failures) + len(records)} runs failed: {", ".join(failures)}')
        self.records = records


def evaluate_plan(plan: Sequence[argparse.Namespace], memory: int | None = None) -> list[dict]:
    """Run what the options of each of several runs ask for; returns what each writes to its results.json.

    What they have in common is done once. `memory` bounds, in bytes, what runs may need that are evaluated together.
    All have the device and the launcher of the first.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: something the user gave cannot be used; says what and why.
        RunsFailedError: of several runs some were not evaluated; each has been told of.
    """
    register_all()
    device = choose_device(plan[0].device, plan[0].launcher)
    failures: dict[str, Exception] = {}
    records: dict[str, dict] = {}

    def failed(run: str, error: Exception) -> None:
        if len(plan) == 1:
            raise error
        if run not in failures:
            failures[run] = error
            print(f'{run}: not evaluated: {one_line(error)}', file=sys.stderr, flush=True)

    def conclude(run: Run, seconds: float = 0.0, together: int = 1) -> None:
        if run.name in failures:
            return
        try:
            records[run.name] = decide_on_main(lambda: finish(run, seconds, together))
        except (ValueError, OSError) as error:
            failed(run.name, error)

    with ExitStack() as stack:
        runs = ready(plan, Preparation(device), stack, failed)
        for run in runs:
            if not run.lacking:  # what was finished before
                run.metric.evaluate(0)
                conclude(run)
        for together in passes(runs, memory or default_budget(device)):
            names, took = [run.name for run in together.runs], 0.0
            try:
                took = judge(together, device, lambda m, error, names=names: failed(names[m], error))
            except (ValueError, OSError, RuntimeError) as error:  # of a picture that all need, say
                for name in names:
                    failed(name, error)
            for run in together.runs:
                conclude(run, took, len(names))
    if failures:
        raise RunsFailedError(failures, records)
    return [records[run.name] for run in runs]


def foresee(plan: Sequence[argparse.Namespace], memory: int | None = None) -> str:
    """What `evaluate_plan` would do, in words; nothing is evaluated or written.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: something the user gave cannot be used; says what and why.
    """
    register_all()
    device = choose_device(plan[0].device, plan[0].launcher)
    preparation = Preparation(device)
    runs = [preparation.prepare(options) for options in plan]
    return foreseen(passes(runs, memory or default_budget(device)))


def ready(
    plan: Sequence[argparse.Namespace],
    preparation: Preparation,
    stack: ExitStack,
    failed: Callable[[str, Exception], None],
) -> list[Run]:
    """Runs that may start, each alone in its work directory until the stack ends."""
    runs: list[Run] = []
    for options in plan:
        try:
            run = preparation.prepare(options)
            if is_main_process():
                print(headline(run.record, run.name), flush=True)
            run.attempt = decide_on_main(lambda run=run, options=options: start(run, options.resume, stack))
        except (ValueError, OSError) as error:
            failed(getattr(options, 'run_name', None) or str(options.config), error)
            continue
        if is_main_process():
            announce(run)
        runs.append(run)
    return runs


def start(run: Run, resume: bool, stack: ExitStack) -> Attempt:
    """Start a run over, or go on with it."""
    stack.enter_context(alone(run.work_dir))
    attempt = begin(run.work_dir, run.identity, run.notes, list(run.pictures), resume)
    if attempt.number == 1:
        discard_gallery(run.work_dir / GALLERY)
    return attempt


def decide_on_main(decide: Callable[[], T]) -> T:
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


def judge(together: Pass, device: str, failed: Callable[[int, Exception], None]) -> float:
    """Evaluate the runs of a pass on the pictures that they lack; returns the seconds that it took.

    `failed(m, error)` is told of runs that end before the others, in every process.
    """
    runs = together.runs
    first = runs[0]
    errors: dict[int, Exception] = {}

    def ended(members: Sequence[int], error: Exception) -> None:
        if len(runs) == 1:
            raise error
        errors.update(dict.fromkeys(members, error))

    clock = StageClock(device) if first.options.profile else None
    judges = Judges(
        [run.segmentor for run in runs],
        together.dataset_numbers,
        ended,
        clock or nullcontext,
    )
    evaluator = RunsEvaluator(
        [run.metric for run in runs], [run.name if len(runs) > 1 else '' for run in runs], judges.failed
    )
    for run in runs:
        run.open_journal()
        if len(runs) > 1 and is_main_process():
            run.config.dump(run.work_dir / f'cfg_{run.benchmark}.py')
    progress = ProgressBarHook(done=len(first.attempt.done) if len(runs) == 1 else 0)
    panels = [
        SideBySideHook(folder, i, run.dataset.metainfo['palette'])
        for i, run in enumerate(runs)
        if (folder := run.options.show_dir)
    ]
    predictions = [
        PredictionsHook(run.work_dir / PREDICTIONS, i, run.dataset)
        for i, run in enumerate(runs)
        if run.options.save_predictions
    ]
    runner = QuietRunner(
        model=judges,
        work_dir=str(first.work_dir if len(runs) == 1 else Path(first.options.plan_dir, LOGS)),
        test_dataloader=loader(together, device),
        test_cfg=dict(type='TestLoop'),
        test_evaluator=evaluator,
        default_hooks=dict(logger=None, checkpoint=None, param_scheduler=None),
        custom_hooks=[progress, *panels, *predictions],
        launcher=first.options.launcher,
        env_cfg=first.config.get('env_cfg', {}),
        log_level=first.config.get('log_level', 'INFO'),
        default_scope='mmseg',
        # MMEngine tells runs in one process apart by this name and the second they start in.
        experiment_name=f'{first.benchmark}_{uuid.uuid4().hex[:8]}',
        cfg=first.config if len(runs) == 1 else Config(),
    )
    try:
        runner.test(quiet=len(runs) > 1)
    except Exception as error:
        # An error of a loader's worker refers to itself by its frames, and would keep the loader and its processes.
        clear_frames(error.__traceback__)
        raise
    finally:
        progress.close()
        for run in runs:
            run.metric.journal.close()
    if clock is not None and is_main_process():
        clock.add(WAITING, progress.waited)
        print(clock.table(progress.seconds, judges.pictures), flush=True)
    for of_process in all_gather_object(errors):
        for member, error in of_process.items():
            failed(member, error)
    return progress.seconds


def loader(together: Pass, device: str) -> DataLoader:
    """The pictures of a pass, each in one process."""
    config = together.runs[0].config.test_dataloader
    datasets = together.datasets
    pictures = SharedPictures(
        [run.dataset for run in datasets],
        [run.config.test_dataloader.dataset.pipeline for run in datasets],
        together.pictures,
    )
    return DataLoader(
        pictures,
        batch_size=config.get('batch_size', 1),
        sampler=DefaultSampler(pictures, shuffle=False, round_up=False),
        num_workers=config.get('num_workers', 0),
        collate_fn=list,
        pin_memory=device == 'cuda',
    )
