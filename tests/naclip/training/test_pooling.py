"""Masks at the resolution of training, and means over them."""

import torch
import torch.nn.functional as F

from naclip.training.pooling import pool, shrink, usable


def test_shrink_takes_every_second_of_twice_the_size():
    masks = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0)) > 0.5
    assert torch.equal(shrink(masks, 4), masks[:, ::2, ::3])
    assert shrink(masks[:0], 4).shape == (0, 4, 4)


def test_masks_of_one_pixel_are_not_usable():
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[1, 0, 0] = masks[2, 0, :2] = True
    assert torch.equal(usable(masks), masks[2:])
    assert len(usable(masks[:0])) == 0


def test_pool_is_the_mean_of_the_upsampled_features():
    generator = torch.Generator().manual_seed(0)
    features, masks = torch.rand(5, 3, 3, generator=generator), torch.rand(4, 12, 12, generator=generator) > 0.7
    planes = F.interpolate(features[None], (12, 12), mode='bilinear', align_corners=False)[0]
    expected = torch.stack([planes[:, mask].mean(dim=1) for mask in masks])
    torch.testing.assert_close(pool(features, masks), expected)
    assert pool(features, masks[:0]).shape == (0, 5)
