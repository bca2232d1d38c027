"""PAMR, against the goldens and against its definition written with explicit loops.

Each test hears of the form in plain PyTorch, and of what is chosen here.
"""

import math
import statistics
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from naclip.walk import pamr as module
from naclip.walk.pamr import affinity, pamr, pamr_, refine, refine_fused, refiner
from tools.benchmarks.clock import peak_bytes

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 6))
DILATIONS = st.sampled_from([(1,), (2,), (1, 2), (2, 1), (3, 9), (8, 16), (1, 1), (1, 2, 4, 8, 12, 24)])


@pytest.fixture(params=['plain', 'chosen'], scope='module', autouse=True)
def _form(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == 'plain':
            patch.setattr(module, 'refiner', lambda maps: refine)
        yield


def random(channels: int, height: int, width: int, count: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


def neighbours(y: int, x: int, size: tuple[int, int], dilations: tuple[int, ...], centre: bool) -> list[tuple]:
    """Where the neighbours of pixel (y, x) lie, pulled back to the border."""
    return [
        (min(max(y + dy, 0), size[0] - 1), min(max(x + dx, 0), size[1] - 1))
        for d in dilations
        for dy in (-d, 0, d)
        for dx in (-d, 0, d)
        if centre or dy or dx
    ]


def literal_affinity(image: Tensor, dilations: tuple[int, ...]) -> dict[tuple[int, int], list[float]]:
    """One picture (3, H, W): for each pixel, the weights of its neighbours."""
    size, pixels = tuple(image.shape[-2:]), image.double().tolist()
    result = {}
    for y in range(size[0]):
        for x in range(size[1]):
            sums = []
            places = neighbours(y, x, size, dilations, centre=False)
            sigma = [
                statistics.stdev(c[i][j] for i, j in neighbours(y, x, size, dilations, centre=True)) for c in pixels
            ]
            for i, j in places:
                parts = [-abs(c[y][x] - c[i][j]) / (1e-8 + 0.1 * s) for c, s in zip(pixels, sigma, strict=True)]
                sums.append(sum(parts) / 3)
            powers = [math.exp(value - max(sums)) for value in sums]
            result[y, x] = [power / sum(powers) for power in powers]
    return result


def literal_pamr(image: Tensor, maps: Tensor, steps: int, dilations: tuple[int, ...]) -> Tensor:
    """One picture (3, H, W) and its maps (M, H, W)."""
    size, weights = tuple(image.shape[-2:]), literal_affinity(image, dilations)
    x = maps.double()
    for _ in range(steps):
        refined = torch.zeros_like(x)
        for (row, column), row_weights in weights.items():
            for (i, j), weight in zip(neighbours(row, column, size, dilations, False), row_weights, strict=True):
                refined[:, row, column] += weight * x[:, i, j]
        x = refined
    return x.float()


@pytest.mark.parametrize(('steps', 'dilations'), [(10, (8, 16)), (3, (1, 2, 4, 8, 12, 24))])
def test_as_golden(golden, steps, dilations, device):
    key = f'pamr/{steps}/{"-".join(map(str, dilations))}'
    refined = pamr(golden['pamr/image'].to(device), golden['pamr/mask'].to(device), steps, dilations)
    torch.testing.assert_close(refined.cpu(), golden[key], rtol=0, atol=1e-5)


@given(SIZES, DILATIONS, st.integers(0, 3), st.integers(0, 99))
@settings(max_examples=25)
def test_as_the_definition(size, dilations, steps, seed):
    image, maps = random(3, *size, seed=seed), random(2, *size, seed=seed + 1)
    refined = pamr(image, maps, steps, dilations)
    torch.testing.assert_close(refined[0], literal_pamr(image[0], maps[0], steps, dilations), rtol=1e-4, atol=1e-4)


@given(SIZES, DILATIONS, st.integers(0, 99))
@settings(max_examples=25)
def test_affinity_as_the_definition(size, dilations, seed):
    image = random(3, *size, count=2, seed=seed)
    weights = affinity(image, dilations)
    assert weights.shape == (2, 8 * len(dilations), *size)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, *size))
    for b in range(2):
        for (y, x), expected in literal_affinity(image[b], dilations).items():
            torch.testing.assert_close(weights[b, :, y, x], torch.tensor(expected), rtol=1e-3, atol=1e-5)


@given(SIZES, DILATIONS)
def test_flat_picture_weighs_all_neighbours_alike(size, dilations):
    weights = affinity(torch.full((1, 3, *size), 0.3), dilations)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / (8 * len(dilations))))


@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    maps=st.integers(1, 7),
    batch=st.integers(1, 2),
    steps=st.integers(0, 3),
    scratch_bytes=st.sampled_from([0, 1, 5_000, 20_000, 1 << 30]),
)
def test_grouping_changes_nothing(size, maps, batch, steps, scratch_bytes):
    image, x = random(3, *size, count=batch), random(maps, *size, count=batch, seed=1)
    assert torch.equal(pamr(image, x, steps, (2, 5), scratch_bytes), pamr(image, x, steps, (2, 5)))


@given(st.tuples(st.integers(1, 20), st.integers(1, 20)), DILATIONS, st.floats(-10, 10, width=32))
def test_constant_maps_stay_constant(size, dilations, value):
    maps = torch.full((1, 2, *size), value)
    torch.testing.assert_close(pamr(random(3, *size), maps, 4, dilations), maps, rtol=1e-5, atol=1e-5)


def test_values_stay_between_the_extremes():
    maps = random(3, 30, 41)
    refined = pamr(random(3, 30, 41, seed=1), maps)
    assert refined.min() >= maps.min()
    assert refined.max() <= maps.max()


def test_maps_follow_the_edges_of_the_picture():
    """Two flat halves: what lies in one never leaks into the other."""
    image, maps = torch.zeros(1, 3, 32, 40), torch.zeros(1, 1, 32, 40)
    image[..., 20:], maps[..., 20:] = 1, 1
    refined = pamr(image, maps + 0.3 * random(1, 32, 40), 10, (1, 2))
    assert refined[..., :20].max() < 0.5 < refined[..., 20:].min()


def test_a_pixel_alone():
    assert pamr(random(3, 1, 1), torch.tensor([[[[0.25]]]])).item() == pytest.approx(0.25)


def test_batch_equals_singles():
    images, maps = random(3, 21, 33, count=3), random(4, 21, 33, count=3, seed=1)
    singles = torch.cat([pamr(images[i : i + 1], maps[i : i + 1]) for i in range(3)])
    assert torch.equal(pamr(images, maps), singles)


def test_in_place_and_not():
    image, maps = random(3, 9, 9), random(2, 9, 9, seed=1)
    before = maps.clone()
    refined = pamr(image, maps)
    assert torch.equal(maps, before)
    assert pamr_(image, maps) is maps
    assert torch.equal(maps, refined)


def test_zero_steps_is_the_identity():
    maps = random(2, 9, 9)
    assert torch.equal(pamr(random(3, 9, 9), maps, 0), maps)


def test_computes_in_float32():
    image, maps = random(3, 9, 9).half(), random(2, 9, 9, seed=1).half()
    refined = pamr(image, maps)
    assert refined.dtype == torch.float32
    assert torch.equal(refined, pamr(image.float(), maps.float()))


@pytest.mark.parametrize(
    ('image', 'maps', 'steps', 'dilations', 'message'),
    [
        ((1, 3, 5, 5), (1, 2, 5, 6), 1, (1,), 'one size'),
        ((2, 3, 5, 5), (1, 2, 5, 5), 1, (1,), 'one size'),
        ((1, 3, 5, 5), (1, 2, 5, 5), -1, (1,), 'steps -1'),
        ((1, 3, 5, 5), (1, 2, 5, 5), 1, (), 'dilations'),
        ((1, 3, 5, 5), (1, 2, 5, 5), 1, (4, 0), 'dilations'),
    ],
)
def test_bad_arguments(image, maps, steps, dilations, message):
    with pytest.raises(ValueError, match=message):
        pamr(torch.zeros(image), torch.zeros(maps), steps, dilations)


def test_weights_computed_before():
    image, maps = random(3, 9, 14, count=2), random(5, 9, 14, count=2, seed=1)
    weights = affinity(image, (2, 5))
    assert torch.equal(pamr(image, maps, 3, (2, 5), weights=weights), pamr(image, maps, 3, (2, 5)))
    with pytest.raises(ValueError, match=r'needs weights \(2, 8, 9, 14\), got \(2, 16, 9, 14\)'):
        pamr(image, maps, 3, (2,), weights=weights)


def test_maps_that_do_not_lie_in_order():
    image, maps = random(3, 9, 14), random(5, 14, 9).transpose(-1, -2)
    expected = pamr(image, maps.contiguous(), 3)
    assert pamr_(image, maps, 3) is maps
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-6)


def test_no_maps():
    assert pamr(random(3, 9, 14), torch.zeros(1, 0, 9, 14)).shape == (1, 0, 9, 14)


def test_what_is_chosen(monkeypatch: pytest.MonkeyPatch):
    maps = torch.zeros(1, 2, 3, 4)
    assert refiner(maps.to('meta')) is refine
    monkeypatch.setitem(sys.modules, 'naclip.walk.pamr_numba', None)  # importing it fails, as without numba
    monkeypatch.setattr(module, '_numba_refine', module._numba_refine.__wrapped__)
    assert refiner(maps) is refine


def python_step(source: Tensor, weights: Tensor, offsets: Tensor, target: Tensor) -> None:
    """What a fused step must do, written by gathering."""
    height, width = source.shape[-2:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    target.zero_()
    for weight, (dy, dx) in zip(weights, offsets.tolist(), strict=True):
        target += weight * source[:, (rows + dy).clamp(0, height - 1), (columns + dx).clamp(0, width - 1)]


@pytest.mark.parametrize('steps', [0, 1, 2, 3])
@pytest.mark.parametrize('scratch_bytes', [0, 4 * 9 * 14 * 2, 1 << 30])
def test_fused_steps_as_plain_ones(steps, scratch_bytes):
    image, maps = random(3, 9, 14, count=2), random(5, 9, 14, count=2, seed=1)
    expected = pamr(image, maps, steps, (2, 5))
    refine_fused(maps, affinity(image, (2, 5)), steps, (2, 5), scratch_bytes, python_step)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('maps', [21, 64])
def test_memory_is_bounded(maps):
    """Beyond the maps: the neighbours' weights, what computes them, and the scratch that was granted."""
    image, x = random(3, 60, 80), random(maps, 60, 80, seed=1)
    one_map, scratch = 4 * 60 * 80, 300_000
    extra = peak_bytes(torch.device('cpu'), pamr_, image, x, 10, (8, 16), scratch)
    assert extra <= scratch + (16 + 40) * one_map
    assert extra < 4 * 16 * maps * one_map / 10  # the published form holds 16 copies of all maps
