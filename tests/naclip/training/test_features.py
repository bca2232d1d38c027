"""Dense features and cosine maps; goldens of both are in test_step.py."""

import torch
import torch.nn.functional as F

from naclip.training.features import cluster_maps, dense_features


def test_features_are_on_the_towers_own_grid(model):
    assert dense_features(model.visual, torch.rand(2, 3, 96, 112)).shape == (2, 64, 6, 7)


def test_maps_are_cosines_in_float32_under_autocast():
    features, centres = torch.randn(2, 8, 3, 3), torch.randn(5, 8)
    expected = F.cosine_similarity(features[:, None], centres[None, :, :, None, None], dim=2)
    with torch.autocast('cpu', torch.bfloat16):
        maps = cluster_maps(features, centres)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, expected)
