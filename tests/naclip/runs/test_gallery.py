"""What a gallery keeps, against a choice made of all pictures at once; and its files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from naclip.runs.gallery import (
    LONGEST,
    MOST,
    Gallery,
    Kept,
    choose,
    digest,
    discard_gallery,
    read_gallery,
    reduced_labels,
    reduced_size,
)
from naclip.runs.journal import count_cells

NAMES, PALETTE = ('sky', 'tree', 'rock'), [[10, 20, 30], [40, 50, 60], [70, 80, 90]]


def kept(number: int, miou: float | None) -> Kept:
    return Kept(f'p{number}', digest(f'p{number}'), miou, [])


def by_hand(pictures: list[Kept], limit: int) -> set[str]:
    """The keys to keep, from their definition."""
    edge = limit // 4
    order = sorted(pictures, key=lambda picture: digest(picture.image))
    scored = [picture for picture in order[limit - 2 * edge :] if picture.miou is not None]
    worst = sorted(scored, key=lambda picture: (picture.miou, digest(picture.image)))
    chosen = order[: limit - 2 * edge] + worst[:edge] + (worst[-edge:] if edge else [])
    return {picture.image for picture in chosen}


SCORES = st.lists(st.none() | st.integers(0, 5).map(float), min_size=1, max_size=30)


@given(SCORES, st.integers(1, 16), st.randoms(use_true_random=False))
def test_one_by_one_is_all_at_once_in_any_order(scores, limit, random):
    pictures = [kept(number, miou) for number, miou in enumerate(scores)]
    shuffled = random.sample(pictures, len(pictures))
    running: dict[str, Kept] = {}
    for picture in shuffled:
        running = choose([*running.values(), picture], limit)
        assert len(running) <= limit
    assert set(running) == set(choose(pictures, limit)) == by_hand(pictures, limit)
    half = len(pictures) // 2
    parts = [choose(part, limit).values() for part in (pictures[:half], pictures[half:])]
    assert set(choose([*parts[0], *parts[1]], limit)) == set(running)


@given(SCORES, SCORES, st.integers(2, 16))
def test_half_of_the_pictures_are_those_of_every_run(first, second, limit):
    count = min(len(first), len(second))
    both = [set(choose([kept(i, miou) for i, miou in enumerate(scores[:count])], limit)) for scores in (first, second)]
    assert len(both[0] & both[1]) >= min(limit // 2, count)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_reduced_size(height, width):
    small = reduced_size((height, width))
    assert max(small) == min(max(height, width), LONGEST)
    assert all(1 <= side <= full for side, full in zip(small, (height, width), strict=True))


def test_reduced_labels_are_the_nearest_and_of_the_classes():
    labels = np.arange(1024 * 4).reshape(4, 1024) % 300
    small = reduced_labels(torch.from_numpy(labels)[None], 200)
    assert (small.shape, small.dtype) == ((2, 512), np.uint8)
    np.testing.assert_array_equal(small, np.where(labels < 200, labels, 255)[1::2, 1::2])
    wide = reduced_labels(np.array([[0, 299, 300, 65535]]), 300)
    assert (wide.dtype, wide.tolist()) == (np.uint16, [[0, 299, 65535, 65535]])


def offer(gallery: Gallery, folder: Path, number: int, right: int, size: tuple[int, int] = (8, 10)) -> str:
    """Offer picture `number`, of which `right` of 80 pixels are as labelled."""
    height, width = size
    key, path = f'img/{number}.png', folder / f'{number}.png'
    Image.fromarray(np.full((height, width, 3), 10 * number % 256, np.uint8)).save(path)
    label = torch.zeros(1, height, width, dtype=torch.long)
    label[0, 0, 0] = 255
    prediction = torch.ones_like(label)
    prediction.view(-1)[: right + 1] = 0
    gallery.offer(key, path, label, prediction, count_cells(prediction, label, 3, 255))
    return key


def test_files_are_those_of_the_index_and_are_read_back(tmp_path):
    folder = tmp_path / 'run/gallery'
    for start in (0, 6):  # in two attempts
        gallery = Gallery(folder, 4, PALETTE, NAMES)
        for number in range(start, start + 6):
            offer(gallery, tmp_path, number, 5 * number)
    index = read_gallery(folder)
    assert (tuple(index.names), index.palette, len(index.pictures)) == (NAMES, PALETTE, 4)
    assert {'img/0.png', 'img/11.png'} <= set(index.pictures)  # worst and best
    files = {name for picture in index.pictures.values() for name in picture.files}
    assert {path.name for path in folder.iterdir()} == files | {'index.json'}
    picture = index.pictures['img/11.png']
    jpeg, truth, prediction = (Image.open(folder / name) for name in picture.files)
    assert jpeg.size == truth.size == prediction.size == (10, 8)
    assert abs(np.asarray(jpeg).astype(int) - 110).max() <= 3
    assert np.asarray(truth)[0].tolist() == [255, *[0] * 9]
    assert np.asarray(prediction).ravel().tolist() == [0] * 56 + [1] * 24
    assert np.asarray(truth.convert('RGB'))[:1, :2].tolist() == [[[255] * 3, PALETTE[0]]]
    # 55 of the 79 that count are right, and class 1 has nothing right
    assert picture.miou == pytest.approx(100 * 55 / 79 / 2)
    assert sorted(map(tuple, picture.cells)) == [(0, 0, 55), (0, 1, 24)]
    discard_gallery(folder)
    assert read_gallery(folder) is None


def test_processes_together_keep_what_one_would(tmp_path):
    alone = Gallery(tmp_path / 'one', 8, PALETTE, NAMES)
    several = [Gallery(tmp_path / 'two', 8, PALETTE, NAMES, rank) for rank in (0, 1)]
    for number in range(20):
        offer(alone, tmp_path, number, number)
        offer(several[number % 2], tmp_path, number, number)
    offer(several[1], tmp_path, 0, 0)  # where there are too few pictures for all, processes have some in common
    one, two = (read_gallery(tmp_path / name) for name in ('one', 'two'))
    assert set(one.pictures) == set(two.pictures)
    assert all((tmp_path / 'two' / name).is_file() for picture in two.pictures.values() for name in picture.files)


def test_of_a_cropped_picture_the_middle(tmp_path):
    path = tmp_path / 'wide.png'
    array = np.zeros((20, 60, 3), np.uint8)
    array[:, 20:40] = 200
    Image.fromarray(array).save(path)
    label = np.zeros((10, 10), int)
    gallery = Gallery(tmp_path / 'gallery', 1, PALETTE, NAMES)
    assert gallery.offer('wide.png', path, label, label, np.array([[0, 0, 100]]))
    (picture,) = read_gallery(tmp_path / 'gallery').pictures.values()
    kept = np.asarray(Image.open(tmp_path / 'gallery' / picture.files[0]))
    assert kept.shape == (10, 10, 3)
    assert kept[:, 2:8].min() > 180


def test_some_megabytes_at_most(tmp_path):
    """The least that compresses: noise in every pixel."""
    rng = np.random.default_rng(0)
    path = tmp_path / 'noise.png'
    Image.fromarray(rng.integers(0, 256, (600, 600, 3), np.uint8)).resize((1200, 1200)).save(path)
    gallery = Gallery(tmp_path / 'gallery', 4, PALETTE, NAMES)
    for number in range(6):
        label, prediction = rng.integers(0, 3, (2, 60, 60)).repeat(20, 1).repeat(20, 2)
        cells = count_cells(torch.from_numpy(prediction), torch.from_numpy(label), 3, 255)
        gallery.offer(f'{number}.png', path, label, prediction, cells)
    sizes = [file.stat().st_size for file in (tmp_path / 'gallery').iterdir()]
    assert len(sizes) == 13
    assert sum(sizes) / 4 * MOST < 14e6


@pytest.mark.parametrize('limit', [0, -1, MOST + 1])
def test_limits(tmp_path, limit):
    with pytest.raises(ValueError, match=f'expected 1 to {MOST}'):
        Gallery(tmp_path, limit, PALETTE, NAMES)


def test_what_cannot_be_gone_on_with(tmp_path):
    offer(Gallery(tmp_path / 'gallery', 2, PALETTE, NAMES), tmp_path, 0, 3)
    with pytest.raises(ValueError, match='is of other classes'):
        Gallery(tmp_path / 'gallery', 2, PALETTE[:2], NAMES[:2])
    index = tmp_path / 'gallery/index.json'
    content = json.loads(index.read_text())
    content['pictures'][0]['stem'] = '../../etc'
    for damaged in ('{', '[]', json.dumps(content)):
        index.write_text(damaged)
        with pytest.raises(ValueError, match=r'index\.json is damaged'):
            read_gallery(tmp_path / 'gallery')


def test_what_a_killed_process_left_is_removed(tmp_path):
    folder = tmp_path / 'gallery'
    for rank in (0, 1):
        offer(Gallery(folder, 2, PALETTE, NAMES, rank), tmp_path, 0, 3)
    before = {path.name for path in folder.iterdir()}
    for name in ('0' * 16 + '.jpg', '.' + '0' * 16 + '_truth.png.77.tmp', '.index.json.77.tmp'):
        (folder / name).touch()
    Gallery(folder, 2, PALETTE, NAMES, 1)
    assert len(list(folder.iterdir())) == len(before) + 3  # another process's
    Gallery(folder, 2, PALETTE, NAMES)
    assert {path.name for path in folder.iterdir()} == before


def test_names_that_are_not_utf8(tmp_path):
    gallery = Gallery(tmp_path / 'gallery', 2, PALETTE, NAMES)
    label = np.zeros((4, 4), int)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / 'a.png')
    gallery.offer('bad \udcff.jpg', tmp_path / 'a.png', label, label, np.array([[0, 0, 16]]))
    assert list(read_gallery(tmp_path / 'gallery').pictures) == ['bad \udcff.jpg']
