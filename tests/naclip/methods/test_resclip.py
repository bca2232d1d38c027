"""ResCLIP against its goldens, every key of the file, and its steps against literal loops."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.model import build_model
from naclip.methods.feedback import cell_names, path_broken, semantic_feedback, smooth_rows
from naclip.methods.resclip import (
    ResCLIP,
    ResCLIPOnClearCLIP,
    ResCLIPOnSCLIP,
    earlier_terms,
    first_probabilities,
    guided,
)
from naclip.walk.attention import Term, attention_weights, gaussian_bias
from naclip.walk.reading import Reading, cosine
from tests.goldens.weights import stand_in_state_dict
from tests.naclip.methods import field
from tests.naclip.methods.field import assert_near
from tests.naclip.methods.reads import all_weights

NAME = 'resclip'
BASES = {'resclip': ResCLIP(), 'clearclip': ResCLIPOnClearCLIP(), 'sclip': ResCLIPOnSCLIP()}
VARIANTS = BASES | {'rcs_only': ResCLIP(ts=1.0, ls=0.0), 'sfr_only': ResCLIP(lr=0.0, tr=1.0)}
PICTURES = range(3)
TEXTS = field.texts(NAME, 'voc20')


def read(i):
    return Reading(field.model(NAME).visual, field.image(NAME, i))


def windows(count, height, width):
    """Smooth noise (count, 3, height, width)."""
    noise = torch.randn(count, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, (height, width), mode='bicubic')


def random_names(*shape, names=3):
    return torch.randint(names, shape, generator=torch.Generator().manual_seed(0))


def first_pass(method, i):
    """The probabilities of the first pass: a second pass without S is the first once more."""
    plain = type(method)(ts=1.0, ls=0.0)
    return first_probabilities(plain.maps(read(i), TEXTS), field.image(NAME, i))


@torch.no_grad()
@pytest.mark.parametrize('i', PICTURES)
@pytest.mark.parametrize('variant', VARIANTS)
def test_tokens(variant, i):
    # Without the rounding to float16 it would be up to 6e-5.
    assert_near(VARIANTS[variant].tokens(read(i), TEXTS), field.golden(NAME)[f'dense/{variant}/{i}'], 1.5e-5)


@torch.no_grad()
@pytest.mark.parametrize('i', PICTURES)
@pytest.mark.parametrize('base', BASES)
def test_maps(base, i):
    method, file = BASES[base], field.golden(NAME)
    maps = method.maps(read(i), TEXTS)
    torch.testing.assert_close(maps[0].flatten(1), file[f'cosine/{base}/{i}'], rtol=0, atol=1e-4)
    assert torch.equal(maps, cosine(method.features(read(i), TEXTS), TEXTS))


@torch.no_grad()
@pytest.mark.parametrize('i', PICTURES)
@pytest.mark.parametrize('base', BASES)
def test_first_pass(base, i):
    file, probabilities = field.golden(NAME), first_pass(BASES[base], i)
    if base == 'resclip':
        expected = file[f'inner/resclip/{i}/pass1_probs_every4']
        torch.testing.assert_close(probabilities[0, :, ::4, ::4], expected, rtol=0, atol=1e-4)
    names = cell_names(probabilities, BASES[base].temp, 16)[0]
    assert torch.equal(names, file[f'inner/{base}/{i}/map'].long())


@torch.no_grad()
@pytest.mark.parametrize('i', PICTURES)
def test_inner(i):
    file, reading = field.golden(NAME), read(i)
    terms = earlier_terms(reading, (6, 9))
    assert_near(attention_weights(terms)[0] / len(terms), file[f'inner/{i}/A_rcs'])
    names = file[f'inner/resclip/{i}/map'].long()[None]
    n = names.numel()
    valid = np.unpackbits(file[f'inner/{i}/path_valid'].numpy())[: n * n].reshape(n, n)
    assert np.array_equal(path_broken(names)[0].numpy(), valid == 0)
    assert_near(semantic_feedback(names)[0], file[f'inner/{i}/sfr'], 1e-6)


@pytest.mark.parametrize('i', PICTURES)
@pytest.mark.parametrize('mode', field.settings(NAME)['modes'])
def test_predictions(mode, i):
    options = field.settings(NAME)['modes'][mode]
    tr, lr = options['attn_rcs_weights']
    ts, ls = options['attn_sfr_weights']
    base = BASES[options.get('attn_strategy', 'resclip')]
    method = type(base)(lr=lr, ts=ts, ls=ls, temp=options['temp_thd'], tr=tr)
    pipeline = field.mode_pipeline(NAME, mode, method)
    labels, probabilities = pipeline(field.image(NAME, i), field.original_size(NAME, i))
    shares = probabilities / probabilities.sum(dim=1, keepdim=True)  # as the golden's are kept
    field.assert_predicted(NAME, f'predict/{mode}/{i}', labels, shares)


@torch.no_grad()
@pytest.mark.parametrize('base', ['resclip', 'clearclip'])
def test_weights_make_the_tokens(base):
    """By the formula, head by head, of what both passes say."""
    method, reading = BASES[base], read(0)
    names = field.golden(NAME)[f'inner/{base}/0/map'].long()[None]
    feedback = semantic_feedback(names)[0]
    q, k, v = (part[0] for part in reading.qkv(12))  # (heads, N, d)
    a = k if base == 'resclip' else q
    logits = method.ts * ((1 - method.ls) * a @ a.mT / 8 + method.ls * (feedback / feedback.max()).half().float())
    if base == 'resclip':
        logits = logits + gaussian_bias(reading.grid, 5.0, torch.device('cpu'), torch.float32)
    earlier = sum(reading.attention(layer)[0] for layer in range(6, 10)) / 4
    heads = method.tr * ((1 - method.lr) * torch.softmax(logits, dim=-1) + method.lr * earlier)
    merged = torch.cat([weights @ values for weights, values in zip(heads, v, strict=True)], dim=-1)
    tokens = reading.project(reading.block(12).attn.out_proj(merged))[1:]
    assert_near(method.features(reading, TEXTS)[0].flatten(0, 1), tokens)
    patches, cls = all_weights(method, reading, TEXTS)
    torch.testing.assert_close(patches, heads.mean(dim=0)[1:, 1:], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(cls, heads.mean(dim=0)[1:, 0], rtol=1e-3, atol=1e-5)


def test_bases():
    assert [(m.name, m.form, m.architecture, m.protocol) for m in BASES.values()] == [
        ('resclip', 'naclip', 'reduced', 'resclip'),
        ('resclip_clearclip', 'qq', 'reduced', 'resclip'),
        ('resclip_sclip', 'csa', 'vanilla', 'resclip'),
    ]


def test_most_frequent_name_of_a_cell():
    """Pixels that are not sure count as name 0, the smallest of equally frequent names wins, a remainder is dropped."""
    probabilities = torch.rand(2, 4, 11, 14, generator=torch.Generator().manual_seed(0))
    found = cell_names(probabilities, 0.6, 3)
    assert found.shape == (2, 3, 4)
    ties = 0
    for b in range(2):
        for y in range(3):
            for x in range(4):
                count = Counter()
                for pixel in probabilities[b, :, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3].flatten(1).T.tolist():
                    count[pixel.index(max(pixel)) if max(pixel) >= 0.6 else 0] += 1
                best = [name for name in range(4) if count[name] == max(count.values())]
                ties += len(best) > 1
                assert found[b, y, x] == best[0]
    assert ties


def cells_looked_at(i, j, longest):
    """The path rule, literally: the first max-norm + 1 of longest + 1 points; Python rounds halves to even."""
    apart = max(abs(a - b) for a, b in zip(i, j, strict=True))
    for step in range(apart + 1):
        yield tuple(round(a + Fraction(step, max(longest, 1)) * (b - a)) for a, b in zip(i, j, strict=True))


@pytest.mark.parametrize(('h', 'w'), [(1, 1), (1, 5), (4, 3), (5, 7), (9, 6)])
def test_way_by_literal_steps(h, w):
    names = random_names(2, h, w, names=2)
    cells = [(y, x) for y in range(h) for x in range(w)]
    for picture, broken in zip(names, path_broken(names), strict=True):
        for a, i in enumerate(cells):
            for b, j in enumerate(cells):
                leaves = any(picture[cell] != picture[i] for cell in cells_looked_at(i, j, max(h, w) - 1))
                assert broken[a, b] == leaves


@pytest.mark.parametrize('n', [1, 6, 30, 31, 40])
def test_rows_by_literal_sums(n):
    rows = torch.rand(2, n, n, generator=torch.Generator().manual_seed(0))
    taps = min(n, 31) + (min(n, 31) % 2 == 0)
    kernel = [math.exp(-((t - taps // 2) ** 2) / 50) for t in range(taps)]
    expected = torch.zeros(2, n, n, dtype=torch.float64)
    for j in range(n):
        for t, weight in enumerate(kernel):
            if 0 <= j + t - taps // 2 < n:
                expected[..., j] += weight / sum(kernel) * rows[..., j + t - taps // 2]
    expected = expected / (expected.sum(dim=-1, keepdim=True) + 1e-8)
    torch.testing.assert_close(smooth_rows(rows), expected.float(), rtol=1e-5, atol=1e-7)


def test_feedback_of_one_name_is_smooth_everywhere():
    feedback = semantic_feedback(torch.zeros(1, 3, 4, dtype=torch.long))[0]
    assert (feedback[0] == 0).all()
    assert (feedback[:, 0] == 0).all()
    torch.testing.assert_close(feedback[1:, 1:].sum(dim=1), torch.ones(12))
    torch.testing.assert_close(feedback[1:, 1:], feedback[1:2, 1:].expand(12, 12))


def test_feedback_is_rounded_twice():
    """S and ls S are numbers of float16, and what is made of them is not."""
    q, k, own = torch.randn(3, 2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    feedback = 3 * torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(1))
    plain, biased = guided([Term(q, k), Term(q, k, own)], feedback, 1.8, 0.7)
    for i in range(2):
        s = np.float16(feedback[i].numpy() / feedback[i].max().numpy())
        expected = torch.from_numpy(1.8 * np.float16(np.float32(0.7) * np.float32(s)).astype(np.float64))
        torch.testing.assert_close(plain.bias[i, 0].double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(biased.bias - own, plain.bias.expand_as(own), rtol=0, atol=1e-6)
    torch.testing.assert_close(plain.a, 1.8 * 0.3 * q)
    assert plain.b is k


@torch.no_grad()
@pytest.mark.parametrize('method', BASES.values(), ids=BASES)
@pytest.mark.parametrize('size', [(70, 90), (96, 48)])
def test_batch_equals_singles(method, size):
    visual, batch = field.model(NAME).visual, windows(3, *size)
    features = method.features(Reading(visual, batch), TEXTS)
    assert features.shape == (3, size[0] // 16, size[1] // 16, 64)
    singles = [method.features(Reading(visual, window[None]), TEXTS) for window in batch]
    assert_near(features, torch.cat(singles), 1e-5)


@torch.no_grad()
def test_blocks_run_once_and_reading_stays():
    """The queries and keys of earlier blocks are those that the reading goes on with."""
    visual, calls = field.model(NAME).visual, Counter()
    blocks = visual.transformer.resblocks
    hooks = [
        block.ln_1.register_forward_hook(lambda *_, layer=layer: calls.update([layer]))
        for layer, block in enumerate(blocks, 1)
    ]
    try:
        reading = read(0)
        first = ResCLIP().tokens(reading, TEXTS)
    finally:
        for hook in hooks:
            hook.remove()
    assert calls == Counter(range(1, 13))
    assert torch.equal(ResCLIP().tokens(reading, TEXTS), first)
    torch.testing.assert_close(reading.tokens(11), read(0).tokens(11), rtol=1e-4, atol=1e-4)


def test_texts_matter():
    with torch.no_grad():
        assert not torch.allclose(ResCLIP().tokens(read(0), TEXTS), ResCLIP().tokens(read(0), TEXTS.flip(0)), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    half = build_model(stand_in_state_dict(**field.settings(NAME)['tower'])).cast(dtype)
    batch = windows(2, 80, 112)
    for method in BASES.values():
        features = method.features(Reading(half.visual, batch), TEXTS)
        expected = method.features(Reading(field.model(NAME).visual, batch), TEXTS)
        assert features.dtype == dtype
        assert F.cosine_similarity(features.float(), expected, dim=-1).min() > 0.99


def test_too_few_blocks():
    visual = build_model(stand_in_state_dict(**field.settings(NAME)['tower'] | {'vision_layers': 9})).visual
    with pytest.raises(ValueError, match='blocks 6 to 9 and the last block, but the image tower has 9 blocks'):
        ResCLIP().maps(Reading(visual, field.image(NAME, 2)), TEXTS)


@pytest.mark.parametrize(
    ('constants', 'message'),
    [
        ({'lr': 1.5}, 'lr is 1.5, expected a number from 0 to 1'),
        ({'ls': -0.1}, 'ls is -0.1'),
        ({'temp': math.nan}, 'temp is nan'),
        ({'ts': 0.0}, 'ts is 0.0, expected a number > 0'),
        ({'tr': math.inf}, 'tr is inf'),
        ({'gaussian_std': -1.0}, 'gaussian_std is -1.0'),
    ],
)
def test_bad_constants(constants, message):
    for base in BASES.values():
        with pytest.raises(ValueError, match=message):
            type(base)(**constants)
