"""COCO-Stuff 10k's training labels from generated miniature MATLAB files."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests.datasets.scripts import check_refused, contents, load_script, loaded_labels, read, run, run_and_kill
from tests.datasets.scripts import write_picture as write_jpeg
from tests.datasets.test_prepare_coco_stuff164k import CATEGORIES

NAME = 'prepare_coco_stuff10k'
# Python from 3.12 on warns of the way in which processes are started.
IDS = np.array([0, *CATEGORIES], dtype=np.uint8)  # 0 is unlabelled


@pytest.fixture(scope='module')
def script():
    return load_script(NAME)


def make_root(root: Path, count: int = 5, size: tuple[int, int] = (14, 19), compressed: bool = True) -> dict:
    """The layout of cocostuff-10k-v1.1.zip: every id in each map; the last two pictures are for training."""
    rng = np.random.default_rng(2)
    maps = {}
    for number in range(count):
        stem = f'COCO_train2014_{number + 1:012d}'
        maps[stem] = rng.choice(IDS, size=size)
        maps[stem].flat[: len(IDS)] = IDS
        write_jpeg(root / 'images' / f'{stem}.jpg', size)
        path = root / 'annotations' / f'{stem}.mat'
        path.parent.mkdir(exist_ok=True)
        fields = dict(S=maps[stem], names=np.array(['unlabeled', 'person'], dtype=object), captions='a picture')
        savemat(path, fields, do_compression=compressed)
    (root / 'imageLists').mkdir()
    stems = list(maps)
    (root / 'imageLists/test.txt').write_text('\n'.join(stems[:-2]) + '\n')
    (root / 'imageLists/train.txt').write_text('\r\n'.join(stems[-2:]) + '\r\n')
    return {'test': dict(list(maps.items())[:-2]), 'train': dict(list(maps.items())[-2:])}


def expected(raw: np.ndarray) -> np.ndarray:
    """0 stays, the classes are counted from 1."""
    return np.searchsorted(IDS, raw)


@pytest.mark.slow
@pytest.mark.parametrize('workers', [1, 2])
def test_labels_as_mmsegmentation_reads_them(script, tmp_path: Path, capsys: pytest.CaptureFixture, workers: int):
    maps = make_root(tmp_path / 'raw')['test']
    out = tmp_path / 'out'
    assert script.main([str(tmp_path / 'raw'), '-o', str(out), '-j', str(workers)]) == 0
    for stem, raw in maps.items():
        label = read(out / f'annotations/test2014/{stem}_labelTrainIds.png')
        np.testing.assert_array_equal(label, expected(raw))
        assert (label.min(), label.max()) == (0, 171)
    assert {path.stem for path in (out / 'images/test2014').iterdir()} == set(maps)
    prefix = dict(img_path='images/test2014', seg_map_path='annotations/test2014')
    loaded = loaded_labels('COCOStuffDataset', out, data_prefix=prefix, reduce_zero_label=True)
    for stem, raw in maps.items():
        np.testing.assert_array_equal(loaded[stem], np.where(raw == 0, 255, expected(raw) - 1))
    assert loaded.keys() == maps.keys()
    printed = capsys.readouterr().out
    assert 'test: 3 converted, 0 skipped' in printed
    assert f'check.py coco_stuff10k --data-root {out}' in printed


def test_both_splits_in_place(script, tmp_path: Path):
    maps = make_root(tmp_path)
    assert script.main([str(tmp_path), '-o', str(tmp_path), '-j', '1', '--splits', 'test', 'train']) == 0
    for split, labels in maps.items():
        for stem, raw in labels.items():
            label = read(tmp_path / f'annotations/{split}2014/{stem}_labelTrainIds.png')
            np.testing.assert_array_equal(label, expected(raw))
            assert (tmp_path / f'images/{split}2014/{stem}.jpg').samefile(tmp_path / f'images/{stem}.jpg')
    before = contents(tmp_path)
    assert script.main([str(tmp_path), '-o', str(tmp_path), '-j', '1', '--splits', 'test', 'train']) == 0
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_killed_and_run_again(tmp_path: Path):
    make_root(tmp_path / 'raw', count=90, size=(300, 300), compressed=False)
    folder = tmp_path / 'a/annotations/test2014'
    left = run_and_kill(NAME, tmp_path / 'raw', '-o', tmp_path / 'a', '-j', 2, folder=folder, pattern='C*.png')
    assert 0 < left < 88
    result = run(NAME, tmp_path / 'raw', '-o', tmp_path / 'a')
    assert result.returncode == 0, result.stderr
    assert f'{88 - left} converted, {left} skipped' in result.stdout
    assert run(NAME, tmp_path / 'raw', '-o', tmp_path / 'b').returncode == 0
    assert contents(tmp_path / 'a') == contents(tmp_path / 'b')


def test_missing_files(tmp_path: Path):
    check_refused(run(NAME, tmp_path), NAME, tmp_path / 'imageLists/test.txt', 'cocostuff-10k-v1.1.zip')
    make_root(tmp_path)
    (tmp_path / 'annotations/COCO_train2014_000000000002.mat').unlink()
    (tmp_path / 'images/COCO_train2014_000000000003.jpg').unlink()
    check_refused(
        run(NAME, tmp_path, '-o', tmp_path / 'out'), NAME, '000000000002.mat is missing (2 files of test.txt in all)'
    )
    assert not (tmp_path / 'out').exists()


def other_field(path: Path) -> None:
    savemat(path, {'T': np.zeros((2, 2))})


def unused_id(path: Path) -> None:
    savemat(path, {'S': np.array([[0, 12]])})


def id_too_high(path: Path) -> None:
    savemat(path, {'S': np.array([[183.0, 1.0]])})


def negative_id(path: Path) -> None:
    savemat(path, {'S': np.array([[-1, 1]])})


def fraction(path: Path) -> None:
    savemat(path, {'S': np.array([[0.5, 1]])})


def no_mat(path: Path) -> None:
    path.write_bytes(b'no MATLAB file, but long enough to be looked at: ' * 8)


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (other_field, 'holds no label map S'),
        (fraction, 'holds no label map S'),
        (unused_id, 'holds id 12, which COCO-Stuff 10k never uses'),
        (id_too_high, 'holds id 183'),
        (negative_id, 'holds id -1'),
        (no_mat, 'cannot be read as a MATLAB file'),
    ],
)
def test_wrong_labels(script, tmp_path: Path, capsys: pytest.CaptureFixture, spoil, words: str):
    make_root(tmp_path)
    path = tmp_path / 'annotations/COCO_train2014_000000000002.mat'
    spoil(path)
    assert script.main([str(tmp_path), '-o', str(tmp_path / 'out'), '-j', '1']) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'{NAME}.py: {path} {words}')
    assert not list(tmp_path.glob('out/annotations/*/*000000000002*'))
