"""Samples: the same for the same place in a run, whoever makes them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from naclip.training.dataset import MaskedPictures, Places, Sampling
from naclip.training.pictures import Layout
from naclip.training.views import Framing
from tests.naclip.training.test_pictures import write_pair

SAMPLING = Sampling(Framing(32, 60, 24), mask_resolution=16)


@pytest.fixture
def dataset(tmp_path):
    for i in range(5):
        write_pair(tmp_path, f'sa_000020/sa_{i}', masks=3 if i else 0)
    return MaskedPictures(Layout(tmp_path), SAMPLING)


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in ('weak', 'strong', 'masks')) and a['seed'] == b['seed']


def test_samples(dataset):
    sample = dataset[3, 2]
    assert sample['weak'].shape == sample['strong'].shape == (3, 24, 24)
    assert sample['weak'].dtype == torch.uint8
    assert sample['masks'].shape[1:] == (16, 16)
    assert sample['seconds'] > 0
    assert same(sample, dataset[3, 2])
    assert not same(sample, dataset[4, 2])


def test_without_jitter_both_pictures_keep_their_colours():
    plain, sampling = Image.new('RGB', (60, 40), (200, 60, 90)), replace(SAMPLING, jitter=False)
    for seed in range(10):
        sample = sampling.sample(plain, [], np.random.default_rng(seed))
        assert {tuple(pixel) for pixel in sample['weak'].flatten(1).T.tolist()} == {(200, 60, 90)}
        assert {tuple(pixel) for pixel in sample['strong'].flatten(1).T.tolist()} == {(200, 60, 90), (0, 0, 0)}


def test_a_picture_without_masks(dataset):
    assert dataset[0, 0]['masks'].shape == (0, 16, 16)


def test_without_annotations(dataset):
    pictures = MaskedPictures(Layout(dataset.layout.root, annotations=None), SAMPLING)
    assert 'masks' not in pictures[0, 0]


@pytest.mark.parametrize('workers', [0, 2])
def test_workers_do_not_matter(dataset, workers):
    loader = torch.utils.data.DataLoader(dataset, sampler=Places(5, 0, 0, 1), num_workers=workers, collate_fn=list)
    for place, (batch, (at, i)) in enumerate(zip(itertools.islice(loader, 4), Places(5, 0, 0, 1), strict=False)):
        assert place == at
        assert same(batch[0], dataset[at, i])


def test_places():
    def take(count: int, rank: int = 0, processes: int = 1, skip: int = 0) -> list:
        places = Places(7, 3, rank, processes)
        places.skip(skip)
        return list(itertools.islice(places, count))

    whole = take(21)
    assert [place for place, _ in whole] == list(range(21))
    for turn in range(3):
        assert sorted(i for _, i in whole[7 * turn : 7 * turn + 7]) == list(range(7))
    assert [i for _, i in whole[:7]] != [i for _, i in whole[7:14]]
    assert take(6, skip=10) == whole[10:16]
    parts = [take(10, rank, 2) for rank in range(2)]
    assert [pair for both in zip(*parts, strict=True) for pair in both] == whole[:20]
    assert take(3, 1, 2, skip=4) == whole[9:15:2]


def test_unreadable_since_the_index(dataset):
    dataset.layout.picture('sa_000020/sa_1.jpg').write_bytes(b'\xff\xd8nothing')
    with pytest.raises(ValueError, match=r'cannot read the picture .*sa_1\.jpg'):
        dataset[0, 1]
    dataset.layout.annotation('sa_000020/sa_2.jpg').write_text(
        '{"annotations": [{"segmentation": {"size": [1, 1], "counts": "1"}}]}'
    )
    with pytest.raises(ValueError, match=r'sa_2\.json: a mask cannot be read: a mask of size'):
        dataset[0, 2]


def test_sizes_that_make_no_sense():
    with pytest.raises(ValueError, match='expected sizes above 0'):
        Sampling(Framing(0, 10, 10))


def test_different_places_have_different_views(dataset):
    views = np.stack([dataset[place, 1]['weak'].numpy() for place in range(4)])
    assert len({view.tobytes() for view in views}) == 4
