"""Cityscapes' training labels from generated miniature label ids."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets.scripts import (
    check_refused,
    contents,
    load_script,
    loaded_labels,
    read,
    run,
    run_and_kill,
    write_picture,
    write_png,
)

NAME = 'prepare_cityscapes'
# Python from 3.12 on warns of the way in which processes are started.
# Training id of every label id, from the data set's own list (255: not evaluated).
# fmt: off
TRAIN_IDS = np.array([
    255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    15, 255, 255, 16, 17, 18,
], dtype=np.uint8)
# fmt: on


@pytest.fixture(scope='module')
def script():
    return load_script(NAME)


def make_root(root: Path, split: str = 'val', count: int = 4, size: tuple[int, int] = (20, 33)) -> dict:
    """Label ids of some pictures in two cities, all ids in each."""
    rng = np.random.default_rng(0)
    maps = {}
    for number in range(count):
        city = ('lindau', 'ulm')[number % 2]
        stem = f'{city}/{city}_{number:06d}_000019'
        maps[stem] = rng.integers(0, 34, size, dtype=np.uint8)
        maps[stem].flat[:34] = np.arange(34)
        write_png(root / 'gtFine' / split / f'{stem}_gtFine_labelIds.png', maps[stem])
        write_picture(root / 'leftImg8bit' / split / f'{stem}_leftImg8bit.png', size)
    return maps


def test_the_data_sets_own_list(script):
    labels = pytest.importorskip('cityscapesscripts.helpers.labels').labels
    expected = [label.trainId for label in sorted(labels, key=lambda label: label.id) if label.id >= 0]
    np.testing.assert_array_equal(script.TRAIN_IDS[:34], expected)


@pytest.mark.slow
@pytest.mark.parametrize('workers', [1, 2])
def test_labels_as_mmsegmentation_reads_them(script, tmp_path: Path, capsys: pytest.CaptureFixture, workers: int):
    maps = make_root(tmp_path)
    make_root(tmp_path, 'train')
    assert script.main([str(tmp_path), '-j', str(workers)]) == 0
    for stem, raw in maps.items():
        label = read(tmp_path / 'gtFine/val' / f'{stem}_gtFine_labelTrainIds.png')
        np.testing.assert_array_equal(label, TRAIN_IDS[raw])
    prefix = dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val')
    loaded = loaded_labels('CityscapesDataset', tmp_path, data_prefix=prefix)
    assert len(loaded) == 4
    for stem, raw in maps.items():
        np.testing.assert_array_equal(loaded[f'{Path(stem).name}_leftImg8bit'], TRAIN_IDS[raw])
    assert not list(tmp_path.glob('gtFine/train/*/*TrainIds.png'))
    printed = capsys.readouterr().out
    assert 'val: 4 converted, 0 skipped' in printed
    assert f'check.py city_scapes --data-root {tmp_path}; then python eval.py --config configs/cfg_city_sc' in printed


def test_both_splits(script, tmp_path: Path, capsys: pytest.CaptureFixture):
    make_root(tmp_path)
    make_root(tmp_path, 'train', count=2)
    assert script.main([str(tmp_path), '--splits', 'train', 'val', '-j', '1']) == 0
    assert 'train: 2 converted' in capsys.readouterr().out
    assert len(list(tmp_path.glob('gtFine/*/*/*TrainIds.png'))) == 6


def test_whole_outputs_are_kept(script, tmp_path: Path, capsys: pytest.CaptureFixture):
    make_root(tmp_path)
    assert script.main([str(tmp_path), '-j', '1']) == 0
    before = contents(tmp_path)
    outputs = sorted(tmp_path.glob('gtFine/val/*/*TrainIds.png'))
    outputs[0].write_bytes(outputs[0].read_bytes()[:-5])
    (outputs[1].parent / f'.{outputs[1].name}.4711.tmp').write_bytes(b'half')
    kept = outputs[2].stat().st_ino
    capsys.readouterr()
    assert script.main([str(tmp_path), '-j', '1']) == 0
    assert '1 converted, 3 skipped' in capsys.readouterr().out
    assert contents(tmp_path) == before
    assert outputs[2].stat().st_ino == kept


@pytest.mark.slow
def test_killed_and_run_again(tmp_path: Path):
    make_root(tmp_path / 'a', count=80, size=(300, 300))
    make_root(tmp_path / 'b', count=80, size=(300, 300))
    folder, pattern = tmp_path / 'a/gtFine/val', '*/[!.]*TrainIds.png'
    left = run_and_kill(NAME, tmp_path / 'a', '-j', 2, folder=folder, pattern=pattern)
    assert 0 < left < 80
    result = run(NAME, tmp_path / 'a', '-j', 2)
    assert result.returncode == 0, result.stderr
    assert f'{80 - left} converted, {left} skipped' in result.stdout
    assert run(NAME, tmp_path / 'b', '-j', 1).returncode == 0
    assert contents(tmp_path / 'a') == contents(tmp_path / 'b')


def test_wrong_input(tmp_path: Path):
    check_refused(run(NAME, tmp_path / 'nowhere'), NAME, 'nowhere', 'gtFine_trainvaltest.zip')
    check_refused(run(NAME, tmp_path, '-j', 0), NAME, 'above 0', code=2)


@pytest.mark.parametrize('value', [34, 255])
def test_wrong_ids(script, tmp_path: Path, capsys: pytest.CaptureFixture, value: int):
    make_root(tmp_path)
    path = tmp_path / 'gtFine/val/ulm/ulm_000001_000019_gtFine_labelIds.png'
    write_png(path, [[0, value]])
    assert script.main([str(tmp_path), '-j', '1']) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'prepare_cityscapes.py: {path} holds id {value}')


def test_colours_and_broken_files(script, tmp_path: Path, capsys: pytest.CaptureFixture):
    make_root(tmp_path)
    path = tmp_path / 'gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png'
    path.write_bytes(path.read_bytes()[:200])
    assert script.main([str(tmp_path), '-j', '1']) == 1
    assert f'{path} cannot be decoded' in capsys.readouterr().err
    Image.new('RGB', (4, 4)).save(path)
    assert script.main([str(tmp_path), '-j', '2']) == 1
    assert 'is not a single-channel' in capsys.readouterr().err
    assert not path.with_name(path.name.replace('labelIds', 'labelTrainIds')).exists()
