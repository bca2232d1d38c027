"""PixelCLIP's dense reading, against the goldens; of a ConvNeXt in tests/clip/test_convnext.py."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from naclip.methods.pixelclip import PixelCLIP
from naclip.pipeline import Pipeline, Settings
from naclip.walk.vocabulary import Vocabulary


@pytest.fixture
def pixelclip(make_model, pixelclip_golden) -> Callable[..., Pipeline]:
    def build(device='cpu', **settings: object) -> Pipeline:
        vocabulary = Vocabulary(tuple((name,) for name in pixelclip_golden['names']))
        method, features = PixelCLIP(), pixelclip_golden['text_features']
        return Pipeline(make_model(device), method, vocabulary, features, Settings(slide_crop=0, **settings)).to(device)

    return build


@pytest.mark.parametrize('i', range(3))
def test_pixelclip_goldens(pixelclip, pixelclip_golden, i, device):
    images, expected = pixelclip_golden[f'image_{i}'].to(device), pixelclip_golden[f'logits64_{i}']
    similarity = pixelclip(device).similarity(images)
    assert similarity.shape == (1, 3, 64, 64)
    torch.testing.assert_close(similarity[:, :, ::4, ::4].cpu(), expected, rtol=0, atol=1e-4)


def test_pixelclip_goes_from_the_feature_grid_to_the_original_size(pixelclip, pixelclip_golden):
    """Pictures of any aspect are resized first; the maps are upsampled once."""
    pipeline = pixelclip(input_size=(80, 80))
    images = torch.rand(2, 3, 50, 90, generator=torch.Generator().manual_seed(0))
    labels, _ = pipeline(images, (120, 216))
    squares = F.interpolate(images, (80, 80), mode='bilinear', align_corners=False)
    maps = F.interpolate(pipeline.similarity(squares), (120, 216), mode='bilinear', align_corners=False)
    assert (labels[:, 0] == maps.argmax(dim=1)).float().mean() > 0.9999
    for i in range(2):
        assert torch.equal(pipeline(images[i : i + 1], (120, 216))[0], labels[i : i + 1])
