"""The towers, against the goldens and against references written with torch's own attention module."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clip
from clip.model import CLIP, LayerNorm, QuickGELU, build_model
from tests.clip.test_tokenizer import PROMPTS

# Sizes of the published models, and their numbers of parameters.
PUBLISHED = {
    'ViT-B/32': (dict(res=224, patch=32, width=768, layers=12, joint=512, text_width=512), 151_277_313),
    'ViT-B/16': (dict(res=224, patch=16, width=768, layers=12, joint=512, text_width=512), 149_620_737),
    'ViT-L/14': (dict(res=224, patch=14, width=1024, layers=24, joint=768, text_width=768), 427_616_513),
    'ViT-L/14@336px': (dict(res=336, patch=14, width=1024, layers=24, joint=768, text_width=768), 427_944_193),
}


def reference_transformer(weights: dict[str, Tensor], prefix: str, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, N, D) through the blocks of `prefix`, by nn.MultiheadAttention."""
    width = x.shape[-1]
    for i in itertools.count():
        block = {k.removeprefix(f'{prefix}.{i}.'): v for k, v in weights.items() if k.startswith(f'{prefix}.{i}.')}
        if not block:
            return x
        attention = nn.MultiheadAttention(width, width // 64, batch_first=True)
        attention.load_state_dict({k.removeprefix('attn.'): v for k, v in block.items() if k.startswith('attn.')})
        t = F.layer_norm(x, (width,), block['ln_1.weight'], block['ln_1.bias'])
        x = x + attention(t, t, t, attn_mask=mask, need_weights=False)[0]
        t = F.layer_norm(x, (width,), block['ln_2.weight'], block['ln_2.bias'])
        t = F.linear(t, block['mlp.c_fc.weight'], block['mlp.c_fc.bias'])
        x = x + F.linear(t * torch.sigmoid(1.702 * t), block['mlp.c_proj.weight'], block['mlp.c_proj.bias'])


@torch.no_grad()
def reference_image_tower(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """(B, 3, 64, 64) -> (B, C), on the native grid."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f'visual.{name}.weight'], weights[f'visual.{name}.bias'])

    patches = F.unfold(images, 16, stride=16)  # (B, 3*16*16, h*w)
    patches = patches.transpose(1, 2) @ weights['visual.conv1.weight'].flatten(1).T
    cls = weights['visual.class_embedding'].repeat(len(images), 1, 1)
    x = norm(torch.cat([cls, patches], dim=1) + weights['visual.positional_embedding'], 'ln_pre')
    x = reference_transformer(weights, 'visual.transformer.resblocks', x)
    return norm(x[:, 0], 'ln_post') @ weights['visual.proj']


@torch.no_grad()
def reference_text_tower(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """(B, 77) -> (B, C), all positions computed, with an explicit causal mask."""
    mask = torch.full((77, 77), float('-inf')).triu(1)
    x = weights['token_embedding.weight'][tokens] + weights['positional_embedding']
    x = reference_transformer(weights, 'transformer.resblocks', x, mask)
    x = F.layer_norm(x, x.shape[-1:], weights['ln_final.weight'], weights['ln_final.bias'])
    eot = [row.index(max(row)) for row in tokens.tolist()]
    return torch.stack([x[i, position] for i, position in enumerate(eot)]) @ weights['text_projection']


@torch.no_grad()
def test_text_features_as_golden(make_model, golden, device):
    features = make_model(device).encode_text(golden['tokens'].to(device))
    torch.testing.assert_close(features.cpu(), golden['text_features'], rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    'texts',
    [['a'], PROMPTS, ['cat ' * 75, 'a'], ['a', '', 'a photo of a very long name of a class ' * 7]],
    ids=['one', 'prompts', 'longest-and-shortest', 'mixed'],
)
def test_text_tower_as_untrimmed_reference(model, state_dict, texts):
    tokens = clip.tokenize(texts)
    torch.testing.assert_close(
        model.encode_text(tokens), reference_text_tower(state_dict, tokens), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_text_batch_equals_singles(model):
    tokens = clip.tokenize([*PROMPTS, 'cat ' * 75])
    singles = torch.cat([model.encode_text(row[None]) for row in tokens])
    torch.testing.assert_close(model.encode_text(tokens), singles, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_positions_after_the_last_eot_are_not_computed(model, monkeypatch):
    lengths = []
    transform = model.transformer.forward
    monkeypatch.setattr(
        model.transformer, 'forward', lambda x, **options: lengths.append(x.shape[1]) or transform(x, **options)
    )
    model.encode_text(clip.tokenize(['cat', 'a black cat']))
    assert lengths == [5]


@torch.no_grad()
def test_image_tower_as_reference(model, state_dict, golden):
    images = torch.cat([golden['image_0'], golden['image_1'][..., 7:71, 30:94]])
    torch.testing.assert_close(
        model.encode_image(images), reference_image_tower(state_dict, images), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_image_batch_equals_singles(model, batch):
    singles = torch.cat([model.encode_image(picture[None]) for picture in batch])
    torch.testing.assert_close(model.encode_image(batch), singles, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_forward_is_scaled_cosines(model, golden):
    images, tokens = golden['image_0'].repeat(2, 1, 1, 1), golden['tokens']
    per_image, per_text = model(images, tokens)
    cosines = F.cosine_similarity(model.encode_image(images)[:, None], golden['text_features'][None], dim=-1)
    torch.testing.assert_close(per_image, 100 * cosines, rtol=1e-4, atol=1e-3)
    assert torch.equal(per_text, per_image.T)


def test_remainder_right_and_bottom_is_dropped(model, golden):
    picture = golden['image_2']  # 70 x 101 pixels: 4 x 6 patches of 16
    with torch.no_grad():
        tokens, grid = model.visual.embed(picture)
        whole, _ = model.visual.embed(picture[..., :64, :96])
    assert grid == (4, 6)
    assert torch.equal(tokens, whole)


@pytest.mark.parametrize(('height', 'width'), [(15, 64), (64, 15), (1, 1)])
def test_picture_smaller_than_a_patch(model, height, width):
    with pytest.raises(ValueError, match=rf'{height}x{width} pixels is smaller than one 16-pixel patch'):
        model.visual.embed(torch.zeros(1, 3, height, width))


def cubic(x: float) -> float:
    """Keys' kernel with a = -0.75."""
    a, x = -0.75, abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def reference_resampling(count: int, native: int) -> Tensor:
    """Weights (count, native) of bicubic resampling along a side, by the scale factor (count + 0.1) / native."""
    weights = torch.zeros(count, native)
    for i in range(count):
        position = (i + 0.5) * native / (count + 0.1) - 0.5
        first = int(position // 1) - 1
        for j in range(first, first + 4):
            weights[i, min(max(j, 0), native - 1)] += cubic(position - j)
    return weights


@torch.no_grad()
@pytest.mark.parametrize(('h', 'w'), [(4, 5), (3, 4), (7, 2), (1, 1), (14, 21)])
def test_positional_embedding_by_hand(model, state_dict, h, w):
    native = state_dict['visual.positional_embedding']
    patches = torch.einsum(
        'hr,wc,rcd->hwd', reference_resampling(h, 4), reference_resampling(w, 4), native[1:].view(4, 4, -1)
    )
    expected = torch.cat([native[:1], patches.flatten(0, 1)])
    torch.testing.assert_close(model.visual.resampled_positional_embedding(h, w), expected, rtol=1e-5, atol=1e-5)


def test_native_positional_embedding_is_untouched(model, state_dict):
    assert torch.equal(model.visual.resampled_positional_embedding(4, 4), state_dict['visual.positional_embedding'])


def test_layer_norm_computes_in_float32():
    norm = LayerNorm(64)
    x = (300 * torch.randn(5, 64, generator=torch.Generator().manual_seed(0))).half()
    expected = F.layer_norm(x.float(), (64,)).half()
    assert torch.equal(norm(x), expected)
    assert torch.equal(norm.half()(x), expected)


def test_quick_gelu():
    x = torch.linspace(-5, 5, 11)
    assert torch.equal(QuickGELU()(x), x * torch.sigmoid(1.702 * x))


def test_parameters_carry_the_names_of_checkpoints(model, state_dict):
    assert set(model.state_dict()) == set(state_dict)
    assert all(torch.equal(tensor, state_dict[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_sizes(name):
    size, parameters = PUBLISHED[name]
    heads = size['text_width'] // 64
    with torch.device('meta'):
        published = CLIP(
            size['joint'], size['res'], size['layers'], size['width'], size['patch'], 77, 49408, size['text_width'], 12
        )
        built = build_model(published.state_dict())
    assert sum(parameter.numel() for parameter in built.parameters()) == parameters
    visual = built.visual
    assert (visual.input_resolution, visual.patch_size) == (size['res'], size['patch'])
    assert visual.native_grid == size['res'] // size['patch']
    assert len(visual.transformer.resblocks) == size['layers']
    assert {block.attn.heads for block in visual.transformer.resblocks} == {size['width'] // 64}
    assert {block.attn.heads for block in built.transformer.resblocks} == {heads}
    assert (len(built.transformer.resblocks), built.context_length) == (12, 77)


def test_built_model_is_float32_and_in_eval_mode(tiny_state_dict):
    built = build_model({name: tensor.half() for name, tensor in tiny_state_dict.items()})
    assert {parameter.dtype for parameter in built.parameters()} == {torch.float32}
    assert not any(module.training for module in built.modules())


def test_cast_spares_layer_norms(tiny_state_dict):
    cast = build_model(tiny_state_dict).cast(torch.float16)
    dtypes = {name: parameter.dtype for name, parameter in cast.named_parameters()}
    assert {dtype for name, dtype in dtypes.items() if 'ln_' in name} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if 'ln_' not in name} == {torch.float16}
    assert cast.dtype == torch.float16


@torch.no_grad()
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_near_float32(make_model, model, golden, device, dtype):
    half = make_model(device, dtype)
    for ours, reference in (
        (half.encode_text(golden['tokens'].to(device)), golden['text_features']),
        (half.encode_image(golden['image_1'].to(device)), model.encode_image(golden['image_1'])),
    ):
        assert ours.dtype == dtype
        assert F.cosine_similarity(ours.float().cpu(), reference).min() > 0.999


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda w: w.pop('visual.proj'), 'visual.proj is missing'),
        (lambda w: w.pop('visual.conv1.weight'), 'visual.conv1.weight.* is missing'),
        (lambda w: w.pop('visual.transformer.resblocks.0.attn.in_proj_bias'), 'resblocks.0.attn.in_proj_bias is miss'),
        (lambda w: w.update(extra=torch.zeros(1)), 'extra is not part of CLIP'),
        (lambda w: w.update({'ln_final.bias': torch.zeros(3)}), r'ln_final.bias has shape \(3,\), expected \(64,\)'),
        (lambda w: w.update({'visual.conv1.weight': torch.zeros(3)}), 'unexpected shapes'),
        (lambda w: [w.pop(k) for k in [*w] if 'mlp' in k], 'and 9 more'),
        (lambda w: w.update({'visual.layer1.0.conv1.weight': torch.zeros(1)}), 'ResNet image tower'),
    ],
)
def test_wrong_state_dict(tiny_state_dict, change, message):
    weights = dict(tiny_state_dict)
    change(weights)
    with pytest.raises(ValueError, match=message):
        build_model(weights)
