"""ADE20K's 847 classes from generated miniature files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from naclip.walk.vocabulary import read_vocabulary
from tests.conftest import ROOT
from tests.datasets.scripts import check_refused, contents, load_script, run

NAME = 'prepare_ade847'
CLASSES = json.loads((ROOT / 'naclip/data/ade847.json').read_text())
SIZES = {'ADE_val_00000001': (30, 40), 'ADE_val_00000002': (512, 700), 'ADE_val_00000003': (600, 903)}


def make_root(root: Path) -> dict[str, np.ndarray]:
    """Pictures, and maps of class indices, of which some are not evaluated."""
    rng = np.random.default_rng(0)
    known = np.array([entry['id'] for entry in CLASSES])
    indices = {}
    for number, (stem, size) in enumerate(SIZES.items()):
        folder = root / f'images/ADE/validation/urban/scene{number}'
        folder.mkdir(parents=True)
        index = rng.choice(np.concatenate([known, [0, 3000, 11]]), size)
        # R has the index's multiples of 256 in tens, and in its last digit what belongs to instances; B, too.
        coded = np.stack([index // 256 * 10 + rng.integers(0, 5, size), index % 256, rng.integers(0, 256, size)], -1)
        Image.fromarray(coded.astype(np.uint8)).save(folder / f'{stem}_seg.png')
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(folder / f'{stem}.jpg')
        indices[stem] = index
    return indices


def test_ids_are_those_of_the_vocabulary():
    names = [', '.join(names) for names in read_vocabulary(ROOT / 'configs/cls_cliptrase_ade847.txt').classes]
    assert len({entry['id'] for entry in CLASSES}) == len(CLASSES) == len(names) == 847
    assert [entry['name'].replace(' ', '') for entry in CLASSES] == [name.replace(' ', '') for name in names]


def test_pictures_and_labels(tmp_path: Path, capsys: pytest.CaptureFixture):
    indices = make_root(tmp_path)
    script = load_script(NAME)
    assert script.main([str(tmp_path), '-j', '1']) == 0
    assert 'validation: 3 converted, 0 skipped' in capsys.readouterr().out
    table = {entry['id']: number for number, entry in enumerate(CLASSES)}
    for stem, index in indices.items():
        with Image.open(tmp_path / f'annotations_detectron2/validation/{stem}.tif') as file:
            label = np.asarray(file)
        expected = np.vectorize(lambda value: table.get(value, 65535))(index)
        height, width = SIZES[stem]
        if height > 512:
            height, width = 512, round(903 * 512 / 600)
            rows = ((np.arange(height) + 0.5) * 600 / 512).astype(int)
            columns = ((np.arange(width) + 0.5) * 903 / width).astype(int)
            expected = expected[rows][:, columns]
        assert label.dtype == np.uint16
        assert np.array_equal(label, expected)
        picture = tmp_path / f'images_detectron2/validation/{stem}.jpg'
        with Image.open(picture) as file:
            assert file.size == (width, height)
        (source,) = (tmp_path / 'images').rglob(f'{stem}.jpg')
        assert picture.samefile(source) == (height != 512 or stem.endswith('2'))


def test_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture):
    make_root(tmp_path)
    script = load_script(NAME)
    out = tmp_path / 'out'
    assert script.main([str(tmp_path), '-o', str(out), '-j', '1']) == 0
    before = contents(out)
    cut, gone = out / 'annotations_detectron2/validation/ADE_val_00000001.tif', out / 'images_detectron2/validation'
    cut.write_bytes(cut.read_bytes()[:-20])
    (gone / 'ADE_val_00000003.jpg').unlink()
    capsys.readouterr()
    assert script.main([str(tmp_path), '-o', str(out), '-j', '1']) == 0
    assert 'validation: 2 converted, 1 skipped' in capsys.readouterr().out
    assert contents(out) == before


def test_refusals(tmp_path: Path):
    check_refused(run(NAME, tmp_path), NAME, 'holds no *.jpg')
    make_root(tmp_path)
    (seg,) = tmp_path.rglob('ADE_val_00000001_seg.png')
    Image.new('RGB', (4, 4)).save(seg)
    result = run(NAME, tmp_path, '-j', '1')
    assert 'ADE_val_00000001_seg.png is RGB, 4 x 4, expected RGB, 40 x 30' in result.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob('*.tif'))
    seg.unlink()
    check_refused(run(NAME, tmp_path), NAME, 'has no ADE_val_00000001_seg.png (1 in all)')
