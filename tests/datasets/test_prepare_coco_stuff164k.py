"""COCO-Stuff 164k's training labels from generated miniature raw labels."""

from pathlib import Path

import numpy as np
import pytest

from naclip.data import coco_stuff
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

NAME = 'prepare_coco_stuff164k'
# Python from 3.12 on warns of the way in which processes are started.
# COCO's category ids that no picture has; the others, 1-182, are the 171 classes in order.
UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
CATEGORIES = [i for i in range(1, 183) if i not in UNUSED]
RAW_IDS = np.array([*(i - 1 for i in CATEGORIES), 255], dtype=np.uint8)
EXPECTED = {raw: train for train, raw in enumerate(RAW_IDS[:-1].tolist())} | {255: 255}


@pytest.fixture(scope='module')
def script():
    return load_script(NAME)


def make_root(root: Path, count: int = 5, size: tuple[int, int] = (14, 19), labels: str = 'annotations') -> dict:
    """Raw labels that hold every raw id, and a picture for each."""
    rng = np.random.default_rng(1)
    maps = {}
    for number in range(count):
        stem = f'{number + 1:012d}'
        maps[stem] = rng.choice(RAW_IDS, size=size)
        maps[stem].flat[: len(RAW_IDS)] = RAW_IDS
        write_png(root / labels / 'val2017' / f'{stem}.png', maps[stem])
        write_picture(root / 'images/val2017' / f'{stem}.jpg', size)
    return maps


def expected(raw: np.ndarray) -> np.ndarray:
    return np.vectorize(EXPECTED.get)(raw)


def test_table():
    """Checked against known classes: person, stop sign, toothbrush, banner, wood (the first and last of each kind)."""
    assert len(CATEGORIES) == 171
    table = coco_stuff.stuff_ids()
    np.testing.assert_array_equal(table[RAW_IDS], [*range(171), 255])
    assert [table[raw] for raw in (0, 12, 89, 91, 181)] == [0, 11, 79, 80, 170]
    assert {table[raw - 1] for raw in UNUSED} == {255}


@pytest.mark.slow
@pytest.mark.parametrize(('workers', 'labels'), [(1, 'annotations'), (2, 'stuffthingmaps')])
def test_labels_as_mmsegmentation_reads_them(
    script, tmp_path: Path, capsys: pytest.CaptureFixture, workers: int, labels: str
):
    maps = make_root(tmp_path / 'raw', labels=labels)
    out = tmp_path / 'out'
    assert script.main([str(tmp_path / 'raw'), '-o', str(out), '-j', str(workers)]) == 0
    for stem, raw in maps.items():
        np.testing.assert_array_equal(read(out / f'annotations/val2017/{stem}_labelTrainIds.png'), expected(raw))
    prefix = dict(img_path='images/val2017', seg_map_path='annotations/val2017')
    loaded = loaded_labels('COCOStuffDataset', out, data_prefix=prefix)
    assert loaded.keys() == maps.keys()
    for stem, raw in maps.items():
        np.testing.assert_array_equal(loaded[stem], expected(raw))
    assert f'python datasets/check.py coco_stuff164k --data-root {out}' in capsys.readouterr().out


def test_in_place(script, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Raw and training labels may share a folder; a second run changes nothing."""
    maps = make_root(tmp_path)
    before = contents(tmp_path)
    assert script.main([str(tmp_path), '-o', str(tmp_path), '-j', '1']) == 0
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + len(maps)
    capsys.readouterr()
    assert script.main([str(tmp_path), '-o', str(tmp_path), '-j', '1']) == 0
    assert '0 converted, 5 skipped' in capsys.readouterr().out
    assert contents(tmp_path) == after


@pytest.mark.slow
def test_killed_and_run_again(tmp_path: Path):
    make_root(tmp_path / 'raw', count=80, size=(300, 300))
    folder = tmp_path / 'a/annotations/val2017'
    left = run_and_kill(NAME, tmp_path / 'raw', '-o', tmp_path / 'a', '-j', 2, folder=folder, pattern='0*.png')
    assert 0 < left < 80
    result = run(NAME, tmp_path / 'raw', '-o', tmp_path / 'a', '--splits', 'val2017')
    assert result.returncode == 0, result.stderr
    assert f'{80 - left} converted, {left} skipped' in result.stdout
    assert run(NAME, tmp_path / 'raw', '-o', tmp_path / 'b').returncode == 0
    assert contents(tmp_path / 'a') == contents(tmp_path / 'b')


def test_wrong_input(tmp_path: Path):
    check_refused(run(NAME, tmp_path / 'nowhere'), NAME, 'nowhere is not a folder')
    make_root(tmp_path)
    write_png(tmp_path / 'annotations/val2017/000000000002.png', [[11]])
    check_refused(run(NAME, tmp_path, '-o', tmp_path / 'out'), NAME, '000000000002.png', 'already converted')
    assert not (tmp_path / 'out').exists()
