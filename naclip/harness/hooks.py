"""What the run shows: a quiet console, a progress bar, and predictions side by side."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from PIL import Image
from torch import nn
from tqdm import tqdm

from naclip.runs.journal import picture_key
from naclip.runs.predictions import write_prediction


class NoDrawings:
    """In place of MMEngine's visualizer, which imports Matplotlib to draw nothing."""

    dataset_meta: dict | None = None

    def add_config(self, config: Config) -> None:
        """The work directory has the config already."""


class QuietRunner(Runner):
    """A Runner whose set-up goes to files only, the config's own and the log, and takes no longer than it must."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        self._console = [(h, h.level) for h in logger.handlers if not isinstance(h, logging.FileHandler)]
        for handler, _ in self._console:
            handler.setLevel(logging.WARNING)
        return logger

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        return model  # is where it belongs, and has no gradients that processes would exchange

    def build_visualizer(self, visualizer: object = None) -> NoDrawings:
        return NoDrawings()

    def _log_env(self, env_cfg: dict) -> None:
        """MMEngine's own asks compilers, and imports torchvision, for versions; results.json has those that count."""

    def unmute(self) -> None:
        """From now on the console shows what the log file has."""
        for handler, level in self._console:
            handler.setLevel(level)

    def test(self, quiet: bool = False) -> dict:
        """Evaluate; the console shows every class's scores, unless it is to be quiet."""
        if not quiet:
            self.unmute()
        return super().test()


class ProgressBarHook(Hook):
    """A progress bar over the pictures, with ETA; `seconds` is what the whole pass took, metric included.

    `waited` is for how long of that there was no picture to work on.

    It starts at the `done` pictures of earlier attempts.
    """

    seconds = 0.0
    waited = 0.0
    _bar: tqdm | None = None

    def __init__(self, done: int = 0):
        self.done = done

    def before_test_epoch(self, runner: Runner) -> None:
        self._start = self._idle_since = time.perf_counter()
        pictures = self.done + len(runner.test_dataloader.dataset)
        self._bar = tqdm(
            total=pictures, initial=self.done, desc='evaluating', unit='picture', disable=not is_main_process()
        )

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Sequence[dict] = (), outputs: Sequence | None = None
    ) -> None:
        done = len(data_batch) * get_world_size()  # of the last batch, not every process may have one
        self._bar.update(min(done, self._bar.total - self._bar.n))
        self._idle_since = time.perf_counter()

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Sequence[dict] = ()) -> None:
        self.waited += time.perf_counter() - self._idle_since

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.close()
        self.seconds = time.perf_counter() - self._start

    def close(self) -> None:
        """End the bar's line, however far it came."""
        if self._bar is not None:
            self._bar.close()


class PredictionsHook(Hook):
    """Writes the predictions of one run as label maps, as `tools/score.py` reads them."""

    def __init__(self, folder: Path, run: int, dataset: BaseSegDataset):
        self.folder, self.run, self.dataset = folder, run, dataset

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Sequence[dict] = (), outputs: Sequence = ()
    ) -> None:
        for sample in outputs:
            if sample.run == self.run:
                key = picture_key(sample.img_path, self.dataset.data_root)
                labels = sample.pred_sem_seg.data[0].cpu().numpy()
                write_prediction(self.folder, key, labels, self.dataset.metainfo['palette'])


class SideBySideHook(Hook):
    """Writes picture, ground truth and prediction of one run side by side, in a palette, as `DIR/<stem>.png`."""

    IGNORED = (255, 255, 255)
    GAP = 4  # pixels of white between the three

    def __init__(self, out_dir: str, run: int, palette: Sequence[Sequence[int]]):
        self.out_dir = Path(out_dir)
        self.run = run
        self._colours = np.array([*palette, self.IGNORED], np.uint8)

    def before_test(self, runner: Runner) -> None:
        self.out_dir.mkdir(parents=True, exist_ok=True)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Sequence[dict] = (), outputs: Sequence = ()
    ) -> None:
        seen = {item['path']: item['inputs'] for item in data_batch}
        for sample in outputs:
            if sample.run != self.run:
                continue
            labels = (sample.gt_sem_seg.data, sample.pred_sem_seg.data)
            maps = [self._colours[label.squeeze().cpu().clamp(max=len(self._colours) - 1).numpy()] for label in labels]
            with Image.open(sample.img_path) as file:
                picture = np.asarray(file.convert('RGB'))
            if picture.shape != maps[0].shape:  # the ground truth was cropped: show what the segmentor saw
                picture = seen[os.path.abspath(sample.img_path)].flip(0).permute(1, 2, 0).numpy()  # BGR to RGB
            gap = np.full((len(picture), self.GAP, 3), 255, np.uint8)
            panel = np.concatenate([picture, gap, maps[0], gap, maps[1]], axis=1)
            Image.fromarray(panel).save(self.out_dir / f'{Path(sample.img_path).stem}.png')
