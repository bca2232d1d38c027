"""PASCAL Context's 459 classes from generated miniature MATLAB files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.datasets.scripts import check_refused, contents, load_script, run

NAME = 'prepare_context459'
FOLDER = 'annotations_detectron2/pc459_val'


def make_root(root: Path, count: int = 3) -> dict[str, np.ndarray]:
    """VOC 2010's list and the MATLAB files, with one more that is not on the list."""
    rng = np.random.default_rng(0)
    (root / 'mat').mkdir(parents=True)
    (root / 'voc/ImageSets/SegmentationContext').mkdir(parents=True)
    maps = {f'2008_{number:06d}': rng.integers(0, 460, (21, 30)).astype(np.uint16) for number in range(count)}
    for stem, label in maps.items():
        label.flat[:2] = 0, 459
        savemat(root / f'mat/{stem}.mat', {'LabelMap': label})
    savemat(root / 'mat/train.mat', {'LabelMap': label})
    (root / 'voc/ImageSets/SegmentationContext/val.txt').write_text('\n'.join(maps))
    return maps


def test_ids_minus_one(tmp_path: Path, capsys: pytest.CaptureFixture):
    maps = make_root(tmp_path)
    script = load_script(NAME)
    arguments = [str(tmp_path / 'voc'), '--mat', str(tmp_path / 'mat'), '-j', '1']
    assert script.main(arguments) == 0
    assert 'labels: 3 converted, 0 skipped' in capsys.readouterr().out
    assert {path.stem for path in (tmp_path / 'voc' / FOLDER).iterdir()} == set(maps)
    for stem, label in maps.items():
        with Image.open(tmp_path / 'voc' / FOLDER / f'{stem}.tif') as file:
            made = np.asarray(file)
        assert made.dtype == np.uint16
        assert np.array_equal(made, (label.astype(np.int64) - 1) % 65536)
    before = contents(tmp_path)
    cut = tmp_path / 'voc' / FOLDER / f'{stem}.tif'
    cut.write_bytes(cut.read_bytes()[:-20])
    assert script.main(arguments) == 0
    assert 'labels: 1 converted, 2 skipped' in capsys.readouterr().out
    assert contents(tmp_path) == before


def test_refusals(tmp_path: Path):
    maps = make_root(tmp_path)
    command = [NAME, tmp_path / 'voc', '--mat', tmp_path / 'mat']
    first, second, _ = maps
    savemat(tmp_path / f'mat/{first}.mat', {'LabelMap': np.array([[460]])})
    result = run(*command, '-j', '1')
    assert f'{first}.mat holds ids 460 to 460' in result.stderr.splitlines()[-1]
    assert result.returncode == 1
    (tmp_path / f'mat/{second}.mat').unlink()
    check_refused(run(*command), NAME, f'{second}.mat is missing (1 of 3 in all)')
    (tmp_path / 'voc/ImageSets/SegmentationContext/val.txt').unlink()
    check_refused(run(*command), NAME, 'run prepare_context.py first')
