"""eval.py on folders, without a config: equal to the benchmark of the same pictures, and refusals in one line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval as eval_script
from naclip.shapes.generator import CLASSES, PALETTE, write_dataset
from tests.conftest import ROOT
from tests.test_resume import read_results

NAMES = str(ROOT / 'configs/cls_shapes.txt')
SMALL = ['--backbone', 'shapes', '--device', 'cpu', '--cfg-options', 'model.slide_crop=64', 'model.slide_stride=32']
SMALL += ['test_dataloader.num_workers=0', 'test_dataloader.dataset.pipeline.1.scale=(200,100)']
Evaluate = Callable[..., int]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures, and label maps that begin with 0."""
    write_dataset(tmp_path / 'shapes', 3, (64, 96))
    shutil.copytree(tmp_path / 'shapes/img_dir/val', tmp_path / 'own/images')
    shutil.copytree(tmp_path / 'shapes/ann_dir/val', tmp_path / 'own/labels')
    return tmp_path / 'own'


@pytest.fixture
def evaluate(data: Path, tmp_path: Path) -> Evaluate:
    def evaluate(*more: str, work: str = 'work', images: Path = data / 'images', labels: Path = data / 'labels') -> int:
        own = ['--images', str(images), '--labels', str(labels), '--name-path', NAMES]
        return eval_script.main([*own, *more, '--work-dir', str(tmp_path / work), *SMALL])

    return evaluate


def rewrite(folder: Path, change: Callable[[np.ndarray], Image.Image], ending: str = '.png') -> None:
    for path in sorted(folder.iterdir()):
        array = np.asarray(Image.open(path))
        path.unlink()
        change(array).save(path.with_suffix(ending))


def scores(tmp_path: Path, work: str = 'work') -> dict:
    return read_results(tmp_path / work)['metrics']


def test_as_the_benchmark(evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert evaluate('--save-confusion', '--per-image') == 0
    out = capsys.readouterr().out
    assert 'own_images: ' in out
    assert 'ok       label values fit the classes' in out
    record = read_results(tmp_path / 'work')
    assert (record['benchmark'], record['protocol'], record['images']) == ('own_images', 'naclip', 3)
    assert record['settings']['config'] is None
    config = tmp_path / 'cfg_same.py'
    config.write_text(
        f'_base_ = {str(ROOT / "configs/cfg_shapes.py")!r}\n'
        "step = dict(type='Resize', scale=(200, 100), keep_ratio=True)\n"
        "test_pipeline = [dict(type='LoadImageFromFile'), step, dict(type='LoadAnnotations'), "
        "dict(type='PackSegInputs')]\ntest_dataloader = dict(dataset=dict(pipeline=test_pipeline))\n"
        'model = dict(pamr_stride=(8, 16))\n'
    )
    options = ['--config', str(config), '--data-root', str(tmp_path / 'shapes'), '--device', 'cpu']
    assert eval_script.main([*options, '--work-dir', str(tmp_path / 'same')]) == 0
    assert scores(tmp_path) == scores(tmp_path, 'same')
    assert evaluate('--resume') == 0
    assert 'finished before' in capsys.readouterr().out


@pytest.mark.slow
def test_other_forms_of_the_same_labels(evaluate: Evaluate, data: Path, tmp_path: Path):
    assert evaluate(work='plain') == 0
    plain = scores(tmp_path, 'plain')
    labels = data / 'labels'

    rewrite(labels, lambda array: Image.fromarray(array.astype(np.uint16) + 1), '.tif')
    assert evaluate('--reduce-zero-label', work='wide') == 0
    assert scores(tmp_path, 'wide') == plain

    colours = np.array(PALETTE, np.uint8)
    rewrite(labels, lambda array: Image.fromarray(colours[array - 1]))
    for path in list(labels.iterdir()):
        path.rename(path.with_name(f'{path.stem}_gt.png'))
    (tmp_path / 'palette.txt').write_text('\n'.join(' '.join(map(str, colour)) for colour in PALETTE))
    assert evaluate('--palette', str(tmp_path / 'palette.txt'), '--label-suffix', '_gt.png', work='colours') == 0
    assert scores(tmp_path, 'colours') == plain


def test_background_and_ignored(evaluate: Evaluate, data: Path, tmp_path: Path):
    def without_first_column(array: np.ndarray) -> Image.Image:
        array = array.copy()
        array[:, 0] = 100
        return Image.fromarray(array)

    rewrite(data / 'labels', without_first_column)
    assert evaluate('--ignore-index', '100', '--background') == 0
    record = read_results(tmp_path / 'work')
    assert record['settings']['prob_thd'] == 0.1
    assert sum(row['label'] for row in record['classes']) == 3 * 64 * 95


def test_data_that_are_not_in_order(evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    labels = sorted((data / 'labels').iterdir())
    Image.fromarray(np.full((64, 96), len(CLASSES), np.uint8)).save(labels[0])
    Image.new('RGB', (96, 64)).save(labels[1])
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(labels[2])
    assert evaluate() == 1
    out, err = capsys.readouterr()
    assert 'label values 20 are no classes (expected 0-19, 255 ignored)' in out
    assert '1 label maps have colours' in out
    assert '1 label maps differ in size' in out
    assert err.splitlines()[-1] == 'eval.py: the data are not in order, see above: nothing is evaluated'
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    ('options', 'code', 'said'),
    [
        (['--images', 'x'], 2, '--images needs --labels DIR and --name-path FILE'),
        (['--config', 'x', '--palette', 'y'], 2, '--palette belongs to --images'),
        (['--config', 'x', '--images', 'y'], 2, 'not allowed with argument'),
        (['--images', 'x', '--labels', 'x', '--name-path', 'x', '--data-root', 'x'], 2, 'exclude each other'),
        (['--images', 'x', '--labels', 'x', '--name-path', 'x'], 1, 'class-name file x does not exist'),
        (['--images', 'x', '--labels', 'x', '--name-path', NAMES], 1, 'x is no folder'),
        (['--images', 'x', '--labels', 'x', '--name-path', NAMES, '--ignore-index', '19'], 1, 'value of a class'),
        (
            ['--images', 'x', '--labels', 'x', '--name-path', NAMES, '--palette', 'p'],
            1,
            'palette file p does not exist',
        ),
    ],
)
def test_refusals(options: list[str], code: int, said: str, capsys: pytest.CaptureFixture):
    try:
        got = eval_script.main([*options, '--device', 'cpu'])
    except SystemExit as ended:
        got = ended.code
    assert got == code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
