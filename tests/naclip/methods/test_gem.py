"""GEM against its goldens, and its parts, which it shares with CLIP Surgery, against references by hand."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip.model import VisionTransformer, resample_by_size, resample_by_size_antialiased
from naclip.methods.gem import GEM, mean_length, self_self_attention
from naclip.methods.two_streams import min_max, stream_step, two_streams
from naclip.walk.text import read_templates, text_embeddings
from tests.naclip.methods import field
from tests.naclip.methods.reads import all_weights

PICTURES = range(3)
golden, image = partial(field.golden, 'gem'), partial(field.image, 'gem')


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope='module')
def visual():
    return field.model('gem').visual


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize('i', PICTURES)
def test_tokens_as_golden(visual, i):
    reading = GEM().read(visual, image(i))
    field.assert_near(GEM().tokens(reading), golden()[f'dense/gem/{i}'])
    field.assert_near(reading.project(reading.tokens(12)), golden()[f'dense/ori/{i}'])
    field.assert_near(GEM(last_only=True).features(reading, None).flatten(1, 2), golden()[f'dense/gem_last_only/{i}'])
    cosines = GEM().maps(reading, field.texts('gem', 'voc20'))
    field.assert_near(cosines[0].flatten(1), golden()[f'cosine/gem/{i}'])


@pytest.mark.parametrize('iterations', [0, 2])
def test_iterations_as_golden(visual, iterations):
    method = GEM(iterations=iterations)
    field.assert_near(method.tokens(method.read(visual, image(0))), golden()[f'dense/gem_iter{iterations}/0'])


@pytest.mark.parametrize('i', PICTURES)
def test_inner_values_as_golden(visual, i):
    reading = GEM().read(visual, image(i))
    temperature = torch.cat([64**-0.5 * mean_length(reading.normed(layer)) for layer in range(7, 13)])
    field.assert_near(temperature, golden()[f'inner/{i}/tau'])
    steps = torch.cat([stream_step(reading, GEM().attend, layer) for layer in (7, 12)])
    field.assert_near(steps, golden()[f'inner/{i}/gem_out'])


@pytest.mark.parametrize('i', PICTURES)
def test_predictions_at_the_size_of_the_input_as_golden(i):
    pipeline = field.pipeline('gem', GEM(), 'voc20', slide_crop=0)
    picture = image(i)
    maps = pipeline.refine_(picture, pipeline.logits(picture))
    field.assert_predicted('gem', f'predict/readme/{i}', maps.argmax(dim=1, keepdim=True), maps, 1e-5)
    for key in (f'batched_heatmap/{i}/every4', f'heatmap/{i}/every4'):
        if key in golden():  # the second is not there for picture 2
            field.assert_near(maps[0, :, ::4, ::4], golden()[key])
    surest = maps.softmax(dim=1).amax(dim=1)[:, ::4, ::4]
    field.assert_near(surest, golden()[f'predict/readme_background/{i}/max_softmax_every4'])


@pytest.mark.parametrize('i', PICTURES)
@pytest.mark.parametrize('mode', ['clearclip_voc20', 'clearclip_voc20_residual', 'clearclip_voc21'])
def test_predictions_of_the_variants_in_clearclip_as_golden(mode, i):
    of_mode = field.settings('gem')['modes'][mode]
    method = GEM(last_only=of_mode['ignore_residual'], min_max=False)
    options = {key: of_mode[key] for key in field.SETTINGS if key in of_mode}
    pipeline = field.pipeline('gem', method, of_mode['vocab'] + '_80', **options)
    predicted = pipeline(image(i), field.original_size('gem', i))
    field.assert_predicted('gem', f'predict/{mode}/{i}', *predicted, tolerance=1e-5)


@pytest.mark.parametrize('vocabulary', ['voc20', 'voc20_80', 'bgplain_80'])
def test_text_embeddings_as_golden(vocabulary):
    templates = read_templates() if vocabulary.endswith('_80') else (field.settings('gem')['template'],)
    queries = field.classes('gem', vocabulary).queries
    ours = text_embeddings(field.model('gem'), queries, templates, progress=False)
    field.assert_near(ours, field.texts('gem', vocabulary))


def test_every_mode_and_vocabulary_is_compared():
    assert set(field.settings('gem')['modes']) == {'clearclip_voc20', 'clearclip_voc20_residual', 'clearclip_voc21'}
    assert {key.split('/')[1] for key in golden() if key.startswith('predict/')} == {
        *field.settings('gem')['modes'],
        'readme',
        'readme_background',
    }


@pytest.mark.parametrize('iterations', [0, 1, 3])
def test_self_self_attention_by_hand(iterations):
    q, k, v = 3 * normal(3, 2, 2, 5, 8)
    length = torch.tensor([0.7, 9.0])
    for picture in range(2):
        for head in range(2):
            expected = 0
            for p in (q, k, v):
                p = F.normalize(p[picture, head], dim=-1)
                weights = torch.softmax(8**-0.5 * length[picture] * p @ p.T, dim=-1)
                for _ in range(iterations):
                    p = F.normalize(weights @ p, dim=-1)
                    weights = torch.softmax(8**-0.5 * length[picture] * p @ p.T, dim=-1)
                expected = expected + weights @ v[picture, head] / 3
            ours = self_self_attention(q, k, v, length, iterations)[picture, head]
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('iterations', [0, 1])
def test_weights_by_hand(visual, iterations):
    """Head by head they make the last step of the stream of values."""
    method = GEM(iterations=iterations, last_only=True)
    reading = method.read(visual, image(0))
    length = float(reading.normed(12)[0].norm(dim=-1).mean())
    v = reading.qkv(12)[2][0]
    heads = []
    for head in range(2):
        per_part = []
        for part in reading.qkv(12):
            p = F.normalize(part[0, head], dim=-1)
            for _ in range(iterations):
                p = F.normalize(torch.softmax(64**-0.5 * length * p @ p.T, dim=-1) @ p, dim=-1)
            per_part.append(torch.softmax(64**-0.5 * length * p @ p.T, dim=-1))
        heads.append(sum(per_part) / 3)
    tokens = reading.block(12).attn.out_proj(torch.cat([heads[0] @ v[0], heads[1] @ v[1]], dim=-1))
    field.assert_near(method.features(reading, None)[0].flatten(0, 1), reading.project(tokens)[1:])
    patches, cls = all_weights(GEM(iterations=iterations), reading)
    expected = (heads[0] + heads[1]) / 2
    torch.testing.assert_close(patches, expected[1:, 1:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(cls, expected[1:, 0], rtol=1e-4, atol=1e-6)


def test_the_streams_start_apart_and_do_not_mix(visual):
    reading = GEM().read(visual, image(0))
    assert torch.equal(
        two_streams(reading, GEM().attend, 2),
        reading.tokens(10) + stream_step(reading, GEM().attend, 11) + stream_step(reading, GEM().attend, 12),
    )


def test_min_max():
    maps = torch.tensor(
        [[[[1.0, 3.0], [2.0, 5.0]], [[-2.0, -2.0], [-2.0, -2.0]]], [[[0.0, -8.0]] * 2, [[7.0, 7.1]] * 2]]
    )
    expected = [[[[0, 0.5], [0.25, 1]], [[0, 0], [0, 0]]], [[[1, 0]] * 2, [[0, 1]] * 2]]
    torch.testing.assert_close(min_max(maps), torch.tensor(expected, dtype=torch.float32))


def keys(x: float) -> float:
    """Keys' kernel with a = -0.5, which PyTorch's antialiased resampling uses."""
    a, x = -0.5, abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def antialiased(count: int, native: int) -> Tensor:
    """Weights (count, native) along a side: the kernel is as wide as a target cell, and cut off at the border."""
    scale = native / count
    wide = max(scale, 1)
    rows = [[keys((j + 0.5 - (i + 0.5) * scale) / wide) for j in range(native)] for i in range(count)]
    weights = torch.tensor(rows)
    return weights / weights.sum(dim=1, keepdim=True)


@pytest.mark.parametrize(('h', 'w'), [(6, 6), (5, 7), (3, 2), (1, 9)])
def test_antialiased_resampling_by_hand(h, w):
    patches = normal(1, 3, 4, 4)
    expected = torch.einsum('hr,wc,ndrc->ndhw', antialiased(h, 4), antialiased(w, 4), patches)
    ours = resample_by_size_antialiased(patches, h, w)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert (ours - resample_by_size(patches, h, w)).abs().max() > 1e-3


def test_batch_equals_singles(visual):
    method, texts = GEM(), field.texts('gem', 'voc20')
    windows = torch.cat([image(1), 0.3 * image(1).flip(-1), image(1).roll(29, dims=-2) - 0.5])
    singles = torch.cat([method.maps(method.read(visual, window[None]), texts) for window in windows])
    maps = method.maps(method.read(visual, windows), texts)
    torch.testing.assert_close(maps, singles, rtol=1e-5, atol=1e-5)
    refined = torch.cat([method.refine(None, one[None], texts) for one in maps])
    assert torch.equal(method.refine(None, maps, texts), refined)


def test_a_remainder_is_dropped(visual):
    picture = F.pad(image(1), (0, 7, 0, 3))
    features = GEM().features(GEM().read(visual, picture), None)
    assert features.shape == (1, 5, 7, 64)
    assert torch.equal(features, GEM().features(GEM().read(visual, image(1)), None))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_near_float32(visual, dtype):
    method = GEM()
    half = method.features(method.read(field.cast_model('gem', dtype).visual, image(1)), None)
    assert half.dtype == dtype
    cosine = F.cosine_similarity(half.float(), method.features(method.read(visual, image(1)), None), dim=-1)
    assert cosine.min() > (0.9999 if dtype == torch.float16 else 0.99)


@pytest.mark.parametrize(
    ('constants', 'message'),
    [
        (dict(depth=0), 'depth is 0, expected a number of blocks >= 1'),
        (dict(iterations=-1), 'iterations is -1, expected a number >= 0'),
    ],
)
def test_bad_constants(constants, message):
    with pytest.raises(ValueError, match=message):
        GEM(**constants)


def test_a_tower_with_too_few_blocks():
    reading = GEM().read(VisionTransformer(64, 16, 64, 3, 8), torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r'last 6 blocks of a tower with 3: use a larger tower, or depth <= 3'):
        GEM().features(reading, None)
    assert GEM(depth=3).features(reading, None).shape == (1, 4, 4, 8)
