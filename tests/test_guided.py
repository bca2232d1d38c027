"""eval.py with guided methods, on a few generated pictures: what it records, how it goes on, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import eval as eval_script
from clip.weights import file_sha256
from naclip.shapes import generator as shapes
from naclip.walk.masks import RegionMasks
from tests.conftest import ROOT
from tests.goldens.guide_weights import dino_state_dict
from tools import segment as segment_script

COUNT = 3


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """Pictures and labels as the embedded benchmark's, and region masks in `regions`."""
    root, rng = tmp_path_factory.mktemp('shapes'), np.random.RandomState(3)
    for folder in (shapes.PICTURES, shapes.LABELS, 'regions'):
        (root / folder).mkdir(parents=True)
    for i in range(COUNT):
        pixels, labels = shapes.draw(rng, (64, 96))
        Image.fromarray(pixels).save(root / shapes.PICTURES / f'{i}.png')
        Image.fromarray(labels.astype(np.uint8)).save(root / shapes.LABELS / f'{i}.png')
        np.savez(root / 'regions' / f'{i}.npz', instance_mask=labels.astype(np.int32) + 1)
    return root


@pytest.fixture
def evaluate(tmp_path, data) -> Callable[..., tuple[int, dict | None]]:
    """Runs eval.py's main; returns the exit code and results.json (None if there is none)."""

    def run(*arguments: str, work_dir: str = 'work') -> tuple[int, dict | None]:
        out = tmp_path / work_dir
        common = ['--config', str(ROOT / 'configs/cfg_shapes.py'), '--data-root', str(data), '--device', 'cpu']
        options = ['--cfg-options', 'test_dataloader.num_workers=0', '--work-dir', str(out)]
        code = eval_script.main([*common, *arguments, *options])
        results = out / 'results.json'
        return code, json.loads(results.read_text()) if results.exists() else None

    return run


def test_proxyclip_without_downloads(evaluate):
    code, record = evaluate('--method', 'proxyclip')
    assert code == 0
    assert record['images'] == COUNT
    assert record['settings']['constants']['guide'] == 'shapes'
    assert record['sha256']['guide'] == file_sha256(ROOT / 'clip/shapes_guide.safetensors')
    assert 'regions' not in record['sha256']
    assert record['metrics']['mIoU'] > 20


def test_a_guide_of_ones_own(evaluate, tmp_path):
    torch.save(dino_state_dict(64, 1, 16, 64), tmp_path / 'mine.pth')
    code, record = evaluate('--method', 'proxyclip', '--guide', str(tmp_path / 'mine.pth'))
    assert code == 0
    assert record['settings']['constants']['guide'] == 'mine.pth'
    assert record['changes']['guide'] == str(tmp_path / 'mine.pth')
    assert record['sha256']['guide'] == file_sha256(tmp_path / 'mine.pth')


def test_regions_are_part_of_the_identity(evaluate, data, tmp_path, capsys):
    code, record = evaluate('--method', 'corrclip', '--regions', str(data / 'regions'))
    assert code == 0
    pictures = [f'{i}.png' for i in range(COUNT)]
    assert record['sha256']['regions'] == RegionMasks(data / 'regions').sha256(pictures)
    assert record['settings']['regions'] == str(data / 'regions')
    assert record['changes'].keys() <= {'test_dataloader.num_workers'}
    # The same masks elsewhere are the same run; others are not.
    copy = tmp_path / 'copy'
    shutil.copytree(data / 'regions', copy)
    assert evaluate('--method', 'corrclip', '--regions', str(copy), '--resume')[0] == 0
    assert 'finished before' in capsys.readouterr().out
    np.savez(copy / '1.npz', instance_mask=np.ones((64, 96), np.int32))
    assert evaluate('--method', 'corrclip', '--regions', str(copy), '--resume')[0] == 1
    error = capsys.readouterr().err
    assert 'sha256.regions was' in error
    assert error.count('\n') == 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--method', 'corrclip'], 'method corrclip needs a region mask for each picture: --regions DIR'),
        (['--method', 'corrclip', '--regions', 'nowhere'], 'region masks (--regions): there is no folder nowhere'),
        (['--method', 'naclip', '--guide', 'dino_vitb8'], 'method naclip reads no guide: leave out --guide'),
        (['--method', 'proxyclip', '--regions', 'nowhere'], 'method proxyclip reads no region masks'),
        (['--method', 'proxyclip', '--guide', 'dino'], "unknown guide 'dino': neither a checkpoint file nor one of"),
        (['--template-ranking', 'none.json'], 'template ranking none.json does not exist'),
    ],
)
def test_what_is_refused_in_one_line(evaluate, capsys, arguments, message):
    code, record = evaluate(*arguments)
    error = capsys.readouterr().err
    assert (code, record) == (1, None)
    assert message in error
    assert error.count('\n') == 1


def test_a_missing_and_a_misshapen_mask(evaluate, data, tmp_path, capsys):
    copy = tmp_path / 'copy'
    shutil.copytree(data / 'regions', copy)
    (copy / '2.npz').unlink()
    assert evaluate('--method', 'corrclip', '--regions', str(copy))[0] == 1
    assert '2.png: expected 2.npz or 2.png in' in capsys.readouterr().err
    assert evaluate('--method', 'corrclip', '--regions', str(copy), '--limit', '2', work_dir='two')[0] == 0
    np.savez(copy / '2.npz', instance_mask=np.ones((96, 64), np.int32))
    assert evaluate('--method', 'corrclip', '--regions', str(copy), work_dir='all')[0] == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'has 96x64 pixels, expected 64x96, the size of its picture' in error


def test_a_template_ranking_is_heard(evaluate, tmp_path):
    ranking = {'classes': {name: {'entropy_ranking': [{'template_id': i}]} for i, name in enumerate(shapes.CLASSES)}}
    (tmp_path / 'ranking.json').write_text(json.dumps(ranking))
    code, record = evaluate('--template-ranking', str(tmp_path / 'ranking.json'))
    assert code == 0
    assert (record['method'], record['protocol']) == ('naclip', 'floss')
    assert record['sha256']['template_ranking'] == file_sha256(tmp_path / 'ranking.json')
    assert (record['settings']['pamr_steps'], record['settings']['logit_scale']) == (0, 100)


def test_own_pictures_with_region_masks(data, tmp_path, capsys):
    pictures, out = data / shapes.PICTURES, tmp_path / 'out'
    common = [str(pictures), '--classes', 'cat; dog; grass', '--backbone', 'shapes', '--device', 'cpu', '-o', str(out)]
    assert segment_script.main([*common, '--method', 'corrclip', '--regions', str(data / 'regions')]) == 0
    assert len(list(out.glob('*_labels.png'))) == COUNT
    capsys.readouterr()
    assert segment_script.main([*common, '--method', 'corrclip']) == 1
    assert 'method corrclip needs a region mask for each picture: --regions DIR' in capsys.readouterr().err
    assert segment_script.main([*common, '--method', 'naclip', '--guide', 'shapes']) == 1
    assert 'method naclip reads no guide' in capsys.readouterr().err
