"""MMSegmentation's own clients on this segmentor, and its own data sets under eval.py."""

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer, inference_model, init_model, show_result_pyplot
from mmseg.datasets import LoveDADataset, PotsdamDataset, iSAIDDataset
from mmseg.registry import MODELS
from PIL import Image

import eval as eval_script
from naclip.runs.results import RESULTS
from naclip.shapes.generator import CLASSES, write_dataset
from tests.conftest import ROOT
from tests.test_resume import read_results

SHAPES = ROOT / 'configs' / 'cfg_shapes.py'
MMSEG = Path(mmseg.__file__).parent / '.mim'
PICTURES = 3


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing here may depend on being in the checkout."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():  # of MMSegmentation about itself, and of libraries that it opens
        warnings.simplefilter('ignore')
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('clients') / 'shapes'
    write_dataset(root, PICTURES, (64, 96))
    return root


@pytest.fixture(scope='module')
def loaded():
    return init_model(SHAPES, None, 'cpu')


@pytest.fixture
def model(loaded):
    loaded.cfg = Config.fromfile(SHAPES)  # MMSegmentation changes it for arrays, and does not change it back
    return loaded


def pictures(data: Path) -> list[str]:
    return [str(path) for path in sorted((data / 'img_dir/val').iterdir())]


def labels_of(sample) -> np.ndarray:
    return sample.pred_sem_seg.data.cpu().numpy()[0]


def test_init_model(model):
    assert model.dataset_meta['classes'] == list(CLASSES)
    assert np.shape(model.dataset_meta['palette']) == (len(CLASSES), 3)
    assert model.cfg.model.name_path == './configs/cls_shapes.txt'


def test_inference_on_files_lists_and_arrays(model, data: Path):
    files = pictures(data)
    singles = [labels_of(inference_model(model, file)) for file in files]
    together = [labels_of(sample) for sample in inference_model(model, files)]
    arrays = [np.asarray(Image.open(file).convert('RGB'))[..., ::-1].copy() for file in files]
    from_arrays = [labels_of(sample) for sample in inference_model(model, arrays)]
    assert singles[0].shape == (64, 96)
    truth = np.asarray(Image.open(data / 'ann_dir/val/000000.png'))
    assert (singles[0] == truth).mean() > 0.8  # the right channel order, and the right preparation
    for single, batched, array in zip(singles, together, from_arrays, strict=True):
        assert np.array_equal(single, batched)
        assert np.array_equal(single, array)


def test_drawing(model, data: Path, tmp_path: Path):
    file = pictures(data)[0]
    result = inference_model(model, file)
    drawn = show_result_pyplot(
        model, file, result, show=False, draw_gt=False, with_labels=False, opacity=1.0, out_file=str(tmp_path / 'a.png')
    )
    expected = np.array(model.dataset_meta['palette'])[labels_of(result)]
    assert np.abs(drawn.astype(int) - expected).max() <= 1
    assert Image.open(tmp_path / 'a.png').size == (96, 64)


@pytest.mark.parametrize('as_config', [False, True])
def test_inferencer(model, data: Path, tmp_path: Path, as_config: bool):
    config = Config.fromfile(SHAPES) if as_config else str(SHAPES)
    inferencer = MMSegInferencer(model=config, device='cpu', show_progress=False)
    assert inferencer.model.dataset_meta == model.dataset_meta  # and not Cityscapes'
    files = pictures(data)
    seen = inferencer(files, out_dir=str(tmp_path / 'out'), return_vis=True)
    for file, labels in zip(files, seen['predictions'], strict=True):
        assert np.array_equal(labels, labels_of(inference_model(model, file)))
    assert len(list((tmp_path / 'out/pred').iterdir())) == len(list((tmp_path / 'out/vis').iterdir())) == PICTURES


def runner_config(data: Path, work_dir: Path) -> Config:
    config = Config.fromfile(SHAPES)
    config.work_dir = str(work_dir)
    config.model.device = 'cpu'
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    config.test_dataloader.dataset.data_root = str(data)
    return config


def evaluated(data: Path, work_dir: Path, *more: str, config: Path = SHAPES) -> dict:
    """results.json of eval.py."""
    options = ['--config', str(config), '--device', 'cpu', '--data-root', str(data), '--work-dir', str(work_dir), *more]
    assert eval_script.main([*options, '--cfg-options', 'test_dataloader.num_workers=0']) == 0
    return read_results(work_dir)


def test_runner(data: Path, tmp_path: Path):
    scores = Runner.from_cfg(runner_config(data, tmp_path / 'runner')).test()
    assert scores == pytest.approx(evaluated(data, tmp_path / 'eval')['metrics'], abs=0.006)  # MMSeg rounds


@pytest.mark.parametrize('kind', ['IoUMetric', 'PixelCountIoUMetric'])
def test_runner_with_either_metric(data: Path, tmp_path: Path, kind: str):
    config = runner_config(data, tmp_path)
    config.test_evaluator.type = kind
    config.experiment_name = kind
    assert Runner.from_cfg(config).test()['mIoU'] > 50


@pytest.mark.slow
def test_tools_test(data: Path, tmp_path: Path):
    """It wants weights: a file without any will do. Published types are found by an import in the config."""
    torch.save({'state_dict': {}}, tmp_path / 'none.pth')
    config = f"""_base_ = {str(SHAPES)!r}
custom_imports = dict(_delete_=True, imports=['naclip.harness.segmentor', 'naclip.harness.datasets'])
model = dict(_delete_=True, type='CLIPForSegmentation', clip_path='shapes', name_path='./configs/cls_shapes.txt',
             device='cpu', slide_crop=64, slide_stride=32, test_cfg=dict())
test_evaluator = dict(_delete_=True, type='IoUMetric', iou_metrics=['mIoU'])
"""
    (tmp_path / 'published.py').write_text(config)
    for name in (SHAPES, tmp_path / 'published.py'):
        command = [
            sys.executable,
            MMSEG / 'tools/test.py',
            name,
            tmp_path / 'none.pth',
            '--work-dir',
            tmp_path / 'work',
        ]
        command += ['--show-dir', tmp_path / 'shown', '--cfg-options', f'test_dataloader.dataset.data_root={data}']
        command += ['model.device=cpu', 'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
        environment = {'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
        environment |= {'NACLIP_CACHE': os.environ['NACLIP_CACHE'], 'HOME': str(tmp_path), 'PATH': '/usr/bin:/bin'}
        done = subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert 'mIoU' in done.stdout


def test_from_another_repository(tmp_path: Path):
    """A config with nothing of ours but an import."""
    (tmp_path / 'theirs.py').write_text(
        "custom_imports = dict(imports=['naclip.harness.segmentor'])\ndefault_scope = 'mmseg'\n"
        "model = dict(type='NACLIP', clip_path='shapes', name_path='./configs/cls_shapes.txt', device='cpu',\n"
        '             pretrained=None, train_cfg=None, test_cfg=dict(), init_cfg=None)\n'
    )
    segmentor = MODELS.build(Config.fromfile(tmp_path / 'theirs.py').model)
    assert segmentor.dataset_meta['classes'] == list(CLASSES)


def test_what_means_nothing_is_told(caplog: pytest.LogCaptureFixture):
    config = Config.fromfile(SHAPES).model
    MODELS.build(config | dict(device='cpu', test_cfg=dict(mode='whole'), pretrained='resnet.pth'))
    assert 'the segmentor makes nothing of pretrained, test_cfg' in caplog.text
    with pytest.raises(TypeError, match='takes no decode_head'):
        MODELS.build(config | dict(device='cpu', decode_head=dict()))


# MMSegmentation's own data sets.

# Name of MMSegmentation's config -> its data set, the suffix of label maps, whether label 0 is ignored.
DATA_SETS = {
    'loveda': (LoveDADataset, '.png', True),
    'potsdam': (PotsdamDataset, '.png', True),
    'isaid': (iSAIDDataset, '_instance_color_RGB.png', False),
}


def write_miniature(root: Path, suffix: str, values: int) -> None:
    """Two pictures with label maps of `values` values, in MMSegmentation's layout."""
    random = np.random.RandomState(0)
    for folder in ('img_dir/val', 'ann_dir/val'):
        (root / folder).mkdir(parents=True)
    for name in ('one', 'two'):
        labels = np.repeat(np.repeat(random.randint(0, values, (6, 8)), 8, 0), 8, 1).astype(np.uint8)
        Image.fromarray(random.randint(0, 256, (48, 64, 3), np.uint8)).save(root / f'img_dir/val/{name}.png')
        Image.fromarray(labels).save(root / f'ann_dir/val/{name}{suffix}')


@pytest.mark.slow
@pytest.mark.parametrize('name', DATA_SETS)
def test_data_sets_of_mmseg(name: str, tmp_path: Path, checkpoint_file: Path, capsys: pytest.CaptureFixture):
    dataset, suffix, reduced = DATA_SETS[name]
    classes = dataset.METAINFO['classes']
    write_miniature(tmp_path / 'data', suffix, len(classes) + reduced)
    (tmp_path / 'names.txt').write_text('\n'.join(classes))
    config = MMSEG / f'configs/_base_/datasets/{name}.py'
    small = ['--backbone', str(checkpoint_file), '--name-path', str(tmp_path / 'names.txt'), '--pamr', 'off']
    record = evaluated(tmp_path / 'data', tmp_path / 'work', *small, '--save-confusion', config=config)
    assert (record['protocol'], record['images'], record['changes']) == ('config', 2, {'pamr_steps': 0})
    assert [row['name'] for row in record['classes']] == list(classes)
    maps = [np.asarray(Image.open(path)).astype(int) for path in (tmp_path / 'data/ann_dir/val').iterdir()]
    expected = np.bincount(np.ravel(maps), minlength=len(classes) + reduced)[int(reduced) :]
    assert np.load(tmp_path / 'work/confusion.npy').sum(1).tolist() == expected.tolist()


def test_data_set_of_the_users_own(tmp_path: Path, checkpoint_file: Path):
    write_miniature(tmp_path / 'data', '.png', 3)
    (tmp_path / 'names.txt').write_text('tree\nriver\nsky')
    (tmp_path / 'mine.py').write_text(
        "metainfo = dict(classes=('tree', 'river', 'sky'), palette=[[0, 0, 0], [1, 1, 1], [2, 2, 2]])\n"
        "steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]\n"
        'test_dataloader = dict(\n'
        "    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),\n"
        "    dataset=dict(type='BaseSegDataset', data_root='', metainfo=metainfo, img_suffix='.png', pipeline=steps,\n"
        "        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val')))\n"
        "test_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore'])]\n"
    )
    small = ['--backbone', str(checkpoint_file), '--name-path', str(tmp_path / 'names.txt'), '--pamr', 'off']
    assert evaluated(tmp_path / 'data', tmp_path / 'work', *small, config=tmp_path / 'mine.py')['images'] == 2


def test_data_set_without_names(tmp_path: Path, capsys: pytest.CaptureFixture):
    config = shutil.copy(MMSEG / 'configs/_base_/datasets/loveda.py', tmp_path / 'loveda.py')
    assert eval_script.main(['--config', str(config), '--device', 'cpu']) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line == f'eval.py: config {config} names no vocabulary: give --name-path, or set model.name_path in the config'
    )
    with open(config, 'a') as file:
        file.write("test_evaluator = [dict(type='IoUMetric'), dict(type='DepthMetric')]\n")
    assert eval_script.main(['--config', str(config), '--device', 'cpu', '--name-path', 'x']) == 1
    assert 'expected one IoUMetric' in capsys.readouterr().err
    assert not list(tmp_path.rglob(RESULTS))
