"""CLIP with a ConvNeXt image tower, against OpenCLIP and against the formulas written out."""

import sys

import pytest
import torch
import torch.nn.functional as F

import clip
from clip.convnext import ConvNeXtCLIP, build_convnext
from naclip.harness.segmentor import NACLIP
from naclip.methods import METHODS
from naclip.methods.pixelclip import PixelCLIP
from naclip.pipeline import check_tower
from tests.clip.test_weights import save_detectron2
from tests.conftest import ROOT
from tests.naclip.methods.reads import patch_features


@pytest.fixture(scope='module')
def convnext(convnext_parts) -> ConvNeXtCLIP:
    return build_convnext(convnext_parts.state_dict())


@pytest.fixture(scope='module')
def images() -> torch.Tensor:
    """Off the stride, and not square."""
    return torch.randn(3, 3, 100, 160, generator=torch.Generator().manual_seed(0))


def literal_reading(parts, images):
    """Trunk features, the norm of the trunk's head at every position, the projection."""
    x = parts.visual.trunk.stages(parts.visual.trunk.stem(images)).permute(0, 2, 3, 1)
    norm = parts.visual.trunk.head.norm
    centred = x - x.mean(dim=-1, keepdim=True)
    x = centred / (x.var(dim=-1, keepdim=True, correction=0) + norm.eps).sqrt() * norm.weight + norm.bias
    return x @ parts.visual.head.proj.weight.T


@torch.no_grad()
def test_reading_as_the_formula(convnext, convnext_parts, images):
    _, positions = convnext.visual.read(images)
    assert positions.shape == (3, 3, 5, 64)
    torch.testing.assert_close(positions, literal_reading(convnext_parts, images), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_pictures_as_open_clip(convnext, convnext_parts, images):
    torch.testing.assert_close(convnext.encode_image(images), convnext_parts.encode_image(images))


@torch.no_grad()
def test_where_there_is_one_position_it_is_the_picture(convnext, convnext_parts, images):
    """Then pooling changes nothing, and the reading is OpenCLIP's own."""
    squares = images[:, :, 40:72, 50:82]
    _, positions = convnext.visual.read(squares)
    torch.testing.assert_close(positions[:, 0, 0], convnext_parts.encode_image(squares), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_texts_as_open_clip(convnext, convnext_parts):
    tokens = clip.tokenize(['a cat.', 'itap of a very large traffic light.', 'sky'])
    for batch in (tokens, tokens[:1]):
        expected = convnext_parts.encode_text(batch)
        torch.testing.assert_close(convnext.encode_text(batch), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_features_on_the_feature_grid(convnext, convnext_parts, images):
    method = PixelCLIP()
    patches = patch_features(convnext.visual, images, method)
    planes = literal_reading(convnext_parts, images).permute(0, 3, 1, 2)
    expected = F.normalize(F.interpolate(planes, (64, 64), mode='bilinear', align_corners=False), dim=1)
    torch.testing.assert_close(patches, expected.permute(0, 2, 3, 1), rtol=0, atol=1e-5)
    whole = F.normalize(convnext.encode_image(images), dim=-1)
    torch.testing.assert_close(whole, convnext_parts.encode_image(images, normalize=True))
    singles = torch.cat([patch_features(convnext.visual, picture[None], method) for picture in images])
    torch.testing.assert_close(patches, singles, rtol=0, atol=2e-6)


@torch.no_grad()
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_checkpoint_in_the_published_layout(convnext, convnext_parts, images, device, dtype, tmp_path):
    path = tmp_path / 'model_final.pth'
    save_detectron2(convnext_parts.state_dict(), path)
    full, _, checkpoint = clip.load_checkpoint(path, device='cpu')
    assert (full.dtype, checkpoint.path, full.context_length) == (torch.float32, path, 77)
    assert full.state_dict().keys() == convnext_parts.state_dict().keys()
    for name, tensor in convnext_parts.state_dict().items():
        assert torch.equal(full.state_dict()[name], tensor)
    half, _ = clip.load(path, device, dtype)
    assert (half.dtype, half.device.type) == (getattr(torch, dtype), device.type)
    tokens = clip.tokenize(['a photo of a cat.'])
    for ours, expected in (
        (half.visual.read(images.to(device))[1], full.visual.read(images)[1]),
        (half.encode_text(tokens.to(device)), full.encode_text(tokens)),
    ):
        assert F.cosine_similarity(ours.float().cpu(), expected, dim=-1).min() > 0.99


def test_too_small(convnext):
    with pytest.raises(ValueError, match=r'of 31x64 pixels is smaller than the ConvNeXt'):
        convnext.visual.read(torch.zeros(1, 3, 31, 64))


@pytest.mark.parametrize('method', [method for method in METHODS if method.name != 'pixelclip'], ids=lambda m: m.name)
def test_other_methods_need_a_vit(convnext, method):
    with pytest.raises(ValueError, match=rf'method {method.name} reads the blocks of a ViT.* use --method pixelclip$'):
        check_tower(convnext.visual, method)


def test_without_open_clip(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'open_clip', None)
    save_detectron2({'visual.trunk.stem.0.weight': torch.zeros(1)}, tmp_path / 'm.pth')
    with pytest.raises(
        ValueError, match=r'm\.pth: .*ConvNeXt.* needs open_clip_torch .*: pip install open_clip_torch$'
    ):
        clip.load(tmp_path / 'm.pth')


def test_not_the_convnext(convnext_parts, tmp_path):
    weights = convnext_parts.state_dict()
    block = 'visual.trunk.stages.3.blocks.0.'
    deeper = {name.replace(block, f'{block[:-2]}1.'): tensor for name, tensor in weights.items() if block in name}
    without = {name: tensor for name, tensor in weights.items() if name != 'visual.head.proj.weight'}
    for state_dict, message in (
        ({'visual.trunk.stem.0.weight': torch.zeros(1)}, 'stages are'),
        (weights | deeper, r'\(2, 128\)\), expected those of convnext_base'),
        (
            {name: tensor for name, tensor in weights.items() if name != 'text_projection'},
            "'text_projection' is missing",
        ),
        (without, 'visual.head.proj.weight is missing'),
        (without | {'visual.head.mlp.fc1.weight': torch.zeros(1)}, 'visual.head.mlp.fc1.weight is not part of CLIP'),
    ):
        torch.save(state_dict, tmp_path / 'm.pt')
        with pytest.raises(ValueError, match=rf'm\.pt: not a CLIP with a ConvNeXt image tower: .*{message}'):
            clip.load(tmp_path / 'm.pt')


def test_input_size_is_for_every_tower():
    names = ROOT / 'configs' / 'cls_voc20.txt'
    with pytest.raises(ValueError, match='input_size is for vit, expected vit and convnext'):
        NACLIP('shapes', names, input_size={'vit': (320, 320)}, slide_crop=0)


@pytest.mark.slow
@torch.no_grad()
def test_the_published_architecture():
    """With random weights: `convnext_base_w_320`."""
    open_clip = pytest.importorskip('open_clip')
    parts = open_clip.CLIP(**open_clip.get_model_config('convnext_base_w_320')).eval()
    model = build_convnext(parts.state_dict())
    images = torch.randn(1, 3, 256, 320)
    whole, positions = model.visual.read(images)
    assert positions.shape == (1, 8, 10, 640)
    torch.testing.assert_close(whole, parts.encode_image(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(positions, literal_reading(parts, images), rtol=1e-4, atol=1e-5)
    tokens = clip.tokenize(['a photo of a cat.'])
    torch.testing.assert_close(model.encode_text(tokens), parts.encode_text(tokens), rtol=1e-4, atol=1e-5)
