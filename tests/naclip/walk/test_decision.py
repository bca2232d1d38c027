"""From scores to labels, pixel by pixel."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from naclip.walk.decision import class_probabilities, decide, suppress_small_classes

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
# Few values, so that scores often tie with each other and with a threshold.
STEPS = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0])


def coarse(shape: tuple[int, ...], seed: int) -> Tensor:
    """Values among eighths, exact in float32."""
    return torch.randint(0, 9, shape, generator=torch.Generator().manual_seed(seed)) / 8


def first_best(scores: list[float]) -> int:
    return scores.index(max(scores))


@given(SHAPES, STEPS, st.integers(0, 999))
def test_decide_as_brute_force(shape, prob_thd, seed):
    probabilities = coarse(shape, seed)
    labels = decide(probabilities, prob_thd)
    assert labels.shape == (shape[0], 1, *shape[2:])
    assert labels.dtype == torch.int64
    for b in range(shape[0]):
        for y in range(shape[2]):
            for x in range(shape[3]):
                scores = probabilities[b, :, y, x].tolist()
                expected = 0 if max(scores) < prob_thd else first_best(scores)
                assert labels[b, 0, y, x] == expected


def test_a_pixel_at_the_threshold_keeps_its_class():
    probabilities = torch.tensor([0.25, 0.5]).view(1, 2, 1, 1)
    assert decide(probabilities, 0.5).item() == 1
    assert decide(probabilities, 0.5001).item() == 0
    assert decide(probabilities).item() == 1


@given(SHAPES, STEPS, st.integers(0, 999))
def test_suppression_as_brute_force(shape, area_thd, seed):
    probabilities = coarse(shape, seed)
    kept = suppress_small_classes(probabilities, area_thd)
    pixels = [(y, x) for y in range(shape[2]) for x in range(shape[3])]
    for b in range(shape[0]):
        labels = [first_best(probabilities[b, :, y, x].tolist()) for y, x in pixels]
        foreground = sum(label != 0 for label in labels)
        for k in range(shape[1]):
            vanishes = k != 0 and not labels.count(k) > area_thd * foreground
            expected = torch.zeros(shape[2:]) if vanishes else probabilities[b, k]
            assert torch.equal(kept[b, k], expected)


def test_a_class_at_the_area_threshold_vanishes():
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 2])  # class 1 has a quarter of the foreground
    probabilities = torch.nn.functional.one_hot(labels, 4).T.float().view(1, 4, 3, 3)
    assert suppress_small_classes(probabilities, 0.25).amax((0, 2, 3)).tolist() == [1, 0, 1, 0]
    assert suppress_small_classes(probabilities, 0.24).amax((0, 2, 3)).tolist() == [1, 1, 1, 0]


def test_suppression_judges_each_picture_alone():
    probabilities = coarse((4, 5, 6, 7), 0)
    singles = torch.cat([suppress_small_classes(picture[None], 0.2) for picture in probabilities])
    assert torch.equal(suppress_small_classes(probabilities, 0.2), singles)


@given(
    counts=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    batch=st.integers(1, 2),
    scale=st.sampled_from([1.0, 40.0, 65.0]),
    seed=st.integers(0, 99),
)
def test_class_probabilities_as_brute_force(counts, batch, scale, seed):
    query_idx = [k for k, count in enumerate(counts) for _ in range(count)]
    logits = 0.2 * torch.randn(batch, len(query_idx), 2, 3, generator=torch.Generator().manual_seed(seed))
    before = logits.clone()
    probabilities = class_probabilities(logits, query_idx, scale)
    assert probabilities.shape == (batch, len(counts), 2, 3)
    for b in range(batch):
        for y in range(2):
            for x in range(3):
                powers = [math.exp(scale * value) for value in before[b, :, y, x].tolist()]
                for k in range(len(counts)):
                    best = max(power for power, owner in zip(powers, query_idx, strict=True) if owner == k)
                    assert probabilities[b, k, y, x].item() == pytest.approx(best / sum(powers), rel=1e-4)
