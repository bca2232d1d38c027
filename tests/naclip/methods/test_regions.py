"""Regions and votes, by brute force; the whole method is compared with goldens in test_pipeline.py."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from naclip.methods.cliptrase import CLIPtrase
from naclip.methods.regions import denoised, find_regions, majority
from naclip.pipeline import Settings, check_fit


def random_labels(shape: tuple[int, int], count: int, seed: int) -> torch.Tensor:
    return torch.randint(0, count, shape, generator=torch.Generator().manual_seed(seed))


@given(st.tuples(st.integers(1, 6), st.integers(1, 6)), st.integers(1, 4), st.integers(1, 4), st.integers(0, 999))
def test_majority_as_brute_force(shape, label_count, region_count, seed):
    labels, regions = random_labels(shape, label_count, seed), random_labels(shape, region_count, seed + 1)
    voted = majority(labels, regions)
    for y in range(shape[0]):
        for x in range(shape[1]):
            inside = labels[regions == regions[y, x]].tolist()
            most = max(map(inside.count, inside))
            assert voted[y, x] == min(label for label in inside if inside.count(label) == most)


def test_denoised_as_the_formula():
    affinity = torch.rand(7, 7, generator=torch.Generator().manual_seed(0))
    rows = denoised(affinity)
    for i in range(6):
        for j in range(6):
            assert rows[i, j] == max(float(affinity[1 + i, 1 + j] - affinity[0, 1 + j]), 0)


def two_halves(h: int, w: int) -> torch.Tensor:
    """Affinity of tokens where the patches of each half (left, right) are alike, and none is like CLS."""
    right = (torch.arange(h * w) % w >= w // 2).float()
    affinity = torch.zeros(1 + h * w, 1 + h * w)
    affinity[1:, 1:] = (right[:, None] == right).float()
    return affinity


@pytest.mark.parametrize('size', [(64, 64), (50, 81)])
def test_two_halves_are_two_regions(size):
    regions = find_regions(two_halves(4, 8), (4, 8), size, eps=0.1, min_samples=2)
    assert regions.shape == size
    middle = size[1] // 2
    assert regions[:, : middle - 3].unique().tolist() == [0]
    assert regions[:, middle + 3 :].unique().tolist() == [1]


def test_no_cluster():
    noise = torch.rand(17, 17, generator=torch.Generator().manual_seed(0))
    assert find_regions(noise, (4, 4), (8, 8), eps=1e-3, min_samples=2) is None


def test_patches_in_no_cluster_belong_where_they_are_most_alike():
    affinity = two_halves(4, 8)
    affinity[5, 1:] *= 0.5  # a patch of the right half, unlike all others
    regions = find_regions(affinity, (4, 8), (64, 64), eps=0.1, min_samples=2)
    assert regions.unique().tolist() == [0, 1]
    assert regions[:, 40:].unique().tolist() == [1]


def test_missing_scikit_learn(monkeypatch):
    method, settings = CLIPtrase(), Settings(slide_crop=0)
    check_fit(method, settings)
    monkeypatch.setitem(sys.modules, 'sklearn.cluster', None)
    with pytest.raises(ValueError, match=r'needs scikit-learn.*pip install scikit-learn'):
        check_fit(method, settings)


def test_the_same_picture_has_the_same_regions():
    affinity = torch.from_numpy(np.random.RandomState(0).rand(65, 65).astype(np.float32))
    first, second = (find_regions(affinity, (8, 8), (32, 32), 1.6, 2) for _ in range(2))
    assert torch.equal(first, second)
