"""ProxyCLIP against its goldens, and its parts against references by hand."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from naclip.methods.guided import unit_similarity
from naclip.methods.proxyclip import ProxyCLIP, proxy_attention
from naclip.walk.guide import guide_input
from naclip.walk.windows import cut, window_boxes
from tests.naclip.methods import guided_goldens as goldens
from tests.naclip.methods.reads import all_weights

golden, image = partial(goldens.golden, 'proxyclip'), partial(goldens.image, 'proxyclip')
GUIDES = {'dino': partial(goldens.dino, 8), 'dinov2': goldens.dinov2}
THRESHOLDS = {'bg': 0.3, 'nobg': 0.0}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def first_window(i: int):
    return cut(image(i), window_boxes(tuple(image(i).shape[-2:]), 112, 56)[:1])


@pytest.mark.parametrize('i', [0, 1])
@pytest.mark.parametrize('guide', GUIDES)
def test_inner_values_as_golden(guide, i):
    pipeline = goldens.pipeline('proxyclip', 'bg', ProxyCLIP(), GUIDES[guide]())
    reading = pipeline.read(first_window(i))
    features = ProxyCLIP().features(reading, None)
    goldens.assert_near(features[0].flatten(0, 1), golden()[f'{guide}/features/{i}'], 1e-5)
    if i == 0:
        goldens.assert_near(reading.guide.tokens[0].movedim(-1, 0), golden()[f'{guide}/guide/0'], 1e-5)
        weights = proxy_attention(unit_similarity(reading.guide.tokens), 1.2, 3.0)
        goldens.assert_near(weights[0], golden()[f'{guide}/attention/0'], 1e-5)


@pytest.mark.parametrize('i', goldens.PICTURES)
@pytest.mark.parametrize('mode', THRESHOLDS)
@pytest.mark.parametrize('guide', GUIDES)
def test_predictions_as_golden(guide, mode, i):
    pipeline = goldens.pipeline('proxyclip', mode, ProxyCLIP(), GUIDES[guide](), prob_thd=THRESHOLDS[mode])
    size = goldens.original_size('proxyclip', i)
    cosines = pipeline.logits(image(i), size)
    goldens.assert_near(cosines[0, :, ::4, ::4], golden()[f'{guide}/{mode}/cosine_every4/{i}'], 2e-5)
    goldens.assert_predicted('proxyclip', f'{guide}/{mode}/{i}', *pipeline(image(i), size))


def rectangle(height: int, width: int):
    return F.interpolate(image(0), (height, width), mode='bilinear')


@pytest.mark.parametrize('size', [(112, 224), (224, 112), (56, 168)])
@pytest.mark.parametrize('guide', GUIDES)
def test_windows_that_are_not_square(guide, size):
    """A step at a time, cell by cell; published code takes the height for both sides."""
    pipeline = goldens.pipeline('proxyclip', 'bg', ProxyCLIP(), GUIDES[guide]())
    reading = pipeline.read(rectangle(*size))
    patch = reading.guide.tower.patch_size
    h, w = size[0] // patch, size[1] // patch
    assert reading.guide.grid == (h, w)
    unit = F.normalize(pipeline.guide(guide_input(rectangle(*size)))[0, -h * w :], dim=-1)
    alike = unit @ unit.T
    logits = 3 * (alike - 1.2 * alike.mean())
    weights = torch.softmax(logits.masked_fill(logits < 0, -torch.inf), dim=-1)
    block = reading.block(12)
    v = block.attn.qkv(block.ln_1(reading.tokens(11)))[2].transpose(1, 2).flatten(2)[:, 1:]
    v = F.interpolate(v.mT.unflatten(2, reading.grid), (h, w), mode='bilinear')
    expected = reading.project(block.attn.out_proj(weights @ v.flatten(2).mT)).view(1, h, w, -1)
    goldens.assert_near(ProxyCLIP().features(reading, None), expected, 1e-5)
    patches, cls = all_weights(ProxyCLIP(), reading)
    torch.testing.assert_close(patches, weights, rtol=1e-4, atol=1e-6)
    assert not cls.any()


def test_no_row_is_empty():
    """All pairs are below beta times the mean: each patch sees itself."""
    alike = torch.full((2, 5, 5), 0.95) + 0.05 * torch.eye(5)
    alike[1] = torch.eye(5)
    weights = proxy_attention(alike, 1.2, 3.0)
    assert torch.equal(weights, torch.eye(5).expand(2, 5, 5))
    alike[1, 0, 1] = 0.9  # a window's mean is its own
    assert torch.equal(proxy_attention(alike, 1.2, 3.0)[0], torch.eye(5))
    assert proxy_attention(alike, 1.2, 3.0)[1, 0, 1] > 0.3


@pytest.mark.parametrize(
    ('constants', 'message'),
    [(dict(gamma=0.0), 'gamma is 0.0, expected'), (dict(multiple=0), 'multiple is 0, expected')],
)
def test_bad_constants(constants, message):
    with pytest.raises(ValueError, match=message):
        ProxyCLIP(**constants)
