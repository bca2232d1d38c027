"""PASCAL Context's label maps and lists from generated miniature annotations, in both of their formats."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from naclip.data.context import CLASS_IDS
from naclip.walk.vocabulary import read_vocabulary
from tests.conftest import ROOT
from tests.datasets.scripts import (
    check_refused,
    contents,
    load_script,
    loaded_labels,
    read,
    run,
    run_and_kill,
    write_picture,
)
from tests.naclip.data.test_context import runs_of
from tests.naclip.data.test_run_lengths import compress

NAME = 'prepare_context'
# Python from 3.12 on warns of the way in which processes are started.
# The ids that MMSegmentation's converter knows, background first; sorted, their places are the labels.
# fmt: off
IDS = sorted([
    0, 2, 259, 260, 415, 324, 9, 258, 144, 18, 19, 22, 23, 397, 25, 284, 158, 159, 416, 33, 162, 420, 454, 295, 296,
    427, 44, 45, 46, 308, 59, 440, 445, 31, 232, 65, 354, 424, 68, 326, 72, 458, 34, 207, 80, 355, 85, 347, 220, 349,
    360, 98, 187, 104, 105, 366, 189, 368, 113, 115,
])
# fmt: on
PREFIX = dict(
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
    ann_file='ImageSets/SegmentationContext/val.txt',
)


@pytest.fixture(scope='module')
def script():
    return load_script(NAME)


def make_maps(voc2010: Path, ids: object, count: int = 5, size: tuple[int, int] = (21, 30)) -> dict:
    """Pictures, VOC 2010's lists (the last two pictures are for training) and a map of ids for each picture."""
    rng = np.random.default_rng(3)
    stems = [f'2008_{number:06d}' for number in range(count)]
    maps = {}
    for stem in stems:
        write_picture(voc2010 / f'JPEGImages/{stem}.jpg', size)
        height, width = size
        blocks = rng.choice(np.asarray(ids), (height // 3 + 1, width // 3 + 1))
        maps[stem] = np.kron(blocks, np.ones((3, 3), int))[:height, :width]
    main = voc2010 / 'ImageSets/Main'
    main.mkdir(parents=True)
    (main / 'val.txt').write_text('\n'.join(stems[:-2]) + '\n')
    (main / 'train.txt').write_text('\n'.join(stems[-2:]) + '\n')
    return maps


def write_mats(folder: Path, maps: dict, names: bool = True, compressed: bool = True) -> None:
    """The layout of trainval.tar.gz, with or without labels.txt beside."""
    folder.mkdir()
    for stem, label in maps.items():
        savemat(folder / f'{stem}.mat', {'LabelMap': label.astype(np.uint16)}, do_compression=compressed)
    if names:
        words = [names[0] for names in read_vocabulary(ROOT / 'configs/cls_cliptrase_context459.txt').classes]
        (folder.parent / 'labels.txt').write_text(''.join(f'{i}: {word}\n' for i, word in enumerate(words, start=1)))


def write_json(path: Path, maps: dict, compressed: bool = False) -> None:
    """COCO's layout: a mask for each id in a picture, of no class, too."""
    images, segments = [], []
    for number, (stem, label) in enumerate(maps.items()):
        phase = 'train' if number >= len(maps) - 2 else 'val'
        image_id = int(stem.replace('_', ''))
        height, width = label.shape
        images.append(dict(file_name=f'{stem}.jpg', image_id=image_id, height=height, width=width, phase=phase))
        for class_id in np.unique(label).tolist():
            runs = runs_of(label == class_id)
            mask = dict(size=[height, width], counts=compress(runs) if compressed else runs)
            segments.append(dict(id=len(segments), image_id=image_id, category_id=class_id, segmentation=mask))
    categories = [dict(name=name, category_id=class_id) for name, class_id in CLASS_IDS.items()]
    content = dict(images=images, annos_segmentation=segments, categories=[*categories, dict(name='wool', id=459)])
    path.write_text(json.dumps(content))


def expected(label: np.ndarray) -> np.ndarray:
    places = {class_id: place for place, class_id in enumerate(IDS)}
    return np.vectorize(lambda class_id: places.get(class_id, 0))(label)


def check_outputs(voc2010: Path, maps: dict) -> None:
    assert {path.stem for path in (voc2010 / 'SegmentationClassContext').iterdir()} == set(maps)
    for stem, label in maps.items():
        np.testing.assert_array_equal(read(voc2010 / f'SegmentationClassContext/{stem}.png'), expected(label))
    lists = voc2010 / 'ImageSets/SegmentationContext'
    assert (lists / 'val.txt').read_text().split() == list(maps)[:-2]
    assert (lists / 'train.txt').read_text().split() == list(maps)[-2:]


@pytest.mark.parametrize(('workers', 'names'), [(1, True), (2, True), (1, False)])
def test_from_mat(script, tmp_path: Path, capsys: pytest.CaptureFixture, workers: int, names: bool):
    root = tmp_path / 'VOC2010'
    maps = make_maps(root, range(460))
    write_mats(tmp_path / 'trainval', maps, names)
    assert script.main([str(root), '--mat', str(tmp_path / 'trainval'), '-j', str(workers)]) == 0
    check_outputs(root, maps)
    printed = capsys.readouterr().out
    assert 'labels: 5 converted' in printed
    assert f'check.py context60 context59 --data-root {root}; then python eval.py --config configs/cfg_con' in printed


@pytest.mark.parametrize(('workers', 'compressed'), [(1, True), (2, False)])
def test_from_json(script, tmp_path: Path, workers: int, compressed: bool):
    root = tmp_path / 'VOC2010'
    maps = make_maps(root, [*IDS, 1, 459])
    write_json(tmp_path / 'trainval_merged.json', maps, compressed)
    assert script.main([str(root), '--json', str(tmp_path / 'trainval_merged.json'), '-j', str(workers)]) == 0
    check_outputs(root, maps)


def test_folder_around_the_mats(script, tmp_path: Path):
    root = tmp_path / 'VOC2010'
    maps = make_maps(root, range(460))
    write_mats(tmp_path / 'trainval', maps)
    assert script.main([str(root), '--mat', str(tmp_path), '-j', '1']) == 0
    check_outputs(root, maps)


def test_as_mmsegmentation_reads_them(script, tmp_path: Path):
    root = tmp_path / 'VOC2010'
    maps = make_maps(root, range(460))
    write_mats(tmp_path / 'trainval', maps)
    assert script.main([str(root), '--mat', str(tmp_path / 'trainval'), '-j', '1']) == 0
    with_background = loaded_labels('PascalContext60Dataset', root, **PREFIX)
    without = loaded_labels('PascalContext59Dataset', root, **PREFIX)
    assert list(with_background) == list(maps)[:-2]
    for stem, label in with_background.items():
        values = expected(maps[stem])
        np.testing.assert_array_equal(label, values)
        np.testing.assert_array_equal(without[stem], np.where(values == 0, 255, values - 1))


def test_names_decide_over_numbers(script, tmp_path: Path):
    """Another order of labels.txt is followed."""
    root = tmp_path / 'VOC2010'
    maps = make_maps(root, range(460))
    write_mats(tmp_path / 'trainval', {stem: np.where(label > 0, 460 - label, 0) for stem, label in maps.items()})
    lines = (tmp_path / 'labels.txt').read_text().splitlines()
    swapped = ((460 - int(number), name) for number, name in (line.split(':') for line in lines))
    (tmp_path / 'labels.txt').write_text(''.join(f'{number}:{name}\n' for number, name in swapped))
    assert script.main([str(root), '--mat', str(tmp_path / 'trainval'), '-j', '1']) == 0
    check_outputs(root, maps)


def test_second_run_changes_nothing(script, tmp_path: Path, capsys: pytest.CaptureFixture):
    root = tmp_path / 'VOC2010'
    write_mats(tmp_path / 'trainval', make_maps(root, range(460)))
    assert script.main([str(root), '--mat', str(tmp_path / 'trainval'), '-j', '1']) == 0
    before = contents(root)
    capsys.readouterr()
    assert script.main([str(root), '--mat', str(tmp_path / 'trainval'), '-j', '1']) == 0
    assert '0 converted, 5 skipped' in capsys.readouterr().out
    assert contents(root) == before


@pytest.mark.slow
def test_killed_and_run_again(tmp_path: Path):
    for name in ('a', 'b'):
        maps = make_maps(tmp_path / name, range(460), count=80, size=(300, 300))
    write_mats(tmp_path / 'trainval', maps, compressed=False)
    options = ('--mat', tmp_path / 'trainval')
    folder = tmp_path / 'a/SegmentationClassContext'
    left = run_and_kill(NAME, tmp_path / 'a', *options, '-j', 2, folder=folder, pattern='2*.png')
    assert 0 < left < 80
    assert not (tmp_path / 'a/ImageSets/SegmentationContext').exists()
    result = run(NAME, tmp_path / 'a', *options)
    assert result.returncode == 0, result.stderr
    assert f'{80 - left} converted, {left} skipped' in result.stdout
    assert run(NAME, tmp_path / 'b', *options).returncode == 0
    assert contents(tmp_path / 'a') == contents(tmp_path / 'b')


def test_missing_files(tmp_path: Path):
    root, mats = tmp_path / 'VOC2010', tmp_path / 'trainval'
    check_refused(run(NAME, root), NAME, '--mat', '--json', code=2)
    check_refused(run(NAME, root, '--mat', mats), NAME, 'trainval.tar.gz')
    check_refused(run(NAME, root, '--json', tmp_path / 'no.json'), NAME, 'no.json')
    maps = make_maps(root, range(460))
    write_mats(mats, maps)
    (root / 'JPEGImages/2008_000003.jpg').unlink()
    check_refused(run(NAME, root, '--mat', mats), NAME, 'JPEGImages/2008_000003.jpg is missing (1 pictures in all)')
    (mats / '2008_000001.mat').unlink()
    check_refused(run(NAME, root, '--mat', mats), NAME, '2008_000001.mat is missing (1 of 5 in all)')
    (root / 'ImageSets/Main/val.txt').unlink()
    check_refused(run(NAME, root, '--mat', mats), NAME, 'ImageSets/Main/val.txt', 'VOCtrainval_03-May-2010.tar')
    assert not (root / 'SegmentationClassContext').exists()


def test_ids_that_are_none(script, tmp_path: Path, capsys: pytest.CaptureFixture):
    root = tmp_path / 'VOC2010'
    write_mats(tmp_path / 'trainval', make_maps(root, [0, 460]))
    assert script.main([str(root), '--mat', str(tmp_path / 'trainval'), '-j', '1']) == 1
    assert 'holds ids 0 to 460, but PASCAL Context has 0-459' in capsys.readouterr().err.splitlines()[-1]


def spoil_phases(content: dict) -> None:
    for image in content['images']:
        image['phase'] = 'val'


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (lambda content: content.pop('annos_segmentation'), "KeyError: 'annos_segmentation'"),
        (lambda content: content['images'][0].pop('phase'), "KeyError: 'phase'"),
        (lambda content: content['annos_segmentation'][0].update(category_id=460), 'the category id 460'),
        (lambda content: content['annos_segmentation'][0].update(segmentation='x.png'), 'an encoding that is not kn'),
        (lambda content: content['annos_segmentation'][0].update(image_id=7), 'KeyError: 7'),
        (lambda content: content['categories'][0].update(category_id=3), 'id 3 for the class aeroplane, expected 2'),
        (spoil_phases, 'no pictures of the phases train and val'),
    ],
)
def test_other_json(script, tmp_path: Path, capsys: pytest.CaptureFixture, spoil, words: str):
    root, path = tmp_path / 'VOC2010', tmp_path / 'trainval_merged.json'
    write_json(path, make_maps(root, IDS))
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    assert script.main([str(root), '--json', str(path), '-j', '1']) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'{NAME}.py: {path}')
    assert words in error
    assert not (root / 'SegmentationClassContext/2008_000000.png').exists()


def test_cut_json(script, tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / 'trainval_merged.json'
    path.write_text('{"images": [')
    assert script.main([str(tmp_path), '--json', str(path)]) == 1
    assert 'is not of the form of trainval_merged.json (JSONDecodeError' in capsys.readouterr().err
