"""K-means of DINO's tokens, and one step with its masks."""

import numpy as np
import torch
from scipy.cluster.vq import kmeans2

from naclip.training.kmeans import cluster_masks, kmeans, starting_rows, training_masks
from naclip.training.pooling import shrink
from tests.naclip.training.golden import assert_near, bits, golden, inputs, said, training

SIZE = (112, 112)


def labels_of(i: int) -> torch.Tensor:
    return kmeans(golden()['dino/features'][i].float(), golden()['dino/initial'][i].long())


def published_masks() -> torch.Tensor:
    return bits('dino/masks', tuple(golden()['dino/masks_shape'].tolist()))


def test_masks():
    masks = torch.stack([cluster_masks(labels_of(i).unflatten(0, (7, 7)), SIZE) for i in range(4)])
    assert torch.equal(masks, published_masks())
    assert torch.equal(masks.sum(dim=(2, 3)), golden()['dino/cluster_sizes'].long())


def test_step_with_these_masks():
    model = training()
    resolution = said('config')['mask_resolution']
    masks = [shrink(own, resolution) for own in published_masks()]
    loss = model(inputs('in/images'), inputs('in/images_strong'), masks)
    assert abs(loss.item() - golden()['dino/loss'].item()) <= 1e-6
    loss.backward()
    assert_near(model.prompts.grad, 'dino/grad_prompt_tokens', 1e-3)


def test_it_is_lloyds_algorithm():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(centre, 0.1, (30, 2)) for centre in ((0, 0), (3, 0), (0, 3))])
    start = torch.tensor([0, 30, 60])
    centres, expected = kmeans2(points, points[start.numpy()], iter=50, minit='matrix')
    assert centres.shape == (3, 2)
    assert torch.equal(kmeans(torch.from_numpy(points), start), torch.from_numpy(expected).long())


def test_start_is_of_the_picture_alone():
    assert torch.equal(starting_rows(50, 7), starting_rows(50, 7))
    assert not torch.equal(starting_rows(50, 7), starting_rows(50, 8))


def test_every_pixel_is_in_one_mask():
    tokens = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    masks = training_masks(tokens, (4, 5), (64, 80), 3, 48)
    assert masks.shape == (16, 48, 48)
    assert (masks.sum(dim=0) == 1).all()
