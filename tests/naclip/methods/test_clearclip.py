"""ClearCLIP: every variant and mode of its code's goldens, its padding, and the formula by literal loops."""

import pytest
import torch
import torch.nn.functional as F

from clip.model import build_model
from naclip.methods.clearclip import ClearCLIP
from naclip.walk.windows import Margins
from tests.goldens.weights import stand_in_state_dict
from tests.naclip.methods import field

NAME = 'clearclip'
VARIANTS = {
    'clearclip': ClearCLIP(),
    'clearclip_residual': ClearCLIP(architecture='vanilla'),
    'maskclip_reduced': ClearCLIP(attention='identity'),
    'maskclip_full': ClearCLIP(attention='identity', architecture='vanilla'),
    'sclip': ClearCLIP(attention='csa', architecture='vanilla'),
    'vanilla': ClearCLIP(attention='vanilla', architecture='vanilla'),
}


def read(method, images):
    return method.read(field.model(NAME).visual, images)


def test_keys():
    """Every key of the golden file is compared below, or is an input."""
    compared = ('dense/', 'cosine/', 'predict/')
    rest = {key for key in field.golden(NAME) if not key.startswith(compared)}
    assert {key for key in rest if not key.startswith('vocab/')} == {'settings', 'image_0', 'image_1', 'image_2'}
    assert {key.split('/')[1] for key in field.golden(NAME) if key.startswith('dense/')} == VARIANTS.keys()
    assert field.settings(NAME)['modes'].keys() == {'voc21', 'context60', 'voc20', 'whole', 'synonyms_pad'}


@pytest.mark.parametrize('i', range(3))
@pytest.mark.parametrize('variant', VARIANTS)
@torch.no_grad()
def test_features(variant, i):
    method, texts = VARIANTS[variant], field.texts(NAME, 'voc20')
    reading = read(method, field.image(NAME, i))
    field.assert_near(method.features(reading, texts).flatten(1, 2), field.golden(NAME)[f'dense/{variant}/{i}'])
    cosines = method.maps(reading, texts).flatten(2)[0]
    torch.testing.assert_close(cosines, field.golden(NAME)[f'cosine/{variant}/{i}'], rtol=0, atol=1e-4)


@pytest.mark.parametrize('i', range(3))
@pytest.mark.parametrize('mode', ['voc21', 'context60', 'voc20', 'synonyms_pad'])
def test_predictions(mode, i):
    pipeline = field.mode_pipeline(NAME, mode, ClearCLIP())
    field.assert_predicted(NAME, f'predict/{mode}/{i}', *pipeline(field.image(NAME, i), field.original_size(NAME, i)))


@pytest.mark.parametrize('i', range(3))
def test_predictions_of_whole_pictures(i):
    """The published code upsamples whole pictures once, straight to the original size; so does an `input_size`."""
    image = field.image(NAME, i)
    options = {'logit_scale': 50, 'slide_crop': 0, 'input_size': tuple(image.shape[-2:])}
    pipeline = field.pipeline(NAME, ClearCLIP(), 'voc20', **options)
    field.assert_predicted(NAME, f'predict/whole/{i}', *pipeline(image, field.original_size(NAME, i)))


@pytest.mark.parametrize(
    ('size', 'margins'),
    [((64, 80), (0, 0, 0, 0)), ((72, 71), (4, 4, 4, 5)), ((17, 79), (7, 8, 0, 1)), ((9, 64), (3, 4, 0, 0))],
)
@torch.no_grad()
def test_padding(size, margins):
    """Zeros around a window, an odd one at the bottom or right; what was seen of them is cut off."""
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    top, bottom, left, right = margins
    padded = torch.zeros(1, 3, top + size[0] + bottom, left + size[1] + right)
    padded[:, :, top : top + size[0], left : left + size[1]] = images
    pipeline = field.pipeline(NAME, ClearCLIP(), 'voc20', slide_crop=0)
    reading = pipeline.read(images)
    assert reading.margins == Margins(*margins)
    assert torch.equal(reading.windows, padded)
    seen = F.interpolate(pipeline.similarity(padded), padded.shape[-2:], mode='bilinear', align_corners=False)
    expected = seen[:, :, top : top + size[0], left : left + size[1]]
    torch.testing.assert_close(pipeline.logits(images), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_as_literal_loops():
    reading = read(ClearCLIP(), field.image(NAME, 1)[:, :, :48, :80])
    block, visual = reading.block(12), field.model(NAME).visual
    t = block.ln_1(reading.tokens(11))[0]  # (N, D)
    weights, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    q = (t @ weights[:128].T + bias[:128]).split(64, dim=1)  # of two heads
    v = (t @ weights[256:].T + bias[256:]).split(64, dim=1)
    rows = []
    for i in range(len(t)):
        heads = []
        for head in range(2):
            scores = torch.stack([q[head][i] @ q[head][j] / 8 for j in range(len(t))])
            heads.append(sum(weight * v[head][j] for j, weight in enumerate(scores.softmax(dim=0))))
        y = block.attn.out_proj(torch.cat(heads))
        rows.append(visual.ln_post(y) @ visual.proj)
    assert reading.grid == (3, 5)
    field.assert_near(ClearCLIP().tokens(reading)[0], torch.stack(rows))


@torch.no_grad()
def test_batch_as_singles():
    batch = torch.rand(3, 3, 56, 88, generator=torch.Generator().manual_seed(0))
    texts = field.texts(NAME, 'voc20')
    together = ClearCLIP().maps(read(ClearCLIP(), batch), texts)
    assert together.shape == (3, 7, 4, 6)
    singles = torch.cat([ClearCLIP().maps(read(ClearCLIP(), batch[i : i + 1]), texts) for i in range(3)])
    torch.testing.assert_close(together, singles, rtol=0, atol=1e-5)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
@torch.no_grad()
def test_half_precision(dtype, tolerance):
    half = build_model(stand_in_state_dict(**field.settings(NAME)['tower'])).cast(dtype).visual
    images, texts = field.image(NAME, 1)[:, :, :72], field.texts(NAME, 'voc20')
    maps = ClearCLIP().maps(ClearCLIP().read(half, images), texts)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, ClearCLIP().maps(read(ClearCLIP(), images), texts), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ('constants', 'message'),
    [
        ({'attention': 'q'}, "unknown attention .*'q': choose from"),
        ({'architecture': 'bare'}, "unknown architecture .*'bare': choose from reduced, vanilla"),
        ({'gaussian_std': 0.0}, 'gaussian_std is 0.0, expected a number > 0'),
    ],
)
def test_bad_constants(constants, message):
    with pytest.raises(ValueError, match=message):
        ClearCLIP(**constants)


def test_published_as():
    assert (ClearCLIP.name, ClearCLIP.protocol, ClearCLIP.pamr) == ('clearclip', 'clearclip', False)
    assert ClearCLIP().constants == {'attention': 'qq', 'architecture': 'reduced', 'gaussian_std': 5.0}
