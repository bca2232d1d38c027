"""The progress bar and the side-by-side pictures, driven as MMEngine's loop drives them."""

from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from naclip.harness.hooks import ProgressBarHook, SideBySideHook

PALETTE = [[10, 20, 30], [200, 0, 0]]


class Pictures(list):
    metainfo: ClassVar[dict] = {'palette': PALETTE}


def runner_of(count: int) -> SimpleNamespace:
    return SimpleNamespace(test_dataloader=SimpleNamespace(dataset=Pictures(range(count))))


@pytest.fixture
def sample(tmp_path: Path) -> SegDataSample:
    picture = np.random.RandomState(0).randint(0, 256, (3, 5, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / 'x.png')
    sample = SegDataSample(metainfo={'img_path': str(tmp_path / 'x.png'), 'run': 1})
    truth = torch.zeros(1, 3, 5, dtype=torch.uint8)
    truth[0, 0] = 255
    sample.gt_sem_seg = PixelData(data=truth)
    sample.pred_sem_seg = PixelData(data=torch.ones(1, 3, 5, dtype=torch.int64))
    return sample


def of_another_run(sample: SegDataSample) -> SegDataSample:
    other = sample.clone()
    other.set_metainfo({'run': 0})
    other.pred_sem_seg = PixelData(data=torch.zeros(1, 3, 5, dtype=torch.int64))
    return other


def test_panel_shows_picture_truth_and_prediction(sample: SegDataSample, tmp_path: Path):
    hook = SideBySideHook(str(tmp_path / 'new' / 'show'), 1, PALETTE)
    hook.before_test(runner_of(1))
    hook.after_test_iter(runner_of(1), 0, outputs=[of_another_run(sample), sample])
    with Image.open(tmp_path / 'new' / 'show' / 'x.png') as file:
        panel = np.asarray(file)
    with Image.open(sample.img_path) as file:
        np.testing.assert_array_equal(panel[:, :5], np.asarray(file))
    assert (panel[:, 5:9] == 255).all()
    assert (panel[0, 9:14] == 255).all()  # ignored
    assert (panel[1:, 9:14] == PALETTE[0]).all()
    assert (panel[:, 18:] == PALETTE[1]).all()
    assert panel.shape == (3, 23, 3)


def test_grey_picture_becomes_a_panel_too(sample: SegDataSample, tmp_path: Path):
    Image.fromarray(np.full((3, 5), 77, np.uint8)).save(tmp_path / 'x.png')
    hook = SideBySideHook(str(tmp_path / 'show'), 1, PALETTE)
    hook.before_test(runner_of(1))
    hook.after_test_iter(runner_of(1), 0, outputs=[of_another_run(sample), sample])
    with Image.open(tmp_path / 'show' / 'x.png') as file:
        assert (np.asarray(file)[:, :5] == 77).all()


def test_progress_bar_counts_pictures(capsys: pytest.CaptureFixture):
    hook, runner = ProgressBarHook(), runner_of(3)
    hook.close()  # before it was opened: nothing to do
    hook.before_test_epoch(runner)
    for batch in (['a', 'b'], ['c']):
        hook.before_test_iter(runner, 0, data_batch=batch)
        hook.after_test_iter(runner, 0, data_batch=batch)
    hook.after_test_epoch(runner)
    assert '3/3' in capsys.readouterr().err
    assert hook.seconds > 0


def test_progress_bar_never_passes_the_total(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('naclip.harness.hooks.get_world_size', lambda: 2)
    hook, runner = ProgressBarHook(), runner_of(3)
    hook.before_test_epoch(runner)
    for _ in range(2):
        hook.after_test_iter(runner, 0, data_batch=['x'])
    hook.after_test_epoch(runner)
    assert '3/3' in capsys.readouterr().err


def test_progress_bar_starts_at_what_is_done(capsys: pytest.CaptureFixture):
    hook, runner = ProgressBarHook(done=7), runner_of(3)
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, 0, data_batch=['x'])
    hook.close()
    printed = capsys.readouterr().err
    assert '7/10' in printed
    assert '8/10' in printed
