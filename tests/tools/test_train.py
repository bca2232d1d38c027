"""tools/train.py and dist_train.sh on generated pictures: weights, resuming, several processes, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import clip
from naclip.shapes.masks import write_masked_pictures
from naclip.training.hooks import VALIDATION
from tests.conftest import ROOT
from tools import index_masks
from tools import train as script

CONFIG = ROOT / 'configs/train_pixelclip_shapes.py'
STEPS = 4
QUICK = {
    'max_iters': STEPS,
    'batch': 2,
    'workers': 0,
    'log_interval': 1,
    'checkpoint_interval': 1,
    'model.clusters': 3,
    'model.start': 'vectors',
    'model.crop': 64,
    'data.crop': 64,
    'data.jitter': True,
    'model.resolution': 32,
    'val_config': None,
}
ENVIRONMENT = os.environ | {'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'}
Run = Callable[..., int]
pytestmark = pytest.mark.usefixtures('default_scope_given_back')


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'pictures'
    write_masked_pictures(root, 6, (64, 80))
    return root


def arguments(data: Path, work_dir: Path, *more: str, **changes: object) -> list[str]:
    options = [f'{key}={value}' for key, value in (QUICK | changes).items()]
    head = [str(CONFIG), '--device', 'cpu', '--data-root', str(data), '--work-dir', str(work_dir)]
    return [*head, *more, '--cfg-options', *options]


@pytest.fixture(scope='module')
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of a run that nothing interrupted; tests leave it as it is."""
    work_dir = tmp_path_factory.mktemp('finished')
    assert script.main(arguments(data, work_dir)) == 0
    return work_dir


def losses(work_dir: Path) -> list[float]:
    """The losses of all attempts of a run, by step; of a step that ran twice, the last."""
    found = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        lines = map(json.loads, path.read_text().splitlines())
        found |= {line['step']: line['loss'] for line in lines if 'loss' in line}
    return [found[step] for step in sorted(found)]


def weights(work_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(work_dir / 'model_final.pth', weights_only=True)['model']


def plain(state: object) -> object:
    """A state dict with lists for tensors, so that == compares it."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [plain(value) for value in state]
    return state.tolist() if isinstance(state, torch.Tensor) else state


def assert_same_run(a: Path, b: Path) -> None:
    """Same losses, and the same state of everything at the end."""
    assert losses(a) == losses(b)
    torch.testing.assert_close(weights(a), weights(b), rtol=0, atol=0)
    ends = [torch.load(folder / f'iter_{STEPS}.pth', weights_only=False) for folder in (a, b)]
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert plain(ends[0][key]) == plain(ends[1][key])


def test_weights_out(finished):
    """The student is what the harness reads; the tower has moved, and what is frozen has not."""
    net, _ = clip.load(finished / 'model_final.pth', 'cpu')
    before, _ = clip.load('shapes', 'cpu')
    moved = {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, net.state_dict()[name])}
    assert moved
    assert all('attn' in name or 'position' in name for name in moved)
    assert all(name.startswith('visual.') for name in moved)
    assert len(losses(finished)) == STEPS


@pytest.mark.slow
def test_finished_runs_stay_finished(finished, data, tmp_path):
    work_dir = Path(shutil.copytree(finished, tmp_path / 'work'))
    assert script.main(arguments(data, work_dir, '--resume')) == 0
    assert_same_run(work_dir, finished)


@pytest.mark.slow
def test_it_goes_on_after_the_last_whole_checkpoint(finished, data, tmp_path, caplog):
    """The newest one was being written when the run died."""
    work_dir = tmp_path / 'work'
    assert script.main(arguments(data, work_dir, max_iters=STEPS, checkpoint_interval=2)) == 0
    newest = work_dir / f'iter_{STEPS}.pth'
    newest.write_bytes(newest.read_bytes()[:-1000])
    (work_dir / 'model_final.pth').unlink()
    assert script.main(arguments(data, work_dir, '--resume', checkpoint_interval=2)) == 0
    assert 'cut short' in caplog.text
    assert_same_run(work_dir, finished)


@pytest.mark.slow
def test_killed_runs_go_on(finished, data, tmp_path):
    """Killed at any point: after the first checkpoint, then again after the second."""
    work_dir = tmp_path / 'work'
    command = [sys.executable, str(ROOT / 'tools/train.py'), *arguments(data, work_dir, '--resume')]
    for step in (1, 2):
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(work_dir.glob(f'iter_{step}.pth')) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (work_dir / 'model_final.pth').exists()
    assert script.main(arguments(data, work_dir, '--resume')) == 0
    assert_same_run(work_dir, finished)


@pytest.mark.slow
def test_two_processes_train_as_one(finished, data, tmp_path):
    """On the same global batches: the same pictures, views, balanced assignment and mean."""
    work_dir = tmp_path / 'work'
    command = ['bash', str(ROOT / 'dist_train.sh'), *arguments(data, work_dir)]
    done = subprocess.run(
        command, env=ENVIRONMENT | {'GPUS': '2', 'PORT': '29587'}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses(work_dir) == pytest.approx(losses(finished), abs=1e-5)
    ours, theirs = weights(work_dir), weights(finished)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=2e-4)


@pytest.mark.slow
def test_evaluation_on_the_way_and_at_the_end(data, tmp_path):
    options = "['--limit','2','--cfg-options','model.slide_crop=0','test_dataloader.num_workers=0']"
    changes = {'max_iters': 2, 'val_config': 'configs/cfg_shapes.py', 'val_interval': 1, 'val_options': options}
    assert script.main(arguments(data, tmp_path / 'work', **changes)) == 0
    scores = json.loads((tmp_path / 'work' / VALIDATION).read_text())
    assert [entry['step'] for entry in scores] == [1, 2]
    assert all(0 < entry['mIoU'] < 100 for entry in scores)


@pytest.fixture
def refusal(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs train.py, which must refuse; returns what it says."""

    def run(*more: str, config: Path = CONFIG, root: Path | None = None, work: Path | None = None, **changes) -> str:
        options = arguments(root or data, work or tmp_path / 'work', *more, **changes)
        options[0] = str(config)
        assert script.main(options) == 1
        said = capfd.readouterr().err.strip().splitlines()
        assert said[-1].startswith('train.py: ')
        assert not [line for line in said if 'Traceback' in line]
        return said[-1]

    return run


def test_bad_configs(refusal, tmp_path):
    assert 'there are: ' in refusal(config=ROOT / 'configs/none.py')
    assert "unknown key of the config 'max_iter': " in refusal(max_iter=3)
    assert 'did you mean max_iters?' in refusal(max_iter=3)
    assert "unknown key of the config: model. 'cluster'" in refusal(**{'model.cluster': 3})
    assert "unknown key of the config: data. 'side'" in refusal(**{'data.side': 3})
    assert "unknown key of the config: rates. 'head'" in refusal(**{'rates.head': 3})
    assert 'they must agree' in refusal(**{'model.crop': 32})
    assert 'max_iters is 0, expected' in refusal(max_iters=0)
    assert "model.start is 'zeros', expected one of words, known, vectors, or" in refusal(**{'model.start': 'zeros'})
    assert refusal(**{'model.start': 'vector'}).endswith('did you mean vectors?')
    names = {'model.start': 'configs/cls_shapes.txt', 'model.prompt_length': 1}
    assert 'has 20 names, and model.clusters is 3' in refusal(**names, **{'model.clusters': 3})
    names['model.prompt_length'] = 2
    assert "the name 'grass' has 1 tokens, a prompt has 2" in refusal(**names, **{'model.clusters': 20})
    assert 'there would be no masks' in refusal(**{'data.annotations': None})
    assert 'val_config nothing.py does not exist' in refusal(val_config='nothing.py')
    assert 'unknown backbone' in refusal(**{'model.clip_path': 'ViT-Z'})
    path = tmp_path / 'other.py'
    path.write_text('batch = 3\n')
    assert 'does not describe a training: it has no rates, ' in refusal(config=path)


def test_bad_data(refusal, data, tmp_path):
    assert 'no data: there is no folder' in refusal(root=tmp_path / 'nothing')
    (tmp_path / 'empty').mkdir()
    assert 'there is no folder' in refusal(root=tmp_path / 'empty')
    copy = Path(shutil.copytree(data, tmp_path / 'copy', ignore=shutil.ignore_patterns('naclip_index*')))
    (copy / 'annotations/sa_000000/sa_1.json').write_text('{')
    assert '1 of 6 pictures' in refusal(root=copy)
    assert index_masks.main([str(copy)]) == 1
    assert index_masks.main([str(copy), '--leave-out']) == 0


def test_amp_needs_a_gpu(refusal):
    assert '--amp needs a CUDA device' in refusal('--amp')


def test_earlier_checkpoints_are_not_trained_over(refusal, finished):
    assert '--resume goes on with it' in refusal(work=finished)


def test_a_checkpoint_of_another_model_is_refused(refusal, finished, tmp_path):
    work = Path(shutil.copytree(finished, tmp_path / 'copy'))
    assert 'a checkpoint of another model: ' in refusal('--resume', work=work, **{'model.clusters': 5})


def test_no_work_directory(refusal, tmp_path):
    (tmp_path / 'file').touch()
    assert 'cannot make the work directory' in refusal(work=tmp_path / 'file' / 'work')


def test_a_loss_that_is_no_number_stops_the_run(refusal, tmp_path):
    said = refusal(max_norm=1e30, **{'rates.base': 1e30})
    assert 'the loss is nan' in said
