"""MaskCLIP: as ClearCLIP's code has it, as its own has it with both refinements, and its texts."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip.model import LayerNorm, QuickGELU, build_model
from naclip.files import REPOSITORY
from naclip.methods.maskclip import (
    MaskCLIP,
    MaskCLIPOriginal,
    as_original,
    denoise_prompts,
    last_keys,
    smooth_by_keys,
    value_tokens,
)
from naclip.walk.text import read_templates, text_embeddings
from naclip.walk.windows import NO_MARGINS, Margins
from tests.goldens.weights import stand_in_state_dict
from tests.naclip.methods import field
from tests.naclip.methods.reads import all_weights

NAME = 'maskclip'
VARIANTS = {
    'maskclip': MaskCLIPOriginal(),
    'maskclip_pd': MaskCLIPOriginal(pd=0.5),
    'maskclip_ks': MaskCLIPOriginal(ks=0.9),
    'maskclip_kspd': MaskCLIPOriginal(pd=0.5, ks=0.9),
}
BOTH = [MaskCLIP(), MaskCLIPOriginal(), VARIANTS['maskclip_kspd']]


def read(method, images):
    return method.read(field.model(NAME).visual, images)


def maps_of(method, images):
    return method.maps(read(method, images), field.texts(NAME, 'voc20'))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_keys():
    """Every key of the golden file is compared below, or is an input."""
    compared = ('dense/', 'inner/', 'cosine/', 'predict/', 'vocab/', 'templates')
    rest = {key for key in field.golden(NAME) if not key.startswith(compared)}
    assert rest == {'settings', 'image_0', 'image_1', 'image_2'}
    assert {key.split('/')[1] for key in field.golden(NAME) if key.startswith('predict/')} == VARIANTS.keys()
    assert field.settings(NAME)['ks_pd'] == {'ks_thresh': 0.9, 'pd_thresh': 0.5}


@pytest.mark.parametrize('i', range(3))
@torch.no_grad()
def test_clearclips_variant(i):
    file, texts = field.golden('clearclip'), field.texts('clearclip', 'voc20')
    reading = MaskCLIP().read(field.model('clearclip').visual, field.image('clearclip', i))
    field.assert_near(MaskCLIP().features(reading, texts).flatten(1, 2), file[f'dense/maskclip_full/{i}'])
    torch.testing.assert_close(
        MaskCLIP().maps(reading, texts).flatten(2)[0], file[f'cosine/maskclip_full/{i}'], rtol=0, atol=1e-4
    )


@torch.no_grad()
def test_clearclips_variant_pads_around_windows():
    assert read(MaskCLIP(), torch.ones(1, 3, 72, 71)).margins == Margins(4, 4, 4, 5)


@pytest.mark.parametrize('i', range(3))
@torch.no_grad()
def test_features(i):
    file = field.golden(NAME)
    reading = read(MaskCLIPOriginal(), field.image(NAME, i))
    values = reading.patches(reading.visual.ln_post(value_tokens(reading))).movedim(-1, 1)
    field.assert_near(values, file[f'inner/value_after_final_norm/{i}'])
    field.assert_near(last_keys(reading), file[f'inner/key_after_out_proj/{i}'])
    features = MaskCLIPOriginal().features(reading, field.texts(NAME, 'voc20'))
    field.assert_near(features.flatten(1, 2), file[f'dense/maskclip/{i}'], 1e-5)  # with eps 1e-5 it is 1.6e-5 or more


@pytest.mark.parametrize('i', range(3))
@pytest.mark.parametrize('variant', VARIANTS)
@torch.no_grad()
def test_maps(variant, i):
    """Cosines, or sums of probabilities, which are up to 60: within 1e-4 of the largest, and cosines within 1e-4."""
    maps, expected = maps_of(VARIANTS[variant], field.image(NAME, i))[0], field.golden(NAME)[f'cosine/{variant}/{i}']
    field.assert_near(maps, expected)
    if variant in ('maskclip', 'maskclip_pd'):
        torch.testing.assert_close(maps, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize('i', range(3))
@pytest.mark.parametrize('variant', VARIANTS)
def test_predictions(variant, i):
    """All modes are whole pictures at scale 1, also that of probabilities."""
    pipeline = field.pipeline(NAME, VARIANTS[variant], 'voc20', slide_crop=0, logit_scale=1)
    predicted = pipeline(field.image(NAME, i), field.original_size(NAME, i))
    field.assert_predicted(NAME, f'predict/{variant}/{i}', *predicted)


@torch.no_grad()
def test_the_padded_grid_is_stretched_over_the_picture():
    images = torch.rand(1, 3, 50, 71, generator=torch.Generator().manual_seed(0))
    padded = torch.zeros(1, 3, 64, 80)
    padded[:, :, :50, :71] = images
    reading = read(MaskCLIPOriginal(), images)
    assert (reading.grid, reading.margins) == ((4, 5), NO_MARGINS)
    assert torch.equal(reading.windows, padded)
    pipeline = field.pipeline(NAME, MaskCLIPOriginal(), 'voc20', slide_crop=0)
    stretched = F.interpolate(pipeline.similarity(padded), (50, 71), mode='bilinear', align_corners=False)
    torch.testing.assert_close(pipeline.logits(images), stretched, rtol=0, atol=1e-5)


def test_the_original_tower_shares_weights_and_leaves_the_given_one_alone():
    given = field.model(NAME).visual
    before = [(module, dict(vars(module))) for module in given.modules()]
    twin = as_original(given)
    assert all(a is b for a, b in zip(given.parameters(), twin.parameters(), strict=True))
    assert [name for name, _ in given.named_parameters()] == [name for name, _ in twin.named_parameters()]
    assert all(vars(module) == state for module, state in before)
    for tower, activation, eps in ((given, QuickGELU, 1e-5), (twin, nn.GELU, 1e-6)):
        assert {type(block.mlp.gelu) for block in tower.transformer.resblocks} == {activation}
        assert {module.eps for module in tower.modules() if isinstance(module, LayerNorm)} == {eps}
    assert twin.transformer.resblocks[0].mlp.gelu.approximate == 'none'


@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.9, 1.0])
def test_denoising_as_literal_loops(threshold):
    cosines = noise(2, 5, 3, 4) / 50
    denoised = denoise_prompts(cosines, threshold)
    ruled_out = 0
    for b in range(2):
        p = [[(100 * cosines[b, :, y, x]).softmax(dim=0) for x in range(4)] for y in range(3)]
        for name in range(5):
            if max(float(p[y][x][name]) for y in range(3) for x in range(4)) < threshold:
                ruled_out += 1
                assert (denoised[b, name] == -100).all()
            else:
                assert torch.equal(denoised[b, name], cosines[b, name])
    assert ruled_out < 10 or threshold == 1.0
    assert ruled_out or threshold < 0.9


@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.9, 1.0])
def test_smoothing_as_literal_loops(threshold):
    cosines, keys = noise(2, 5, 3, 4) / 50, noise(2, 12, 6, seed=1)
    expected = torch.empty(2, 5, 12)
    for b in range(2):
        p = [(100 * cosines[b, :, i // 4, i % 4]).softmax(dim=0) for i in range(12)]
        lengths = [sum(float(keys[b, i, d]) ** 2 for i in range(12)) ** 0.5 for d in range(6)]
        k = [[float(keys[b, i, d]) / lengths[d] for d in range(6)] for i in range(12)]
        for i in range(12):
            weights = [sum(k[i][d] * k[j][d] for d in range(6)) for j in range(12)]
            sums = sum(weight * p[j] for j, weight in enumerate(weights))
            expected[b, :, i] = sums if float(p[i].max()) < threshold else p[i]
    smoothed = smooth_by_keys(cosines, keys, threshold)
    torch.testing.assert_close(smoothed.flatten(2), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('pd', [0.0, 0.5])
@torch.no_grad()
def test_weights_make_what_is_smoothed(pd):
    """Patches that are sure keep what they have; the sums of the others are those of probabilities."""
    unsmoothed, texts = MaskCLIPOriginal(pd=pd), field.texts(NAME, 'voc20')
    reading = unsmoothed.read(field.model(NAME).visual, field.image(NAME, 1))
    p = (100 * unsmoothed.maps(reading, texts)).softmax(dim=1)[0].flatten(1).T  # (n, Q)
    method = MaskCLIPOriginal(pd=pd, ks=float(p.amax(dim=1).median()))
    weights, cls = all_weights(method, reading, texts)
    assert not cls.any()
    expected = method.maps(reading, texts)[0].flatten(1).T
    torch.testing.assert_close(weights @ p, expected, rtol=1e-4, atol=1e-5)
    sure = p.amax(dim=1) >= method.ks
    assert 0 < sure.sum() < len(sure)
    assert torch.equal(weights[sure], torch.eye(len(sure))[sure])
    assert torch.equal(all_weights(MaskCLIPOriginal(), reading, texts)[0], torch.eye(len(sure)))


@pytest.mark.parametrize('method', BOTH, ids=repr)
@torch.no_grad()
def test_batch_as_singles(method):
    batch = torch.rand(3, 3, 56, 88, generator=torch.Generator().manual_seed(0))
    together = maps_of(method, batch)
    assert together.shape == (3, 7, 4, 6)
    field.assert_near(together, torch.cat([maps_of(method, batch[i : i + 1]) for i in range(3)]), 1e-5)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize('method', BOTH[:2], ids=repr)
@torch.no_grad()
def test_half_precision(method, dtype, tolerance):
    half = build_model(stand_in_state_dict(**field.settings(NAME)['tower'])).cast(dtype).visual
    images = field.image(NAME, 1)[:, :, :72]
    maps = method.maps(method.read(half, images), field.texts(NAME, 'voc20'))
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, maps_of(method, images), rtol=0, atol=tolerance)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_refinements_of_half_precision_towers_are_float32(dtype):
    """What half precision does to maps near the thresholds is chance; what follows from its cosines is not."""
    half = build_model(stand_in_state_dict(**field.settings(NAME)['tower'])).cast(dtype).visual
    method, texts = VARIANTS['maskclip_kspd'], field.texts(NAME, 'voc20')
    reading = method.read(half, field.image(NAME, 1))
    cosines = MaskCLIPOriginal().maps(reading, texts)
    expected = smooth_by_keys(denoise_prompts(cosines.double(), 0.5), last_keys(reading), 0.9)
    field.assert_near(method.maps(reading, texts), expected.float(), 1e-5)


@pytest.mark.parametrize('constants', [{'pd': -0.1}, {'pd': 1.5}, {'ks': 2.0}, {'ks': float('nan')}])
def test_bad_constants(constants):
    with pytest.raises(ValueError, match=rf'{next(iter(constants))} is .*, expected a probability from 0 \(off\) to 1'):
        MaskCLIPOriginal(**constants)


def test_published_as():
    assert (MaskCLIP.name, MaskCLIP.protocol) == ('maskclip', 'clearclip')
    assert (MaskCLIPOriginal.name, MaskCLIPOriginal.protocol) == ('maskclip_original', 'maskclip_original')
    assert MaskCLIPOriginal().constants == {'pd': 0.0, 'ks': 0.0}


def test_templates():
    templates = read_templates(REPOSITORY / 'prompts' / 'maskclip.txt')
    assert templates == tuple(field.golden(NAME)['templates'])
    assert templates == tuple(field.golden('clip_surgery')['templates'])
    assert templates[:80] == read_templates()
    assert read_templates(REPOSITORY / 'prompts' / 'gem.txt') == ('a photo of a {}.',)


@pytest.mark.parametrize('name', [NAME, 'clip_surgery'])
def test_texts(name):
    templates = read_templates(REPOSITORY / 'prompts' / 'maskclip.txt')
    ours = text_embeddings(field.model(name), field.classes(name, 'voc20').queries, templates, progress=False)
    torch.testing.assert_close(ours, field.texts(name, 'voc20'), rtol=0, atol=1e-4)
