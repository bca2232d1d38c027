"""CLIP Surgery against its goldens, and its parts against references by hand."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip.model import VisionTransformer, resample_bilinear
from naclip.methods.clip_surgery import CLIPSurgery, feature_surgery, value_value_attention
from naclip.walk.reading import cosine
from naclip.walk.text import text_embeddings
from tests.naclip.methods import field
from tests.naclip.methods.reads import all_weights

PICTURES = range(3)
golden, image = partial(field.golden, 'clip_surgery'), partial(field.image, 'clip_surgery')
RAW = CLIPSurgery(min_max=False)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope='module')
def visual():
    return field.model('clip_surgery').visual


@pytest.fixture(scope='module')
def texts():
    """The names' embeddings, and that of the empty string."""
    return torch.cat([field.texts('clip_surgery', 'voc20'), golden()['empty_text_feature']])


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize('i', PICTURES)
def test_features_as_golden(visual, texts, i):
    reading = RAW.read(visual, image(i))
    tokens = torch.cat([RAW.cls(reading), RAW.features(reading, texts).flatten(1, 2)], dim=1)
    field.assert_near(tokens, golden()[f'dense/clip_surgery/{i}'])
    cosines = CLIPSurgery(surgery=False, min_max=False).maps(reading, texts)
    field.assert_near(cosines[0].flatten(1), golden()[f'cosine/clip_surgery/{i}'])


@pytest.mark.parametrize('i', PICTURES)
def test_surgery_as_golden(visual, texts, i):
    reading = RAW.read(visual, image(i))
    expected, expected_single = golden()[f'surgery/{i}'], golden()[f'surgery_single_text/{i}']
    field.assert_near(RAW.maps(reading, texts)[0].flatten(1).T, expected[1:])
    single = RAW.maps(reading, texts[[0, -1]])
    field.assert_near(single[0].flatten(1).T, expected_single[1:])
    cls = RAW.cls(reading)[:, :, None]  # its own row, which no map needs
    fit = cosine(cls, texts[:-1])
    field.assert_near(feature_surgery(fit, fit)[0].flatten(1).T, expected[:1])
    field.assert_near(cosine(cls, texts[:1] - texts[-1:])[0].flatten(1).T, expected_single[:1])


@pytest.mark.parametrize('i', PICTURES)
@pytest.mark.parametrize(('mode', 'method'), [('minmax_argmax', CLIPSurgery()), ('argmax', RAW)])
def test_predictions_as_golden(mode, method, i):
    picture, companions = image(i), golden()['empty_text_feature']
    squash = dict(slide_crop=0, input_size=tuple(picture.shape[-2:]))  # from the grid to the target in one step
    pipeline = field.pipeline('clip_surgery', method, 'voc20', companions, **squash)
    maps = pipeline.logits(picture, field.original_size('clip_surgery', i))
    labels = maps.argmax(dim=1, keepdim=True)
    field.assert_predicted('clip_surgery', f'predict/{mode}/{i}', labels, maps, tolerance=1e-5)
    if mode == 'minmax_argmax':
        field.assert_near(maps[0, :, ::4, ::4].permute(1, 2, 0), golden()[f'similarity_map_every4/{i}'])


def test_resampling_as_golden(visual):
    """The published code keeps the embedding that it resampled for its first picture; we do not."""
    expected = golden()['inner/positional_embedding_after_image_0']
    field.assert_near(visual.resampled_positional_embedding(6, 6, resample_bilinear), expected)


def test_text_embeddings_as_golden(texts):
    templates = [str(template) for template in golden()['templates']]
    queries = (*field.classes('clip_surgery', 'voc20').queries, *CLIPSurgery.companions)
    ours = text_embeddings(field.model('clip_surgery'), queries, templates, progress=False)
    field.assert_near(ours, texts)


def test_feature_surgery_by_hand():
    """With all products of features and names, written out: (positions, Q, C)."""
    features, cls, names = (F.normalize(normal(*shape), dim=-1) for shape in ((6, 8), (1, 8), (4, 8)))
    fit = (2 * cls @ names.T).softmax(dim=-1)
    products = features[:, None] * names * (fit / fit.mean()).T
    expected = (products - products.mean(dim=1, keepdim=True)).sum(dim=-1)  # (positions, Q)
    ours = feature_surgery(cosine(features.view(1, 2, 3, 8), names), cosine(cls.view(1, 1, 1, 8), names))
    torch.testing.assert_close(ours[0].flatten(1).T, expected, rtol=1e-5, atol=1e-6)


def test_value_value_attention_by_hand(visual):
    reading = RAW.read(visual, image(2))
    v = reading.qkv(7)[2]
    expected = torch.softmax(v @ v.mT / 8, dim=-1) @ v
    torch.testing.assert_close(value_value_attention(reading, 7), expected, rtol=1e-5, atol=1e-5)


def test_weights_by_hand(visual):
    """Head by head they make the last step of the stream of values."""
    method = CLIPSurgery(depth=1)
    reading = method.read(visual, image(2))
    v = reading.qkv(12)[2][0]
    heads = torch.softmax(v @ v.mT / 8, dim=-1)
    step = reading.block(12).attn.out_proj(torch.cat([heads[0] @ v[0], heads[1] @ v[1]], dim=-1))
    tokens = reading.project(reading.tokens(11)[0] + step)[1:]
    torch.testing.assert_close(method.features(reading, None)[0].flatten(0, 1), tokens, rtol=1e-5, atol=1e-5)
    patches, cls = all_weights(CLIPSurgery(), reading)
    torch.testing.assert_close(patches, heads.mean(dim=0)[1:, 1:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(cls, heads.mean(dim=0)[1:, 0], rtol=1e-4, atol=1e-6)


def linear(count: int, native: int) -> Tensor:
    """Weights (count, native) of linear resampling along a side."""
    weights = torch.zeros(count, native)
    for i in range(count):
        position = min(max((i + 0.5) * native / count - 0.5, 0), native - 1)
        low = int(position)
        weights[i, low] += 1 - (position - low)
        weights[i, min(low + 1, native - 1)] += position - low
    return weights


@pytest.mark.parametrize(('h', 'w'), [(6, 6), (5, 7), (3, 2), (1, 9)])
def test_bilinear_resampling_by_hand(h, w):
    patches = normal(1, 3, 4, 4)
    expected = torch.einsum('hr,wc,ndrc->ndhw', linear(h, 4), linear(w, 4), patches)
    torch.testing.assert_close(resample_bilinear(patches, h, w), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('names', [1, 7])
def test_batch_equals_singles(visual, texts, names):
    """On a grid that is not square and off the native one, with a remainder."""
    picture = image(1)[..., :83, :]
    windows = torch.cat([picture, 0.3 * picture.flip(-1), picture.roll(29, dims=-2) - 0.5])
    some = torch.cat([texts[:names], texts[-1:]])
    maps = CLIPSurgery().maps(CLIPSurgery().read(visual, windows), some)
    singles = torch.cat([CLIPSurgery().maps(CLIPSurgery().read(visual, one[None]), some) for one in windows])
    assert maps.shape == (3, names, 5, 7)
    torch.testing.assert_close(maps, singles, rtol=1e-4, atol=1e-4)
    assert torch.equal(maps.aminmax().min, torch.tensor(0.0))
    assert torch.equal(maps.amax(dim=(2, 3)), torch.ones(3, names))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_near_float32(visual, texts, dtype):
    tolerance = 0.02 if dtype == torch.float16 else 0.2
    half = CLIPSurgery().maps(CLIPSurgery().read(field.cast_model('clip_surgery', dtype).visual, image(1)), texts)
    assert half.dtype == torch.float32
    expected = CLIPSurgery().maps(CLIPSurgery().read(visual, image(1)), texts)
    torch.testing.assert_close(half, expected, rtol=0, atol=tolerance)


def test_bad_constants():
    with pytest.raises(ValueError, match='depth is 0, expected a number of blocks >= 1'):
        CLIPSurgery(depth=0)


def test_a_tower_with_too_few_blocks(texts):
    reading = RAW.read(VisionTransformer(64, 16, 64, 3, 64), torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r'last 6 blocks of a tower with 3: use a larger tower, or depth <= 3'):
        RAW.maps(reading, texts)
