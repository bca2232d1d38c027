"""Layouts of pictures with masks: what is found, what is refused."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from naclip.data.run_lengths import encode
from naclip.training.pictures import (
    INDEX,
    PUBLISHED_FOLDERS,
    Layout,
    check_pairs,
    list_pictures,
    make_index,
    read_folders,
    read_index,
    read_segmentations,
)


def write_pair(root: Path, name: str, size: tuple[int, int] = (40, 50), masks: int = 2) -> None:
    """A picture below images/ and its masks below annotations/."""
    rng = np.random.default_rng(len(name))
    for folder in ('images', 'annotations'):
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / 'images' / f'{name}.jpg')
    annotations = [{'segmentation': encode(rng.random(size) > 0.5)} for _ in range(masks)]
    (root / 'annotations' / f'{name}.json').write_text(json.dumps({'annotations': annotations}))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    for name in ('sa_000020/sa_1', 'sa_000020/sa_2', 'sa_000999/sa_3'):
        write_pair(tmp_path, name)
    return Layout(tmp_path)


def test_the_published_folders():
    names = read_folders(PUBLISHED_FOLDERS)
    assert len(set(names)) == 100
    assert (names[0], names[-1]) == ('sa_000020', 'sa_000719')
    tens = sorted({int(name[3:]) // 10 for name in names})
    assert tens == [2, 13, 25, 34, 47, 49, 56, 58, 60, 71]


def test_index(layout):
    names = read_index(layout)
    assert names == ['sa_000020/sa_1.jpg', 'sa_000020/sa_2.jpg', 'sa_000999/sa_3.jpg']
    assert (layout.root / INDEX).read_text().split() == names
    shutil.rmtree(layout.root / 'annotations')  # made once: nothing is looked at again
    assert read_index(layout) == names
    assert read_index(Layout(layout.root, folders=('sa_000999',))) == names[2:]


def test_any_folder_of_pictures_will_do(tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'masks').mkdir()
    write_pair(tmp_path / 'made', 'a')
    (tmp_path / 'made/images/a.jpg').rename(tmp_path / 'photos/a.jpg')
    (tmp_path / 'made/annotations/a.json').rename(tmp_path / 'masks/a.json')
    assert read_index(Layout(tmp_path, 'photos', 'masks')) == ['a.jpg']
    assert read_index(Layout(tmp_path, 'photos', None), tmp_path / 'other.txt') == ['a.jpg']


def test_a_picture_without_a_mask_is_fine(layout):
    write_pair(layout.root, 'sa_000020/sa_9', masks=0)
    assert len(read_index(layout)) == 4


def test_no_data(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'):
        read_index(Layout(tmp_path / 'nothing'))
    with pytest.raises(FileNotFoundError, match=r'there is no folder .*images'):
        list_pictures(Layout(tmp_path))
    (tmp_path / 'images').mkdir()
    with pytest.raises(FileNotFoundError, match=r'annotations.*expected'):
        list_pictures(Layout(tmp_path))
    (tmp_path / 'annotations').mkdir()
    with pytest.raises(FileNotFoundError, match='no picture in'):
        list_pictures(Layout(tmp_path))


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (None, 'are missing'),
        ('{"annotations": [', 'JSONDecodeError'),
        ('[]', 'TypeError'),
        ('{"annotations": [{}]}', 'segmentation'),
        ('{"annotations": [{"segmentation": {"size": [40, 50], "counts": "Z0"}}]}', 'do not add up'),
        ('{"annotations": [{"segmentation": {"size": [50, 40], "counts": "Z0"}}]}', 'a mask of size'),
        ('{"annotations": [{"segmentation": {"size": [40, 50], "counts": "\\u0000"}}]}', 'is no character'),
    ],
)
def test_masks_that_cannot_be_read_are_named(layout, content, reason):
    path = layout.annotation('sa_000020/sa_2.jpg')
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match='1 of 3 pictures') as error:
        make_index(layout, layout.root / INDEX)
    assert reason in str(error.value)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)
    assert not (layout.root / INDEX).exists()
    assert make_index(layout, layout.root / INDEX, leave_out=True) == ['sa_000020/sa_1.jpg', 'sa_000999/sa_3.jpg']


def test_pictures_that_cannot_be_read_are_named(layout):
    for name, content in (('sa_1', b'nonsense'), ('sa_2', None)):
        path = layout.root / f'images/sa_000020/{name}.jpg'
        path.write_bytes(content or path.read_bytes()[:-50])
    wrong = check_pairs(layout, list_pictures(layout))
    assert sorted(wrong) == ['sa_000020/sa_1.jpg', 'sa_000020/sa_2.jpg']
    assert 'sa_1.jpg' in wrong['sa_000020/sa_1.jpg']
    assert 'cut short' in wrong['sa_000020/sa_2.jpg']


def test_crowds_are_left_out(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text(json.dumps({'annotations': [{'segmentation': 1, 'iscrowd': 1}, {'segmentation': 2}]}))
    assert read_segmentations(path) == [2]


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_no_write_permission(layout):
    layout.root.chmod(0o500)
    try:
        with pytest.raises(ValueError, match='no permission'):
            read_index(layout)
    finally:
        layout.root.chmod(0o700)


def test_an_index_that_cannot_be_written(layout):
    with pytest.raises(ValueError, match='cannot write the index'):
        make_index(layout, layout.root / 'images/sa_000020/sa_1.jpg/index.txt')


def test_lists_of_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        read_folders(tmp_path / 'none.txt')
    (tmp_path / 'empty.txt').touch()
    with pytest.raises(ValueError, match='is empty'):
        read_folders(tmp_path / 'empty.txt')
