"""What the run shows: a quiet console, a progress bar, and predictions side by side."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from PIL import Image
from tqdm import tqdm


class QuietRunner(Runner):
    """A Runner whose set-up (environment, whole config, hooks) goes to the log file only."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        self._console = [(h, h.level) for h in logger.handlers if not isinstance(h, logging.FileHandler)]
        for handler, _ in self._console:
            handler.setLevel(logging.WARNING)
        return logger

    def restrict(self, indices: Sequence[int]) -> None:
        """Evaluate only some of the data set's pictures; before anything asks for the test loop."""
        self._test_dataloader['dataset']['indices'] = list(indices)

    def unmute(self) -> None:
        """From now on the console shows what the log file has."""
        for handler, level in self._console:
            handler.setLevel(level)

    def test(self) -> dict:
        self.unmute()
        return super().test()


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """A progress bar over the pictures, with ETA; `seconds` is what the whole pass took, metric included.

    It starts at the `done` pictures of earlier attempts.
    """

    seconds = 0.0
    done = 0
    _bar: tqdm | None = None

    def before_test_epoch(self, runner: Runner) -> None:
        self._start = time.perf_counter()
        pictures = self.done + len(runner.test_dataloader.dataset)
        self._bar = tqdm(
            total=pictures, initial=self.done, desc='evaluating', unit='picture', disable=not is_main_process()
        )

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        done = len(outputs) * get_world_size()  # the last batch of several processes may hold repeats
        self._bar.update(min(done, self._bar.total - self._bar.n))

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.close()
        self.seconds = time.perf_counter() - self._start

    def close(self) -> None:
        """End the bar's line, however far it came."""
        if self._bar is not None:
            self._bar.close()


@HOOKS.register_module()
class SideBySideHook(Hook):
    """Writes picture, ground truth and prediction side by side, in the data set's palette, as `DIR/<stem>.png`."""

    IGNORED = (255, 255, 255)
    GAP = 4  # pixels of white between the three

    def __init__(self, out_dir: str):
        self.out_dir = Path(out_dir)

    def before_test(self, runner: Runner) -> None:
        self.out_dir.mkdir(parents=True, exist_ok=True)
        palette = runner.test_dataloader.dataset.metainfo['palette']
        self._colours = np.array([*palette, self.IGNORED], np.uint8)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence = ()
    ) -> None:
        for i, sample in enumerate(outputs):
            labels = (sample.gt_sem_seg.data, sample.pred_sem_seg.data)
            maps = [self._colours[label.squeeze().cpu().clamp(max=len(self._colours) - 1).numpy()] for label in labels]
            with Image.open(sample.img_path) as file:
                picture = np.asarray(file.convert('RGB'))
            if picture.shape != maps[0].shape:  # the ground truth was cropped: show what the segmentor saw
                picture = data_batch['inputs'][i].flip(0).permute(1, 2, 0).cpu().numpy()  # BGR to RGB
            gap = np.full((len(picture), self.GAP, 3), 255, np.uint8)
            panel = np.concatenate([picture, gap, maps[0], gap, maps[1]], axis=1)
            Image.fromarray(panel).save(self.out_dir / f'{Path(sample.img_path).stem}.png')
