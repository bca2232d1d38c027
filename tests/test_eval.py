"""eval.py and the shell scripts around it, run on miniature data sets in the benchmarks' own layouts."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval as eval_script
from clip.weights import PIXELCLIP_PREFIX
from tests.conftest import ROOT, free_port
from tests.goldens.fake_datasets import BENCHMARKS as FAKE_FOLDERS
from tests.goldens.fake_datasets import SIZES, write_benchmark

FOLDERS = {
    'voc21': 'voc',
    'context60': 'context',
    'coco_object': 'coco_object',
    'voc20': 'voc',
    'city_scapes': 'cityscapes',
    'context59': 'context',
    'ade20k': 'ade20k',
    'coco_stuff164k': 'coco_stuff164k',
    'coco_stuff10k': 'coco_stuff10k',
}
EIGHT = [benchmark for benchmark in FOLDERS if benchmark != 'coco_stuff10k']
GOLDEN = json.loads((ROOT / 'tests/goldens/benchmarks_naclip.json').read_text())
SCLIP_GOLDEN = json.loads((ROOT / 'tests/goldens/benchmarks_sclip.json').read_text())
COUNTS = ('intersect', 'pred', 'label')
Eval = Callable[..., tuple[int, dict | None]]


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a miniature of every data set."""
    root = tmp_path_factory.mktemp('data')
    for name in FAKE_FOLDERS:
        write_benchmark(root, name)
    return root


@pytest.fixture(scope='session')
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniatures of the data sets with 16-bit labels: one picture each, below `context459` and `ade847`."""
    root = tmp_path_factory.mktemp('wide')
    for name, picture, label, classes in (
        ('context459', 'JPEGImages/a.jpg', 'annotations_detectron2/pc459_val/a.tif', 459),
        ('ade847', 'images_detectron2/validation/a.jpg', 'annotations_detectron2/validation/a.tif', 847),
    ):
        rng = np.random.RandomState(classes)
        labels = np.kron(rng.randint(0, classes, (4, 5)), np.ones((24, 24), int)).astype(np.uint16)
        labels[:, :3] = 65535
        labels[:, 50:56] = 255
        for path in (root / name / picture, root / name / label):
            path.parent.mkdir(parents=True)
        Image.fromarray(rng.randint(0, 256, (96, 120, 3)).astype(np.uint8)).save(root / name / picture)
        Image.fromarray(labels).save(root / name / label)
    split = root / 'context459/ImageSets/SegmentationContext/val.txt'
    split.parent.mkdir(parents=True)
    split.write_text('a\n')
    return root


@pytest.fixture
def evaluate(tmp_path: Path, checkpoint_file: Path, data: Path) -> Eval:
    """Runs eval.py's main on a benchmark; returns the exit code and results.json (None if there is none)."""

    def run(benchmark: str, *options: str, data_root: str | None = None) -> tuple[int, dict | None]:
        work_dir = tmp_path / 'work'
        argv = ['--config', str(ROOT / f'configs/cfg_{benchmark}.py'), '--backbone', str(checkpoint_file)]
        argv += ['--data-root', data_root or str(data / FOLDERS[benchmark]), '--work-dir', str(work_dir)]
        argv += ['--device', 'cpu', *options]
        if '--cfg-options' not in options:
            argv += ['--cfg-options', 'test_dataloader.num_workers=0']
        code = eval_script.main(argv)
        results = work_dir / 'results.json'
        return code, json.loads(results.read_text()) if results.exists() else None

    return run


@pytest.mark.parametrize('key', GOLDEN)
def test_pixel_counts_are_those_of_the_published_implementation(key: str, evaluate: Eval):
    benchmark, _, version = key.partition('@')
    code, record = evaluate(benchmark, '--protocol', 'naclip_v2' if version else 'naclip')
    assert code == 0
    assert_counted(record, GOLDEN[key])


@pytest.mark.slow
@pytest.mark.parametrize('benchmark', SCLIP_GOLDEN)
def test_pixel_counts_are_those_of_sclip(benchmark: str, evaluate: Eval):
    code, record = evaluate(benchmark, '--method', 'sclip')
    assert code == 0
    assert (record['method'], record['protocol'], record['changes']) == ('sclip', 'sclip', {})
    assert record['settings']['pamr_steps'] == 0
    assert_counted(record, SCLIP_GOLDEN[benchmark])


def assert_counted(record: dict, golden: dict) -> None:
    """The same pixels, but for near ties."""
    tolerance = 0.001 * min(h * w for h, w in SIZES)
    for count in COUNTS:
        ours = [row[count] for row in record['classes']]
        np.testing.assert_allclose(ours, golden[count], rtol=0, atol=tolerance)
    for metric, value in golden['metrics'].items():
        assert record['metrics'][metric] == pytest.approx(value, abs=0.05)


def test_printed_numbers_and_results_file_agree(evaluate: Eval, capfd: pytest.CaptureFixture):
    _, record = evaluate('voc21', '--std', '3', '--limit', '2')
    captured = capfd.readouterr()
    printed = captured.out + captured.err
    scores = record['metrics']
    assert f'mIoU {scores["mIoU"]:.2f}  aAcc {scores["aAcc"]:.2f}  mAcc {scores["mAcc"]:.2f}' in printed
    rows = {
        cells[1].strip(): cells[2:4] for cells in (line.split('|') for line in printed.splitlines()) if len(cells) == 5
    }
    assert len(record['classes']) == 21
    for row in record['classes']:
        for key, cell in zip(('iou', 'acc'), rows[row['name']], strict=True):
            expected = float('nan') if row[key] is None else round(row[key], 2)
            assert float(cell) == pytest.approx(expected, abs=0.011, nan_ok=True)


def test_results_file_tells_everything(evaluate: Eval, checkpoint_file: Path):
    from clip.weights import file_sha256

    _, record = evaluate('voc20', '--attn', 'kk', '--arch', 'vanilla', '--pamr', 'off', '--limit', '1')
    assert (record['benchmark'], record['method'], record['protocol'], record['images']) == (
        'voc20',
        'kk/vanilla',
        'naclip',
        1,
    )
    assert record['changes'] == {'attn_strategy': 'kk', 'arch': 'vanilla', 'pamr_steps': 0}
    assert record['settings']['pamr_steps'] == 0
    assert record['settings']['resize'] == [2048, 336]
    assert record['sha256']['weights'] == file_sha256(checkpoint_file)
    assert record['sha256']['vocabulary'] == file_sha256(ROOT / 'configs/cls_voc20.txt')
    assert record['sha256']['templates'] == file_sha256(ROOT / 'prompts/imagenet.txt')
    assert {'python', 'torch', 'numpy'} <= record['versions'].keys()
    assert record['seconds']['per_image'] == pytest.approx(record['seconds']['total'])
    assert record['device']['type'] == 'cpu'
    for row in record['classes']:
        assert row['union'] == row['pred'] + row['label'] - row['intersect']
        assert row['iou'] == (pytest.approx(100 * row['intersect'] / row['union']) if row['union'] else None)


def test_headline_states_the_run(evaluate: Eval, capsys: pytest.CaptureFixture):
    evaluate('voc21', '--limit', '1', '--std', '2')
    line = capsys.readouterr().out.splitlines()[0]
    for part in (
        'method naclip',
        'protocol naclip changed by gaussian_std=2.0',
        'stand-in.safetensors',
        'cls_voc21.txt',
    ):
        assert part in line
    assert 'device' in line


@pytest.mark.slow
@pytest.mark.parametrize('benchmark', ['coco_stuff164k', 'ade20k', 'context59', 'city_scapes', 'voc20'])
def test_pixelclip_with_a_checkpoint_in_its_format(benchmark: str, evaluate: Eval, state_dict: dict, tmp_path: Path):
    import torch

    path = tmp_path / 'model_final.pth'
    torch.save({'model': {PIXELCLIP_PREFIX + name: tensor for name, tensor in state_dict.items()}}, path)
    code, record = evaluate(benchmark, '--method', 'pixelclip', '--limit', '2')
    assert code == 0
    assert (record['method'], record['protocol'], record['changes']) == ('pixelclip', 'pixelclip', {})
    settings = record['settings']
    assert (settings['resize'], settings['input_size'], settings['tower']) == ([2560, 640], [320, 320], 'vit')
    assert Path(settings['templates']).name == 'pixelclip.txt'
    assert Path(settings['vocabulary']).name == f'cls_pixelclip_{benchmark}.txt'
    _, trained = evaluate(benchmark, '--method', 'pixelclip', '--limit', '2', '--backbone', str(path))
    assert trained['classes'] == record['classes']


def test_pixelclip_with_a_convnext(evaluate: Eval, convnext_parts, tmp_path: Path, capsys: pytest.CaptureFixture):
    import torch

    path, weights = tmp_path / 'model_final.pth', convnext_parts.state_dict()
    torch.save({'model': {PIXELCLIP_PREFIX + name: tensor for name, tensor in weights.items()}}, path)
    options = ('--limit', '1', '--backbone', str(path))
    code, record = evaluate('voc20', '--method', 'pixelclip', *options)
    assert code == 0
    assert 'method pixelclip (ConvNeXt without pooling, no PAMR); protocol pixelclip;' in capsys.readouterr().out
    settings = record['settings']
    assert (record['protocol'], record['changes'], settings['tower']) == ('pixelclip', {}, 'convnext')
    assert settings['input_size'] == [640, 640]
    assert settings['constants']['feature_grid'] == [64, 64]
    for method in ('naclip', 'sclip', 'cliptrase', 'clip'):
        assert evaluate('voc20', '--method', method, *options)[0] == 1
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith(f'eval.py: method {method} reads the blocks of a ViT')
        assert message.endswith('use --method pixelclip')


def test_pixelclip_elsewhere_is_under_protocol_naclip(evaluate: Eval):
    _, record = evaluate('voc21', '--method', 'pixelclip', '--limit', '1')
    assert (record['method'], record['protocol']) == ('pixelclip', 'naclip')


@pytest.mark.slow
@pytest.mark.parametrize('benchmark', ['voc20', 'voc21', 'coco_object', 'context60', 'ade20k'])
def test_cliptrase(benchmark: str, evaluate: Eval):
    code, record = evaluate(benchmark, '--method', 'cliptrase')
    assert code == 0
    assert (record['method'], record['protocol'], record['changes']) == ('cliptrase', 'cliptrase', {})
    assert (record['settings']['centre_square'], record['settings']['labelled_only']) == (224, True)
    pixels = sum(row['label'] for row in record['classes'])
    if benchmark in ('voc21', 'coco_object', 'context60'):
        assert pixels == 3 * 224 * 224  # every pixel counts
    else:
        assert pixels < 3 * 224 * 224
    ious = [row['iou'] for row in record['classes'] if row['label']]
    assert record['metrics']['mIoU'] == pytest.approx(sum(ious) / len(ious))


def test_cliptrase_at_its_other_size(evaluate: Eval, tmp_path: Path):
    options = ['--method', 'cliptrase', '--protocol', 'cliptrase_336', '--limit', '1']
    code, record = evaluate('voc21', *options, '--show-dir', str(tmp_path / 'show'))
    assert code == 0
    assert (record['settings']['centre_square'], record['settings']['constants']['eps']) == (336, 1.1)
    with Image.open(tmp_path / 'show/000000.png') as panel:
        assert panel.size == (3 * 336 + 8, 336)


def test_cliptrase_under_protocol_naclip(evaluate: Eval):
    code, record = evaluate('voc21', '--method', 'cliptrase', '--protocol', 'naclip', '--limit', '2')
    assert code == 0
    assert (record['method'], record['protocol'], record['changes']) == ('cliptrase', 'naclip', {})
    assert (record['settings']['slide_crop'], record['settings']['prob_thd']) == (0, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize('method', ['naclip', 'cliptrase'])
@pytest.mark.parametrize(('benchmark', 'classes'), [('context459', 459), ('ade847', 847)])
def test_labels_of_16_bits(benchmark: str, classes: int, method: str, evaluate: Eval, wide: Path, tmp_path: Path):
    options = ['--method', method, '--pamr', 'off', '--show-dir', str(tmp_path / 'show'), '--cfg-options']
    options += ['test_dataloader.num_workers=0', f'model.templates={ROOT}/prompts/pixelclip.txt']  # 8, not 80
    code, record = evaluate(benchmark, *options, data_root=str(wide / benchmark))
    assert code == 0
    assert len(record['classes']) == classes
    assert record['protocol'] == method
    assert record['classes'][255]['label'] > 0
    assert any(row['label'] for row in record['classes'][256:])
    if method == 'naclip':
        assert sum(row['label'] for row in record['classes']) == 96 * 117


def test_options_change_a_method(evaluate: Eval):
    _, record = evaluate('voc20', '--method', 'sclip', '--pamr', 'on', '--arch', 'reduced', '--limit', '1')
    assert (record['method'], record['protocol']) == ('csa/reduced', 'sclip')
    assert record['changes'] == {'arch': 'reduced', 'pamr_steps': 10}


@pytest.mark.parametrize(('method', 'pamr_steps'), [('naclip', 10), ('sclip', 0), ('clip', 0)])
def test_methods_under_one_protocol(method: str, pamr_steps: int, evaluate: Eval):
    _, record = evaluate('voc21', '--method', method, '--protocol', 'naclip', '--limit', '1')
    assert (record['method'], record['protocol'], record['changes']) == (method, 'naclip', {})
    assert record['settings']['pamr_steps'] == pamr_steps
    assert record['settings']['logit_scale'] == 40
    assert record['settings']['area_thd'] is None


def test_protocol_naclip_v2_reads_whole_pictures(evaluate: Eval):
    _, first = evaluate('voc21', '--limit', '1')
    _, second = evaluate('voc21', '--limit', '1', '--protocol', 'naclip_v2')
    assert (first['settings']['slide_crop'], second['settings']['slide_crop']) == (224, 0)
    assert second['changes'] == {}


def test_show_dir_writes_panels_and_changes_nothing(evaluate: Eval, tmp_path: Path, data: Path):
    _, without = evaluate('voc21')
    code, record = evaluate('voc21', '--show-dir', str(tmp_path / 'show'))
    assert code == 0
    assert record['classes'] == without['classes']
    panels = sorted((tmp_path / 'show').iterdir())
    assert [panel.name for panel in panels] == ['000000.png', '000001.png', '000002.png']
    for panel, (height, width) in zip(panels, SIZES, strict=True):
        assert np.asarray(Image.open(panel)).shape == (height, 3 * width + 8, 3)
    panel = np.asarray(Image.open(panels[0]))
    picture = np.asarray(Image.open(data / 'voc/JPEGImages/000000.jpg'))
    label = np.asarray(Image.open(data / 'voc/SegmentationClass/000000.png'))
    width = picture.shape[1]
    np.testing.assert_array_equal(panel[:, :width], picture)
    np.testing.assert_array_equal(panel[:, width + 4 : 2 * width + 4][label == 2], [[0, 128, 0]] * (label == 2).sum())


@pytest.mark.slow
def test_data_root_option_variable_and_layout(
    evaluate: Eval, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    layout = tmp_path / 'layout/VOCdevkit'
    layout.mkdir(parents=True)
    (layout / 'VOC2012').symlink_to(data / 'voc')
    _, direct = evaluate('voc21', '--limit', '1')
    _, nested = evaluate('voc21', '--limit', '1', data_root=str(tmp_path / 'layout'))
    monkeypatch.setenv('NACLIP_DATA_ROOT', str(tmp_path / 'layout'))
    monkeypatch.chdir(tmp_path)
    config = str(ROOT / 'configs/cfg_voc21.py')
    argv = ['--config', config, '--backbone', direct['backbone'], '--limit', '1', '--device', 'cpu']
    assert eval_script.main([*argv, '--cfg-options', 'test_dataloader.num_workers=0']) == 0
    by_variable = json.loads((tmp_path / 'work_dirs/cfg_voc21/results.json').read_text())
    assert direct['classes'] == nested['classes'] == by_variable['classes']


def test_published_config_files_run_unchanged(evaluate: Eval, data: Path, tmp_path: Path, checkpoint_file: Path):
    """The form of the config files of NACLIP's repository: their hooks, evaluator and data-set types."""
    (tmp_path / 'base_config.py').write_text(
        "model = dict(type='NACLIP', clip_path='ViT-B/16')\n"
        "test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])\n"
        "default_scope = 'mmseg'\n"
        "env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),\n"
        "               dist_cfg=dict(backend='nccl'))\n"
        "vis_backends = [dict(type='LocalVisBackend')]\n"
        "visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, alpha=1.0, name='visualizer')\n"
        'log_processor = dict(by_epoch=False)\n'
        "log_level = 'INFO'\nload_from = None\nresume = False\ntest_cfg = dict(type='TestLoop')\n"
        "default_hooks = dict(timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=50),\n"
        "    param_scheduler=dict(type='ParamSchedulerHook'), checkpoint=dict(type='CheckpointHook', interval=2000),\n"
        "    sampler_seed=dict(type='DistSamplerSeedHook'), visualization=dict(type='SegVisualizationHook'))\n"
    )
    config = tmp_path / 'cfg_voc20.py'
    config.write_text(
        "_base_ = './base_config.py'\n"
        f"model = dict(name_path='{ROOT}/configs/cls_voc20.txt', prob_thd=0.0, pamr_steps=10, pamr_stride=(8, 16))\n"
        "dataset_type = 'PascalVOC20Dataset'\n"
        f"data_root = '{data / 'voc'}'\n"
        "test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(2048, 336), keep_ratio=True),\n"
        "                 dict(type='LoadAnnotations'), dict(type='PackSegInputs')]\n"
        'test_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False,\n'
        "    sampler=dict(type='DefaultSampler', shuffle=False),\n"
        '    dataset=dict(type=dataset_type, data_root=data_root,\n'
        "        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),\n"
        "        ann_file='ImageSets/Segmentation/val.txt', pipeline=test_pipeline))\n"
    )
    work_dir = tmp_path / 'published'
    argv = ['--config', str(config), '--backbone', str(checkpoint_file), '--work-dir', str(work_dir), '--device', 'cpu']
    assert eval_script.main(argv) == 0
    record = json.loads((work_dir / 'results.json').read_text())
    assert [row['pred'] for row in record['classes']] == GOLDEN['voc20']['pred']


def test_config_files_of_sclip_run_unchanged(data: Path, tmp_path: Path, checkpoint_file: Path):
    """The form of the config files of SCLIP's repository; their settings stand, whatever protocols say."""
    (tmp_path / 'base_config.py').write_text(
        "model = dict(type='CLIPForSegmentation', clip_path='ViT-B/16')\n"
        "test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])\n"
        "default_scope = 'mmseg'\n"
        "log_processor = dict(by_epoch=False)\nlog_level = 'INFO'\ntest_cfg = dict(type='TestLoop')\n"
    )
    config = tmp_path / 'cfg_voc21.py'
    config.write_text(
        "_base_ = './base_config.py'\n"
        f"model = dict(name_path='{ROOT}/configs/cls_voc21.txt', logit_scale=65, prob_thd=0.1, area_thd=0.1)\n"
        "test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(2048, 336), keep_ratio=True),\n"
        "                 dict(type='LoadAnnotations'), dict(type='PackSegInputs')]\n"
        'test_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False,\n'
        "    sampler=dict(type='DefaultSampler', shuffle=False),\n"
        f"    dataset=dict(type='PascalVOCDataset', data_root='{data / 'voc'}',\n"
        "        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),\n"
        "        ann_file='ImageSets/Segmentation/val.txt', pipeline=test_pipeline))\n"
    )
    argv = ['--config', str(config), '--backbone', str(checkpoint_file), '--work-dir', str(tmp_path), '--device', 'cpu']
    assert eval_script.main(argv) == 0
    record = json.loads((tmp_path / 'results.json').read_text())
    assert (record['method'], record['protocol']) == ('sclip', 'config')
    assert_counted(record, SCLIP_GOLDEN['voc21'])


# Bad input: one clear line, exit code not 0, no results file.


@pytest.fixture
def complaint(evaluate: Eval, capfd: pytest.CaptureFixture, tmp_path: Path) -> Callable[..., str]:
    """Runs eval.py on something bad; returns the line it complains with."""

    def run(benchmark: str, *options: str, **kwargs) -> str:
        capfd.readouterr()
        try:
            code, record = evaluate(benchmark, *options, **kwargs)
        except SystemExit as stop:  # argparse
            code, record = stop.code, None
        errors = capfd.readouterr().err
        lines = [line for line in errors.splitlines() if line.startswith(('eval.py', 'pytest', '__main__'))]
        assert code not in (0, None)
        assert record is None
        assert 'Traceback' not in errors
        assert len(lines) == 1, errors
        assert errors.endswith(lines[0] + '\n')
        return lines[0]

    return run


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--backbone', 'ViT-Z/99'], ['ViT-Z/99', 'ViT-B/16', 'shapes']),
        (['--arch', 'wide'], ['wide', 'reduced', 'vanilla']),
        (['--attn', 'qk'], ['qk', 'naclip', 'csa']),
        (['--method', 'pixelclp'], ['pixelclp', 'did you mean pixelclip?']),
        (['--method', 'mine.py:Mine'], ['mine.py:Mine', 'there is no file mine.py']),
        (['--method-options', 'eps=0.3'], ["naclip has no constant 'eps'", 'attention, architecture, gaussian_std']),
        (['--method', 'cliptrase', '--method-options', 'eps=-1'], ['eps -1', '> 0']),
        (['--method-options', 'eps'], ['--method-options', 'KEY=VALUE', "'eps'"]),
        (['--method', 'gem', '--attn', 'kk'], ["gem has no constant 'attention'", 'depth', 'iterations']),
        (['--method', 'sam'], ['sam', 'naclip', 'sclip']),
        (['--protocol', 'mine'], ['mine', 'naclip_v2']),
        (['--protocol', 'pixelclip'], ['voc21', 'coco_stuff164k', 'voc20']),
        (['--device', 'tpu'], ['tpu', 'auto', 'cuda:INDEX']),
        (['--std', '0'], ['0.0', '> 0']),
        (['--std', '-1'], ['-1.0', '> 0']),
        (['--limit', '0'], ['above 0']),
        (['--pamr', 'maybe'], ['maybe', 'on', 'off']),
        (['--data-root', '/nowhere'], ['voc21', '/nowhere', 'JPEGImages', 'Segmentation/val.txt', '--data-root']),
        (['--config', 'configs/cfg_voc2012.py'], ['cfg_voc2012.py', 'configs/cfg_voc21.py']),
        (['--cfg-options', 'model.prob_thd'], ['KEY=VALUE', 'model.prob_thd']),
        (['--cfg-options', 'model.prob_thd=2'], ['prob_thd', '2', 'from 0 to 1']),
        (['--cfg-options', 'model.slide_stride=300'], ['slide_stride 300', 'stride <= crop']),
        (['--cfg-options', 'model.colour=red'], ['colour']),
        (['--cfg-options', 'model.type=Segmenter9'], ['Segmenter9', 'NACLIP']),
        (['--cfg-options', 'model.name_path=/no/cls.txt'], ['/no/cls.txt', 'does not exist']),
        (['--cfg-options', 'test_dataloader.dataset.type=VOC2099'], ['VOC2099']),
        (['--cfg-options', f'model.name_path={ROOT}/configs/cls_voc20.txt'], ['cls_voc20.txt', '20', '21']),
    ],
)  # fmt: skip
def test_wrong_options(options: list[str], expected: list[str], complaint: Callable[..., str]):
    line = complaint('voc21', *options)
    for part in expected:
        assert part in line


def test_cuda_asked_for_without_one(complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert '--device cpu' in complaint('voc21', '--device', 'cuda')


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        (b'', 'empty'),
        (b'\n\n', 'empty'),
        (b'cat\n\ndog\n', 'line 2'),
        (b'cat\n , \ndog\n', 'line 2'),
        (b'\xff\xfe\x00c', 'UTF-8'),
        (('cat\n' * 20 + 'very ' * 80 + 'long\n').encode(), 'tokens'),
    ],
)
def test_wrong_vocabulary(content: bytes, expected: str, complaint: Callable[..., str], tmp_path: Path):
    names = tmp_path / 'cls.txt'
    names.write_bytes(content)
    assert expected in complaint('voc21', '--cfg-options', f'model.name_path={names}')


def test_wrong_checkpoints(complaint: Callable[..., str], checkpoint_file: Path, tmp_path: Path):
    import torch

    cut = tmp_path / 'cut.safetensors'
    cut.write_bytes(checkpoint_file.read_bytes()[:100_000])
    assert 'truncated' in complaint('voc21', '--backbone', str(cut))
    torch.save({'visual.layer1.0.conv1.weight': torch.zeros(1)}, tmp_path / 'resnet.pt')
    assert 'ResNet' in complaint('voc21', '--backbone', str(tmp_path / 'resnet.pt'))
    torch.save({'fc.weight': torch.zeros(1)}, tmp_path / 'other.pt')
    assert 'not a CLIP checkpoint' in complaint('voc21', '--backbone', str(tmp_path / 'other.pt'))


@pytest.fixture
def voc(data: Path, tmp_path: Path) -> Path:
    """A copy of the miniature VOC that a test may damage."""
    return Path(shutil.copytree(data / 'voc', tmp_path / 'voc'))


def save_label(path: Path, value: int) -> None:
    Image.fromarray(np.full((128, 97), value, np.uint8)).save(path)


@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ('file', 'damage', 'expected'),
    [
        ('JPEGImages/000001.jpg', lambda path: path.write_bytes(b'no picture'), 'cannot read'),
        ('JPEGImages/000001.jpg', lambda path: path.write_bytes(path.read_bytes()[:3000]), 'cut short'),
        ('SegmentationClass/000001.png', lambda path: path.write_bytes(b'no picture'), 'cannot read'),
        ('SegmentationClass/000001.png', lambda path: path.write_bytes(path.read_bytes()[:300]), 'cut short'),
        ('SegmentationClass/000001.png', lambda path: path.unlink(), 'missing'),
        ('JPEGImages/000001.jpg', lambda path: path.unlink(), 'missing'),
        ('SegmentationClass/000001.png', lambda path: save_label(path, 33), '[33]'),
    ],
)  # fmt: skip
def test_damaged_data_names_the_file(
    file: str, damage: Callable, expected: str, workers: int, complaint: Callable[..., str], voc: Path
):
    damage(voc / file)
    options = ['--cfg-options', f'test_dataloader.num_workers={workers}']
    line = complaint('voc21', *options, data_root=str(voc))
    assert str(voc / file) in line
    assert expected in line
    assert not multiprocessing.active_children()  # the loader's have ended with the run


def test_empty_data_set(complaint: Callable[..., str], data: Path, tmp_path: Path):
    for folder in ('images/validation', 'annotations/validation'):
        (tmp_path / 'ade' / folder).mkdir(parents=True)
    assert 'no *.jpg picture' in complaint('ade20k', data_root=str(tmp_path / 'ade'))


# The command line as users type it.


def run_script(*command: str, **environment: str) -> subprocess.CompletedProcess:
    environment = os.environ | {'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'} | environment
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_command_line_complains_in_one_line(tmp_path: Path):
    run = run_script(sys.executable, 'eval.py', '--config', 'configs/nothing.py', '--work-dir', str(tmp_path / 'work'))
    assert run.returncode == 1
    assert run.stderr.startswith('eval.py: config configs/nothing.py does not exist')
    assert run.stderr.count('\n') == 1
    assert not (tmp_path / 'work').exists()
    run = run_script(sys.executable, 'eval.py', '--confi')
    assert run.returncode == 2
    assert run.stderr.count('\n') == 1


@pytest.mark.slow
def test_two_processes_count_what_one_counts(evaluate: Eval, data: Path, checkpoint_file: Path, tmp_path: Path):
    _, alone = evaluate('voc21')
    options = ['--backbone', str(checkpoint_file), '--data-root', str(data / 'voc'), '--device', 'cpu']
    work_dir = tmp_path / 'two'
    command = ['bash', 'dist_test.sh', 'configs/cfg_voc21.py', *options, '--work-dir', str(work_dir)]
    run = run_script(*command, GPUS='2', PORT=str(free_port()))
    assert run.returncode == 0, run.stderr
    two = json.loads((work_dir / 'results.json').read_text())
    assert two['settings']['processes'] == 2
    assert two['images'] == 3  # an odd number: the picture that fills up the second process is not counted
    assert two['classes'] == alone['classes']


@pytest.mark.slow
def test_all_benchmarks_in_one_go(data: Path, checkpoint_file: Path, tmp_path: Path):
    layout = {
        'VOCdevkit/VOC2012': 'voc',
        'VOCdevkit/VOC2010': 'context',
        'ade/ADEChallengeData2016': 'ade20k',
        'cityscapes': 'cityscapes',
        'coco_stuff164k': 'coco_stuff164k',
    }  # coco_object is missing
    for place, name in layout.items():
        (tmp_path / 'data' / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'data' / place).symlink_to(data / name)
    log = tmp_path / 'logs/run.log'
    options = ['--backbone', str(checkpoint_file), '--data-root', str(tmp_path / 'data'), '--limit', '1']
    run = run_script(
        'bash',
        'test_all.sh',
        'reduced',
        'naclip',
        '5',
        'off',
        'cpu',
        str(log),
        *options,
        WORK_DIR=str(tmp_path / 'work'),
    )
    assert run.returncode == 1
    assert run.stdout == log.read_text()
    assert 'not evaluated: coco_object' in run.stdout
    assert 'coco_object: not evaluated: benchmark coco_object: no data in' in run.stdout
    table = run.stdout[run.stdout.index('=== all') :].splitlines()[2:10]
    assert [line.split()[0] for line in table] == EIGHT
    for line in table:
        name, images, miou, published, difference, *_ = line.split()
        if name == 'coco_object':
            assert (images, miou) == ('-', '-')
        else:
            record = json.loads((tmp_path / 'work' / name / 'results.json').read_text())
            assert miou == f'{record["metrics"]["mIoU"]:.2f}'
            assert float(difference) == pytest.approx(float(miou) - float(published), abs=0.011)
    assert run_script('bash', 'test_all.sh', 'reduced').returncode == 2


@pytest.mark.slow
def test_several_methods_have_a_row_each(data: Path, checkpoint_file: Path, tmp_path: Path):
    """Another method later costs that method alone; one without data for a benchmark says so."""
    options = ['--backbone', str(checkpoint_file), '--data-root', str(data / 'voc'), '--limit', '2']
    given = dict(WORK_DIR=str(tmp_path / 'work'), BENCHMARKS='voc20 voc21 city_scapes')
    arguments = ['test_all.sh', '-', '-', '-', '-', 'cpu', str(tmp_path / 'log'), *options, '--method']
    run = run_script('bash', *arguments, 'clip', 'naclip', **given)
    assert run.returncode == 1
    assert 'not evaluated: clip/city_scapes naclip/city_scapes (the reasons' in run.stdout
    run = run_script('bash', *arguments, 'clip', 'naclip', 'sclip', **given)
    assert run.stdout.count('finished before, under the same settings') == 4
    header, *rows = run.stdout[run.stdout.index('=== all') :].splitlines()[1:5]
    assert header.split() == ['method', 'voc20', 'voc21', 'city_scapes', 'mean']
    assert [line.split()[0] for line in rows] == ['clip', 'naclip', 'sclip']
    for line in rows:
        method, voc20 = line.split()[:2]
        record = json.loads((tmp_path / f'work/{method}/voc20/results.json').read_text())
        assert voc20 == f'{record["metrics"]["mIoU"]:.2f}'
        assert line.endswith('(of 2)')


@pytest.mark.slow
def test_a_method_on_chosen_benchmarks_in_one_go(data: Path, checkpoint_file: Path, tmp_path: Path):
    options = ['--method', 'sclip', '--backbone', str(checkpoint_file), '--data-root', str(data / 'coco_stuff10k')]
    environment = dict(WORK_DIR=str(tmp_path / 'work'), BENCHMARKS='coco_stuff10k')
    arguments = ['-', '-', '-', '-', 'cpu', str(tmp_path / 'run.log'), *options]
    run = run_script('bash', 'test_all.sh', *arguments, **environment)
    assert run.returncode == 0, run.stdout
    record = json.loads((tmp_path / 'work/coco_stuff10k/results.json').read_text())
    assert (record['method'], record['protocol'], record['changes']) == ('sclip', 'sclip', {})
    (line,) = (line for line in run.stdout.splitlines() if line.startswith('coco_stuff10k  '))
    assert line.split()[3] == '25.91'


@pytest.mark.slow
def test_naclip_reads_the_embedded_benchmark_far_better_than_clip(tmp_path: Path):
    scores = {}
    for method in ('naclip', 'clip'):
        argv = ['--config', str(ROOT / 'configs/cfg_shapes.py'), '--method', method, '--pamr', 'off', '--device', 'cpu']
        argv += ['--work-dir', str(tmp_path / method), '--cfg-options', 'test_dataloader.num_workers=0']
        assert eval_script.main(argv) == 0
        record = json.loads((tmp_path / method / 'results.json').read_text())
        assert record['images'] == 200
        scores[method] = record['metrics']['mIoU']
    assert scores['naclip'] >= 35
    assert scores['naclip'] >= 1.5 * scores['clip']
