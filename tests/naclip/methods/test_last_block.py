"""The last block: projected tokens, against the goldens and against the formulas written out."""

import pytest
import torch
import torch.nn.functional as F

from naclip.methods import find_method
from naclip.methods import last_block as blocks
from naclip.methods.last_block import LastBlock
from tests.naclip.methods.reads import all_weights, dense_tokens, patch_features
from tests.naclip.walk.test_attention import FORMS, literal_weights

ARCHITECTURES = ['reduced', 'vanilla', 'cls_residual']
NACLIP_KEYS = [
    *(('reduced', form, std) for form, std in [('naclip', 5), ('naclip', 1), ('nonly', 5), ('kk', 5), ('vanilla', 5)]),
    *(('vanilla', form, 5) for form in ['naclip', 'nonly', 'kk', 'csa', 'vanilla']),
]


def assert_near(ours, expected, tolerance=1e-4):
    """Within `tolerance` of the largest expected magnitude."""
    assert ours.shape == expected.shape
    assert (ours.cpu() - expected).abs().max() <= tolerance * expected.abs().max()


def test_every_golden_is_compared(golden):
    keys = {f'dense/{arch}/{attn}/{std}/{i}' for arch, attn, std in NACLIP_KEYS for i in range(3)}
    assert keys == {key for key in golden if key.startswith('dense/')}


@torch.no_grad()
@pytest.mark.parametrize('i', range(3))
@pytest.mark.parametrize(('arch', 'attn', 'std'), NACLIP_KEYS)
def test_tokens_as_naclip(make_model, golden, arch, attn, std, i, device):
    method = LastBlock(attn, arch, float(std))
    tokens, (h, w) = dense_tokens(make_model(device).visual, golden[f'image_{i}'].to(device), method)
    assert_near(tokens, golden[f'dense/{arch}/{attn}/{std}/{i}'])
    assert (h, w) == tuple(side // 16 for side in golden[f'image_{i}'].shape[-2:])


@torch.no_grad()
@pytest.mark.parametrize('i', range(3))
def test_tokens_as_sclip(make_model, golden, sclip_golden, i, device):
    tokens, _ = dense_tokens(make_model(device).visual, golden[f'image_{i}'].to(device), LastBlock('csa', 'vanilla'))
    assert_near(tokens, sclip_golden[f'dense/csa/{i}'])


@torch.no_grad()
@pytest.mark.parametrize('i', range(3))
def test_tokens_as_pixelclip(make_model, pixelclip_golden, i, device):
    images, expected = pixelclip_golden[f'image_{i}'].to(device), pixelclip_golden[f'dense_{i}']
    tokens, grid = dense_tokens(make_model(device).visual, images, find_method('pixelclip'))
    assert_near(tokens[:, 1:].unflatten(1, grid), expected)


@torch.no_grad()
def test_features_on_the_feature_grid(model, batch):
    method = find_method('pixelclip')
    tokens, (h, w) = dense_tokens(model.visual, batch, method)
    planes = tokens[:, 1:].mT.unflatten(-1, (h, w))
    expected = F.normalize(F.interpolate(planes, (64, 64), mode='bilinear', align_corners=False), dim=1)
    features = patch_features(model.visual, batch, method)
    assert features.shape == (3, 64, 64, 64)
    torch.testing.assert_close(features, expected.permute(0, 2, 3, 1))
    singles = torch.cat([patch_features(model.visual, picture[None], method) for picture in batch])
    torch.testing.assert_close(features, singles, rtol=0, atol=2e-6)


@torch.no_grad()
@pytest.mark.parametrize('std', [5.0, 1.0])
@pytest.mark.parametrize('arch', ARCHITECTURES)
@pytest.mark.parametrize('attn', FORMS)
def test_last_block_as_the_formulas(model, golden, attn, arch, std):
    visual = model.visual
    x, grid = visual.embed(golden['image_1'])
    for block in visual.transformer.resblocks[:-1]:
        x = block(x)
    last = visual.transformer.resblocks[-1]
    projected = last.ln_1(x)[0] @ last.attn.in_proj_weight.T + last.attn.in_proj_bias  # (N, 3D)
    q, k, v = (part.view(-1, 2, 64).transpose(0, 1) for part in projected.chunk(3, dim=-1))  # (heads, N, d)
    a = literal_weights(attn, q, k, v, grid, std).float()
    y = last.attn.out_proj(torch.cat([a[head] @ v[head] for head in range(2)], dim=-1))[None]
    if arch != 'reduced':
        y = (x if arch == 'vanilla' else x[:, :1]) + y
        y = y + last.mlp(last.ln_2(y))
    expected = visual.ln_post(y) @ visual.proj
    assert_near(dense_tokens(visual, golden['image_1'], LastBlock(attn, arch, std))[0], expected, 1e-5)


@torch.no_grad()
@pytest.mark.parametrize('attn', FORMS)
def test_weights_as_the_formulas(model, golden, attn):
    """Those with which, head by head, tokens are made of values; their mean over heads."""
    method = LastBlock(attn, 'reduced', 2.0)
    reading = method.read(model.visual, golden['image_1'])
    q, k, v = (part[0] for part in reading.qkv(reading.depth))
    a = literal_weights(attn, q, k, v, reading.grid, 2.0).float()  # (heads, N, N)
    merged = reading.block(reading.depth).attn.out_proj(torch.cat([a[0] @ v[0], a[1] @ v[1]], dim=-1))
    assert_near(method.features(reading, None).flatten(1, 2), reading.project(merged)[None, 1:], 1e-5)
    patches, cls = all_weights(method, reading)
    torch.testing.assert_close(patches, a.mean(dim=0)[1:, 1:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(cls, a.mean(dim=0)[1:, 0], rtol=1e-4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize('name', ['clip', 'pixelclip', 'maskclip', 'clearclip', 'sclip'])
def test_weights_are_those_of_the_attention_alone(model, golden, name):
    """Whatever an architecture adds, and wherever features go after that."""
    method = find_method(name)
    reading = method.read(model.visual, golden['image_1'])
    bare = all_weights(LastBlock(method.attention, 'reduced'), reading)
    for ours, expected in zip(all_weights(method, reading), bare, strict=True):
        assert torch.equal(ours, expected)
    if method.attention == 'identity':
        assert torch.equal(bare[0], torch.eye(len(bare[0])))
        assert not bare[1].any()


@torch.no_grad()
@pytest.mark.parametrize('arch', ARCHITECTURES)
@pytest.mark.parametrize('attn', FORMS)
def test_batch_equals_singles(make_model, batch, attn, arch, device):
    visual, method = make_model(device).visual, LastBlock(attn, arch)
    together = patch_features(visual, batch.to(device), method)
    singles = torch.cat([patch_features(visual, picture[None].to(device), method) for picture in batch])
    torch.testing.assert_close(together, singles, rtol=0, atol=2e-6 if device.type == 'cpu' else 1e-5)


@torch.no_grad()
def test_last_block_as_clip_gives_clip(model, batch):
    """With CLIP's own attention and architecture, CLS is CLIP's picture feature."""
    tokens, _ = dense_tokens(model.visual, batch, LastBlock('vanilla', 'vanilla'))
    torch.testing.assert_close(tokens[:, 0], model.encode_image(batch), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_features_are_unit_vectors_in_their_places(model, golden):
    method = LastBlock('naclip', 'reduced')
    tokens, (h, w) = dense_tokens(model.visual, golden['image_2'], method)
    features = patch_features(model.visual, golden['image_2'], method)
    assert features.shape == (1, 4, 6, 64)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(1, 4, 6))
    for r in range(h):
        for c in range(w):
            expected = F.normalize(tokens[0, 1 + r * w + c], dim=0)
            torch.testing.assert_close(features[0, r, c], expected)


@torch.no_grad()
@pytest.mark.parametrize('arch', ARCHITECTURES)
@pytest.mark.parametrize('attn', FORMS)
def test_half_precision_is_near_float32(make_model, model, golden, attn, arch, device):
    method = LastBlock(attn, arch)
    half = patch_features(make_model(device, torch.float16).visual, golden['image_1'].to(device), method)
    assert half.dtype == torch.float16
    full = patch_features(model.visual, golden['image_1'], method)
    assert F.cosine_similarity(half.float().cpu(), full, dim=-1).min() > 0.999


@torch.no_grad()
@pytest.mark.parametrize('attn', FORMS)
def test_single_patch(model, attn):
    features = patch_features(model.visual, torch.ones(2, 3, 16, 31), LastBlock(attn, 'reduced'))
    assert features.shape == (2, 1, 1, 64)
    assert features.isfinite().all()


@torch.no_grad()
def test_architectures(model, state_dict):
    """reduced: y. vanilla: z + mlp(ln_2(z)) with z = x + y; cls_residual: the same with z = x_0 + y."""
    block = model.visual.transformer.resblocks[-1]
    weights = {k.removeprefix('visual.transformer.resblocks.2.'): v for k, v in state_dict.items()}
    x, y = torch.randn(2, 1, 7, 128, generator=torch.Generator().manual_seed(0))
    assert torch.equal(blocks.reduced(block, x, y), y)
    assert_feed_forward(blocks.vanilla(block, x, y), weights, x + y)
    assert_feed_forward(blocks.cls_residual(block, x, y), weights, x[:, [0] * 7] + y)


def assert_feed_forward(output, weights, z):
    t = F.layer_norm(z, (128,), weights['ln_2.weight'], weights['ln_2.bias'])
    t = t @ weights['mlp.c_fc.weight'].T + weights['mlp.c_fc.bias']
    t = t * torch.sigmoid(1.702 * t)
    expected = z + t @ weights['mlp.c_proj.weight'].T + weights['mlp.c_proj.bias']
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
