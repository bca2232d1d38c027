"""Conjugate gradients against SciPy's and exact solutions; graphs and colours by brute force."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from naclip.methods.label_spreading import (
    conjugate_gradients,
    half_offsets,
    lab,
    patch_graph,
    patch_response,
    pixel_graph,
    positions,
    response,
    spread_over_patches,
    spread_over_pixels,
)
from naclip.walk.windows import Window


def generator():
    return torch.Generator().manual_seed(0)


def spd(n: int) -> torch.Tensor:
    a = torch.randn(n, n, generator=generator()).double()
    return a @ a.T / n + 0.1 * torch.eye(n).double()


@pytest.mark.parametrize('steps', [1, 3, 10])
def test_each_column_as_scipy(steps):
    a, b = spd(30), torch.randn(30, 4, generator=generator()).double()
    ours = conjugate_gradients(lambda p: a @ p, b, steps)
    for q in range(4):
        theirs, _ = scipy.sparse.linalg.cg(a.numpy(), b[:, q].numpy(), rtol=1e-6, atol=0, maxiter=steps)
        np.testing.assert_allclose(ours[:, q].numpy(), theirs, rtol=1e-9, atol=1e-9)


def test_what_is_solved_stays():
    a, b = (
        torch.diag(torch.tensor([1.0, 1.0, 4.0]).double()),
        torch.tensor([[1.0, 1, 0], [0, 2, 0], [0, 3, 0]]).double(),
    )
    ours = conjugate_gradients(lambda p: a @ p, b, 50)  # one column after a step, one after two, one is zero
    torch.testing.assert_close(ours, torch.linalg.solve(a, b))


@pytest.mark.parametrize('steps', [1, 3, 10])
def test_the_response_makes_the_solution(steps):
    a, b = spd(30), torch.randn(30, 4, generator=generator()).double()
    b[:, 3] = torch.linalg.eigh(a).eigenvectors[:, 0]  # solved by one step
    solution = conjugate_gradients(lambda p: a @ p, b, steps)
    for node in (0, 7, 29):
        weights = response(lambda p: a @ p, b, steps, node)
        torch.testing.assert_close((weights * b).sum(dim=0), solution[node], rtol=1e-9, atol=1e-9)


def test_the_response_of_many_steps_is_a_row_of_the_inverse():
    a, b = spd(12), torch.randn(12, 2, generator=generator()).double()
    inverse = torch.linalg.inv(a)[5]
    torch.testing.assert_close(
        response(lambda p: a @ p, b, 12, 5), inverse[:, None].expand(-1, 2), rtol=1e-4, atol=1e-4
    )


def test_patches_are_made_of_maps():
    features = torch.nn.functional.normalize(torch.randn(12, 5, generator=generator()), dim=-1)
    graph = patch_graph(features, positions([Window(0, 0, 32, 24)], (4, 3), 8), 5, 0.01)
    maps = torch.randn(12, 3, generator=generator())
    spread = spread_over_patches(graph, maps, 0.95, 4)
    for patch in range(12):
        weights = patch_response(graph, maps, 0.95, 4, patch)
        torch.testing.assert_close((weights * maps).sum(dim=0), spread[patch])


def test_patch_graph_by_hand():
    features = torch.nn.functional.normalize(torch.randn(12, 5, generator=generator()), dim=-1)
    places = positions([Window(0, 0, 24, 16), Window(8, 16, 32, 32)], (3, 2), 8)
    assert places[:3].tolist() == [[4, 4], [4, 12], [12, 4]]
    assert places[6].tolist() == [12, 20]
    similarity = (features @ features.T).double()
    w = torch.zeros(12, 12).double()
    for i in range(12):
        for j in similarity[i].argsort(descending=True)[:5].tolist():
            distance = (places[i] - places[j]).norm()
            w[i, j] = max(similarity[i, j], 0) ** 3 * torch.exp(-0.01 * distance)
    w = w + w.T
    w.fill_diagonal_(0)
    root = w.sum(dim=1).rsqrt()
    torch.testing.assert_close(patch_graph(features, places, 5, 0.01).to_dense(), root[:, None] * w * root)
    assert patch_graph(features, places, 400, 0.01).shape == (12, 12)  # no more than there are


def test_lone_patches_stay_alone():
    graph = patch_graph(torch.eye(4), torch.zeros(4, 2).double(), 4, 0.01).to_dense()
    assert torch.equal(graph, torch.zeros(4, 4).double())


@pytest.mark.parametrize('size', [(5, 7), (2, 9), (1, 1), (1, 3)])
def test_pixel_graph_by_hand(size):
    h, w = size
    colours = torch.rand(3, h, w, generator=generator()) * 0.02
    dense = torch.zeros(h * w, h * w)
    for i in range(h * w):
        for j in range(h * w):
            near = abs(i // w - j // w) <= 2 and abs(i % w - j % w) <= 2
            if near and i != j:
                dense[i, j] = torch.exp(-(colours[:, i // w, i % w] - colours[:, j // w, j % w]).norm() / 0.01)
    degree = dense.sum(dim=1)
    root = torch.where(degree > 0, degree, 1).rsqrt()
    dense = (root[:, None] * dense * root).double()
    maps = torch.randn(5, h, w, generator=generator())
    expected = conjugate_gradients(lambda p: p - 0.95 * dense @ p, maps.double().flatten(1).T, 10)
    ours = spread_over_pixels(pixel_graph(colours, 2, 0.01), maps, 0.95, 10, names_at_once=2)
    torch.testing.assert_close(ours.flatten(1).T, expected, rtol=1e-4, atol=1e-5)


def test_offsets():
    half = half_offsets(6)
    assert len(half) == 84
    assert len({*half, *((-dy, -dx) for dy, dx in half)}) == 168


def test_lab_as_scikit_image():
    colour = pytest.importorskip('skimage.color')
    pixels = torch.rand(1, 3, 8, 9, generator=generator())
    pixels[..., 0] = 0.0
    pixels[..., 1] = 1.0
    expected = colour.rgb2lab(pixels[0].permute(1, 2, 0).double().numpy())
    ours = lab(pixels)[0].permute(1, 2, 0) * torch.tensor([100, 128, 128])
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-3)
